"""What request handlers ask for, as annotated aliases."""

import dataclasses
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import Annotated, Any, NamedTuple

from fastapi import Depends, Header, Path, Query, Request, Response

from app import idempotency
from app.access import Caller, Scope
from app.database import Database, ReadSession, WriteSession
from app.errors import UnknownItem
from app.feed import Feed
from app.follower import Follower
from app.keyring import KeyRing
from app.lookup_memory import LookupMemory
from app.models import ItemKey
from app.pagination import Cursors
from app.response_cache import Fill, Offer
from app.retries import ON_PRIMARY
from app.schemas.base import BookKey, Document, Moment, Quantity
from app.services.import_uploads import Limits
from app.services.price_recording import Recording
from app.services.price_writes import PriceWrites
from app.traffic import Place

# Coroutines, even where nothing is awaited: FastAPI would send a plain function to a thread and back.


async def _database(request: Request) -> Database:
    database: Database = request.app.state.database
    return database


Connections = Annotated[Database, Depends(_database)]
"""For what opens several short sessions; those below give one for the whole request."""

_MIN_SEQ = "pricebook.min_seq"
"""Where a request's ASGI scope holds the change that its answer must know of."""


# These ask for nothing but the request: each dependency of a dependency costs every request some more.


def _reading(request: Request) -> AbstractAsyncContextManager[ReadSession]:
    database: Database = request.app.state.database
    # What was known at an instant, only the primary can say: the replica may lack changes that were recorded by then.
    on_primary = ON_PRIMARY in request.scope or "known_at" in request.query_params
    return database.reading() if on_primary else database.answering(request.scope.get(_MIN_SEQ))


async def _read_session(request: Request) -> AsyncIterator[ReadSession]:
    async with _reading(request) as session:
        yield session


async def _read_session_on_primary(request: Request) -> AsyncIterator[ReadSession]:
    database: Database = request.app.state.database
    async with database.reading() as session:
        yield session


async def _write_session(request: Request) -> AsyncIterator[WriteSession]:
    database: Database = request.app.state.database
    # By now the body was read, for which the client may have taken its time.
    keys: KeyRing = request.app.state.keys
    await keys.still(request.scope[Caller.SCOPE_KEY])
    async with database.writing() as session:
        await idempotency.claim(session, request)
        yield session


async def _recorder(request: Request) -> Callable[[Recording, Callable[[Document], Response]], Awaitable[Response]]:
    writes: PriceWrites = request.app.state.price_writes
    keys: KeyRing = request.app.state.keys
    await keys.still(request.scope[Caller.SCOPE_KEY])

    async def record(recording: Recording, respond: Callable[[Document], Response]) -> Response:
        named = idempotency.named(request, respond)
        return respond(await writes.record(dataclasses.replace(recording, named=named)))

    return record


# Function scope ends these before the answer is sent: a commit that fails is never answered with success.
Reading = Annotated[ReadSession, Depends(_read_session, scope="function")]
"""For items, prices and quotes, which may be answered by a replica: as of a moment ago, or of ``Pricebook-Min-Seq``."""

ReadingOnPrimary = Annotated[ReadSession, Depends(_read_session_on_primary, scope="function")]
"""For what is seldom read, and then often right after it was written, by those who cannot say what they have seen."""

Writing = Annotated[WriteSession, Depends(_write_session, scope="function")]

Recorder = Annotated[Callable[[Recording, Callable[[Document], Response]], Awaitable[Response]], Depends(_recorder)]
"""Records a price, with those of other callers if it can, and makes the answer of the ``PriceRow``."""


async def _caller(request: Request) -> Caller:
    caller: Caller = request.scope[Caller.SCOPE_KEY]
    return caller


RequestCaller = Annotated[Caller, Depends(_caller)]


async def _actor(request: Request) -> str:
    return (await _caller(request)).name


Actor = Annotated[str, Depends(_actor)]
"""Who writes, as the ledger records it."""


async def _may_correct(request: Request) -> bool:
    return (await _caller(request)).may(Scope.PRICES_CORRECT)


MayCorrect = Annotated[bool, Depends(_may_correct)]
"""Whether the caller may change what was answered in the past."""


async def _keys(request: Request) -> KeyRing:
    keys: KeyRing = request.app.state.keys
    return keys


Keys = Annotated[KeyRing, Depends(_keys)]


async def _still_admitted(keys: Keys, caller: RequestCaller) -> Callable[[], Coroutine[None, None, None]]:
    return partial(keys.still, caller)


StillAdmitted = Annotated[Callable[[], Coroutine[None, None, None]], Depends(_still_admitted)]
"""To be called before a request that took long does something, or is given something: raises if its key is over."""


async def _cursors(request: Request) -> Cursors:
    cursors: Cursors = request.app.state.cursors
    return cursors


CursorCodec = Annotated[Cursors, Depends(_cursors)]


async def _price_max_age(request: Request) -> int:
    seconds: int = request.app.state.price_max_age_seconds
    return seconds


PriceMaxAge = Annotated[int, Depends(_price_max_age)]


async def _import_limits(request: Request) -> Limits:
    limits: Limits = request.app.state.import_limits
    return limits


ImportLimits = Annotated[Limits, Depends(_import_limits)]


async def _feed(request: Request) -> Feed:
    feed: Feed = request.app.state.feed
    return feed


Consumers = Annotated[Feed, Depends(_feed)]


async def _place(request: Request) -> Place:
    place: Place = request.scope[Place.SCOPE_KEY]
    return place


RequestPlace = Annotated[Place, Depends(_place)]


async def _item_key(
    item: Annotated[str, Path(description="Item id, or `sku:` followed by the sku", examples=["sku:FR-R92B"])],
) -> ItemKey:
    try:
        return ItemKey.parse(item)
    except ValueError:
        raise UnknownItem("The address names no item: use its id, or sku: followed by its sku.") from None


ItemAddress = Annotated[ItemKey, Depends(_item_key)]
_TAGS: dict[str, Any] = {"examples": ['"3"'], "pattern": r"""^(\*|(W/)?"[!#-~]*"( *, *(W/)?"[!#-~]*")*)$"""}
IfMatch = Annotated[
    str | None, Header(description="ETag of the version that the change is based on", json_schema_extra=_TAGS)
]
IfNoneMatch = Annotated[
    str | None,
    Header(description="ETag of the copy at hand; answers 304 if it is current", json_schema_extra=_TAGS),
]
At = Annotated[Moment | None, Query(description="The instant asked about; default: now")]
KnownAt = Annotated[Moment | None, Query(description="Answer as known at this instant; default: as known now")]
KnownSeq = Annotated[int | None, Query(ge=0, le=2**63 - 1, description="Answer as known after this change")]


async def _wait_for_min_seq(
    request: Request,
    min_seq: Annotated[
        int | None,
        Header(
            alias="Pricebook-Min-Seq",
            ge=0,
            le=2**63 - 1,
            description="Answer with this change and all before it, such as the `Pricebook-Seq` of a write, or not at "
            "all: waits a moment for it, then 503",
        ),
    ] = None,
) -> None:
    if min_seq is not None:
        request.scope[_MIN_SEQ] = min_seq
        follower: Follower = request.app.state.follower
        await follower.reach(min_seq, seconds=request.app.state.min_seq_wait_seconds)


MIN_SEQ = Depends(_wait_for_min_seq)
"""For ``dependencies`` of reads: their callers may say what they have seen, and are answered nothing older."""


async def _offer(request: Request) -> Callable[[Offer], None]:
    fill: Fill = request.scope.get(Fill.SCOPE_KEY) or Fill()

    def offer(answer: Offer) -> None:
        fill.offer = answer

    return offer


Keep = Annotated[Callable[[Offer], None], Depends(_offer)]
"""To be called with what the answer depends on, if it may be kept in memory."""


class KnownLines(NamedTuple):
    """What a lookup is answered from: one dependency, because each takes as long as the lookup of five lines."""

    memory: LookupMemory
    seen: int | None
    """The change of ``Pricebook-Min-Seq``, which its caller knows of."""
    reading: Callable[[], AbstractAsyncContextManager[ReadSession]]
    """Opens the session of :data:`Reading`, which what is in memory does not need."""


async def _known_lines(request: Request) -> KnownLines:
    return KnownLines(request.app.state.lookup_memory, request.scope.get(_MIN_SEQ), partial(_reading, request))


Known = Annotated[KnownLines, Depends(_known_lines)]

From = Annotated[Moment | None, Query(alias="from", description="First instant of the window")]
To = Annotated[Moment | None, Query(description="First instant after the window")]
BookQuery = Annotated[BookKey, Query(description="Key of the book")]
QuantityQuery = Annotated[Quantity, Query(description="Number of units")]
