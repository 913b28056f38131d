"""What is answered before the framework sees it: who answers does here what the middlewares do for all others."""

import asyncio
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

from opentelemetry import trace
from starlette.types import Scope, Send

from app.access import Caller
from app.middleware.request_context import describe, log_request, logs_requests, request_id_of
from app.observability.http_metrics import RequestMetrics, exemplar, status_of_cancelled
from app.traffic import Place, Traffic

ACCEPT, AUTHORIZATION, IF_NONE_MATCH, MIN_SEQ = b"accept", b"authorization", b"if-none-match", b"pricebook-min-seq"
CONNECTION, EXPECT, UPGRADE, REQUEST_ID = b"connection", b"expect", b"upgrade", b"x-request-id"
_ASKED_WITH = frozenset({ACCEPT, AUTHORIZATION, IF_NONE_MATCH, MIN_SEQ, CONNECTION, EXPECT, UPGRADE, REQUEST_ID})
_UNUSUAL = frozenset({b"content-length", b"transfer-encoding", b"content-encoding"})
JSON = frozenset({None, b"*/*", b"application/json"})
"""Values of ``Accept`` that make no difference."""


def headers_of(fields: Iterable[tuple[bytes, bytes]]) -> dict[bytes, bytes] | None:
    """The headers that an answer depends on, or ``None`` if the application has to judge what they mean."""
    asked: dict[bytes, bytes] = {}
    for name, value in fields:
        if name in _ASKED_WITH:
            if name in asked:
                return None
            asked[name] = value
        elif name in _UNUSUAL:
            return None
    return asked


class Answer(NamedTuple):
    """A whole answer. Its headers are those of the application, without the request's id."""

    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes


class Front:
    """Counts, times, logs and names requests, and closes connections during the drain."""

    def __init__(self, traffic: Traffic, metrics: RequestMetrics, hidden: Sequence[str]) -> None:
        """Make it.

        :param hidden: what no span may show.
        """
        self.traffic = traffic
        self._metrics = metrics
        self._hidden = hidden

    @property
    def is_full(self) -> bool:
        """Whether one more request is to be refused."""
        return self.traffic.in_flight >= self.traffic.limit

    @contextmanager
    def in_flight(self) -> Iterator[None]:
        """A request that waits for its answer has a place among those that the process serves."""
        place = Place(self.traffic)
        try:
            yield
        finally:
            place.leave()

    async def send(
        self, scope: Scope, send: Send, answer: Answer, *, route: str, caller: Caller, started: float
    ) -> None:
        """Send the answer to a request that began at ``started``, by the performance counter."""
        status, headers, body = answer
        request_id = request_id_of(scope)
        headers.append((b"x-request-id", request_id.encode()))
        place = Place(self.traffic)
        try:
            if self.traffic.draining:
                headers.append((b"connection", b"close"))
            await send({"type": "http.response.start", "status": status, "headers": headers})
            await send({"type": "http.response.body", "body": body})
        except asyncio.CancelledError:
            status = status_of_cancelled(self.traffic)
            raise
        finally:
            place.leave()
            self.ended(scope, status, len(body), route=route, caller=caller, started=started, request_id=request_id)

    def ended(
        self,
        scope: Scope,
        status: int,
        sent: int,
        *,
        route: str,
        caller: Caller,
        started: float,
        request_id: str | None = None,
    ) -> None:
        """A request has come to its end: ``sent`` are the bytes of its answer's body."""
        seconds = time.perf_counter() - started
        request_id = request_id or request_id_of(scope)
        traced = None
        if "fastapi.telemetry" in scope:
            span = trace.get_current_span()
            describe(span, scope, request_id, self._hidden)
            span.update_name(f"GET {route}")
            span.set_attribute("http.route", route)
            traced = exemplar(span)
        self._metrics.observe("GET", route, str(status), seconds, request_bytes=0, answer_bytes=sent, exemplar=traced)
        if logs_requests():
            log_request(scope, route, caller, status, sent, seconds, request_id=request_id)
