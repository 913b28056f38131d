"""Defects and a database in trouble: a clear problem, a log line that finds it, and no false success."""

import asyncio
import io
import json
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import httpx2
import pytest
from fastapi import FastAPI, Request
from sqlalchemy import event, text
from sqlalchemy.engine import URL
from sqlalchemy.exc import DBAPIError

from app.database import Database, ReadSession, WriteSession
from app.database_errors import explain
from app.errors import Busy
from app.main import create_app
from app.observability import logs
from app.settings import Settings
from tests.conftest import make_settings
from tests.support import postgres


@asynccontextmanager
async def client_of(app: FastAPI) -> AsyncIterator[httpx2.AsyncClient]:
    transport = httpx2.ASGITransport(app=app)
    async with (
        app.router.lifespan_context(app),
        httpx2.AsyncClient(transport=transport, base_url="http://pricebook.test") as client,
    ):
        yield client


def slug(answer: httpx2.Response) -> tuple[int, str]:
    assert answer.headers["content-type"] == "application/problem+json"
    return answer.status_code, answer.json()["type"].removeprefix("/problems/")


async def test_a_defect_answers_a_problem_and_is_logged_with_its_request(
    settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    app = create_app(settings)

    @app.get("/defect")
    async def defect() -> None:
        raise RuntimeError("a secret detail")

    async with client_of(app) as client:
        with caplog.at_level(logging.INFO):
            answer = await client.get("/defect", headers={"X-Request-Id": "till-7.1"})
    assert slug(answer) == (500, "internal-error")
    assert "secret" not in answer.text
    assert answer.json()["request_id"] == answer.headers["x-request-id"] == "till-7.1"


async def test_the_log_of_a_defect_holds_no_body_and_no_credential(settings: Settings) -> None:
    app = create_app(settings)

    @app.post("/defect")
    async def defect(request: Request) -> None:
        body = await request.json()
        raise RuntimeError(f"a defect with {len(body)} fields")

    handler = logging.StreamHandler(log := io.StringIO())
    handler.setFormatter(logs.formatter("json"))
    logging.getLogger().addHandler(handler)
    try:
        async with client_of(app) as client:
            headers = {"Authorization": "Bearer pb_1_hunter2"}
            await client.post("/defect", json={"name": "PRIVATE"}, headers=headers)
    finally:
        logging.getLogger().removeHandler(handler)
    failure = next(json.loads(line) for line in log.getvalue().splitlines() if "exception" in line)
    assert failure["exception"][0]["exc_value"] == "a defect with 1 fields"
    assert failure["request_id"]
    assert "PRIVATE" not in log.getvalue()
    assert "hunter2" not in log.getvalue()


@pytest.mark.parametrize(
    "query",
    [
        "SELECT CAST(CAST(:value AS text) AS integer)",
        "SELECT CAST(CAST(:value AS text) AS timestamptz)",
        "SELECT CAST(:value AS integer)",
    ],
    ids=["no number", "no instant", "refused by the driver"],
)
@pytest.mark.parametrize("value", ["hunter2", "'hunter2", 'a\n"hunter2'])
async def test_the_log_of_a_defect_holds_no_value_that_the_database_refused(
    settings: Settings, query: str, value: str
) -> None:
    app = create_app(settings)
    database: Database = app.state.database

    @app.get("/defect")
    async def defect() -> None:
        async with database.reading() as session:
            await session.execute(text(query), {"value": value})

    handler = logging.StreamHandler(log := io.StringIO())
    handler.setFormatter(logs.formatter("json"))
    logging.getLogger().addHandler(handler)
    try:
        async with client_of(app) as client:
            assert slug(await client.get("/defect")) == (500, "internal-error")
    finally:
        logging.getLogger().removeHandler(handler)
    (failure,) = [line for line in log.getvalue().splitlines() if '"exception"' in line]
    assert "hunter2" not in failure
    assert query.partition(":")[0] in failure, "the statement is what a person needs"
    with pytest.raises(DBAPIError) as refusal:
        async with database.reading() as session:
            await session.execute(text(query), {"value": value})
    assert "hunter2" not in explain(refusal.value, database.url)
    await database.close()


async def test_every_time_limit_reaches_the_database(settings: Settings) -> None:
    limits = {
        "statement_timeout": "database_statement_timeout_milliseconds",
        "lock_timeout": "database_lock_timeout_milliseconds",
        "idle_in_transaction_session_timeout": "database_idle_transaction_timeout_milliseconds",
    }
    values = {name: 1111 + place for place, name in enumerate(limits.values())}
    database = Database(settings.model_copy(update=values))
    try:
        for opened in (database.reading(), database.writing()):
            async with opened as session:
                for parameter, name in limits.items():
                    shown = await session.scalar(text(f"SHOW {parameter}"))
                    assert shown == f"{values[name]}ms", name
    finally:
        await database.close()


@pytest.mark.parametrize("request_id", ["a b", "x" * 65, "a\u00fc", ""])
async def test_a_request_id_that_could_confuse_a_log_is_replaced(client: httpx2.AsyncClient, request_id: str) -> None:
    answer = await client.get("/items/", headers=[(b"X-Request-Id", request_id.encode())])
    assert answer.headers["x-request-id"] != request_id
    assert len(answer.headers["x-request-id"]) == 32


async def test_a_failing_commit_is_never_answered_with_success(client: httpx2.AsyncClient, app: FastAPI) -> None:
    database: Database = app.state.database

    def fail(_: object) -> None:
        raise OSError("cut")

    event.listen(database.writer.sync_engine, "commit", fail)
    try:
        answers = [
            await client.post("/items/", json={"name": "x", "price": 1}),
            await client.post("/v1/items", json={"name": "x"}),
        ]
    finally:
        event.remove(database.writer.sync_engine, "commit", fail)
    assert [slug(answer) for answer in answers] == [(503, "database-unavailable")] * 2
    assert (await client.get("/items/")).json() == []


async def test_a_database_that_is_away_answers_503_and_comes_back_by_itself(server: URL, own_url: URL) -> None:
    async with client_of(create_app(make_settings(own_url))) as client:
        assert (await client.post("/items/", json={"name": "x", "price": 1})).status_code == 200
        admin = await asyncpg.connect(postgres.text(server))
        try:
            await admin.execute(f'ALTER DATABASE "{own_url.database}" WITH ALLOW_CONNECTIONS false')
            await admin.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1", own_url.database
            )
            for answer in [
                await client.get("/items/"),
                await client.get("/items/"),
                await client.post("/items/", json={"name": "y", "price": 1}),
            ]:
                assert slug(answer) == (503, "database-unavailable")
                assert answer.json()["detail"] == "The database takes no connections. Try again later."
                assert int(answer.headers["retry-after"]) > 0
            await admin.execute(f'ALTER DATABASE "{own_url.database}" WITH ALLOW_CONNECTIONS true')
        finally:
            await admin.close()
        assert [item["name"] for item in (await client.get("/items/")).json()] == ["x"]


async def test_an_unreachable_server_answers_503(settings: Settings) -> None:
    nowhere = make_settings(settings.sqlalchemy_url.set(host="127.0.0.1", port=1, query={}))
    async with client_of(create_app(nowhere)) as client:
        assert slug(await client.get("/v1/items")) == (503, "database-unavailable")


async def test_a_write_that_waits_too_long_gives_up(
    client: httpx2.AsyncClient, owner: asyncpg.Connection, settings: Settings
) -> None:
    impatient = settings.model_copy(update={"database_lock_timeout_milliseconds": 50})
    async with client_of(create_app(impatient)) as other, owner.transaction():
        await owner.execute("UPDATE ledger SET seq = seq")
        answer = await other.post("/items/", json={"name": "x", "price": 1})
    assert slug(answer) == (503, "busy")
    assert int(answer.headers["retry-after"]) > 0
    assert (await client.get("/items/")).json() == []


async def test_a_statement_that_takes_too_long_is_ended(settings: Settings) -> None:
    impatient = settings.model_copy(update={"database_statement_timeout_milliseconds": 50})
    database = Database(impatient)
    try:
        with pytest.raises(Busy):
            async with database.reading() as session:
                await session.execute(text("SELECT pg_sleep(5)"))
    finally:
        await database.close()


async def test_no_connection_free_in_time(settings: Settings) -> None:
    small = settings.model_copy(update={"database_pool_size": 1, "database_pool_timeout_seconds": 0.05})
    database = Database(small)

    async def hold(release: asyncio.Event, held: asyncio.Event) -> None:
        async with database.reading() as session:
            await session.execute(text("SELECT 1"))
            held.set()
            await release.wait()

    release, held = asyncio.Event(), asyncio.Event()
    task = asyncio.create_task(hold(release, held))
    await held.wait()
    try:
        with pytest.raises(Busy):
            async with database.reading() as session:
                await session.execute(text("SELECT 1"))
    finally:
        release.set()
        await task
        await database.close()


async def test_readers_cannot_write(app: FastAPI) -> None:
    database: Database = app.state.database
    with pytest.raises(DBAPIError, match="read-only"):
        async with database.reading() as session:
            await session.execute(text("UPDATE ledger SET seq = seq"))
    assert not issubclass(ReadSession, WriteSession)
    assert not issubclass(WriteSession, ReadSession)


async def test_two_writers_cannot_correct_the_same_row(client: httpx2.AsyncClient) -> None:
    created: dict[str, Any] = (await client.post("/v1/items", json={"name": "x", "price": {"amount": 1}})).json()
    body = {"amount": 2, "supersedes": created["price"]["price_id"]}
    answers = await asyncio.gather(*(client.post(f"/v1/items/{created['id']}/prices", json=body) for _ in range(8)))
    assert sorted(answer.status_code for answer in answers) == [201] + [409] * 7
