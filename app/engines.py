"""Engines: how connections to PostgreSQL are made, pooled and given up."""

from typing import Any, Literal

from sqlalchemy import event
from sqlalchemy.engine import URL, ExceptionContext
from sqlalchemy.exc import DisconnectionError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import NullPool

from app.circuit import Circuit
from app.database_errors import sqlstate
from app.observability.statements import TimedPool
from app.replica import Replica
from app.settings import Settings

APPLICATION_NAME = "pricebook"

type Pool = Literal["reader", "writer", "importer", "replica"]

_READS = ("reader", "replica", "follower")
_AUTOCOMMIT = {"isolation_level": "AUTOCOMMIT"}


def _connect_args(settings: Settings, pool: Pool | Literal["follower"], server: Circuit | Replica) -> dict[str, Any]:
    longest_seconds = settings.database_statement_timeout_milliseconds / 1000
    if pool == "importer":
        longest_seconds = max(longest_seconds, settings.import_statement_timeout_seconds)
    server_settings = {
        "application_name": f"{APPLICATION_NAME}-follower" if pool == "follower" else APPLICATION_NAME,
        "statement_timeout": str(settings.database_statement_timeout_milliseconds),
        "lock_timeout": str(settings.database_lock_timeout_milliseconds),
        "idle_in_transaction_session_timeout": str(settings.database_idle_transaction_timeout_milliseconds),
        "timezone": "UTC",
        # Statements are cached and short: compiling them to machine code costs more than it saves.
        "jit": "off",
    }
    if pool in _READS:
        server_settings["default_transaction_read_only"] = "on"
    return {
        "async_creator_fn": server.connect,
        "timeout": settings.database_connect_timeout_seconds,
        # asyncpg's own limit is the last resort, for a server that no longer answers at all.
        "command_timeout": longest_seconds + 5,
        "server_settings": server_settings,
    }


def unpooled(settings: Settings, url: URL, server: Circuit | Replica) -> AsyncEngine:
    """An engine whose every connection is opened for whoever asks for it, and only reads."""
    engine = create_async_engine(url, poolclass=NullPool, connect_args=_connect_args(settings, "follower", server))
    return engine.execution_options(**_AUTOCOMMIT)


def pooled(settings: Settings, pool: Pool, url: URL, server: Circuit | Replica) -> AsyncEngine:
    """An engine with the pool of this name, whose connections ``server`` opens."""
    engine = create_async_engine(
        url,
        poolclass=TimedPool,
        pool_logging_name=pool,
        pool_size=settings.database_import_pool_size if pool == "importer" else settings.database_pool_size,
        max_overflow=0,
        # An upload that waits for another import to be compared must not be lost for it.
        pool_timeout=settings.import_statement_timeout_seconds
        if pool == "importer"
        else settings.database_pool_timeout_seconds,
        pool_use_lifo=True,
        connect_args=_connect_args(settings, pool, server),
        hide_parameters=True,
    )
    event.listen(engine.sync_engine, "checkout", _refuse_ended)
    event.listen(engine.sync_engine, "handle_error", _give_up)
    return engine.execution_options(**_AUTOCOMMIT) if pool in _READS else engine


def _refuse_ended(connection: Any, *_: object) -> None:
    """Let the pool open another connection for one that the server has ended meanwhile. Costs no round trip."""
    if connection.driver_connection.is_closed():
        raise DisconnectionError


def _give_up(context: ExceptionContext) -> None:
    """Give up connections that are of no use although they have not ended."""
    error = context.original_exception
    if sqlstate(error) == "25006" and context.engine is not None and context.engine.pool.logging_name != "reader":
        # A primary that became a standby, and so refuses writes: the new one is elsewhere.
        context.is_disconnect = True
    elif isinstance(error, TimeoutError) and context.connection is not None:
        # What the server still says on it, if it does, would be taken for the answer to the next statement's wait.
        driver: Any = context.connection.connection.driver_connection
        driver.terminate()
        context.is_disconnect, context.invalidate_pool_on_disconnect = True, False
