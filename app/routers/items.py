"""The plain form: items as in a first tutorial, with prices as JSON numbers in the book `default`."""

from typing import Annotated
from urllib.parse import urlencode

from fastapi import Query, Response

from app.access import Scope
from app.dependencies import MIN_SEQ, Actor, CursorCodec, ItemAddress, Reading, Writing
from app.errors import InvalidRequest, SeqNotReached, UnknownItem
from app.exact_json import ExactJsonResponse, ExactJsonRoute, requires
from app.idempotency import IDEMPOTENT
from app.problems import POST_PROBLEMS, responses
from app.routers.headers import LINK, SEQ, answer, link
from app.routing import Router
from app.schemas.item import PlainItem, PlainItemCreate
from app.services import plain_items

router = Router(prefix="/items", tag="plain form", route_class=ExactJsonRoute)


@router.post(
    "/",
    summary="Create an item with its price",
    dependencies=[requires(Scope.ITEMS_WRITE, Scope.PRICES_WRITE), IDEMPOTENT],
    response_model=PlainItem,
    responses=responses(InvalidRequest, *POST_PROBLEMS)
    | {200: answer(SEQ, links={"item": link("read_plain_item", {"item": "$response.body#/id"})})},
)
async def create_plain_item(data: PlainItemCreate, session: Writing, actor: Actor) -> Response:
    """`price` holds from now on in the book `default`; `tax` is an amount on top of it. Unknown fields are ignored."""
    written = await plain_items.create(session, data, actor=actor)
    return ExactJsonResponse(written.document.model_dump(), headers={SEQ: str(written.seq)})


@router.get(
    "/",
    summary="List items with their prices now",
    dependencies=[requires(Scope.ITEMS_READ, Scope.PRICES_READ), MIN_SEQ],
    response_model=list[PlainItem],
    responses=responses(SeqNotReached, InvalidRequest) | {200: answer(sometimes=[LINK])},
)
async def list_plain_items(
    session: Reading,
    cursors: CursorCodec,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    cursor: Annotated[str | None, Query(description="From the `Link` header of the page before")] = None,
) -> Response:
    """Items that are not archived, oldest first. The header `Link` (RFC 8288) leads to the next page."""
    page, following = await plain_items.list_page(session, limit=limit, cursor=cursor, cursors=cursors)
    query = urlencode({"limit": limit, "cursor": following})
    headers = {LINK: f'</items/?{query}>; rel="next"'} if following else {}
    return ExactJsonResponse([item.model_dump() for item in page], headers=headers)


@router.get(
    "/{item:path}",
    summary="Read an item with its price now",
    dependencies=[requires(Scope.ITEMS_READ, Scope.PRICES_READ), MIN_SEQ],
    response_model=PlainItem,
    responses=responses(SeqNotReached, UnknownItem),
)
async def read_plain_item(key: ItemAddress, session: Reading) -> Response:
    """`price` is null if the item has none now, or is not for sale."""
    item = await plain_items.read(session, key)
    return ExactJsonResponse(item.model_dump())
