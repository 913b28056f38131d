"""The watch tells a database that is away from one that is busy, says so once, and survives whatever happens to it."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import pytest
from fastapi import FastAPI
from sqlalchemy import text
from sqlalchemy.engine import URL

from app.database import Database
from app.main import create_app
from app.services import ledger
from tests.api.test_trouble import client_of
from tests.conftest import make_settings
from tests.observability.test_metrics import Samples, samples, value
from tests.support import postgres

QUICK = {"ledger_watch_seconds": 0.05, "database_connect_timeout_seconds": 0.5}


@pytest.fixture
async def watched(own_url: URL) -> FastAPI:
    """An application, not started, that looks often, over a database of its own."""
    return create_app(make_settings(own_url, database_pool_size=1, **QUICK))


async def until(app: FastAPI, condition: Callable[[Samples], bool]) -> Samples:
    """The metrics, as soon as they fulfil the condition."""
    deadline = time.monotonic() + 20
    while not condition(found := await samples(app)):
        assert time.monotonic() < deadline, found
        await asyncio.sleep(0.02)
    return found


async def until_up(app: FastAPI, expected: int) -> Samples:
    return await until(app, lambda found: value(found, "pricebook_database_up") == expected)


def said(caplog: pytest.LogCaptureFixture) -> list[dict[str, Any]]:
    records: list[Any] = [record.msg for record in caplog.records]
    return [
        record
        for record in records
        if isinstance(record, dict) and record["event"].startswith(("ledger ", "database "))
    ]


@asynccontextmanager
async def without_database(server: URL, name: str | None, *, refuse: bool = True) -> AsyncIterator[None]:
    """Cut all connections of a database, and refuse new ones during the block."""
    admin = await asyncpg.connect(postgres.text(server))
    try:
        await admin.execute(f'ALTER DATABASE "{name}" WITH ALLOW_CONNECTIONS {not refuse}')
        await admin.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1", name)
        yield
        await admin.execute(f'ALTER DATABASE "{name}" WITH ALLOW_CONNECTIONS true')
    finally:
        await admin.close()


async def test_the_head_of_the_ledger_is_followed(watched: FastAPI) -> None:
    async with client_of(watched) as client:
        before = await until_up(watched, 1)
        assert value(before, "pricebook_ledger_seq") == 1
        answer = await client.post("/v1/items", json={"name": "x", "price": {"amount": 1}})
        after = await until(watched, lambda found: value(found, "pricebook_ledger_seq") == 3)
        assert answer.headers["pricebook-seq"] == "3"
        name = "pricebook_ledger_change_timestamp_seconds"
        assert value(before, name) < value(after, name)
        assert value(after, name) == pytest.approx(value(after, "process_start_time_seconds"), abs=7200)


async def test_a_database_that_goes_away_and_comes_back(
    watched: FastAPI, server: URL, own_url: URL, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with client_of(watched):
        await until_up(watched, 1)
        assert said(caplog) == []
        async with without_database(server, own_url.database):
            away = await until_up(watched, 0)
            await asyncio.sleep(0.5)  # many looks
            assert [line["event"] for line in said(caplog)] == ["ledger not read"]
            assert "not currently accepting connections" in said(caplog)[0]["reason"]
            assert value(away, "pricebook_ledger_seq") == 1, "as last seen"
        await until_up(watched, 1)
        await asyncio.sleep(0.2)
    assert [line["event"] for line in said(caplog)] == ["ledger not read", "ledger read again"]
    assert said(caplog)[1]["seconds"] >= 0.4


async def test_a_connection_that_was_cut_is_no_database_that_is_away(
    watched: FastAPI, server: URL, own_url: URL, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    name = "pricebook_database_statement_seconds_count"
    async with client_of(watched):
        await until_up(watched, 1)
        async with without_database(server, own_url.database, refuse=False):
            before = value(await samples(watched), name, pool="reader")
            await until(watched, lambda found: value(found, name, pool="reader") > before + 5)
    assert said(caplog) == []


async def test_a_database_that_is_not_there_from_the_start(own_url: URL, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    app = create_app(make_settings(own_url.set(host="127.0.0.1", port=1, query={}), **QUICK))
    async with client_of(app):
        found = await until(app, lambda _: bool(said(caplog)))
        assert value(found, "pricebook_database_up") == 0
        assert not any(name.startswith("pricebook_ledger") for name, _ in found)


async def test_a_database_that_does_not_answer_is_away_unless_it_answers_others(
    watched: FastAPI, owner_of_fresh: asyncpg.Connection
) -> None:
    database: Database = watched.state.database
    async with client_of(watched):
        await until_up(watched, 1)
        async with owner_of_fresh.transaction():
            await owner_of_fresh.execute("LOCK TABLE ledger IN ACCESS EXCLUSIVE MODE")
            await until_up(watched, 0)
            # Now requests have the only connection, and get their answers.
            async with database.reading() as session:
                await session.execute(text("SELECT 1"))
                up: list[float] = []
                for _ in range(60):
                    await session.execute(text("SELECT 1"))
                    up.append(value(await samples(watched), "pricebook_database_up"))
                    await asyncio.sleep(0.02)
                assert up[-1] == 1


@pytest.fixture
async def owner_of_fresh(own_url: URL) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(postgres.text(own_url))
    yield connection
    await connection.close()


async def test_a_defect_does_not_end_it(
    watched: FastAPI, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def fail(_: object) -> None:
        raise RuntimeError("a defect")

    async with client_of(watched) as client:
        await until_up(watched, 1)
        with monkeypatch.context() as broken:
            broken.setattr(ledger, "head", fail)
            await until_up(watched, 0)
            assert "a defect" in said(caplog)[0]["reason"]
            assert (await client.get("/v1/books")).status_code == 200
        await until_up(watched, 1)


async def test_it_ends_with_the_application_even_in_the_middle_of_a_look(
    watched: FastAPI, owner_of_fresh: asyncpg.Connection
) -> None:
    before = asyncio.all_tasks()
    async with owner_of_fresh.transaction():
        await owner_of_fresh.execute("LOCK TABLE ledger IN ACCESS EXCLUSIVE MODE")
        async with asyncio.timeout(10), client_of(watched):
            await asyncio.sleep(0.2)
    assert asyncio.all_tasks() <= before
