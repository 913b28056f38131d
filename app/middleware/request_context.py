"""Outermost middleware: request id, one log line per request, and an answer for defects."""

import asyncio
import itertools
import logging
import re
import secrets
import time
from collections.abc import Sequence

import structlog
from opentelemetry import trace
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.access import Caller
from app.database_errors import first_line
from app.errors import InternalError, ProblemError
from app.key_token import mask
from app.observability.http_metrics import route_template, status_of_cancelled
from app.observability.logs import AlreadySaid
from app.problems import problem_response
from app.traffic import Traffic

logger = structlog.get_logger("pricebook.access")
_STANDARD_LOGGER = logging.getLogger("pricebook.access")

REQUEST_ID_HEADER = "X-Request-Id"
# Unique, and nothing that anybody has to guess: random for each process, and counted in it.
_PROCESS, _NUMBERS = secrets.token_hex(8), itertools.count(1)
_SAFE_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")


class RequestContextMiddleware:
    """Gives each request an id (the caller's, if it is a plain word) that its answer and all its log lines carry.

    Raises :class:`AlreadySaid` to the server if an answer that has begun cannot be sent to its end.
    """

    def __init__(self, app: ASGIApp, traffic: Traffic, hidden: Sequence[str]) -> None:
        """Make it.

        :param hidden: what no span may show.
        """
        self._app = app
        self._hidden = hidden
        self._traffic = traffic

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = request_id_of(scope)
        started = time.perf_counter()
        status: int | None = None
        sent = 0
        describe(trace.get_current_span(), scope, request_id, self._hidden)

        async def send_with_id(message: Message) -> None:
            nonlocal status, sent
            sent += len(message.get("body", b""))
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)[REQUEST_ID_HEADER] = request_id
            await send(message)

        with structlog.contextvars.bound_contextvars(request_id=request_id):
            try:
                await self._app(scope, receive, send_with_id)
            except asyncio.CancelledError:
                status = status or status_of_cancelled(self._traffic)
                raise
            except Exception as error:
                # A problem with an answer that has begun comes here; the framework has an exception of its own for it.
                if (problem := _problem(error)) is not None:
                    reason = first_line(problem.__cause__ or problem)
                    logger.warning("answer cut off", path=scope["path"], problem=problem.slug, reason=reason)
                else:
                    logger.exception("request failed", method=scope["method"], path=scope["path"])
                if status is not None:
                    # Only a cut connection can tell the client that its answer is not whole.
                    raise AlreadySaid from error
                detail = "The request failed through a defect of the service; its log has the request_id."
                await problem_response(InternalError(detail))(scope, receive, send_with_id)
            finally:
                caller: Caller | None = scope.get(Caller.SCOPE_KEY)
                log_request(scope, route_template(scope), caller, status, sent, time.perf_counter() - started)


def _problem(error: Exception) -> ProblemError | None:
    cause = error.__cause__ if isinstance(error, RuntimeError) else error
    return cause if isinstance(cause, ProblemError) else None


def logs_requests() -> bool:
    """Whether such lines are written at all."""
    return _STANDARD_LOGGER.isEnabledFor(logging.INFO)


def log_request(
    scope: Scope, route: str | None, caller: Caller | None, status: int | None, sent: int, seconds: float, **more: str
) -> None:
    """Write the line of a request that has ended. ``sent`` counts the bytes of the answer's body."""
    logger.info(
        "request",
        method=scope["method"],
        path=scope["path"],
        route=route,
        actor=caller and caller.name,
        status=status,
        bytes=sent,
        milliseconds=round(seconds * 1000, 1),
        **more,
    )


def describe(span: trace.Span, scope: Scope, request_id: str, hidden: Sequence[str]) -> None:
    """Say in the request's span which one it is, and nothing that is to be hidden."""
    span.set_attribute("pricebook.request_id", request_id)
    if (path := mask(scope["path"], hidden)) != scope["path"]:
        span.set_attribute("url.path", path)
    if scope["query_string"]:
        # As in the log: nobody knows what a caller puts there.
        span.set_attribute("url.query", "REDACTED")


def request_id_of(scope: Scope) -> str:
    """The caller's id for the request, if it is a plain word, or else a new one."""
    return request_id(next((value for name, value in scope["headers"] if name == b"x-request-id"), None))


def request_id(asked: bytes | None) -> str:
    """The same, of the value of the header."""
    if asked is not None and _SAFE_ID.fullmatch(asked):
        return str(asked, "ascii")
    return f"{_PROCESS}{next(_NUMBERS):016x}"
