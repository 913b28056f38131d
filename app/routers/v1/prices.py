"""Prices of an item."""

from decimal import Decimal

from fastapi import APIRouter, Response, status

from app.dependencies import Actor, At, BookQuery, ItemAddress, QuantityQuery, Reading, Writing
from app.errors import (
    AlreadySuperseded,
    InvalidRequest,
    ItemArchived,
    NoPrice,
    NotForSale,
    UnknownBook,
    UnknownItem,
)
from app.exact_json import ExactJsonRoute
from app.problems import BODY_PROBLEMS, responses
from app.routers.headers import SEQ
from app.schemas.price import PriceAnswer, PriceCreate, PriceRow
from app.services import answers, prices

router = APIRouter(prefix="/items", tags=["prices"], route_class=ExactJsonRoute)


@router.get(
    "/{item:path}/price",
    summary="What does the item cost?",
    responses=responses(UnknownItem, UnknownBook, NoPrice, NotForSale, InvalidRequest),
)
async def read_price(
    key: ItemAddress,
    session: Reading,
    book: BookQuery = "default",
    at: At = None,
    quantity: QuantityQuery = Decimal(1),
) -> PriceAnswer:
    """The price in force at an instant: now, in the past, or as scheduled for the future.

    Among the rows that hold at that instant and ask for no more than the quantity, a row with an end comes before one
    without (a sale beats the list price), then the greatest `min_quantity`, the latest `valid_from`, the latest `seq`.
    """
    return await answers.read(session, key, book=book, at=at, quantity=quantity)


@router.post(
    "/{item:path}/prices",
    status_code=status.HTTP_201_CREATED,
    summary="Record a price",
    responses=responses(UnknownItem, UnknownBook, ItemArchived, AlreadySuperseded, InvalidRequest, *BODY_PROBLEMS),
)
async def record_price(
    key: ItemAddress, data: PriceCreate, session: Writing, actor: Actor, response: Response
) -> PriceRow:
    """Append a row to the ledger: valid from now, from a future instant, or, as a correction, from a past one."""
    row = await prices.record(session, key, data, actor=actor)
    response.headers[SEQ] = str(row.seq)
    return row
