"""A real price history with its scheduled prices: the open rows were recorded weeks before they came into force.

In the file the 200 closed intervals were known when the 195 open ones were entered, 21 days before their start. So the
ledger gets the closed ones first and then the open ones, and is asked on both axes.
"""

import asyncio
import itertools
from collections.abc import Coroutine, Iterator
from datetime import date, timedelta
from decimal import Decimal
from typing import Any, NamedTuple

import asyncpg
import httpx2
import pytest

from app.money import plain
from tests.support import conformance

pytestmark = pytest.mark.long

Client = httpx2.AsyncClient

AT_ONCE = 8
DAY = timedelta(days=1)
NO_PRICE = "no-price"


class Interval(NamedTuple):
    """A row of the file; ``last`` is the last day, inclusive, or ``None`` if it is open."""

    sku: str
    amount: str
    first: date
    last: date | None
    entered: date

    @property
    def body(self) -> dict[str, Any]:
        """The price row: intervals of the ledger are half-open."""
        after = None if self.last is None else (self.last + DAY).isoformat()
        return {"amount": self.amount, "valid_from": self.first.isoformat(), "valid_to": after}

    def holds(self, day: date) -> bool:
        return self.first <= day and (self.last is None or day <= self.last)


def file() -> list[Interval]:
    skus = {row["product_id"]: row["sku"] for row in conformance.rows("prices/adventureworks-products.csv")}
    return [
        Interval(
            skus[row["product_id"]],
            row["list_price"],
            date.fromisoformat(row["start"]),
            date.fromisoformat(row["end"]) if row["end"] else None,
            date.fromisoformat(row["recorded"]),
        )
        for row in conformance.rows("prices/adventureworks-history.csv")
    ]


async def all_of(work: list[Coroutine[Any, Any, httpx2.Response]]) -> list[httpx2.Response]:
    """Run a few at a time, as a client with a small pool does."""
    gate = asyncio.Semaphore(AT_ONCE)

    async def one(coroutine: Coroutine[Any, Any, httpx2.Response]) -> httpx2.Response:
        async with gate:
            return await coroutine

    return await asyncio.gather(*(one(coroutine) for coroutine in work))


async def record(client: Client, intervals: list[Interval]) -> None:
    answers = await all_of(
        [client.post(f"/v1/items/sku:{row.sku}/prices", json={"book": "shop", **row.body}) for row in intervals]
    )
    assert {answer.status_code for answer in answers} == {201}


async def prices(client: Client, pairs: list[tuple[str, date]], **query: Any) -> list[str]:
    answers = await all_of(
        [
            client.get(f"/v1/items/sku:{sku}/price", params={"book": "shop", "at": day.isoformat(), **query})
            for sku, day in pairs
        ]
    )
    return [
        str(answer.json()["amount"] if answer.status_code == 200 else answer.json()["type"].removeprefix("/problems/"))
        for answer in answers
    ]


def expected(intervals: list[Interval], pairs: list[tuple[str, date]]) -> list[str]:
    """What the file says, by a plain search."""
    of: dict[str, list[Interval]] = {}
    for row in intervals:
        of.setdefault(row.sku, []).append(row)
    return [
        next((plain(Decimal(row.amount), 2) for row in of.get(sku, []) if row.holds(day)), NO_PRICE)
        for sku, day in pairs
    ]


def days(intervals: list[Interval]) -> Iterator[tuple[str, date]]:
    """The edges of each interval, the days beside them, and a day between."""
    for row in intervals:
        last = row.last or row.first + 200 * DAY
        yield from ((row.sku, day) for day in (row.first - DAY, row.first, row.first + (last - row.first) // 2, last))
        yield row.sku, last + DAY


async def test_scheduled_prices_are_known_before_they_are_in_force(client: Client, owner: asyncpg.Connection) -> None:
    intervals = file()
    closed, scheduled = ([row for row in intervals if (row.last is None) is is_open] for is_open in (False, True))
    assert (len(intervals), len(closed), len(scheduled)) == (395, 200, 195)
    assert {row.first - row.entered for row in scheduled} == {21 * DAY}

    body = {"key": "shop", "name": "Shop", "currency": "USD", "time_zone": "America/Los_Angeles"}
    assert (await client.post("/v1/books", json=body)).status_code == 201
    skus = sorted({row.sku for row in intervals})
    await all_of([client.post("/v1/items", json={"sku": sku, "name": sku}) for sku in skus])
    await record(client, closed)
    seq, instant = await owner.fetchrow("SELECT seq, recorded_at FROM ledger")
    await record(client, scheduled)

    # As known now, the whole file answers; as known before, the closed intervals do.
    pairs = list(dict.fromkeys(days(intervals)))
    whole, before = expected(intervals, pairs), expected(closed, pairs)
    assert await prices(client, pairs) == whole
    assert await prices(client, pairs, known_seq=seq) == before
    some = pairs[::4]
    assert await prices(client, some, known_at=instant.isoformat()) == before[::4]
    newest: int = await owner.fetchval("SELECT seq FROM ledger")
    assert await prices(client, some, known_seq=newest) == whole[::4]
    assert before[::4] != whole[::4]

    # The two differ on every day of an open interval, and on no other.
    differs = [pair for pair, now, then in zip(pairs, whole, before, strict=True) if now != then]
    first = {row.sku: row.first for row in scheduled}
    assert differs == [(sku, day) for sku, day in pairs if sku in first and day >= first[sku]]
    assert len(differs) == 4 * len(scheduled), "the first day, two days later on, and the day after those"


async def test_one_interval_hands_over_to_the_next_without_a_gap(client: Client) -> None:
    intervals = file()
    of: dict[str, list[Interval]] = {}
    for row in sorted(intervals, key=lambda row: (row.sku, row.first)):
        of.setdefault(row.sku, []).append(row)
    hand_overs = [pair for rows in of.values() for pair in itertools.pairwise(rows)]
    assert (len(of), len(hand_overs)) == (293, 102)
    assert all(old.last is not None and new.first == old.last + DAY for old, new in hand_overs)

    body = {"key": "shop", "name": "Shop", "currency": "USD", "time_zone": "America/Los_Angeles"}
    assert (await client.post("/v1/books", json=body)).status_code == 201
    await all_of([client.post("/v1/items", json={"sku": sku, "name": sku}) for sku in of])
    await record(client, intervals)

    answers = await all_of([client.get(f"/v1/items/sku:{sku}/prices", params={"book": "shop"}) for sku in of])
    for rows, answer in zip(of.values(), answers, strict=True):
        steps = answer.json()["steps"]
        ends = [steps[-1]] if rows[-1].last is not None else []
        assert [step["amount"] for step in steps] == [
            None,
            *(plain(Decimal(row.amount), 2) for row in rows),
            *(None for _ in ends),
        ]
        assert [step["to"] for step in steps[:-1]] == [step["from"] for step in steps[1:]]

    # Over all items, the schedule holds each hand-over once, and the starts and ends besides.
    window: dict[str, Any] = {"book": "shop", "from": "2022-01-01", "to": "2025-01-01", "limit": 1000}
    document = (await client.get("/v1/schedule", params=window)).json()
    assert document["next"] is None
    boundaries = document["boundaries"]
    both = [each for each in boundaries if each["before"] and each["after"]]
    assert len(both) == 102
    assert sum(each["before"]["amount"] != each["after"]["amount"] for each in both) == 94
    assert sum(each["before"] is None for each in boundaries) == 293
    assert sum(each["after"] is None for each in boundaries) == 98
