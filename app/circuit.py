"""Whether the database is there: found out once for all requests, so that each need not wait to hear that it is not.

A circuit breaker. A connection that cannot be made, or a server that leaves everything unanswered, is looked after. If
that look fails, too, the circuit is open: requests are refused at once while one look after the other is made, and the
first that is answered closes it. What was connected and asked before is left to end by itself, unless the server is
silent: that no connection can be made says nothing about those that there are.
"""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any
from weakref import WeakKeyDictionary

import asyncpg
import structlog

from app import primary
from app.errors import DatabaseUnavailable
from app.observability import metrics

logger = structlog.get_logger(__name__)

_PAUSE_SECONDS = (0.3, 0.7)
"""Between two looks at a database that is away. The replicas do not look all at once."""


class Circuit:
    """The connections of one process, and whether more are to be tried. :meth:`running` looks out for silence."""

    def __init__(
        self,
        silence_seconds: float,
        connect_seconds: float,
        *,
        waiting: Callable[[], bool],
        answered_at: Callable[[], float],
        explain: Callable[[BaseException], str],
    ) -> None:
        """Make a closed one.

        :param silence_seconds: how long everything may stay unanswered before it is looked after, and so long a look,
            or twice as long as the last connection took to open.
        :param connect_seconds: how long opening a connection may take.
        :param waiting: whether anything is being asked of the database.
        :param answered_at: when a statement was last answered, on the monotonic clock.
        :param explain: what an error means, for the log.
        """
        self._silence_seconds = silence_seconds
        self._connect_seconds = connect_seconds
        self._connecting_took_seconds = 0.0
        self._waiting = waiting
        self._statement_answered_at = answered_at
        self._explain = explain
        self._connections: WeakKeyDictionary[asyncpg.Connection, str] = WeakKeyDictionary()
        self._asking: set[asyncio.Timeout] = set()
        self._connected_at = float("-inf")
        self._options: dict[str, Any] = {}
        self._failure: BaseException | None = None
        self._looking: asyncio.Task[None] | None = None

    @property
    def open(self) -> bool:
        """Whether the database is away."""
        return self._failure is not None

    @asynccontextmanager
    async def asking(self) -> AsyncIterator[None]:
        """Ask the database during the block, which ends when the server is found silent, whatever it waits for.

        :raises DatabaseUnavailable: at once, if the database is away.
        :raises Exception: what the connection failed with, if it goes away.
        """
        if self._failure is not None:
            metrics.DATABASE_ERRORS.labels(metrics.DatabaseError.UNAVAILABLE).inc()
            raise DatabaseUnavailable(
                "The database cannot be reached, and is looked for. Try again.", retry_after_seconds=1
            ) from self._failure
        limit = asyncio.timeout(None)
        try:
            async with limit:
                self._asking.add(limit)
                try:
                    yield
                finally:
                    self._asking.discard(limit)
        except TimeoutError:
            if limit.expired() and self._failure is not None:
                raise self._failure.with_traceback(None) from None
            raise

    async def connect(self, **options: Any) -> asyncpg.Connection:
        """Open a connection for a pool; see :func:`app.primary.connect`."""
        if self._failure is not None:
            raise self._failure.with_traceback(None)
        self._options = options
        began = time.monotonic()
        try:
            connection, server = await primary.find(**options)
        except Exception as error:
            if primary.is_away(error):
                self.look()
            raise
        if self._failure is not None:
            # It opened meanwhile, so this one may lead to a server that is lost.
            connection.terminate()
            raise self._failure.with_traceback(None)
        self._connected_at = time.monotonic()
        self._connecting_took_seconds = self._connected_at - began
        # A server that is lost behind an address that leads to another one now: nobody else will tell.
        primary.keep_alive(connection, idle_seconds=self._silence_seconds, probe_seconds=self._silence_seconds)
        self._connections[connection] = server
        return connection

    def look(self) -> None:
        """Find out whether the database is there, and which server it is, unless somebody does already."""
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._find_out(), name="look for the database")

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Look out for silence during the block."""
        asyncio.get_running_loop().set_exception_handler(_pass_over_ended)
        task = asyncio.create_task(self._watch(), name="circuit")
        try:
            yield
        finally:
            task.cancel()
            await asyncio.wait([task])

    async def close(self) -> None:
        """Look no more."""
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.wait([self._looking])

    @property
    def _answered_at(self) -> float:
        return max(self._connected_at, self._statement_answered_at())

    async def _watch(self) -> None:
        pause = self._silence_seconds / 10
        last, silent_since = self._answered_at, None
        while True:
            await asyncio.sleep(pause)
            now, answered = time.monotonic(), self._answered_at
            if answered != last or not self._waiting():
                last, silent_since = answered, None
            elif silent_since is None:
                silent_since = now
            elif now - silent_since > self._silence_seconds:
                silent_since = None
                if not self.open:
                    await self._find_out()
                if primary.is_silent(self._failure) and self._answered_at < now:
                    self._end_everything()

    async def _find_out(self) -> None:
        began = time.monotonic()
        server, failure = await self._look(max(self._silence_seconds, 2 * self._connecting_took_seconds))
        if server is not None:
            # A primary that is lost with all of its network ends no connection; the one that is there now does not
            # know them.
            self._end(lambda other: other != server)
        elif failure is not None and not self.open and self._answered_at < began:
            logger.warning("database away", reason=self._explain(failure))
            self._failure = failure.with_traceback(None)
            self._looking = asyncio.create_task(self._look_until_back(time.monotonic()), name="look for the database")

    async def _look_until_back(self, since: float) -> None:
        while self._failure is not None:
            await asyncio.sleep(random.uniform(*_PAUSE_SECONDS))  # noqa: S311 - not a secret
            # A short limit would never be met where opening a connection takes longer.
            _, failure = await self._look(max(self._silence_seconds, self._connect_seconds))
            self._failure = failure.with_traceback(None) if failure is not None else None
        self._connected_at = time.monotonic()
        logger.info("database back", seconds=round(time.monotonic() - since, 1))

    async def _look(self, seconds: float) -> tuple[str | None, BaseException | None]:
        """Which server answers, or why none does; neither, if one refuses the look for a reason of its own."""
        connection = None
        try:
            async with asyncio.timeout(seconds):
                connection, server = await primary.find(**self._options)
                # A pooler takes connections also for a server that is away.
                await connection.execute("SELECT 1")
                await connection.close()
                return server, None
        except Exception as error:  # Whatever it is, it is not there, unless it said itself what it lacks.
            if primary.is_away(error) or not isinstance(error, asyncpg.PostgresError):
                return None, error
            return None, None
        finally:
            if connection is not None and not connection.is_closed():
                connection.terminate()

    def _end_everything(self) -> None:
        self._end(lambda _: True)
        asking, self._asking = self._asking, set()
        for limit in asking:
            limit.reschedule(asyncio.get_running_loop().time())

    def _end(self, chosen: Callable[[str], bool]) -> None:
        for connection, server in list(self._connections.items()):
            if chosen(server) and not connection.is_closed():
                connection.terminate()


def _pass_over_ended(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Log what the event loop has to say, unless it is that nobody heard of the end of a connection.

    asyncpg tells it to whoever waits for an answer, or for the connection, and with some of its calls, ended by the
    same, nobody does.
    """
    if not isinstance(context.get("exception"), asyncpg.ConnectionDoesNotExistError | ConnectionError):
        loop.default_exception_handler(context)
