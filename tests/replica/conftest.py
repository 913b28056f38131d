"""A primary and a standby that streams from it, and applications that read from the standby."""

import asyncio
import logging
import signal
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from app.migrations import migrate
from app.replica import Replica as Standby
from tests.api.test_changes import create, until
from tests.api.test_response_cache import Replica, replica
from tests.conftest import CLEAR, make_settings
from tests.failover import servers
from tests.failover.servers import Pair, Server
from tests.support import postgres

LAG_SECONDS = 0.6


class Reads:
    """Two servers, of which one follows the other, and applications over both."""

    def __init__(self, pair: Pair, primary: asyncpg.Connection, log: pytest.LogCaptureFixture) -> None:
        self.pair = pair
        self.primary = primary
        self._log = log

    @asynccontextmanager
    async def service(self, server: Server | None = None, **changes: Any) -> AsyncIterator[Replica]:
        """An application that reads from the standby, or from this server, as soon as it does."""
        async with self.away(server, **changes) as client:
            await until(lambda: standby(client).in_use)
            yield client

    @asynccontextmanager
    async def away(self, server: Server | None = None, **changes: Any) -> AsyncIterator[Replica]:
        """The same, and nobody waits for the standby."""
        url = postgres.as_serving_role((server or self.pair.standby).url)
        values: dict[str, Any] = {
            "database_read_url": postgres.text(url),
            "database_read_lag_seconds": LAG_SECONDS,
            "min_seq_wait_seconds": 5,
            **changes,
        }
        async with replica(self.pair.primary.url, **values) as client:
            yield client

    async def ask(self, question: str, server: Server | None = None) -> Any:
        """The single value of a query to the standby, or to this server."""
        connection = await asyncpg.connect(postgres.text((server or self.pair.standby).url), timeout=10)
        try:
            return await connection.fetchval(question)
        finally:
            await connection.close()

    async def caught_up(self) -> None:
        """Wait until the standby has all that the primary has."""
        end = await self.primary.fetchval("SELECT pg_current_wal_flush_lsn()::text")
        while not await self.ask(f"SELECT pg_last_wal_replay_lsn() >= '{end}'"):  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.01)

    async def pause(self) -> None:
        """Let the standby stay as it is now, with all that the primary has."""
        await self.caught_up()
        await self.ask("SELECT pg_wal_replay_pause()")
        while await self.ask("SELECT pg_get_wal_replay_pause_state()") != "paused":
            pass

    async def resume(self) -> None:
        """Let the standby come to what the primary has, and go on."""
        await self.ask("SELECT pg_wal_replay_resume()")

    async def delay(self, by: str) -> None:
        """Let the standby apply what it gets only after this time."""
        for statement in (f"ALTER SYSTEM SET recovery_min_apply_delay = '{by}'", "SELECT pg_reload_conf()"):
            await self.ask(statement)

    def said(self) -> list[str]:
        """Where reads went, as the log has it."""
        events = [record.msg["event"] for record in self._log.records if isinstance(record.msg, dict)]
        return [event for event in events if event.startswith("reads go to")]


def standby(client: Replica) -> Standby:
    found: Standby = client.app.state.database.replica
    return found


@pytest.fixture(scope="module")
def _pair() -> Iterator[Pair]:
    # Not below pytest's own directory, which other runs of pytest close to the user that PostgreSQL runs as.
    with (
        tempfile.TemporaryDirectory(prefix="pricebook-replica-") as directory,
        servers.running(Path(directory)) as pair,
    ):
        yield pair


@pytest.fixture(scope="module")
async def _migrated(_pair: Pair, anyio_backend: str) -> Pair:
    await migrate(make_settings(_pair.primary.url, serving_role=postgres.SERVING_ROLE))
    return _pair


@pytest.fixture(scope="module")
async def _writer(_migrated: Pair) -> AsyncIterator[Replica]:
    async with replica(_migrated.primary.url) as client:
        yield client


@pytest.fixture
async def reads(_migrated: Pair, _writer: Replica, caplog: pytest.LogCaptureFixture) -> AsyncIterator[Reads]:
    """Both servers as they should be, with the item A, which costs 1."""
    caplog.set_level(logging.INFO)
    primary = await asyncpg.connect(postgres.text(_migrated.primary.url))
    await primary.execute(CLEAR)
    reads = Reads(_migrated, primary, caplog)
    await create(_writer, sku="A", price={"amount": "1", "valid_from": "2024-01-01"})
    await reads.caught_up()
    yield reads
    _migrated.standby.signal(signal.SIGCONT)
    await reads.resume()
    await primary.close()
