"""What the database fails is tried again where that is safe, and where it is not, the answer says so."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import asyncpg
import httpx2
import pytest
from fastapi import FastAPI
from sqlalchemy import text

from app.database import Database, WriteSession
from app.observability.metrics import RETRIES
from app.services import import_apply, ledger
from app.services.ledger import Block

ITEM = {"name": "Tent", "sku": "TENT", "price": {"amount": "200"}}


def retries(cause: str) -> float:
    return float(RETRIES.labels(cause)._value.get())


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Let PostgreSQL fail writes as it fails them, so many times."""
    plan: dict[str, Any] = {"times": 0, "code": "40001", "seen": 0}
    advance = ledger.advance_block

    async def fail(session: WriteSession, count: int) -> Block:
        plan["seen"] += 1
        if plan["times"]:
            plan["times"] -= 1
            await session.execute(text(f"DO $$ BEGIN RAISE EXCEPTION 'no' USING ERRCODE = '{plan['code']}'; END $$"))
        return await advance(session, count)

    monkeypatch.setattr(ledger, "advance_block", fail)
    return plan


@pytest.mark.parametrize(("code", "cause"), [("40001", "serialization"), ("40P01", "deadlock")])
async def test_a_write_that_lost_against_another_is_tried_again(
    client: httpx2.AsyncClient, owner: asyncpg.Connection, failing: dict[str, Any], code: str, cause: str
) -> None:
    failing |= {"times": 2, "code": code}
    before = retries(cause)
    assert (await client.post("/v1/items", json=ITEM)).status_code == 201
    assert await owner.fetchval("SELECT count(*) FROM items") == 1
    assert retries(cause) - before == 2


async def test_the_tries_have_an_end(
    client: httpx2.AsyncClient, owner: asyncpg.Connection, failing: dict[str, Any]
) -> None:
    failing["times"] = 1000
    answer = await client.post("/v1/items", json=ITEM)
    assert (answer.status_code, answer.json()["type"]) == (503, "/problems/busy")
    assert answer.headers["Retry-After"] == "1"
    assert failing["seen"] == 3
    failing["times"] = 0
    assert (await client.post("/v1/items", json=ITEM)).status_code == 201


async def test_a_lock_that_took_too_long_is_not_waited_for_again(
    client: httpx2.AsyncClient, failing: dict[str, Any]
) -> None:
    failing |= {"times": 1, "code": "55P03"}
    assert (await client.post("/v1/items", json=ITEM)).status_code == 503
    assert failing["seen"] == 1


@pytest.mark.parametrize(
    ("code", "detail"),
    [
        ("53100", "no room left on its disk"),
        ("53200", "no memory left"),
        ("53300", "no connection left"),
        ("53400", "out of something"),
        ("28P01", "refuses the service's credentials"),
        ("3D000", "does not have the service's database"),
        ("55000", "takes no connections"),
    ],
)
async def test_what_a_server_refuses_that_is_there_is_said_and_not_tried_again(
    client: httpx2.AsyncClient, failing: dict[str, Any], code: str, detail: str
) -> None:
    failing |= {"times": 1, "code": code}
    before = retries("connection")
    answer = await client.post("/v1/items", json=ITEM, headers={"Idempotency-Key": "once"})
    assert (answer.status_code, answer.json()["type"]) == (503, "/problems/database-unavailable")
    assert detail in answer.json()["detail"]
    assert answer.headers["Retry-After"] == "2"
    assert (failing["seen"], retries("connection")) == (1, before)
    assert (await client.post("/v1/items", json=ITEM, headers={"Idempotency-Key": "once"})).status_code == 201


async def test_against_a_database_that_is_known_to_be_away_nothing_is_tried_again(
    app: FastAPI, client: httpx2.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    database: Database = app.state.database
    tried = 0

    async def lose(*_: object) -> None:
        nonlocal tried
        tried += 1
        # Found by somebody else, just before this request hears of its own connection.
        monkeypatch.setattr(database.circuit, "_failure", ConnectionRefusedError("refused"))
        raise ConnectionResetError("cut")

    monkeypatch.setattr(ledger, "advance_block", lose)
    before = retries("connection")
    answer = await client.post("/v1/items", json=ITEM)
    assert (answer.status_code, answer.json()["detail"]) == (503, "The database cannot be reached. Try again.")
    assert (tried, retries("connection")) == (1, before)


@contextmanager
def cut_after_commit(app: FastAPI, times: int, pool: str = "writer") -> Iterator[None]:
    """The connection breaks after the commit has got through and before PostgreSQL's answer to it is there."""
    # Every engine has one of its own; uploads are applied by the importer's.
    dialect = getattr(app.state.database, pool).sync_engine.dialect
    commit = dialect.do_commit

    def lost(connection: Any) -> None:
        nonlocal times
        commit(connection)
        if times:
            times -= 1
            raise ConnectionResetError("cut")

    dialect.do_commit = lost
    try:
        yield
    finally:
        dialect.do_commit = commit


async def test_a_commit_whose_answer_is_lost_is_not_done_twice(
    app: FastAPI, client: httpx2.AsyncClient, owner: asyncpg.Connection
) -> None:
    with cut_after_commit(app, 1):
        answer = await client.post("/v1/items", json={"name": "Tent"})
    assert (answer.status_code, answer.json()["type"]) == (503, "/problems/database-unavailable")
    assert "may be there or not" in answer.json()["detail"]
    assert await owner.fetchval("SELECT count(*) FROM items") == 1


async def test_with_an_idempotency_key_it_is_found(
    app: FastAPI, client: httpx2.AsyncClient, owner: asyncpg.Connection
) -> None:
    with cut_after_commit(app, 1):
        answer = await client.post("/v1/items", json={"name": "Tent"}, headers={"Idempotency-Key": "once"})
    assert answer.status_code == 201
    # The client has sent it once, and this is its first answer.
    assert "Idempotency-Replayed" not in answer.headers
    again = await client.post("/v1/items", json={"name": "Tent"}, headers={"Idempotency-Key": "once"})
    assert again.headers["Idempotency-Replayed"] == "true"
    assert again.json() == answer.json()
    assert await owner.fetchval("SELECT count(*) FROM items") == 1


async def test_the_answer_of_an_upload_is_found(
    app: FastAPI, client: httpx2.AsyncClient, owner: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = import_apply.write
    with ExitStack() as stack:

        async def write_for_the_last_time(*arguments: Any, **options: Any) -> Any:
            stack.enter_context(cut_after_commit(app, 1, "importer"))
            return await write(*arguments, **options)

        monkeypatch.setattr(import_apply, "write", write_for_the_last_time)
        headers = {"Content-Type": "text/csv", "Idempotency-Key": "once"}
        answer = await client.post("/v1/imports?mode=apply", content=b"sku,name,amount\nP,P,1\n", headers=headers)
    assert (answer.status_code, answer.json()["state"]) == (201, "applied")
    assert await owner.fetchval("SELECT count(*) FROM price_rows") == 1


async def test_a_new_key_is_not_lost_with_the_answer_to_its_commit(app: FastAPI, client: httpx2.AsyncClient) -> None:
    document = {"name": "till", "scopes": ["quotes"]}
    with cut_after_commit(app, 1):
        answer = await client.post("/v1/keys", json=document, headers={"Idempotency-Key": "once"})
    assert answer.status_code == 201, answer.text
    key = answer.json()["key"]
    assert (await client.get("/v1/whoami", headers={"Authorization": f"Bearer {key}"})).json()["name"] == "till"


async def test_connections_that_are_gone_cost_no_request(
    app: FastAPI, client: httpx2.AsyncClient, owner: asyncpg.Connection
) -> None:
    await client.post("/v1/items", json=ITEM)
    gone = (
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity "
        "WHERE datname = current_database() AND application_name = 'pricebook'"
    )
    requests: list[tuple[str, str, Any]] = [
        ("GET", "/v1/items", None),
        ("GET", "/v1/items/sku:TENT/price", None),
        ("POST", "/v1/items/sku:TENT/prices", {"amount": "1"}),
        ("POST", "/v1/prices:lookup", {"lines": [{"item": "sku:TENT"}]}),
    ]
    for method, path, document in requests:
        assert (await client.request(method, path, json=document)).is_success
        assert await owner.fetchval(gone) >= 1
        answer = await client.request(method, path, json=document)
        assert answer.is_success, answer.text
    assert await owner.fetchval("SELECT count(*) FROM price_rows") == 3
