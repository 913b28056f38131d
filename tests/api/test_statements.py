"""What a request costs the database: a fixed number of statements, whatever it asks for."""

from collections.abc import Iterator
from contextlib import contextmanager

import httpx2
import pytest
from fastapi import FastAPI
from sqlalchemy import event

from app.database import Database


@contextmanager
def statements(app: FastAPI) -> Iterator[list[str]]:
    """Collects the SQL that the application runs."""
    database: Database = app.state.database
    seen: list[str] = []

    def record(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        seen.append(statement)

    engines = [database.reader.sync_engine, database.writer.sync_engine, database.importer.sync_engine]
    for engine in engines:
        event.listen(engine, "before_cursor_execute", record)
    try:
        yield seen
    finally:
        for engine in engines:
            event.remove(engine, "before_cursor_execute", record)


@pytest.mark.parametrize(
    ("path", "count"),
    [
        ("/items/sku:S7", 1),
        ("/items/?limit=50", 1),
        ("/v1/items/sku:S7", 1),
        ("/v1/items?limit=50", 1),
        ("/v1/items/sku:S7/price", 1),
        ("/v1/items/sku:S7/price?at=2026-12-24T00:00:00Z&quantity=5", 1),
        ("/v1/items/sku:S7/price?at=2026-12-24", 2),  # a bare date needs the book's time zone first
        ("/v1/export", 3),  # the book, a batch, and the batch after the last item
    ],
)
async def test_reads(client: httpx2.AsyncClient, app: FastAPI, path: str, count: int) -> None:
    for number in range(60):
        await client.post("/v1/items", json={"name": "x", "sku": f"S{number}", "price": {"amount": number}})
    with statements(app) as seen:
        answer = await client.get(path)
    assert answer.status_code == 200
    assert len(seen) == count, seen


async def test_writes(client: httpx2.AsyncClient, app: FastAPI) -> None:
    with statements(app) as seen:
        await client.post("/v1/items", json={"name": "x", "sku": "A"})
    assert [statement.split()[0] for statement in seen] == ["UPDATE", "INSERT", "INSERT"]
    with statements(app) as seen:
        await client.post("/v1/items/sku:A/prices", json={"amount": 1})
    assert [statement.split()[0] for statement in seen] == ["SELECT", "WITH"]
