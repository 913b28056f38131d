"""Prices: recording, correcting and reading them."""

from decimal import Decimal
from typing import Annotated
from uuid import UUID

from fastapi import Path, Query, Response, status

from app import documents
from app.access import Scope
from app.dependencies import (
    MIN_SEQ,
    Actor,
    At,
    BookQuery,
    CursorCodec,
    From,
    IfNoneMatch,
    ItemAddress,
    Keep,
    Known,
    KnownAt,
    KnownSeq,
    MayCorrect,
    PriceMaxAge,
    QuantityQuery,
    Reading,
    Recorder,
    To,
    Writing,
)
from app.errors import (
    AlreadySuperseded,
    HistoryTooShort,
    InvalidRequest,
    ItemArchived,
    NoPrice,
    NotForSale,
    SeqNotReached,
    UnknownBook,
    UnknownItem,
    UnknownPrice,
    UnknownSeq,
)
from app.exact_json import DocumentResponse, ExactJsonRoute, requires
from app.idempotency import IDEMPOTENT
from app.problems import POST_PROBLEMS, responses
from app.response_cache import Offer
from app.routers.caching import IMMUTABLE, cacheable, max_age, priced, tags
from app.routers.headers import ETAG, SEQ, STALE, answer, link, next_page
from app.routing import Router
from app.schemas.price import (
    Lookup,
    LookupAnswer,
    PriceAnswer,
    PriceCreate,
    PriceRow,
    PriceRows,
    PriorPrice,
    Schedule,
    Timeline,
)
from app.services import answers, histories, lookups, prices, schedules
from app.services.price_recording import Recording
from app.services.questions import Moment

router = Router(tag="prices", route_class=ExactJsonRoute)


@router.get(
    "/items/{item:item}/price",
    summary="What does the item cost?",
    dependencies=[requires(Scope.PRICES_READ), MIN_SEQ],
    response_model=PriceAnswer,
    responses=responses(SeqNotReached, UnknownItem, UnknownBook, NoPrice, NotForSale, UnknownSeq, InvalidRequest)
    | {200: answer(ETAG, sometimes=[STALE])},
)
async def read_price(
    key: ItemAddress,
    session: Reading,
    most_seconds: PriceMaxAge,
    keep: Keep,
    book: BookQuery = "default",
    at: At = None,
    known_at: KnownAt = None,
    known_seq: KnownSeq = None,
    quantity: QuantityQuery = Decimal(1),
    explain: Annotated[bool, Query(description="Add every row and why it answers or does not")] = False,
    if_none_match: IfNoneMatch = None,
) -> Response:
    """The price in force at an instant: now, in the past, or as scheduled; as known now, or as known before.

    Among the rows that hold at that instant and ask for no more than the quantity, a row with an end comes before one
    without (a sale beats the list price), then the greatest `min_quantity`, the latest `valid_from`, the latest `seq`.
    With `at` and `known_seq` the answer never changes, and caches may keep it for ever.
    """
    moment = Moment(at, known_at, known_seq)
    answer = await answers.read(session, key, book=book, moment=moment, quantity=quantity)
    if explain:
        answer = await histories.explain(session, answer, quantity=quantity)
    offer, control = priced(answer, moment, most_seconds)
    if not explain or at is not None:
        # Of rows that do not answer, an explanation says things that change with time before the answer does.
        keep(offer)
    return cacheable(answer, control, if_none_match)


@router.get(
    "/items/{item:item}/prices",
    summary="The item's prices over time",
    dependencies=[requires(Scope.PRICES_READ), MIN_SEQ],
    response_model=Timeline | PriceRows,
    responses=responses(SeqNotReached, UnknownItem, UnknownBook, UnknownSeq, InvalidRequest)
    | {200: answer(ETAG, sometimes=[STALE])},
)
async def read_prices(
    key: ItemAddress,
    session: Reading,
    most_seconds: PriceMaxAge,
    keep: Keep,
    book: BookQuery = "default",
    from_: From = None,
    to: To = None,
    known_at: KnownAt = None,
    known_seq: KnownSeq = None,
    quantity: QuantityQuery = Decimal(1),
    rows: Annotated[bool, Query(description="The rows as recorded, instead of what they resolve to")] = False,
    if_none_match: IfNoneMatch = None,
) -> Response:
    """Past, current and scheduled prices as steps that resolve all overlaps; or the rows behind them."""
    moment = Moment(None, known_at, known_seq)
    document: Timeline | PriceRows
    if rows:
        document = await histories.read_rows(session, key, book=book, moment=moment)
    else:
        document = await histories.read_steps(
            session, key, book=book, moment=moment, window=(from_, to), quantity=quantity
        )
    control = max_age(most_seconds, None) if known_seq is None else IMMUTABLE
    keep(Offer(document.known_seq, tags(document.item_id, document.book, known_seq)))
    return cacheable(document, control, if_none_match)


@router.post(
    "/items/{item:item}/prices",
    status_code=status.HTTP_201_CREATED,
    summary="Record a price",
    dependencies=[requires(Scope.PRICES_WRITE), IDEMPOTENT],
    response_model=PriceRow,
    responses=responses(UnknownItem, UnknownBook, ItemArchived, AlreadySuperseded, InvalidRequest, *POST_PROBLEMS)
    | {
        201: answer(
            SEQ,
            links={
                "void": link("void_price", {"price_id": "$response.body#/id"}),
                "price": link("read_price", {"item": "$response.body#/item_id", "book": "$response.body#/book"}),
                "prices": link("read_prices", {"item": "$response.body#/item_id", "book": "$response.body#/book"}),
            },
        )
    },
)
async def record_price(
    key: ItemAddress,
    data: PriceCreate,
    record: Recorder,
    actor: Actor,
    may_correct: MayCorrect,
) -> Response:
    """Append a row to the ledger: valid from now, from a future instant, or, as a correction, from a past one.

    A correction needs the scope `prices:correct`: that is a `valid_from` in the past, or `supersedes` with a row that
    has begun.
    """
    return await record(
        Recording(key, data, actor, may_correct),
        lambda row: DocumentResponse(row, status.HTTP_201_CREATED, {SEQ: str(row["seq"])}),
    )


@router.get(
    "/items/{item:item}/prior-price",
    summary="The lowest price before a reduction",
    dependencies=[requires(Scope.PRICES_READ), MIN_SEQ],
    responses=responses(SeqNotReached, UnknownItem, UnknownBook, NoPrice, HistoryTooShort, InvalidRequest),
)
async def read_prior_price(
    key: ItemAddress,
    session: Reading,
    book: BookQuery = "default",
    reduced_at: Annotated[
        At, Query(description="When the reduction began; default: when the price in force now began")
    ] = None,
    days: Annotated[int, Query(ge=1, le=3660, description="Length of the period before it")] = 30,
) -> PriorPrice:
    """The prior price of Directive 98/6/EC, Article 6a: the lowest in force during the days before the reduction.

    Prices are compared gross and for one unit; the reduced price itself does not count.
    """
    return await histories.read_prior_price(session, key, book=book, reduced_at=reduced_at, days=days)


@router.delete(
    "/prices/{price_id}",
    summary="Void a price",
    dependencies=[requires(Scope.PRICES_WRITE)],
    response_model=PriceRow,
    responses=responses(UnknownPrice, AlreadySuperseded, InvalidRequest) | {200: answer(SEQ)},
)
async def void_price(
    price_id: Annotated[UUID, Path(description="Id of the price row")],
    session: Writing,
    actor: Actor,
    may_correct: MayCorrect,
) -> Response:
    """The row stops answering; what was known before stays known. Voiding takes a seq of its own.

    If the row has begun, that is a correction, which needs the scope `prices:correct`.
    """
    written = await prices.void(session, price_id, actor=actor, may_correct=may_correct)
    return DocumentResponse(written.document, headers={SEQ: str(written.seq)})


@router.post(
    "/prices:lookup",
    summary="Price many items at once",
    dependencies=[requires(Scope.PRICES_READ), MIN_SEQ, IDEMPOTENT],
    response_model=LookupAnswer,
    responses=responses(SeqNotReached, UnknownBook, InvalidRequest, *POST_PROBLEMS),
)
async def look_up_prices(data: Lookup, known: Known) -> Response:
    """Up to 1000 items at one instant in one round trip, for a till or a page. A line without a price says why."""
    fill = known.memory.begin()
    body = known.memory.find(data, known.seen)
    if body is None:
        async with known.reading() as session:
            answer = await lookups.look_up(session, data)
        body = documents.encode(answer.document)
        known.memory.keep(fill, data, answer)
    return Response(body, media_type="application/json")


@router.get(
    "/schedule",
    summary="What changes next?",
    dependencies=[requires(Scope.PRICES_READ), MIN_SEQ],
    responses=responses(SeqNotReached, UnknownBook, InvalidRequest) | {200: answer(links=next_page("read_schedule"))},
)
async def read_schedule(
    session: Reading,
    cursors: CursorCodec,
    book: BookQuery = "default",
    from_: From = None,
    to: To = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    cursor: Annotated[str | None, Query(description="`next` of the page before; the other parameters stay")] = None,
) -> Schedule:
    """The instants from `from` (now by default) until before `to` at which prices for one unit change by themselves."""
    return await schedules.read(session, cursors, book=book, window=(from_, to), cursor=cursor, limit=limit)
