"""Answers from memory, in front of the application: the same one for all who may see it, until something touches it.

What is kept and when it goes is said in :mod:`app.response_cache`. This is the outermost middleware, so that a hit
costs no more than it must; so it does itself what the others do for all other requests: it looks at the key, counts,
times, logs and names the request, has a place among those in flight, and closes connections during the drain. What it
cannot answer at once, for whatever reason, it leaves to the application, which knows what to say.
"""

import math
import time
from collections.abc import Mapping
from typing import NamedTuple

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app import http_cache
from app.access import Caller
from app.circuit import Circuit
from app.errors import InvalidRequest
from app.follower import Follower
from app.keyring import KeyRing
from app.middleware.front import ACCEPT, AUTHORIZATION, IF_NONE_MATCH, JSON, MIN_SEQ, Answer, Front, headers_of
from app.observability.http_metrics import route_template
from app.observability.metrics import CACHE_READS, PRICE_READS, CacheRead, PriceRead
from app.response_cache import Clocks, Entry, Fill, Headers, ResponseCache, entry

_HIT, _MISS, _BYPASSED, _STALE = (CACHE_READS.labels(result) for result in CacheRead)
_ANSWERED = PRICE_READS.labels(PriceRead.ANSWERED)


class Limits(NamedTuple):
    """How long ago the follower may last have had everything: usually, and while the database is away."""

    lag_seconds: float
    stale_seconds: float


class ResponseCacheMiddleware:
    """Keeps what handlers offer, and answers with it."""

    def __init__(
        self,
        app: ASGIApp,
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
        self._app = app
        self._cache = cache
        self._prefix = prefix
        self._limits = limits
        self._clocks = clocks
        self._follower = follower
        self._circuit = circuit
        self._keys = keys
        self._front = front

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if (
            scope["type"] != "http"
            or scope["method"] != "GET"
            or not scope["path"].startswith(self._prefix)
            or (asked := headers_of(scope)) is None
        ):
            await self._app(scope, receive, send)
            return
        accept = asked.get(ACCEPT)
        key = (scope["path"], scope["query_string"], None if accept in JSON else accept)
        found = self._cache.get(key)
        if isinstance(found, Entry) and (answer := self._answer(found, asked)) is not None:
            await self._send(found, *answer, scope, send)
        else:
            await self._fill(key, scope, receive, send)

    def _answer(self, found: Entry, asked: Mapping[bytes, bytes]) -> tuple[Answer, Caller] | None:
        """The answer with this entry, or ``None`` if the application has to say it."""
        now = self._clocks.monotonic()
        left = found.seconds_left(wall := self._clocks.wall(), now)
        if left <= 0:
            return None
        stale_seconds = self._stale_seconds(now)
        # A clock that was set back may be at a time before the one that the answer is about.
        if stale_seconds is None or wall < found.wall or not _is_new_enough(found, asked):
            _BYPASSED.inc()
            return None
        caller = self._caller(found, asked.get(AUTHORIZATION), is_stale=stale_seconds > 0)
        has_it = _has_it(found, asked.get(IF_NONE_MATCH))
        if caller is None or has_it is None or self._front.is_full:
            return None
        headers = [*(found.headers_304 if has_it else found.headers)]
        if (control := _control(found, left, is_stale=stale_seconds > 0)) is not None:
            headers.append((b"cache-control", control))
        if stale_seconds > 0:
            headers.append((b"pricebook-stale", b"%d" % math.ceil(stale_seconds)))
            _STALE.inc()
        else:
            _HIT.inc()
        return (Answer(304, headers, b"") if has_it else Answer(200, headers, found.body)), caller

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

    async def _send(self, found: Entry, answer: Answer, caller: Caller, scope: Scope, send: Send) -> None:
        started = time.perf_counter()
        if found.offer.is_price:
            _ANSWERED.inc()
        await self._front.send(scope, send, answer, route=found.route, caller=caller, started=started)

    async def _fill(self, key: tuple[object, ...], scope: Scope, receive: Receive, send: Send) -> None:
        """Let the application answer, and keep its answer if it is offered."""
        clocks = self._clocks
        fill = scope[Fill.SCOPE_KEY] = Fill(self._cache.generation, clocks.wall(), clocks.monotonic())
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
            self._cache.store(key, fill, entry(fill, body=body, headers=headers, route=route))


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
