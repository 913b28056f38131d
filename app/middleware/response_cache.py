"""Answers from memory, in front of the application: the same one for all who may see it, until something touches it.

What is kept and when it goes is said in :mod:`app.response_cache`. A hit costs no more than it must: where requests are
not traced, the connection itself asks :class:`Memory` as soon as it has read a head, before the server makes a request
of it; else the outermost middleware does. So what the other middlewares do for all other requests is done here: to look
at the key, to count, time, log and name the request, and to close connections during the drain. What cannot be answered
at once, for whatever reason, is left to the application, which knows what to say.
"""

import math
import time
from collections.abc import Hashable, Mapping, Sequence
from http import HTTPStatus
from typing import Literal, NamedTuple

import structlog
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app import http_cache, http_fields
from app.access import Caller
from app.circuit import Circuit
from app.errors import InvalidRequest
from app.follower import Follower
from app.keyring import KeyRing
from app.middleware.front import (
    ACCEPT,
    AUTHORIZATION,
    CONNECTION,
    EXPECT,
    IF_NONE_MATCH,
    JSON,
    MIN_SEQ,
    REQUEST_ID,
    UPGRADE,
    Answer,
    Front,
    headers_of,
)
from app.middleware.request_context import request_id
from app.observability.http_metrics import route_template
from app.observability.metrics import CACHE_READS, PRICE_READS, CacheRead, PriceRead
from app.response_cache import Clocks, Entry, Fill, Headers, ResponseCache, entry

logger = structlog.get_logger(__name__)

_HIT, _MISS, _BYPASSED, _STALE = (CACHE_READS.labels(result) for result in CacheRead)
_ANSWERED = PRICE_READS.labels(PriceRead.ANSWERED)
_STATUS_LINES: dict[int, bytes] = {
    status: b"HTTP/1.1 %d %b\r\n" % (status, status.phrase.encode())
    for status in (HTTPStatus.OK, HTTPStatus.NOT_MODIFIED)
}


class Limits(NamedTuple):
    """How long ago the follower may last have had everything: usually, and while the database is away."""

    lag_seconds: float
    stale_seconds: float


class Hit(NamedTuple):
    """An answer from memory, and to whom."""

    entry: Entry
    is_current: bool
    """The caller has it already."""
    more: list[tuple[bytes, bytes]]
    """Headers that it has now."""
    caller: Caller

    @property
    def answer(self) -> Answer:
        """As a whole."""
        entry = self.entry
        if self.is_current:
            return Answer(304, [*entry.headers_304, *self.more], b"")
        return Answer(200, [*entry.headers, *self.more], entry.body)


class Memory:
    """What is kept, for those who may have it now."""

    def __init__(
        self,
        *,
        cache: ResponseCache,
        prefix: str,
        limits: Limits,
        clocks: Clocks,
        follower: Follower,
        circuit: Circuit,
        keys: KeyRing,
        front: Front,
    ) -> None:
        """Make it.

        :param prefix: paths that do not begin so are left to the application.
        """
        self.cache = cache
        self.prefix = prefix
        self.clocks = clocks
        self.front = front
        self._limits = limits
        self._follower = follower
        self._circuit = circuit
        self._keys = keys

    def at_once(self, target: bytes, fields: Sequence[tuple[bytes, bytes]], own: bytes) -> bytes | None:
        """The answer to a GET without a body over HTTP/1.1, as its connection sends it, or ``None``: serve the request.

        :param target: as it came.
        :param fields: of the head, with names in lower case.
        :param own: the lines of the fields that the server adds to every answer.
        """
        try:
            return self._at_once(target, fields, own)
        except Exception:
            # In a parser's callback it would be taken for a fault of the request.
            logger.exception("a connection could not ask for an answer from memory")
            return None

    def _at_once(self, target: bytes, fields: Sequence[tuple[bytes, bytes]], own: bytes) -> bytes | None:
        started = time.perf_counter()
        path, _, query = target.partition(b"?")
        if b"%" in path or b"#" in target or not target.isascii() or self.front.traffic.draining:
            return None
        scope: Scope = {"method": "GET", "path": path.decode(), "query_string": query}
        if not scope["path"].startswith(self.prefix) or (asked := headers_of(fields)) is None or not _is_usual(asked):
            return None
        if not isinstance(hit := self.find(key_of(scope, asked), asked), Hit):
            return None
        entry, is_current, more, caller = hit
        if is_current:
            status, head, body = 304, http_fields.lines(entry.headers_304), b""
        else:
            status, head, body = 200, entry.head, entry.body
        named = request_id(asked.get(REQUEST_ID))
        self.front.ended(scope, status, len(body), route=entry.route, caller=caller, started=started, request_id=named)
        more.append((b"x-request-id", named.encode()))
        return b"".join((_STATUS_LINES[status], head, http_fields.lines(more), own, b"\r\n", body))

    def find(self, key: Hashable, asked: Mapping[bytes, bytes]) -> Hit | Literal[CacheRead.BYPASSED] | None:
        """The answer, counted, if there is one that can be given at once, and that the caller may have.

        ``BYPASSED``: there is one which cannot be trusted just now, or is not what was asked for.
        """
        found = self.cache.get(key)
        if not isinstance(found, Entry):
            return None
        now = self.clocks.monotonic()
        left = found.seconds_left(wall := self.clocks.wall(), now)
        if left <= 0:
            return None
        stale_seconds = self._stale_seconds(now)
        # A clock that was set back may be at a time before the one that the answer is about.
        if stale_seconds is None or wall < found.wall or not _is_new_enough(found, asked):
            return CacheRead.BYPASSED
        caller = self._caller(found, asked.get(AUTHORIZATION), is_stale=stale_seconds > 0)
        has_it = _has_it(found, asked.get(IF_NONE_MATCH))
        if caller is None or has_it is None or self.front.is_full:
            return None
        more: list[tuple[bytes, bytes]] = []
        if (control := _control(found, left, is_stale=stale_seconds > 0)) is not None:
            more.append((b"cache-control", control))
        if stale_seconds > 0:
            more.append((b"pricebook-stale", b"%d" % math.ceil(stale_seconds)))
            _STALE.inc()
        else:
            _HIT.inc()
        if found.offer.is_price:
            _ANSWERED.inc()
        return Hit(found, has_it, more, caller)

    def _stale_seconds(self, now: float) -> float | None:
        """For how long the database has been away, 0 while what is kept can be trusted, ``None`` when it cannot."""
        silent_seconds = now - self._follower.caught_up_at
        if silent_seconds <= self._limits.lag_seconds:
            return 0
        if self._circuit.open and silent_seconds <= self._limits.stale_seconds:
            return silent_seconds
        return None

    def _caller(self, found: Entry, authorization: bytes | None, *, is_stale: bool) -> Caller | None:
        """Who asks, if that is known without a look at the database, and may have the answer."""
        if is_stale:
            # Nobody can ask the database which keys are in force, either.
            caller = self._keys.recognised(authorization, trusted_seconds=self._limits.stale_seconds)
        else:
            caller = self._keys.recognised(authorization)
        return caller if caller is not None and all(map(caller.may, found.scopes)) else None


class ResponseCacheMiddleware:
    """Answers from memory, and keeps what handlers offer."""

    def __init__(self, app: ASGIApp, memory: Memory) -> None:
        self._app = app
        self._memory = memory

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if (
            scope["type"] != "http"
            or scope["method"] != "GET"
            or not scope["path"].startswith(self._memory.prefix)
            or (asked := headers_of(scope["headers"])) is None
        ):
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        key = key_of(scope, asked)
        found = self._memory.find(key, asked)
        if isinstance(found, Hit):
            await self._memory.front.send(
                scope, send, found.answer, route=found.entry.route, caller=found.caller, started=started
            )
            return
        if found is CacheRead.BYPASSED:
            _BYPASSED.inc()
        await self._fill(key, scope, receive, send)

    async def _fill(self, key: Hashable, scope: Scope, receive: Receive, send: Send) -> None:
        """Let the application answer, and keep its answer if it is offered."""
        cache, clocks = self._memory.cache, self._memory.clocks
        fill = scope[Fill.SCOPE_KEY] = Fill(cache.generation, clocks.wall(), clocks.monotonic())
        headers: Headers | None = None
        body = b""

        async def send_and_keep(message: Message) -> None:
            nonlocal headers, body
            if message["type"] == "http.response.start":
                headers = message["headers"] if message["status"] == 200 and fill.offer is not None else None
            elif headers is not None:
                body += message.get("body", b"")
            await send(message)

        await self._app(scope, receive, send_and_keep)
        if fill.offer is not None:
            _MISS.inc()
        route = route_template(scope)
        if headers is not None and fill.scopes is not None and route is not None:
            cache.store(key, fill, entry(fill, body=body, headers=headers, route=route))


def key_of(scope: Scope, asked: Mapping[bytes, bytes]) -> Hashable:
    """What the answer is kept by."""
    accept = asked.get(ACCEPT)
    return scope["path"], scope["query_string"], None if accept in JSON else accept


def _is_usual(asked: Mapping[bytes, bytes]) -> bool:
    """Whether nothing is asked of the connection but to be kept."""
    return (
        EXPECT not in asked and UPGRADE not in asked and asked.get(CONNECTION, b"keep-alive").lower() == b"keep-alive"
    )


def _is_new_enough(found: Entry, asked: Mapping[bytes, bytes]) -> bool:
    least = asked.get(MIN_SEQ)
    return least is None or (least.isdigit() and len(least) < 20 and int(least) <= found.offer.known_seq)


def _has_it(found: Entry, if_none_match: bytes | None) -> bool | None:
    """Whether the client has these very bytes, or ``None`` if it does not say so in order."""
    try:
        return if_none_match is not None and http_cache.is_fresh(if_none_match.decode("latin-1"), found.etag)
    except InvalidRequest:
        return None


def _control(found: Entry, left: float, *, is_stale: bool) -> bytes | None:
    most_seconds = found.offer.most_seconds
    if found.control is None or most_seconds is None:
        return found.control
    if is_stale:
        return b"no-cache"
    seconds = int(min(most_seconds, left))
    return b"max-age=%d" % seconds if seconds > 0 else b"no-cache"
