"""A look at the ledger every few seconds, so that the metrics know the database without asking it at each scrape."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import structlog

from app.database import Database
from app.database_errors import explain
from app.errors import DatabaseUnavailable
from app.services import ledger
from app.services.ledger import Stamp
from app.settings import Settings

logger = structlog.get_logger(__name__)


class LedgerWatch:
    """Knows whether the database answers, and the last change seen; logs when looks fail, and when they do no more.

    That the database is away is for the circuit to say: a look also fails where the server is there and refuses it.
    """

    def __init__(self, database: Database, settings: Settings, heard_of: Callable[[int], object]) -> None:
        self.up: bool | None = None
        self.head: Stamp | None = None
        self._database = database
        self._heard_of = heard_of
        self._pause_seconds = settings.ledger_watch_seconds
        # A database that takes longer for this than it may take to be reached at all is as good as away.
        self._patience_seconds = settings.database_connect_timeout_seconds
        self._away_since: float | None = None

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Watch during the block."""
        task = asyncio.create_task(self._watch(), name="ledger watch")
        try:
            yield
        finally:
            task.cancel()
            await asyncio.wait([task])

    async def _watch(self) -> None:
        while True:
            await self._look()
            await asyncio.sleep(self._pause_seconds)

    async def _look(self) -> None:
        started = time.monotonic()
        failure: Exception | None = None
        try:
            async with asyncio.timeout(self._patience_seconds):
                self.head = await self._read()
            self._heard_of(self.head.seq)
        except Exception as error:  # Whatever it is, the next look comes.
            failure = error
        # A pool in use may have no connection for this look, and still the database answers those who have one.
        if failure is None or self._database.answered_at >= started:
            self._back()
        else:
            self._away(started, failure)

    async def _read(self) -> Stamp:
        try:
            async with self._database.reading() as session:
                return await ledger.head(session)
        except DatabaseUnavailable:
            if not self.up:
                raise
        # The connection was of before, and cut; a new one tells whether the database is away, and why.
        async with self._database.reading() as session:
            return await ledger.head(session)

    def _away(self, since: float, error: Exception) -> None:
        self.up = False
        if self._away_since is None:
            self._away_since = since
            logger.warning("ledger not read", reason=explain(error, self._database.url))

    def _back(self) -> None:
        self.up = True
        if self._away_since is not None:
            logger.info("ledger read again", seconds=round(time.monotonic() - self._away_since, 1))
            self._away_since = None
