"""Requests that the database failed are tried again, a few times and at once, where that cannot do anything twice.

Not while it is known to be away.
"""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import ClassVar

import structlog
from fastapi import Request, Response

from app.database import Database
from app.errors import ProblemError, RetryCause
from app.idempotency import FUNCTION_STACK
from app.observability.metrics import RETRIES
from app.replica import NotOnReplicaError

logger = structlog.get_logger(__name__)

_MOST = 2
_PAUSE_SECONDS = (0.01, 0.1)
_YOUNG_SECONDS = 1.0
"""An older request is answered with its problem, so that its caller hears of it while it still waits."""


ON_PRIMARY = "pricebook.on_primary"
"""Where a request's ASGI scope says that the primary has to answer."""


@dataclass(slots=True)
class Tried:
    """What came of a first try, if somebody made it before the route."""

    error: Exception
    seconds: float
    """How long it took."""

    SCOPE_KEY: ClassVar[str] = "pricebook.first_try"
    """Where a request's ASGI scope holds it."""


async def retrying(request: Request, handle: Callable[[Request], Awaitable[Response]], *, named: bool) -> Response:
    """Answer a request whose body can be read again.

    :param named: it has an ``Idempotency-Key``, so that what was committed before is found and not done again.
    :raises ProblemError: of the last try.
    """
    database: Database = request.app.state.database
    tried: Tried | None = request.scope.get(Tried.SCOPE_KEY)
    began = time.monotonic() - (0.0 if tried is None else tried.seconds)
    for tries in range(_MOST + 1):
        try:
            return await _on_either(request, handle, tried if tries == 0 else None)
        except ProblemError as error:
            safe = error.retry_cause is not None and (named or not error.may_have_happened)
            if not safe or tries == _MOST or time.monotonic() - began > _YOUNG_SECONDS:
                raise
            await asyncio.sleep(random.uniform(*_PAUSE_SECONDS))  # noqa: S311 - parts those who met
            if database.circuit.open:
                raise  # Another try would be refused at once, and this problem says more.
            RETRIES.labels(error.retry_cause).inc()
            logger.warning("request tried again", cause=error.retry_cause, tries=tries + 1, problem=error.slug)
    raise AssertionError  # The last try returns or raises.


async def _on_either(
    request: Request, handle: Callable[[Request], Awaitable[Response]], tried: Tried | None
) -> Response:
    """Answer by the primary what the replica could not answer, however long that took to find out."""
    try:
        if tried is not None:
            raise tried.error
        return await _once(request, handle)
    except NotOnReplicaError:
        RETRIES.labels(RetryCause.REPLICA).inc()
        request.scope[ON_PRIMARY] = True
        return await _once(request, handle)


async def _once(request: Request, handle: Callable[[Request], Awaitable[Response]]) -> Response:
    outer = request.scope[FUNCTION_STACK]
    try:
        async with AsyncExitStack() as stack:
            request.scope[FUNCTION_STACK] = stack
            return await handle(request)
    finally:
        request.scope[FUNCTION_STACK] = outer
