"""seq: gap-free, in commit order, and never seen out of order, however many write and fail at once."""

import asyncio
import json
import random
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import datetime

import asyncpg
import httpx2
import pytest
from fastapi import FastAPI
from sqlalchemy import event
from sqlalchemy.engine import URL
from sqlalchemy.ext.asyncio import AsyncEngine

from app.database import Database
from tests.support import postgres

WRITERS = 16
WRITES = 25


class Reader:
    """Looks at the log over and over, and remembers every seq it has seen."""

    def __init__(self) -> None:
        self.seen: list[int] = []
        self.looks = 0

    async def look(self, connection: asyncpg.Connection) -> None:
        newest = self.seen[-1] if self.seen else 0
        rows = await connection.fetch("SELECT seq FROM changes ORDER BY seq")
        found = [row["seq"] for row in rows]
        assert found[: len(self.seen)] == self.seen, "a seq appeared below one seen before"
        assert found == list(range(1, len(found) + 1)), "a gap"
        assert not found or found[-1] >= newest
        self.seen = found
        self.looks += 1


@asynccontextmanager
async def reading(url: URL) -> AsyncIterator[Reader]:
    reader, stop = Reader(), asyncio.Event()

    async def poll() -> None:
        connection = await asyncpg.connect(postgres.text(url))
        try:
            while not stop.is_set():
                await reader.look(connection)
            await reader.look(connection)
        finally:
            await connection.close()

    task = asyncio.create_task(poll())
    try:
        yield reader
    finally:
        stop.set()
        await task


@contextmanager
def failing_commits(engine: AsyncEngine, chance: random.Random) -> Iterator[list[int]]:
    """Let every fifth transaction or so fail at its very end, after it took its number."""
    failures: list[int] = []

    def fail(connection: object) -> None:
        if chance.random() < 0.2:
            failures.append(1)
            raise OSError("the connection broke before the commit")

    event.listen(engine.sync_engine, "commit", fail)
    try:
        yield failures
    finally:
        event.remove(engine.sync_engine, "commit", fail)


async def test_concurrent_writers_leave_no_gap_and_a_reader_sees_no_seq_late(
    client: httpx2.AsyncClient, app: FastAPI, owner_url: URL, owner: asyncpg.Connection
) -> None:
    await client.post("/v1/items", json={"name": "Contended", "sku": "contended", "price": {"amount": "1"}})
    chance = random.Random(7)  # noqa: S311 - not for secrets
    database: Database = app.state.database
    acknowledged: list[int] = []
    statuses: set[int] = set()

    async def write(writer: int) -> None:
        for number in range(WRITES):
            kind = chance.choice(
                ["item", "priced item", "price", "price", "duplicate", "empty interval", "stale patch"]
            )
            match kind:
                case "item" | "priced item":
                    body = {"name": f"{writer}-{number}", "sku": f"{writer}-{number}"}
                    priced = {"price": {"amount": str(number)}} if kind == "priced item" else {}
                    answer = await client.post("/v1/items", json=body | priced)
                case "price":
                    answer = await client.post("/v1/items/sku:contended/prices", json={"amount": str(number)})
                case "duplicate":  # fails after it took its number
                    answer = await client.post("/v1/items", json={"name": "Twin", "sku": "contended"})
                case "empty interval":  # likewise: only then does it know when it starts
                    body = {"amount": "1", "valid_to": "2020-01-01"}
                    answer = await client.post("/v1/items/sku:contended/prices", json=body)
                case "stale patch":
                    patch = {"name": "Lost"}
                    answer = await client.patch("/v1/items/sku:contended", json=patch, headers={"If-Match": '"9"'})
            statuses.add(answer.status_code)
            if answer.is_success:
                acknowledged.append(int(answer.headers["pricebook-seq"]))

    async with reading(owner_url) as reader:
        with failing_commits(database.writer, chance) as failures:
            await asyncio.gather(*(write(writer) for writer in range(WRITERS)))

    assert reader.looks > 20, "the reader looked on while the writers wrote"
    assert len(failures) > 20
    assert statuses == {201, 409, 412, 422, 503}
    assert len(set(acknowledged)) == len(acknowledged)
    head = await owner.fetchval("SELECT seq FROM ledger")
    assert reader.seen == list(range(1, head + 1))
    assert set(acknowledged) <= set(reader.seen)


async def test_recorded_at_grows_with_seq(client: httpx2.AsyncClient, owner: asyncpg.Connection) -> None:
    await asyncio.gather(
        *(client.post("/v1/items", json={"name": str(number), "price": {"amount": 1}}) for number in range(40))
    )
    rows = await owner.fetch("SELECT seq, at, type FROM changes WHERE seq > 1 ORDER BY seq")
    assert [row["seq"] for row in rows] == list(range(2, 82))
    transactions = [rows[place : place + 2] for place in range(0, 80, 2)]
    assert all([first["type"], second["type"]] == ["item.created", "price.recorded"] for first, second in transactions)
    assert all(first["at"] == second["at"] for first, second in transactions), "one transaction, one instant"
    instants = [first["at"] for first, _ in transactions]
    assert instants == sorted(set(instants)), "the next transaction is strictly later"


async def test_changes_hold_whole_documents(client: httpx2.AsyncClient, owner: asyncpg.Connection) -> None:
    await owner.set_type_codec("jsonb", schema="pg_catalog", encoder=str, decoder=json.loads)
    created = (await client.post("/v1/items", json={"name": "Old", "sku": "A", "attributes": {"a": 1}})).json()
    created.pop("price")
    changed = (await client.patch("/v1/items/sku:A", json={"name": "New"}, headers={"If-Match": "*"})).json()
    archived = (await client.delete("/v1/items/sku:A", headers={"If-Match": "*"})).json()
    rows = await owner.fetch("SELECT seq, at, actor, type, before, after FROM changes WHERE seq > 1 ORDER BY seq")
    assert [(row["seq"], row["type"], row["before"], row["after"]) for row in rows] == [
        (2, "item.created", None, created),
        (3, "item.updated", created, changed),
        (4, "item.archived", changed, archived),
    ]
    assert [row["at"] for row in rows] == [
        datetime.fromisoformat(document["updated_at"]) for document in (created, changed, archived)
    ]
    assert {row["actor"] for row in rows} == {"anonymous"}


@pytest.mark.parametrize("table", ["price_rows", "price_retirements", "changes"])
async def test_history_cannot_be_rewritten_even_by_the_owner(
    client: httpx2.AsyncClient, owner: asyncpg.Connection, table: str
) -> None:
    item = (await client.post("/v1/items", json={"name": "x", "price": {"amount": 1}})).json()
    body = {"amount": 2, "supersedes": item["price"]["price_id"]}
    assert (await client.post(f"/v1/items/{item['id']}/prices", json=body)).status_code == 201
    with pytest.raises(asyncpg.RestrictViolationError, match="record a new row instead"):
        await owner.execute(f"UPDATE {table} SET seq = seq + 100")  # noqa: S608 - a fixed name
