"""Databases of the bench's own, and the items in them: written and checked through each server's own API."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import asyncpg
import httpx2
from sqlalchemy.engine import URL

from bench import BenchFailed

ITEMS = 1_000
_CONCURRENCY = 8


async def recreate(server: URL, databases: list[str]) -> str:
    """Drop and create databases. Returns the version of PostgreSQL."""
    connection = await _connect(server)
    try:
        for database in databases:
            await connection.execute(f'DROP DATABASE IF EXISTS "{database}" WITH (FORCE)')
            await connection.execute(f'CREATE DATABASE "{database}"')
        version: str = await connection.fetchval("SHOW server_version")
        return version
    finally:
        await connection.close()


async def settle(database: URL) -> None:
    """Do now what autovacuum would do in the middle of the measurement."""
    connection = await _connect(database)
    try:
        await connection.execute("VACUUM ANALYZE")
        await connection.execute("CHECKPOINT")
    finally:
        await connection.close()


async def fill_tutorial(url: str) -> list[str]:
    """Create items with a price each. Returns the paths that read them.

    :raises BenchFailed: if an answer is not the one expected.
    """

    async def fill(client: httpx2.AsyncClient, number: int) -> str:
        item = {"name": f"Item {number}", "description": None, "price": float(price(number)), "tax": 3.2}
        created = await _ask(client, "POST", "/items/", item)
        path = f"/items/{created['id']}"
        _expect(await _ask(client, "GET", path), created)
        return path

    return await _for_each_item(url, fill)


async def fill_pricebook(url: str) -> list[str]:
    """Create items with a past, a present and a scheduled price each. Returns the paths that read the price.

    :raises BenchFailed: if an answer is not the one expected.
    """
    today = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    starts = [(today + timedelta(days=days)).isoformat() for days in (-365, -30, 30)]

    async def fill(client: httpx2.AsyncClient, number: int) -> str:
        now = price(number)
        past, present, scheduled = (
            {"amount": str(amount), "tax_rate": "19", "valid_from": start}
            for amount, start in zip((now - 1, now, now + 1), starts, strict=True)
        )
        item = {"sku": f"BENCH-{number:04}", "name": f"Item {number}", "price": past}
        address = f"/v1/items/{(await _ask(client, 'POST', '/v1/items', item))['id']}"
        await _ask(client, "POST", f"{address}/prices", present)
        await _ask(client, "POST", f"{address}/prices", scheduled)
        answer = await _ask(client, "GET", f"{address}/price")
        _expect(answer["amount"], str(now))
        _expect(datetime.fromisoformat(answer["effective_until"]), datetime.fromisoformat(starts[2]))
        return f"{address}/price"

    return await _for_each_item(url, fill)


def price(number: int) -> Decimal:
    """The present price of an item."""
    return Decimal(1_000 + number).scaleb(-2)


async def _connect(database: URL) -> Any:
    url = database.set(drivername="postgresql").render_as_string(hide_password=False)
    return await asyncpg.connect(url, timeout=10, command_timeout=60)


async def _for_each_item(url: str, fill: Callable[[httpx2.AsyncClient, int], Awaitable[str]]) -> list[str]:
    waiting = iter(range(ITEMS))
    paths: dict[int, str] = {}
    async with httpx2.AsyncClient(base_url=url, timeout=30) as client:

        async def work() -> None:
            for number in waiting:
                paths[number] = await fill(client, number)

        await asyncio.gather(*(work() for _ in range(_CONCURRENCY)))
    return [paths[number] for number in range(ITEMS)]


async def _ask(client: httpx2.AsyncClient, method: str, path: str, document: Any = None) -> Any:
    try:
        answer = await client.request(method, path, json=document)
    except httpx2.TransportError as error:
        raise BenchFailed(f"{method} {path} got no answer: {error!r}") from None
    if not answer.is_success:
        raise BenchFailed(f"{method} {path} answered {answer.status_code}: {answer.text}")
    return answer.json()


def _expect(found: object, expected: object) -> None:
    if found != expected:
        raise BenchFailed(f"A server answered {found!r} where {expected!r} was expected.")
