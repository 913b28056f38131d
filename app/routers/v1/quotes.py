"""Quotes: totals of several lines, and whether a stored one is right."""

from collections.abc import Mapping
from typing import Annotated, Any

from fastapi import Depends, Query, Request
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError

from app.access import Scope
from app.dependencies import MIN_SEQ, Reading
from app.errors import InvalidRequest, NoPrice, NotForSale, SeqNotReached, UnknownBook, UnknownItem, UnknownSeq
from app.exact_json import ExactJsonRoute, requires
from app.idempotency import IDEMPOTENT
from app.problems import POST_PROBLEMS, responses
from app.routers.headers import answer, link
from app.routing import Router
from app.schemas.quote import Quote, QuoteRequest, Verification
from app.services import quotes

router = Router(tag="quotes", route_class=ExactJsonRoute)

_PROBLEMS = (SeqNotReached, UnknownBook, UnknownItem, NoPrice, NotForSale, InvalidRequest, *POST_PROBLEMS)


@router.post(
    "/quotes",
    summary="What does it cost together?",
    dependencies=[requires(Scope.QUOTES), MIN_SEQ, IDEMPOTENT],
    responses=responses(*_PROBLEMS) | {200: answer(links={"verify": link("verify_quote", {}, "$response.body")})},
)
async def make_quote(
    data: QuoteRequest,
    session: Reading,
    explain: Annotated[bool, Query(description="Add the arithmetic of each line, step by step")] = False,
) -> Quote:
    """Lines at the book's prices, or at prices of yours, with allowances, charges and tax, added up to the cent.

    Nothing is stored: keep the answer, and `quotes:verify` tells at any later time whether it is right.
    """
    return await quotes.quote(session, data, explain=explain)


async def _as_sent(request: Request) -> Mapping[str, Any]:
    # Without a body there is nothing to compare, and the fault is the body's.
    document: dict[str, Any] = await request.json() if await request.body() else {}
    return document


@router.post(
    "/quotes:verify",
    summary="Is this quote right?",
    dependencies=[requires(Scope.QUOTES), MIN_SEQ, IDEMPOTENT],
    responses=responses(SeqNotReached, UnknownSeq, InvalidRequest, *POST_PROBLEMS),
)
async def verify_quote(
    data: Quote, sent: Annotated[Mapping[str, Any], Depends(_as_sent)], session: Reading
) -> Verification:
    """Takes the answer of `quotes` back, computes it anew and names the first place that differs.

    Prices are those of the ledger as it was known then, whatever was recorded since.
    """
    try:
        request = data.request()
    except ValidationError as error:
        raise RequestValidationError([{**fault, "loc": ("body", *fault["loc"])} for fault in error.errors()]) from None
    return await quotes.verify(session, data, request, sent)
