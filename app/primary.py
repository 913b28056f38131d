"""Connections to the primary, of which only is known that it is one of several servers."""

import asyncio
import os
import socket
from typing import Any

import asyncpg
from asyncpg.exceptions import CannotConnectNowError, TargetServerAttributeNotMatched

from app.database_address import server_name

_HEAD_START_SECONDS = 0.25
"""How long one server is waited for before the next is tried beside it: one that was lost does not even refuse."""

_PROBES = 3

_READ_ONLY = "default_transaction_read_only"


class NoPrimaryError(ConnectionError):
    """No server that can be reached is a primary. The message says of each why not."""

    def __init__(self, failures: dict[str, BaseException | None]) -> None:
        reasons = ", ".join(f"{server} {_reason(failure)}" for server, failure in failures.items())
        super().__init__(f"no primary can be reached: {reasons}")
        self.silent = any(map(is_silent, failures.values())) and not any(map(_refuses_us, failures.values()))
        """One of them does not answer, and may be the primary."""


def is_away(failure: BaseException | None) -> bool:
    """Whether there is no server, rather than one that refuses this connection for a reason of its own."""
    code = (failure.sqlstate or "") if isinstance(failure, asyncpg.PostgresError) else ""
    # A pooler refuses with 08P01 what is too much for it, among other things, and is there.
    return isinstance(failure, OSError) or (code.startswith(("08", "57P")) and code != "08P01")


def is_silent(failure: BaseException | None) -> bool:
    """Whether a connection failed because nothing was answered, not even that there is no server."""
    return failure.silent if isinstance(failure, NoPrimaryError) else isinstance(failure, TimeoutError)


async def connect(**options: Any) -> asyncpg.Connection:
    """Open a connection, with the options of :func:`asyncpg.connect`; ``host`` and ``port`` may be lists.

    With ``target_session_attrs`` it leads to a server that takes writes, also if the connection itself forbids them.

    :raises OSError: if no server can be reached, or none takes writes.
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
                attempt = asyncio.create_task(_open(host=host, port=port, **options))
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


async def _open(server_settings: dict[str, str] | None = None, **options: Any) -> asyncpg.Connection:
    """Connect to a server that takes writes, and forbid them only then: it would look like one that takes none."""
    settings = dict(server_settings or {})
    read_only = settings.pop(_READ_ONLY, None)
    connection = await asyncpg.connect(server_settings=settings, **options)
    if read_only is not None:
        try:
            await connection.execute(f"SET {_READ_ONLY} = {read_only}", timeout=options.get("timeout"))
        except BaseException:
            connection.terminate()
            raise
    return connection


def keep_alive(connection: asyncpg.Connection, *, idle_seconds: float, probe_seconds: float) -> None:
    """Let the system end a connection whose other end is gone without a word, within the time of the two together.

    :param idle_seconds: how long nothing comes before it is asked for a sign of life.
    :param probe_seconds: how long it is asked before it is given up.
    """
    end: socket.socket = connection._transport.get_extra_info("socket")  # noqa: SLF001 - asyncpg has no other way to it
    if end.family == socket.AF_UNIX:
        return
    end.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    options = {
        "TCP_KEEPIDLE": max(1, round(idle_seconds)),
        "TCP_KEEPINTVL": max(1, round(probe_seconds / _PROBES)),
        "TCP_KEEPCNT": _PROBES,
        "TCP_USER_TIMEOUT": round((idle_seconds + probe_seconds) * 1000),
    }
    for name, value in options.items():
        if (option := getattr(socket, name, None)) is not None:  # Not every system has all of them.
            end.setsockopt(socket.IPPROTO_TCP, option, value)


def _failure(failures: dict[str, BaseException | None]) -> BaseException:
    refusals = [failure for failure in failures.values() if failure is not None and _refuses_us(failure)]
    # It is up and refuses us: whoever reads that can do something about it. But a standby may refuse us, too, and then
    # it is the primary that matters, which is away.
    if refusals and not any(map(is_away, failures.values())):
        return refusals[0]
    return NoPrimaryError(failures)


def _refuses_us(failure: BaseException | None) -> bool:
    return isinstance(failure, asyncpg.PostgresError) and not is_away(failure)


def _reason(failure: BaseException | None) -> str:
    match failure:
        case TargetServerAttributeNotMatched():
            return "takes no writes"
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
