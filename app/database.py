"""Engines and sessions: one pair for reading, one for writing, of different types.

A read is a single statement in its own read-only transaction (the connection is in autocommit mode and PostgreSQL
refuses writes on it), so it costs one round trip and sees one snapshot. A write is one transaction, committed at the
edge of the request before the answer is sent.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Literal
from uuid import UUID

import structlog
from opentelemetry.trace import NoOpTracer, Tracer
from sqlalchemy import CursorResult, Executable, event, text
from sqlalchemy.engine import ExceptionContext
from sqlalchemy.exc import DisconnectionError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.pool import NullPool, QueuePool

from app.circuit import Circuit
from app.database_errors import explain, sqlstate
from app.database_problems import Commit, translated
from app.models import ChangeType
from app.observability import metrics
from app.observability.statements import Statements, TimedPool
from app.settings import Settings

logger = structlog.get_logger(__name__)

APPLICATION_NAME = "pricebook"

_CLOSE_SECONDS = 2
"""A stop waits no longer for the database to take its leave."""

_LONG_WORK = text(
    # Sorting and joining a hundred thousand rows should not go by way of the disk.
    "SELECT set_config('work_mem', '64MB', true), set_config('statement_timeout', :milliseconds, true)"
)


class _Session(AsyncSession):
    async def columns(self, statement: Executable, values: Mapping[str, Any]) -> CursorResult[Any]:
        """The result of a statement about columns, which needs nothing of what a session does for objects: that would
        take as long as all the rest."""
        connection = await self.connection()
        return await connection.execute(statement, values)


class ReadSession(_Session):
    """A session that PostgreSQL keeps from writing. Each statement is a transaction of its own."""


class WriteSession(_Session):
    """A session inside one read-write transaction. ``changes`` counts those that it logged, for the metrics.

    ``last_seq`` is the last number that it took, ``touched`` the items and books that its changes are about, if it
    names them: an import does not.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.changes: Counter[ChangeType] = Counter()
        self.last_seq: int | None = None
        self.touched: set[UUID | str] = set()


class Database:
    """The service's connections. Create one per process and :meth:`close` it at the end."""

    def __init__(self, settings: Settings, tracer: Tracer | None = None) -> None:
        self.url = settings.sqlalchemy_url
        self.committed: Callable[[WriteSession], object] = lambda _: None
        """Called with each write right after its commit, before anybody is told of it."""
        self._import_statement_seconds = settings.import_statement_timeout_seconds
        self.circuit = Circuit(
            settings.database_silence_seconds,
            settings.database_connect_timeout_seconds,
            waiting=lambda: any(pool.checkedout() for _, pool in self.pools()),
            answered_at=lambda: self.answered_at,
            explain=lambda error: explain(error, self.url),
        )
        self.reader = _engine(settings, "reader", self.circuit).execution_options(isolation_level="AUTOCOMMIT")
        self.writer = _engine(settings, "writer", self.circuit)
        self.importer = _engine(settings, "importer", self.circuit)
        self._listener = create_async_engine(
            settings.sqlalchemy_url, poolclass=NullPool, connect_args=_connect_args(settings, "follower", self.circuit)
        ).execution_options(isolation_level="AUTOCOMMIT")
        self._engines = {"reader": self.reader, "writer": self.writer, "importer": self.importer}
        self._statements = [
            Statements(engine.sync_engine, name, tracer or NoOpTracer()) for name, engine in self._engines.items()
        ]
        self._read_sessions = async_sessionmaker(
            self.reader, class_=ReadSession, expire_on_commit=False, autoflush=False
        )
        self._write_sessions = {
            engine: async_sessionmaker(engine, class_=WriteSession, expire_on_commit=False, autoflush=False)
            for engine in (self.writer, self.importer)
        }

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[ReadSession]:
        """A session for reads."""
        with translated(Commit()):
            async with self.circuit.asking(), self._read_sessions() as session:
                yield session

    @asynccontextmanager
    async def writing(self) -> AsyncIterator[WriteSession]:
        """A session in a transaction that commits at the end of the block, or rolls back if it raises."""
        async with self._writing(self.writer) as session:
            yield session

    @asynccontextmanager
    async def importing(self) -> AsyncIterator[WriteSession]:
        """The same for the work of an import, whose statements may take long, and for which it may wait as long."""
        async with self._writing(self.importer) as session:
            # In the transaction, because a pooler hands on neither what a connection nor what its start sets.
            await session.execute(_LONG_WORK, {"milliseconds": f"{self._import_statement_seconds * 1000}"})
            yield session

    @asynccontextmanager
    async def _writing(self, engine: AsyncEngine) -> AsyncIterator[WriteSession]:
        commit = Commit()
        with translated(commit):
            async with self.circuit.asking(), self._write_sessions[engine]() as session:
                async with session.begin():
                    yield session
                    commit.begun = True
                # Only now are they committed.
                for change, count in session.changes.items():
                    metrics.CHANGES.labels(change).inc(count)
                self.committed(session)

    @asynccontextmanager
    async def listening(
        self, channel: str, *, notified: Callable[[], object], lost: Callable[[], object]
    ) -> AsyncIterator[ReadSession]:
        """A session for reads on a connection of its own, outside of the pools, which listens during the block.

        :param notified: called at each notification, as far as the server, or what is before it, passes them on.
        :param lost: called when the connection has ended.
        """
        async with self.circuit.asking(), self._listener.connect() as connection:
            driver: Any = (await connection.get_raw_connection()).driver_connection
            try:
                driver.add_termination_listener(lambda _: lost())
                await driver.add_listener(channel, lambda *_: notified())
                async with ReadSession(connection, expire_on_commit=False, autoflush=False) as session:
                    yield session
            finally:
                # It has nothing to lose, and a server that fell silent would be waited for.
                driver.terminate()

    @property
    def answered_at(self) -> float:
        """When the database last answered a statement, on the monotonic clock."""
        return max(statements.answered_at for statements in self._statements)

    def pools(self) -> Iterator[tuple[str, QueuePool]]:
        """The pools as they are now, by name."""
        for name, engine in self._engines.items():
            assert isinstance(engine.pool, QueuePool)  # noqa: S101 - _engine makes no other
            yield name, engine.pool

    async def close(self) -> None:
        """Close every connection; one to a server that does not answer is given up after a moment."""
        await self.circuit.close()
        try:
            async with asyncio.timeout(_CLOSE_SECONDS):
                await asyncio.gather(*(engine.dispose() for engine in self._engines.values()))
        except TimeoutError:
            logger.warning("connections to the database were not closed in order", seconds=_CLOSE_SECONDS)


type _Pool = Literal["reader", "writer", "importer"]


def _connect_args(settings: Settings, pool: _Pool | Literal["follower"], circuit: Circuit) -> dict[str, Any]:
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
    if pool in ("reader", "follower"):
        server_settings["default_transaction_read_only"] = "on"
    return {
        "async_creator_fn": circuit.connect,
        "timeout": settings.database_connect_timeout_seconds,
        # asyncpg's own limit is the last resort, for a server that no longer answers at all.
        "command_timeout": longest_seconds + 5,
        "server_settings": server_settings,
    }


def _engine(settings: Settings, pool: _Pool, circuit: Circuit) -> AsyncEngine:
    engine = create_async_engine(
        settings.sqlalchemy_url,
        poolclass=TimedPool,
        pool_logging_name=pool,
        pool_size=settings.database_import_pool_size if pool == "importer" else settings.database_pool_size,
        max_overflow=0,
        # An upload that waits for another import to be compared must not be lost for it.
        pool_timeout=settings.import_statement_timeout_seconds
        if pool == "importer"
        else settings.database_pool_timeout_seconds,
        pool_use_lifo=True,
        connect_args=_connect_args(settings, pool, circuit),
        hide_parameters=True,
    )
    event.listen(engine.sync_engine, "checkout", _refuse_ended)
    event.listen(engine.sync_engine, "handle_error", _give_up)
    return engine


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
