"""The database goes away while a file is read: nothing is written, and the file can be sent again."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import asyncpg
import httpx2
import pytest
from fastapi import FastAPI

CSV = {"content-type": "text/csv"}
_BATCH = b"".join(b"A-%d,Article,%s,1.50,19\n" % (number, b"x" * 1_500) for number in range(1_000))
"""More than is kept in memory before it goes to the staging table."""

_TERMINATE = """
    SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity
    WHERE datname = current_database() AND application_name = 'pricebook'
"""


@pytest.fixture(autouse=True)
async def _living_connections(app: FastAPI) -> AsyncIterator[None]:
    """Other tests share the pools: leave them without connections that have ended."""
    yield
    for engine in (app.state.database.reader, app.state.database.writer, app.state.database.importer):
        await engine.dispose()


async def _file(between: Callable[[], Awaitable[object]] | None = None) -> AsyncIterator[bytes]:
    yield b"sku,name,description,amount,tax_rate\n" + _BATCH
    if between is not None:
        await between()
    yield b"B,Bear,,2.00,19\n"


async def _is_unavailable(client: httpx2.AsyncClient, answer: httpx2.Response) -> str:
    assert answer.status_code == 503, answer.text
    assert answer.json()["type"] == "/problems/database-unavailable"
    assert answer.headers["retry-after"] == "2"
    (run,) = (await client.get("/v1/imports")).json()["items"]
    assert (run["state"], run["counts"]) == ("failed", None)
    assert (await client.get("/v1/changes", params={"after": 1})).json()["changes"] == []
    return str(run["failure"])


async def test_rows_that_a_crash_took_away_are_missed(client: httpx2.AsyncClient, owner: asyncpg.Connection) -> None:
    # Recovery empties unlogged tables. The next rows may come by a new connection, and nobody else notices.
    answer = await client.post(
        "/v1/imports",
        params={"mode": "apply"},
        content=_file(lambda: owner.execute("TRUNCATE import_staging")),
        headers=CSV,
    )
    reason = await _is_unavailable(client, answer)
    assert reason.startswith("The database was restarted while the file was read")
    again = await client.post("/v1/imports", params={"mode": "apply"}, content=_file(), headers=CSV)
    assert (again.status_code, again.json()["counts"]["create"]) == (201, 1_001)


async def test_connections_that_end_between_two_batches_are_replaced(
    client: httpx2.AsyncClient, owner: asyncpg.Connection
) -> None:
    async def terminate() -> None:
        await owner.execute(_TERMINATE)
        # The end of a connection is read a turn of the event loop after the server's last words on it.
        await asyncio.sleep(0.1)

    answer = await client.post("/v1/imports", content=_file(terminate), headers=CSV)
    assert (answer.status_code, answer.json()["counts"]["create"]) == (201, 1_001)


_SLOW = """
    CREATE FUNCTION fall_asleep() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(300); RETURN NEW; END';
    CREATE TRIGGER fall_asleep BEFORE INSERT ON import_staging EXECUTE FUNCTION fall_asleep();
"""
_ASLEEP = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'PgSleep'"


async def test_a_connection_that_ends_while_much_is_waiting_to_be_sent(
    client: httpx2.AsyncClient, owner: asyncpg.Connection
) -> None:
    await owner.execute(_SLOW)
    try:
        upload = asyncio.create_task(client.post("/v1/imports", content=_file(), headers=CSV))
        while not await owner.fetchval(_ASLEEP):  # noqa: ASYNC110 - PostgreSQL sets no event
            await asyncio.sleep(0.05)
        await owner.execute(_TERMINATE)
        answer = await asyncio.wait_for(upload, 60)
    finally:
        await owner.execute("DROP FUNCTION fall_asleep CASCADE")
    while (await client.get("/v1/imports")).status_code == 503:
        pass
    assert await _is_unavailable(client, answer) == "The database cannot be reached. Try again."
