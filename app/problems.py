"""Errors become answers: RFC 9457 problem documents, for the domain's errors and the framework's own alike."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import structlog
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.routing import Match

from app.errors import (
    Busy,
    ContentTooLarge,
    DatabaseUnavailable,
    FieldError,
    Forbidden,
    IdempotencyKeyReused,
    InternalError,
    InvalidRequest,
    MalformedRequest,
    MethodNotAllowed,
    NotAcceptable,
    NotFound,
    Overloaded,
    ProblemError,
    RequestInProgress,
    RequestTimeout,
    Unauthenticated,
    UnsupportedMediaType,
)

MEDIA_TYPE = "application/problem+json"
_MOST_FAULTS = 100

BODY_PROBLEMS = (RequestTimeout, ContentTooLarge, UnsupportedMediaType)
"""What an operation with a body may answer besides its own problems."""

POST_PROBLEMS = (*BODY_PROBLEMS, RequestInProgress, IdempotencyKeyReused)
"""What a POST may."""

_ALWAYS = (NotAcceptable, InvalidRequest, InternalError, Busy, DatabaseUnavailable, Overloaded)
_ASKED_FOR_A_KEY = (Unauthenticated, Forbidden)

_FOR_STATUS: dict[int, type[ProblemError]] = {400: MalformedRequest, 404: NotFound, 413: ContentTooLarge}


def problem_response(error: ProblemError, headers: Mapping[str, str] | None = None) -> Response:
    """The answer for an error. The request id comes from the log context, where the middleware put it."""
    document = {
        "type": f"/problems/{error.slug}",
        "title": error.title,
        "status": error.status,
        "detail": error.detail,
        "request_id": structlog.contextvars.get_contextvars().get("request_id"),
        "errors": [{"pointer": fault.pointer, "code": fault.code, "message": fault.message} for fault in error.errors],
    }
    # Input is echoed in pointers and messages: what cannot be encoded is shown as an escape.
    body = json.dumps(document, ensure_ascii=False).encode("utf-8", "backslashreplace")
    headers = dict(headers or {})
    if error.retry_after_seconds is not None:
        headers["Retry-After"] = str(error.retry_after_seconds)
    if isinstance(error, Unauthenticated):
        # RFC 6750: a key that was sent and is not accepted is told from one that is missing.
        headers["WWW-Authenticate"] = 'Bearer realm="pricebook"' + ', error="invalid_token"' * error.key_was_sent
    if error.status == 426:
        headers |= {"Upgrade": "HTTP/1.1", "Connection": "upgrade"}
    headers["Cache-Control"] = "no-store"
    return Response(body, status_code=error.status, headers=headers, media_type=MEDIA_TYPE)


def install(app: FastAPI) -> None:
    """Register the handlers. Defects are caught outside of them, by the request context middleware."""

    @app.exception_handler(ProblemError)
    async def handle_problem(_: Request, error: ProblemError) -> Response:
        return problem_response(error)

    @app.exception_handler(RequestValidationError)
    async def handle_validation(_: Request, error: RequestValidationError) -> Response:
        return problem_response(_from_validation(error))

    app.add_exception_handler(HTTPException, handle_http)


async def handle_http(request: Request, error: Exception) -> Response:
    """Answer the framework's own errors."""
    assert isinstance(error, HTTPException)  # noqa: S101 - it is registered for these only
    headers = {"Allow": _allowed(request)} if error.status_code == 405 else error.headers
    return problem_response(_from_http(request, error), headers)


def _from_http(request: Request, error: HTTPException) -> ProblemError:
    if error.status_code == 405:
        return MethodNotAllowed(f"{request.method} is not allowed here; this address takes {_allowed(request)}.")
    if error.status_code == 404:
        return NotFound("Nothing is at this address. The operations are listed at /docs.")
    if error.status_code == 413:
        return ContentTooLarge(
            "The body is larger than this service accepts (MAX_BODY_BYTES; MAX_IMPORT_BYTES for the file of an import)."
        )
    if error.status_code == 408:
        return RequestTimeout("The body did not arrive in time (BODY_TIMEOUT_SECONDS). Send the request again.")
    return _FOR_STATUS.get(error.status_code, InternalError)(str(error.detail))


def _allowed(request: Request) -> str:
    """The methods of an address. The framework names only those of the first route that has it."""
    methods = (
        method
        for method in ("GET", "POST", "PATCH", "PUT", "DELETE")
        if any(route.matches({**request.scope, "method": method})[0] is Match.FULL for route in request.app.routes)
    )
    return ", ".join(methods) or "GET"


def _from_validation(error: RequestValidationError) -> InvalidRequest:
    # The rejected input itself stays out of the answer: it may be huge, or not encodable.
    faults = [
        FieldError(pointer(fault["loc"]), str(fault["type"]).replace("_", "-"), fault_message(fault))
        for fault in error.errors()[:_MOST_FAULTS]
    ]
    first = faults[0]
    more = f" ({len(error.errors()) - 1} more)" if len(error.errors()) > 1 else ""
    return InvalidRequest(f"{first.pointer or 'The body'}: {first.message}{more}.", faults)


def fault_message(fault: Mapping[str, Any]) -> str:
    """What pydantic says of a fault, as the end of a sentence that begins with the field's name."""
    if fault["type"] == "json_invalid":
        return f"is not valid JSON: {fault['ctx']['error']}"
    if fault["type"] == "missing":
        return "is required"
    if fault["type"] == "extra_forbidden":
        return "is not a field of this document"
    message = str(fault["msg"]).removeprefix("Value error, ").removeprefix("Input ")
    return message[0].lower() + message[1:]


def pointer(location: Sequence[str | int]) -> str:
    """FastAPI's location of a fault, as a JSON pointer into the body or as ``query/name``, ``header/name``."""
    place, *rest = location
    if place != "body":
        return "/".join(str(part) for part in location)
    if rest and isinstance(rest[0], int) and len(rest) == 1:
        return ""  # A syntax error: the number is a position in the text, not a place in the document.
    return "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in rest)


def responses(*kinds: type[ProblemError], public: bool = False) -> dict[int | str, dict[str, Any]]:
    """The OpenAPI responses of an operation that can answer with these problems, and with those that any can.

    :param public: it asks for no key.
    """
    by_status: dict[int | str, list[type[ProblemError]]] = {}
    every: dict[type[ProblemError], None] = dict.fromkeys((*kinds, *_ALWAYS, *(() if public else _ASKED_FOR_A_KEY)))
    for kind in every:
        by_status.setdefault(kind.status, []).append(kind)
    return {
        status: {
            "description": "; ".join(kind.title for kind in group),
            "headers": _headers(group),
            "content": {
                MEDIA_TYPE: {
                    "examples": {kind.slug: {"summary": kind.title, "value": _example(kind)} for kind in group}
                }
            },
        }
        for status, group in by_status.items()
    }


def _headers(group: Sequence[type[ProblemError]]) -> dict[str, dict[str, Any]]:
    """What these problems, of one status, carry besides what every answer does."""
    status, text = group[0].status, {"schema": {"type": "string"}}
    if status == 401:
        return {"WWW-Authenticate": {"description": "RFC 6750", "required": True, **text}}
    if status == 426:
        return {"Upgrade": {"description": "What to ask by", "required": True, **text}}
    if status == 503 or RequestInProgress in group:
        seconds = {"type": "integer", "minimum": 0}
        return {"Retry-After": {"description": "In seconds", "required": status == 503, "schema": seconds}}
    return {}


def _example(kind: type[ProblemError]) -> dict[str, Any]:
    return {
        "type": f"/problems/{kind.slug}",
        "title": kind.title,
        "status": kind.status,
        "detail": (kind.__doc__ or "").strip(),
        "request_id": "01a20537-de50-7ff8-9c93-02db0b06a11c",
        "errors": [],
    }
