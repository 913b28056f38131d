"""Engines and sessions: one pair for reading, one for writing, of different types. A replica has a third.

A read is a single statement in its own read-only transaction (the connection is in autocommit mode and PostgreSQL
refuses writes on it), so it costs one round trip and sees one snapshot. A write is one transaction, committed at the
edge of the request before the answer is sent.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any
from uuid import UUID

import structlog
from opentelemetry.trace import NoOpTracer, Tracer
from sqlalchemy import CursorResult, Executable, text
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker
from sqlalchemy.pool import QueuePool

from app.circuit import Circuit
from app.database_errors import DATABASE_ERRORS, explain
from app.database_problems import Commit, translated
from app.engines import pooled, unpooled
from app.errors import UnknownBook, UnknownItem, UnknownSeq
from app.models import ChangeType
from app.observability import metrics
from app.observability.statements import Statements
from app.replica import NotOnReplicaError, Replica
from app.settings import Settings

logger = structlog.get_logger(__name__)

_CLOSE_SECONDS = 2
"""A stop waits no longer for the database to take its leave."""

_LONG_WORK = text(
    # Sorting and joining a hundred thousand rows should not go by way of the disk.
    "SELECT set_config('work_mem', '64MB', true), set_config('statement_timeout', :milliseconds, true)"
)

_PLAIN: dict[str, Any] = {"expire_on_commit": False, "autoflush": False}


class _Session(AsyncSession):
    async def columns(self, statement: Executable, values: Mapping[str, Any]) -> CursorResult[Any]:
        """The result of a statement about columns, which needs nothing of what a session does for objects: that would
        take as long as all the rest."""
        connection = await self.connection()
        return await connection.execute(statement, values)


class ReadSession(_Session):
    """A session that PostgreSQL keeps from writing. Each statement is a transaction of its own."""


class ReplicaSession(ReadSession):
    """One on the replica. What it does not find may be there all the same."""


UNKNOWN = (UnknownItem, UnknownBook, UnknownSeq)
"""What is said of things that are not there. Of the replica that says little: it may only not have them yet."""


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
            waiting=lambda: any(pool.checkedout() for name, pool in self.pools() if name != "replica"),
            answered_at=lambda: self.answered_at,
            explain=lambda error: explain(error, self.url),
        )
        self.reader = pooled(settings, "reader", self.url, self.circuit)
        self.writer = pooled(settings, "writer", self.url, self.circuit)
        self.importer = pooled(settings, "importer", self.url, self.circuit)
        self._listener = unpooled(settings, self.url, self.circuit)
        self._engines = {"reader": self.reader, "writer": self.writer, "importer": self.importer}
        tracer = tracer or NoOpTracer()
        self._statements = [Statements(engine.sync_engine, name, tracer) for name, engine in self._engines.items()]
        self._read_sessions = async_sessionmaker(self.reader, class_=ReadSession, **_PLAIN)
        self._write_sessions = {
            engine: async_sessionmaker(engine, class_=WriteSession, **_PLAIN) for engine in (self.writer, self.importer)
        }
        self.replica: Replica | None = None
        if (url := settings.sqlalchemy_read_url) is not None:
            self.replica = Replica(
                url,
                lag_seconds=settings.database_read_lag_seconds,
                silence_seconds=settings.database_silence_seconds,
            )
            engine = pooled(settings, "replica", url, self.replica)
            self._engines["replica"] = engine
            # What it answers does not tell that the primary is there.
            Statements(engine.sync_engine, "replica", tracer)
            self._replica_sessions = async_sessionmaker(engine, class_=ReplicaSession, **_PLAIN)
            self._replica_follower = unpooled(settings, url, self.replica)

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[ReadSession]:
        """A session for reads on the primary, which has all that was committed before."""
        with translated(Commit()):
            async with self.circuit.asking(), self._read_sessions() as session:
                yield session

    def answering(self, min_seq: int | None = None) -> AbstractAsyncContextManager[ReadSession]:
        """A session for an answer that may be a moment old: on the replica, if there is one in use.

        :param min_seq: the answer must know of this change, which the primary has.
        :raises NotOnReplicaError: from the block, if that is to be done again with :meth:`reading`.
        """
        if self.replica is None or not self.replica.may_have(min_seq):
            return self.reading()
        return self._answering(self.replica, min_seq)

    @asynccontextmanager
    async def _answering(self, replica: Replica, min_seq: int | None) -> AsyncIterator[ReadSession]:
        is_given = False
        try:
            async with replica.asking(), self._replica_sessions() as session:
                if await replica.is_fit(session, min_seq):
                    is_given = True
                    yield session
                    return
        except (*DATABASE_ERRORS, PoolTimeoutError, *UNKNOWN) as error:
            if is_given:
                raise NotOnReplicaError from error
        async with self.reading() as session:
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
        async with self.circuit.asking(), _apart(self._listener, lost) as (driver, session):
            await driver.add_listener(channel, lambda *_: notified())
            yield session

    @asynccontextmanager
    async def following(self, *, lost: Callable[[], object]) -> AsyncIterator[ReadSession]:
        """A session for reads on the replica, which there has to be, on a connection of its own; see above."""
        async with _apart(self._replica_follower, lost) as (_, session):
            yield session

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
        if self.replica is not None:
            self.replica.close()


@asynccontextmanager
async def _apart(engine: AsyncEngine, lost: Callable[[], object]) -> AsyncIterator[tuple[Any, ReadSession]]:
    """A connection of the driver outside of the pools, and a session on it."""
    async with engine.connect() as connection:
        driver: Any = (await connection.get_raw_connection()).driver_connection
        try:
            driver.add_termination_listener(lambda _: lost())
            async with ReadSession(connection, **_PLAIN) as session:
                yield driver, session
        finally:
            # It has nothing to lose, and a server that fell silent would be waited for.
            driver.terminate()
