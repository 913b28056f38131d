"""What an item costs, as most ask it, answered before the framework sees it, and for many at once.

To find the way to a handler and to solve what it depends on takes the framework longer than everything else that
there is to do for such a read. So this middleware reads the addresses that are written as usual itself, with the types
of the documented parameters, and asks :class:`app.services.price_reads.PriceReads`. Everything else it leaves to the
application: other addresses, unusual headers, faults of the request, callers that it does not know yet. What goes
wrong it hands on to the application as well, whose route then answers with it as if it had asked itself.
"""

import asyncio
import re
import time
from datetime import datetime
from decimal import Decimal
from typing import NamedTuple
from urllib.parse import parse_qsl

from pydantic import TypeAdapter, ValidationError
from starlette.types import ASGIApp, Receive, Scope, Send

from app import http_cache
from app.access import Scope as Needs
from app.keyring import KeyRing
from app.middleware.answer_headers import SECURITY_HEADERS
from app.middleware.front import ACCEPT, AUTHORIZATION, IF_NONE_MATCH, JSON, MIN_SEQ, Answer, Front, headers_of
from app.models import ItemKey
from app.observability.http_metrics import note_route, status_of_cancelled
from app.response_cache import Fill
from app.retries import Tried
from app.routers.caching import BY_KEY, priced, rendered
from app.schemas.base import BookKey, Document, Moment, Quantity
from app.services import price_reads, questions
from app.services.price_reads import PriceReads

_NEEDS = (Needs.PRICES_READ,)
_ITEM = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}|sku:[!-.0-~]+")
"""An id as answers write it, or a sku of the usual letters and digits."""
_ONE = Decimal(1)
_BOOK: TypeAdapter[str] = TypeAdapter(BookKey)
_AT: TypeAdapter[object] = TypeAdapter(Moment)
_QUANTITY: TypeAdapter[Decimal] = TypeAdapter(Quantity)
_PARAMETERS = frozenset({"book", "at", "quantity"})
_BY_KEY = [(name.lower().encode(), value.encode()) for name, value in BY_KEY.items()]


class _Question(NamedTuple):
    key: ItemKey
    moment: price_reads.Moment
    quantity: Decimal


class PriceReadMiddleware:
    """Answers ``GET /v1/items/{item}/price``, about what is known now."""

    def __init__(
        self, app: ASGIApp, *, reads: PriceReads, keys: KeyRing, front: Front, version: str, most_seconds: int
    ) -> None:
        """Make it.

        :param version: the first part of the addresses.
        :param most_seconds: how long HTTP caches may keep an answer at the most.
        """
        self._app = app
        self._reads = reads
        self._keys = keys
        self._front = front
        self._begins, self._ends = f"/{version}/items/", "/price"
        self._route = f"{self._begins}{{item}}{self._ends}"
        self._most_seconds = most_seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        started = time.perf_counter()
        if (
            scope["type"] != "http"
            or scope["method"] != "GET"
            or (question := self._question(scope["path"], scope["query_string"])) is None
            or (headers := headers_of(scope["headers"])) is None
            or headers.get(ACCEPT) not in JSON
            or MIN_SEQ in headers
            or (caller := self._keys.recognised(headers.get(AUTHORIZATION))) is None
            or not all(map(caller.may, _NEEDS))
            or self._front.is_full
        ):
            await self._app(scope, receive, send)
            return
        try:
            with self._front.in_flight():
                found = await self._reads.read(question.key, moment=question.moment, quantity=question.quantity)
            answer = self._answer(scope, found, question, headers.get(IF_NONE_MATCH))
        except asyncio.CancelledError:
            status = status_of_cancelled(self._front.traffic)
            self._front.ended(scope, status, 0, route=self._route, caller=caller, started=started)
            raise
        except Exception as error:  # Whatever it is, the application knows how to say it.
            scope[Tried.SCOPE_KEY] = Tried(error.with_traceback(None), time.perf_counter() - started)
        else:
            note_route(scope, self._route)
            await self._front.send(scope, send, answer, route=self._route, caller=caller, started=started)
            return
        # Not while the error is being handled: the metrics would take it for one that cut the answer off.
        await self._app(scope, receive, send)

    def _question(self, path: str, query: bytes) -> _Question | None:
        """What the address asks, if it is written as usual."""
        if not (path.startswith(self._begins) and path.endswith(self._ends)):
            return None
        item = path[len(self._begins) : -len(self._ends)]
        if not _ITEM.fullmatch(item):
            return None
        key = ItemKey.parse(item)
        if not query:
            return _Question(key, _NOW, _ONE)
        pairs = parse_qsl(query.decode("latin-1"), keep_blank_values=True)
        parameters = dict(pairs)
        if len(parameters) < len(pairs) or not parameters.keys() <= _PARAMETERS:
            return None
        try:
            book = _BOOK.validate_python(parameters.get("book", _NOW.book))
            at = _AT.validate_python(parameters["at"]) if "at" in parameters else None
            quantity = _QUANTITY.validate_python(parameters["quantity"]) if "quantity" in parameters else _ONE
        except ValidationError:
            return None
        # A bare date is an instant only in the book's time zone.
        return _Question(key, price_reads.Moment(book, at), quantity) if at is None or type(at) is datetime else None

    def _answer(self, scope: Scope, found: Document, question: _Question, if_none_match: bytes | None) -> Answer:
        """The answer as the route would give it.

        :raises InvalidRequest: if ``If-None-Match`` cannot be read.
        """
        offer, control = priced(found, questions.Moment(question.moment.at), self._most_seconds)
        body, tag = rendered(found)
        headers = [(b"etag", tag.encode()), (b"cache-control", control.encode()), *_BY_KEY]
        if (fill := scope.get(Fill.SCOPE_KEY)) is not None:
            fill.scopes, fill.offer = _NEEDS, offer
        if if_none_match is not None and http_cache.is_fresh(if_none_match.decode("latin-1"), tag):
            return Answer(304, [*headers, *SECURITY_HEADERS], b"")
        headers += ((b"content-length", b"%d" % len(body)), (b"content-type", b"application/json"))
        return Answer(200, [*headers, *SECURITY_HEADERS], body)


_NOW = price_reads.Moment("default", None)
