"""Connections to the primary, of which only is known that it is one of several servers."""

import asyncio
import os
from typing import Any

import asyncpg
from asyncpg.exceptions import CannotConnectNowError, TargetServerAttributeNotMatched

from app.database_address import server_name

_HEAD_START_SECONDS = 0.25
"""How long one server is waited for before the next is tried beside it: one that was lost does not even refuse."""


class NoPrimaryError(ConnectionError):
    """No server that can be reached is a primary. The message says of each why not."""


async def connect(**options: Any) -> asyncpg.Connection:
    """Open a connection, with the options of :func:`asyncpg.connect`; ``host`` and ``port`` may be lists.

    :raises OSError: if no server can be reached, or none is the primary.
    :raises asyncpg.PostgresError: if one refuses it for a reason of its own, such as the password.
    """
    return (await find(**options))[0]


async def find(**options: Any) -> tuple[asyncpg.Connection, str]:
    """The same, and which server it leads to."""
    if "target_session_attrs" not in options:
        return await asyncpg.connect(**options), "the server"
    hosts, ports = options.pop("host", None), options.pop("port", None)
    if not isinstance(hosts, list):
        hosts, ports = [hosts], [ports]
    rest = list(zip(hosts, ports, strict=True))
    attempts: dict[asyncio.Task[asyncpg.Connection], str] = {}
    won: asyncpg.Connection | None = None
    try:
        while rest or not all(attempt.done() for attempt in attempts):
            if rest:
                host, port = rest.pop(0)
                attempt = asyncio.create_task(asyncpg.connect(host=host, port=port, **options))
                attempts[attempt] = server_name(host or "the server", port or 5432)
            running = [attempt for attempt in attempts if not attempt.done()]
            await asyncio.wait(
                running, timeout=_HEAD_START_SECONDS if rest else None, return_when=asyncio.FIRST_COMPLETED
            )
            for attempt, server in attempts.items():
                if attempt.done() and attempt.exception() is None:
                    won = attempt.result()
                    return won, server
        raise _failure({server: attempt.exception() for attempt, server in attempts.items()})
    finally:
        for attempt in attempts:
            if not attempt.done():
                attempt.cancel()
            elif attempt.exception() is None and attempt.result() is not won:
                attempt.result().terminate()


def _failure(failures: dict[str, BaseException | None]) -> BaseException:
    for failure in failures.values():
        # It is up and refuses us: whoever reads that can do something about it.
        if isinstance(failure, asyncpg.PostgresError) and not isinstance(failure, CannotConnectNowError):
            refusal: BaseException = failure
            return refusal
    reasons = ", ".join(f"{server} {_reason(failure)}" for server, failure in failures.items())
    return NoPrimaryError(f"no primary can be reached: {reasons}")


def _reason(failure: BaseException | None) -> str:
    match failure:
        case TargetServerAttributeNotMatched():
            return "is a standby"
        case TimeoutError():
            return "does not answer"
        case ConnectionRefusedError():
            return "refuses connections"
        case CannotConnectNowError():
            return "takes no connections now"
        case OSError(errno=int(number)):
            return f"cannot be reached ({os.strerror(number)})" if number > 0 else f"cannot be reached ({failure})"
        case _:
            return f"cannot be used ({failure})"
