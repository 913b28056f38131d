"""Items."""

from typing import Annotated

from fastapi import Query, Request, Response, status

from app import http_cache
from app.access import Scope
from app.dependencies import (
    MIN_SEQ,
    Actor,
    At,
    BookQuery,
    CursorCodec,
    IfMatch,
    IfNoneMatch,
    ItemAddress,
    Keep,
    MayCorrect,
    Reading,
    RequestCaller,
    Writing,
)
from app.errors import (
    DuplicateGtin,
    DuplicateSku,
    InvalidRequest,
    PreconditionFailed,
    PreconditionRequired,
    SeqNotReached,
    UnknownBook,
    UnknownItem,
)
from app.exact_json import DocumentResponse, ExactJsonRoute, requires
from app.idempotency import IDEMPOTENT
from app.problems import BODY_PROBLEMS, POST_PROBLEMS, responses
from app.response_cache import ALL_ITEMS, Offer
from app.routers.headers import ETAG, LOCATION, SEQ, STALE, answer, link, next_page
from app.routing import Router
from app.schemas.base import Gtin, Name, Sku
from app.schemas.item import Item, ItemCreate, ItemList, ItemPatch, PricedItem
from app.services import items, priced_items
from app.services.ledger import Written
from app.services.priced_items import Archived, Listing

router = Router(prefix="/items", tag="items", route_class=ExactJsonRoute)

_ITEM = {"item": "$response.body#/id"}
_LINKS = {
    "item": link("read_item", _ITEM),
    "change": link("change_item", _ITEM | {"header.if-match": "$response.header.ETag"}),
    "archive": link("archive_item", _ITEM | {"header.if-match": "$response.header.ETag"}),
    "record": link("record_price", _ITEM),
    "price": link("read_price", _ITEM),
    "prices": link("read_prices", _ITEM),
    "prior-price": link("read_prior_price", _ITEM),
    "quote": link("make_quote", {}, {"lines": [{"item": "{$response.body#/id}"}]}),
    "lookup": link("look_up_prices", {}, {"lines": [{"item": "{$response.body#/id}"}]}),
}


@router.post(
    "",
    status_code=status.HTTP_201_CREATED,
    summary="Create an item",
    dependencies=[requires(Scope.ITEMS_WRITE), IDEMPOTENT],
    responses=responses(UnknownBook, DuplicateSku, DuplicateGtin, InvalidRequest, *POST_PROBLEMS)
    | {201: answer(LOCATION, ETAG, SEQ, links=_LINKS)},
)
async def create_item(
    data: ItemCreate,
    session: Writing,
    caller: RequestCaller,
    may_correct: MayCorrect,
    request: Request,
    response: Response,
) -> PricedItem:
    """Create an item, optionally with its first price; the answer holds that price if it is in force now.

    With a price, the key needs `prices:write` too; with one that began in the past, `prices:correct`.
    """
    if data.price is not None:
        caller.need(Scope.PRICES_WRITE)
    written = await items.create(session, data, actor=caller.name, may_correct=may_correct)
    response.headers[LOCATION] = f"{request.url.path}/{written.document.id}"
    _describe(response, written)
    return written.document


@router.get(
    "",
    summary="List items with their prices",
    dependencies=[requires(Scope.ITEMS_READ, Scope.PRICES_READ), MIN_SEQ],
    response_model=ItemList,
    responses=responses(SeqNotReached, UnknownBook, InvalidRequest)
    | {200: answer(sometimes=[STALE], links=next_page("list_items"))},
)
async def list_items(
    session: Reading,
    cursors: CursorCodec,
    keep: Keep,
    book: BookQuery = "default",
    at: At = None,
    q: Annotated[
        Name | None, Query(description="Part of the name or the sku, in any case; of one or two letters, its beginning")
    ] = None,
    sku: Annotated[Sku | None, Query(description="Only the item with this sku")] = None,
    gtin: Annotated[Gtin | None, Query(description="Only the item with this GTIN")] = None,
    archived: Annotated[Archived, Query(description="Only archived items, only others, or both")] = "false",
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    cursor: Annotated[str | None, Query(description="`next` of the page before; the other parameters stay")] = None,
) -> Response:
    """Items in the order in which they were created, priced now; `at` prices all pages at one instant."""
    listing = Listing(limit=limit, cursor=cursor, book=book, at=at, q=q, sku=sku, gtin=gtin, archived=archived)
    page = await priced_items.read_page(session, listing, cursors)
    depends_on = (ALL_ITEMS, book, *(item["id"] for item in page.items))
    until = page.until if at is None else None
    keep(Offer(page.known_seq, depends_on, at=page.at, until=until, is_list=True))
    return DocumentResponse({"items": page.items, "next": page.following})


@router.get(
    "/{item:item}",
    summary="Read an item",
    dependencies=[requires(Scope.ITEMS_READ), MIN_SEQ],
    responses=responses(SeqNotReached, UnknownItem, InvalidRequest) | {200: answer(ETAG, sometimes=[STALE])},
)
async def read_item(
    key: ItemAddress, session: Reading, keep: Keep, response: Response, if_none_match: IfNoneMatch = None
) -> Item:
    """The item itself; its price is at `/price`."""
    item, known_seq = await items.read(session, key)
    keep(Offer(known_seq, (item.id,)))
    tag = http_cache.version_tag(item.version)
    if http_cache.is_fresh(if_none_match, tag):
        return Response(status_code=status.HTTP_304_NOT_MODIFIED, headers={ETAG: tag})  # type: ignore[return-value]  # no body
    response.headers[ETAG] = tag
    return item


_CHANGE_PROBLEMS = responses(
    UnknownItem,
    PreconditionFailed,
    PreconditionRequired,
    DuplicateSku,
    DuplicateGtin,
    InvalidRequest,
    *BODY_PROBLEMS,
) | {200: answer(ETAG, sometimes=[SEQ], links=_LINKS)}


@router.patch(
    "/{item:item}", summary="Change an item", dependencies=[requires(Scope.ITEMS_WRITE)], responses=_CHANGE_PROBLEMS
)
async def change_item(
    key: ItemAddress,
    data: ItemPatch,
    session: Writing,
    actor: Actor,
    response: Response,
    if_match: IfMatch = None,
) -> Item:
    """A JSON merge patch (RFC 7396): named fields change, null clears. `"archived_at": null` restores the item."""
    written = await items.change(session, key, data, if_match=if_match, actor=actor)
    _describe(response, written)
    return written.document


@router.delete(
    "/{item:item}",
    summary="Archive an item",
    dependencies=[requires(Scope.ITEMS_WRITE)],
    responses=responses(UnknownItem, PreconditionFailed, PreconditionRequired, InvalidRequest)
    | {200: answer(ETAG, sometimes=[SEQ], links=_LINKS)},
)
async def archive_item(
    key: ItemAddress, session: Writing, actor: Actor, response: Response, if_match: IfMatch = None
) -> Item:
    """The item leaves the lists and takes no new prices. Nothing is deleted: its prices stay readable."""
    written = await items.archive(session, key, if_match=if_match, actor=actor)
    _describe(response, written)
    return written.document


def _describe(response: Response, written: Written[PricedItem] | Written[Item]) -> None:
    response.headers[ETAG] = http_cache.version_tag(written.document.version)
    if written.seq is not None:
        response.headers[SEQ] = str(written.seq)
