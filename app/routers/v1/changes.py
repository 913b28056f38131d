"""The feed of changes."""

import re
from collections.abc import AsyncIterator, Callable, Coroutine
from functools import partial
from typing import Annotated, ClassVar

from fastapi import Header, Query, Request, Response
from fastapi.responses import StreamingResponse

from app import exact_json
from app.access import Scope
from app.dependencies import Consumers, RequestPlace, StillAdmitted
from app.errors import FeedTruncated, HistoryDiverged, InvalidRequest, ProblemError, UnknownSeq
from app.exact_json import ExactJsonRoute, requires
from app.feed_position import NotAPosition, Position
from app.feed_window import Question
from app.models import ChangeType
from app.observability.http_metrics import CLIENT_CLOSED_REQUEST
from app.problems import responses
from app.routers.headers import CACHE_CONTROL, answer, link
from app.routing import Router
from app.schemas.base import Instant
from app.schemas.change import ChangePage

EVENT_STREAM = "text/event-stream"
_UNCACHED = {CACHE_CONTROL: "no-store"}
# nginx, and what took the header over from it, shall pass on each event as it comes. And when a stream ends, its
# connection does: a drain would wait for the client to make up its mind.
_STREAMED = {**_UNCACHED, "X-Accel-Buffering": "no", "Connection": "close"}


_EVENT = "id: 42@2026-11-22T09:30:00.123456Z\nevent: price.recorded\ndata: {...}\n\n"


class _FeedRoute(ExactJsonRoute):
    produces: ClassVar[frozenset[str]] = frozenset({EVENT_STREAM})
    retries: ClassVar[bool] = False
    """Who waits has been told to come again, and whether the client is still there can be asked once only."""


router = Router(tag="feed", route_class=_FeedRoute)

Seq = Annotated[int, Query(ge=0, le=2**63 - 1, description="The last change that you have; 0: from the beginning")]
Types = Annotated[
    str | None,
    Query(
        description=f"Only these types, with commas between them: {', '.join(ChangeType)}",
        examples=["price.recorded,price.voided"],
        json_schema_extra={"pattern": "^({0})(,({0}))*$".format("|".join(map(re.escape, ChangeType)))},
    ),
]


@router.get(
    "/changes",
    summary="Follow the changes",
    dependencies=[requires(Scope.CHANGES_READ)],
    response_model=ChangePage,
    responses=responses(UnknownSeq, FeedTruncated, HistoryDiverged, InvalidRequest)
    | {
        200: {
            **answer(links={"next": link("read_changes", {"after": "$response.body#/next_after"})}),
            "description": "The changes; as server-sent events for those who accept them",
            "content": {EVENT_STREAM: {"schema": {"type": "string"}, "example": _EVENT}},
        }
    },
)
async def read_changes(
    consumers: Consumers,
    place: RequestPlace,
    request: Request,
    still_admitted: StillAdmitted,
    after: Seq = 0,
    after_at: Annotated[
        Instant | None,
        Query(description="When that change was recorded: refused with 409 if the ledger is another one by now"),
    ] = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    types: Types = None,
    wait: Annotated[int, Query(ge=0, le=60, description="Seconds to wait for a change if there is none yet")] = 0,
    last_event_id: Annotated[
        str | None,
        Header(
            max_length=64,
            description="The last event that a stream received; comes before `after` and `after_at`",
            examples=["42@2026-11-22T09:30:00.123456Z"],
            json_schema_extra={"pattern": "^[0-9]{1,18}(@.+)?$"},
        ),
    ] = None,
) -> Response:
    """Every change after a seq, in the order of the commits: none is left out, none comes twice.

    To go on, send `next_after` as `after`, and `next_after_at` as `after_at`: the service then refuses to go on in
    another history, if a backup was restored meanwhile. With `wait` the answer comes as soon as there is a change. With
    `Accept: text/event-stream` the changes are streamed as they come, without `limit` and `wait`.
    """
    if after == 0 and after_at is not None:
        raise InvalidRequest.at(
            "query/after_at", "no-such-change", "is for a change that you have: there is no change 0"
        )
    question = Question(after, limit, _types(types), after_at)
    last = None if last_event_id is None else _position(last_event_id)
    if _prefers_events(request):
        if last is not None:
            question = question._replace(after=last.seq, after_at=last.at)
        events = _while_admitted(await consumers.stream(question, place), still_admitted)
        return StreamingResponse(events, headers=_STREAMED, media_type=EVENT_STREAM)
    if wait:
        page = await consumers.poll(question, place, seconds=wait, hung_up=partial(_hung_up, request))
        if page is None:
            # For the log and the metrics; there is nobody to read it.
            return Response(status_code=CLIENT_CLOSED_REQUEST)
        await still_admitted()
    else:
        page = await consumers.page(question)
    return Response(page.json, headers=_UNCACHED, media_type="application/json")


async def _while_admitted(
    events: AsyncIterator[bytes], still_admitted: Callable[[], Coroutine[None, None, None]]
) -> AsyncIterator[bytes]:
    """A stream outlives many keys; it ends with its own."""
    async for event in events:
        try:
            # Comments tell nothing, and go on while the database, and with it the state of the keys, is out of reach.
            if not event.startswith(b":"):
                await still_admitted()
        except ProblemError:
            return
        yield event


def _prefers_events(request: Request) -> bool:
    """Only who names events gets them: a page is what everybody else understands."""
    accepted = exact_json.accepted(request)
    return accepted.get(EVENT_STREAM, 0.0) > accepted.get("application/json", 0.0)


def _position(event_id: str) -> Position:
    try:
        return Position.parse(event_id)
    except NotAPosition as error:
        raise InvalidRequest.at("header/last-event-id", "not-an-event-id", str(error)) from None


async def _hung_up(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _types(names: str | None) -> frozenset[str] | None:
    if names is None:
        return None
    types = frozenset(names.split(","))
    if unknown := sorted(types - set(ChangeType)):
        raise InvalidRequest.at("query/types", "unknown-type", f"has {unknown[0][:100]!r}, which is no type of change")
    return types
