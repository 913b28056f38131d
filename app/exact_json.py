"""JSON without floats: bodies are read and plain-form answers written digit for digit.

Python's JSON parser, and pydantic's, send numbers through a binary float: 12345678901234567.89 would arrive changed.
Routers that take a body use :class:`ExactJsonRoute`.
"""

import json
import re
from collections.abc import Callable, Coroutine
from decimal import Decimal
from functools import partial
from typing import Any, ClassVar

import msgspec
from fastapi import Request, Response
from fastapi.dependencies.utils import get_flat_params
from fastapi.params import Query, Security
from fastapi.routing import APIRoute
from fastapi.security import HTTPBearer
from starlette.requests import ClientDisconnect

from app import documents
from app.access import Caller, Scope
from app.errors import FieldError, InvalidRequest, MalformedRequest, NotAcceptable, UnsupportedMediaType
from app.idempotency import HEADER, IDEMPOTENT, IDEMPOTENT_UPLOAD, Idempotency
from app.keyring import KeyRing
from app.response_cache import Fill
from app.retries import retrying
from app.schemas.base import Document


class UnusableNumber:
    """A number that stands for no amount: NaN, Infinity, or one written with an exponent. No field accepts it."""

    def __init__(self, literal: str) -> None:
        self.literal = literal


def _fraction(literal: str) -> Decimal | UnusableNumber:
    return UnusableNumber(literal) if "e" in literal.lower() else Decimal(literal)


def _integer(literal: str) -> int | Decimal:
    # Python makes no int of thousands of digits; as a Decimal it goes on to a field, which refuses it by name.
    return int(literal) if len(literal) <= 100 else Decimal(literal)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise json.JSONDecodeError(f"the key {json.dumps(twice)} appears twice in one object", "", 0)
    return result


def loads(body: bytes) -> Any:
    """Parse a JSON document with every number exact.

    :raises json.JSONDecodeError: if it is not UTF-8 or not JSON, names a key twice, or is nested too deeply.
    """
    try:
        return json.loads(
            body.decode("utf-8"),
            parse_float=_fraction,
            parse_int=_integer,
            parse_constant=UnusableNumber,
            object_pairs_hook=_object,
        )
    except UnicodeDecodeError as error:
        raise json.JSONDecodeError("the body is not UTF-8", "", error.start) from None
    except RecursionError:
        raise json.JSONDecodeError("the document is nested too deeply", "", 0) from None


def dumps(document: Any) -> bytes:
    """Write JSON with decimals as exact JSON numbers in plain notation."""
    return msgspec.json.encode(_plain_numbers(document))


def _plain_numbers(value: Any) -> Any:
    # msgspec's own number format writes 0.000000000001 as 1E-12.
    if isinstance(value, Decimal):
        return msgspec.Raw(format(value, "f").encode())
    if isinstance(value, dict):
        return {key: _plain_numbers(member) for key, member in value.items()}
    if isinstance(value, list):
        return [_plain_numbers(member) for member in value]
    return value


class ExactJsonResponse(Response):
    """A JSON answer whose decimals are JSON numbers, digit for digit."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        """Encode the content."""
        return dumps(content)


class DocumentResponse(Response):
    """A JSON answer that is made of a document."""

    media_type = "application/json"

    def render(self, content: Document) -> bytes:
        """Encode the document."""
        return documents.encode(content)


class _ExactRequest(Request):
    async def json(self) -> Any:
        return loads(await self.body())


class _Bearer(HTTPBearer):
    async def __call__(self, request: Request) -> None:  # type: ignore[override]  # ExactJsonRoute has looked at it
        """Only tells the documentation of it."""


_KEY = _Bearer(
    scheme_name="key",
    bearerFormat="pb_<id>_<secret>",
    description="A key from `POST /v1/keys`. The scope `admin` includes all others.",
)


async def _nobody() -> None:
    """Asks nothing."""


PUBLIC = Security(_nobody)
"""For routes that need no key."""


def requires(*scopes: Scope) -> Security:
    """For ``dependencies`` of a route: what its caller needs; any key that is accepted, if nothing is named."""
    return Security(_KEY, scopes=list(scopes))


class ExactJsonRoute(APIRoute):
    """A route that lets only callers with the right key in, reads bodies exactly, and refuses media types and query
    parameters that it does not know.

    A misspelt parameter would otherwise be answered with confidence, and wrongly. Each route names :func:`requires` or
    :data:`PUBLIC` among its dependencies.
    """

    produces: ClassVar[frozenset[str]] = frozenset()
    """Media types besides JSON that the operations of this class answer with. Every operation answers JSON too, at the
    least for problems."""

    retries: ClassVar[bool] = True
    """Whether its requests are tried again when the database fails them."""

    @property
    def scopes(self) -> list[Scope] | None:
        """What a caller needs; ``None`` if it needs no key."""
        (security,) = (dependency for dependency in self.dependencies or () if isinstance(dependency, Security))
        return None if security.dependency is _nobody else [Scope(scope) for scope in security.scopes or ()]

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Wrap FastAPI's handler."""
        handle = super().get_route_handler()
        # Closed by default: a route that says nothing of its scopes does not come into being.
        scopes = self.scopes
        known = {field.alias for field in get_flat_params(self.dependant) if isinstance(field.field_info, Query)}

        async def handle_exactly(request: Request) -> Response:
            if scopes is not None:
                # Before anything else: strangers learn nothing, and nothing that they send is read.
                await _admit(request, scopes)
            _check_accept(request, self.produces)
            _check_query(request, known)
            if self.body_field is not None:
                _check_content_type(request)
            try:
                return await answer(_ExactRequest(request.scope, request.receive))
            except ClientDisconnect:
                # For the log and the metrics: it is no defect of the service.
                raise MalformedRequest("The connection ended before the body did.") from None

        async def answer(request: Request) -> Response:
            idempotency: Idempotency = request.app.state.idempotency
            if IDEMPOTENT_UPLOAD in self.dependencies:
                # Its body is read once.
                return await idempotency.answer_upload(
                    request, handle, lambda receive: _ExactRequest(request.scope, receive)
                )
            if IDEMPOTENT in self.dependencies:
                named = HEADER in request.headers
                return await retrying(request, partial(idempotency.answer, handle=handle), named=named)
            return await retrying(request, handle, named=False) if self.retries else await handle(request)

        return handle_exactly


async def _admit(request: Request, scopes: list[Scope]) -> None:
    keys: KeyRing = request.app.state.keys
    caller = await keys.caller(request.headers.getlist("authorization"))
    request.scope[Caller.SCOPE_KEY] = caller
    caller.need(*scopes)
    if (fill := request.scope.get(Fill.SCOPE_KEY)) is not None:
        fill.scopes = scopes


def _check_query(request: Request, known: set[str]) -> None:
    unknown = sorted(set(request.query_params) - known)
    if unknown:
        message = "is not a parameter of this operation"
        faults = [FieldError(f"query/{name}", "extra-forbidden", message) for name in unknown[:10]]
        takes = f"it takes {', '.join(sorted(known))}" if known else "it takes none"
        raise InvalidRequest(f"query/{unknown[0][:100]} {message}; {takes}.", faults)


_QUALITY = re.compile(r"0(\.\d{0,3})?|1(\.0{0,3})?")


def accepted(request: Request) -> dict[str, float]:
    """The media types and ranges that the client takes, and how much it wants each: more than 0, up to 1."""
    result = {}
    for entry in ",".join(request.headers.getlist("accept")).split(","):
        media_range, *parameters = (part.strip().lower() for part in entry.split(";"))
        qualities = [parameter.replace(" ", "").removeprefix("q=") for parameter in parameters if parameter[:1] == "q"]
        quality = float(qualities[0]) if qualities and _QUALITY.fullmatch(qualities[0]) else 1.0
        if quality:
            result[media_range] = quality
    return result


def _check_accept(request: Request, produces: frozenset[str]) -> None:
    if not any(request.headers.getlist("accept")):
        return
    types = {"application/json", "application/problem+json", *produces}
    known = types | {f"{media_type.partition('/')[0]}/*" for media_type in types} | {"*/*"}
    if accepted(request).keys() & known:
        return
    answers = ", ".join(["application/json", *sorted(produces)])
    raise NotAcceptable(f"This operation answers {answers}. Send that, or */*, as Accept.")


def _check_content_type(request: Request) -> None:
    has_body = request.headers.get("content-length", "0") != "0" or "transfer-encoding" in request.headers
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    main, _, subtype = media_type.partition("/")
    if has_body and not (main == "application" and (subtype == "json" or subtype.endswith("+json"))):
        given = f"The body came as {media_type}" if media_type else "The body came without Content-Type"
        raise UnsupportedMediaType(f"{given}. Send JSON, with the header Content-Type: application/json.")
