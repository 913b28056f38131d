"""Databases of the bench's own, and the items in them: written and checked through each server's own API."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import asyncpg
import httpx2
from sqlalchemy.engine import URL

from bench import POSTGRES, BenchFailed
from bench.servers import Server

ITEMS = 1_000
WRITTEN = 200
"""Items to which writes add."""
PAGE = 50
LOOKUP = 100
_CONCURRENCY = 8


@dataclass(frozen=True, slots=True)
class Catalogue:
    """What a server has, as requests for :class:`bench.load.Wrk`.

    Reads ask for one item each, pages for :data:`PAGE` of the same items each. Writes add a row each, and leave alone
    what is read.
    """

    ids: list[str]
    reads: list[str]
    pages: list[str]
    writes: list[str]


async def recreate(server: URL, databases: list[str]) -> str:
    """Drop and create databases. Returns the version of PostgreSQL."""
    await drop(server, databases)
    connection = await connect(server)
    try:
        for database in databases:
            await connection.execute(f'CREATE DATABASE "{database}"')
        version: str = await connection.fetchval("SHOW server_version")
        return version
    finally:
        await connection.close()


async def drop(server: URL, databases: list[str]) -> None:
    """Drop databases, which may be large."""
    connection = await connect(server)
    try:
        for database in databases:
            await connection.execute(f'DROP DATABASE IF EXISTS "{database}" WITH (FORCE)')
    finally:
        await connection.close()


def postmaster() -> int:
    """The process of the bench's PostgreSQL server."""
    return int((POSTGRES / "postmaster.pid").read_text().split()[0])


async def settle(database: URL) -> None:
    """Do now what autovacuum would do in the middle of the measurement."""
    connection = await connect(database)
    try:
        await connection.execute("VACUUM ANALYZE")
        await connection.execute("CHECKPOINT")
    finally:
        await connection.close()


async def connect(database: URL, *, command_seconds: float = 3_600) -> Any:
    """A connection of asyncpg."""
    url = database.set(drivername="postgresql").render_as_string(hide_password=False)
    return await asyncpg.connect(url, timeout=10, command_timeout=command_seconds)


async def fill_rows(
    server: Server, create: str, document: Callable[[int], Any], *, read: str, page: Callable[[int], str]
) -> Catalogue:
    """Fill a server that keeps an item and its price in one row, and answers a row as ``{"data": row}`` or bare.

    :param create: the path to post a row's document to; a write posts another one.
    :param read: the path of a row, with a place for its id.
    :param page: the path of a page, by its number from 0.
    :raises BenchFailed: if an answer is not the one expected.
    """

    async def fill(client: httpx2.AsyncClient, number: int) -> str:
        created = _unwrapped(await ask(client, "POST", create, document(number)))
        path = read.format(created["id"])
        found = _unwrapped(await ask(client, "GET", path))
        _expect(found, created)
        _expect(Decimal(str(found["price"])), price(number))
        return str(created["id"])

    ids = await _for_each_item(server, range(ITEMS), fill)
    pages = [page(number) for number in range(ITEMS // PAGE)]
    async with _client(server) as client:
        for path in pages:
            answer = _unwrapped(await ask(client, "GET", path))
            _expect(len(answer["items"] if isinstance(answer, dict) else answer), PAGE)
    return Catalogue(
        ids,
        [read.format(key) for key in ids],
        pages,
        [f"{create}\t{json.dumps(document(number))}" for number in range(ITEMS, ITEMS + WRITTEN)],
    )


def row(number: int) -> dict[str, Any]:
    """An item with its price, as one row."""
    return {"name": f"Item {number}", "description": None, "price": float(price(number)), "tax": 3.2}


async def fill_pricebook(server: Server) -> Catalogue:
    """Create items with a past, a present and a scheduled price each; and others, to which writes add prices.

    :raises BenchFailed: if an answer is not the one expected.
    """
    today = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    starts = [(today + timedelta(days=days)).isoformat() for days in (-365, -30, 30)]

    async def make(client: httpx2.AsyncClient, number: int, first: Any = None) -> str:
        item = {"sku": f"BENCH-{number:04}", "name": f"Item {number}", "price": first}
        return str((await ask(client, "POST", "/v1/items", item))["id"])

    async def fill(client: httpx2.AsyncClient, number: int) -> str:
        now = price(number)
        past, present, scheduled = (
            {"amount": str(amount), "tax_rate": "19", "valid_from": start}
            for amount, start in zip((now - 1, now, now + 1), starts, strict=True)
        )
        key = await make(client, number, past)
        await ask(client, "POST", f"/v1/items/{key}/prices", present)
        await ask(client, "POST", f"/v1/items/{key}/prices", scheduled)
        answer = await ask(client, "GET", f"/v1/items/{key}/price")
        _expect(answer["amount"], str(now))
        _expect(datetime.fromisoformat(answer["effective_until"]), datetime.fromisoformat(starts[2]))
        return key

    ids = await _for_each_item(server, range(ITEMS), fill)
    written = await _for_each_item(server, range(ITEMS, ITEMS + WRITTEN), make)
    return Catalogue(
        ids,
        [f"/v1/items/{key}/price" for key in ids],
        await _pages_of_pricebook(server),
        [
            f"/v1/items/{key}/prices\t{json.dumps({'amount': str(price(number)), 'tax_rate': '19'})}"
            for number, key in enumerate(written)
        ],
    )


async def _pages_of_pricebook(server: Server) -> list[str]:
    pages = [f"/v1/items?limit={PAGE}"]
    async with _client(server) as client:
        while True:
            answer = await ask(client, "GET", pages[-1])
            _expect(sum(item["price"] is not None for item in answer["items"]), PAGE)
            if len(pages) == ITEMS // PAGE:
                return pages
            pages.append(f"/v1/items?limit={PAGE}&cursor={answer['next']}")


def lookups(ids: Sequence[str]) -> list[str]:
    """Requests that look up :data:`LOOKUP` items each, from all over the list."""
    step = len(ids) // LOOKUP
    return [
        "/v1/prices:lookup\t" + json.dumps({"lines": [{"item": key} for key in ids[start::step][:LOOKUP]]})
        for start in range(step)
    ]


def price(number: int) -> Decimal:
    """The present price of an item."""
    return Decimal(1_000 + number).scaleb(-2)


async def ask(client: httpx2.AsyncClient, method: str, path: str, document: Any = None) -> Any:
    """Ask, and read the answer's JSON.

    :raises BenchFailed: if there is none, or it is no success.
    """
    try:
        answer = await client.request(method, path, json=document)
    except httpx2.TransportError as error:
        raise BenchFailed(f"{method} {path} got no answer: {error!r}") from None
    if not answer.is_success:
        raise BenchFailed(f"{method} {path} answered {answer.status_code}: {answer.text[:500]}")
    return answer.json() if answer.content else None


def _client(server: Server) -> httpx2.AsyncClient:
    return httpx2.AsyncClient(base_url=server.url, headers=dict(server.headers), timeout=30)


async def _for_each_item(
    server: Server, numbers: Sequence[int], fill: Callable[[httpx2.AsyncClient, int], Awaitable[str]]
) -> list[str]:
    waiting = iter(numbers)
    keys: dict[int, str] = {}
    async with _client(server) as client:

        async def work() -> None:
            for number in waiting:
                keys[number] = await fill(client, number)

        await asyncio.gather(*(work() for _ in range(_CONCURRENCY)))
    return [keys[number] for number in numbers]


def _unwrapped(answer: Any) -> Any:
    return answer["data"] if isinstance(answer, dict) and "data" in answer else answer


def _expect(found: object, expected: object) -> None:
    if found != expected:
        raise BenchFailed(f"A server answered {found!r} where {expected!r} was expected.")
