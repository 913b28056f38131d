"""What a client may do with a connection before there is a request: the same under either server.

A head is whole or it is refused, by the servers' protocols, which the application never hears of.
"""

import asyncio
import uuid
from collections.abc import Callable, Sequence
from http import HTTPStatus
from typing import Any

import structlog

from app import http_fields
from app.errors import HeaderFieldsTooLarge, Overloaded, ProblemError, RequestTimeout, UriTooLong
from app.middleware.answer_headers import SECURITY_HEADERS
from app.problems import problem_response
from app.traffic import Traffic

logger = structlog.get_logger("pricebook.access")

MOST_LINE_BYTES = 8_190
MOST_FIELDS = 100
MOST_HEAD_BYTES = 32_768

MOST_AT_ONCE = 32
"""Requests of one client that are answered without letting others have a turn."""

PARTING_SECONDS = 1.0
"""How long a connection beyond the limit may take to send something that can be answered; and how long one that was
refused is kept, for a client that still sends, and would lose the answer if it were closed at once."""


def line_too_long() -> ProblemError:
    """The problem of a request whose first line exceeds its limit."""
    return UriTooLong(f"The first line of a request may have at most {MOST_LINE_BYTES} bytes.")


def head_too_large() -> ProblemError:
    """The problem of a request whose head exceeds its limits."""
    return HeaderFieldsTooLarge(
        f"The head of a request may have at most {MOST_FIELDS} fields and {MOST_HEAD_BYTES} bytes."
    )


def exceeds(headers: Sequence[tuple[bytes, bytes]]) -> bool:
    """Whether the fields of a head are more than it may have."""
    if len(headers) > MOST_FIELDS:
        return True
    size = 0
    for name, value in headers:
        size += len(name) + len(value) + 4
    return size > MOST_HEAD_BYTES


def turn_away(traffic: Traffic) -> ProblemError:
    """The problem of a connection beyond the limit, which is counted."""
    traffic.shed += 1
    detail = f"{traffic.connections_limit} connections are open (MAX_CONNECTIONS). Try again."
    return Overloaded(detail, retry_after_seconds=1)


def answer(error: ProblemError) -> bytes:
    """A whole answer, for a connection that is closed after it."""
    request_id = uuid.uuid4().hex
    with structlog.contextvars.bound_contextvars(request_id=request_id):
        response = problem_response(error, {"Connection": "close", "X-Request-Id": request_id})
        logger.info("connection refused", status=error.status, problem=error.slug)
    phrase = HTTPStatus(error.status).phrase.encode()
    fields = http_fields.lines([*response.raw_headers, *SECURITY_HEADERS])
    return b"HTTP/1.1 %d %b\r\n%b\r\n%b" % (error.status, phrase, fields, bytes(response.body))


class Head:
    """A request head that arrives in parts. One that arrives at once, as nearly all do, never gets here."""

    def __init__(self, loop: asyncio.AbstractEventLoop, seconds: float, refuse: Callable[[ProblemError], Any]) -> None:
        self._loop = loop
        self._seconds = seconds
        self._refuse = refuse
        self._timer: asyncio.TimerHandle | None = None
        self._bytes = 0

    def grows(self, size: int) -> None:
        """Some of it came, and more is to come."""
        if self._timer is None:
            # The first part may be the end of the request before, for the most.
            self._timer = self._loop.call_later(self._seconds, self._is_late)
            return
        self._bytes += size
        if self._bytes > MOST_HEAD_BYTES:
            self._refuse(head_too_large())

    def ends(self) -> None:
        """It is whole, or of no interest any more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
            self._bytes = 0

    def _is_late(self) -> None:
        self._refuse(RequestTimeout("The head of the request did not arrive in time (BODY_TIMEOUT_SECONDS)."))
