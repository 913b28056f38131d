"""Published price lists that nobody here wrote: some 3,100 prices of language models, per thousand or million units.

Each (model, unit) is an item. Tiers become ``min_quantity``, start dates ``valid_from``, and daily windows, which the
ledger does not repeat by itself, become bounded rows on one day.
"""

import asyncio
from collections import Counter
from collections.abc import Coroutine, Iterable
from decimal import Decimal
from typing import Any

import httpx2
import pytest

from app.money import DECIMAL_DIGITS
from tests.support import conformance

pytestmark = pytest.mark.long

Client = httpx2.AsyncClient
Line = dict[str, str]

AT_ONCE = 8
SINCE_EVER = "2020-01-01"
SAMPLE_DAY = "2024-06-01"


def sku(row: Line) -> str:
    return f"{row['sku']} {row['unit']}"


def body(row: Line) -> dict[str, Any]:
    """The price row for a line of the file."""
    fields = {"book": "usd", "amount": row["price"], "per": row["per"], "valid_from": row["start_date"] or SINCE_EVER}
    if row["tier_start"]:
        fields["min_quantity"] = row["tier_start"]
    if row["daily_start"]:
        window = {"valid_from": row["daily_start"], "valid_to": row["daily_end"]}
        fields |= {name: f"{SAMPLE_DAY}T{time}" for name, time in window.items()}
    return fields


async def all_of(work: Iterable[Coroutine[Any, Any, httpx2.Response]]) -> list[httpx2.Response]:
    """Run a few at a time, as a client with a small pool does."""
    gate = asyncio.Semaphore(AT_ONCE)

    async def one(coroutine: Coroutine[Any, Any, httpx2.Response]) -> httpx2.Response:
        async with gate:
            return await coroutine

    return await asyncio.gather(*(one(coroutine) for coroutine in work))


async def record(client: Client, rows: list[Line]) -> list[httpx2.Response]:
    """Each item with its first price, then the others; the answers in the order of the rows."""
    first = {sku(row): row for row in reversed(rows)}
    created = await all_of(
        client.post("/v1/items", json={"sku": name, "name": name, "price": body(row)}) for name, row in first.items()
    )
    addresses = {answer.json()["sku"]: answer.headers["location"] for answer in created if answer.status_code == 201}
    others = [row for row in rows if first[sku(row)] is not row]
    recorded = await all_of(client.post(f"{addresses[sku(row)]}/prices", json=body(row)) for row in others)
    answers = dict(zip(map(id, [*first.values(), *others]), [*created, *recorded], strict=True))
    return [answers[id(row)] for row in rows]


async def look_up(client: Client, rows: list[Line], at: str, quantities: list[str]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for start in range(0, len(rows), 1000):
        part = slice(start, start + 1000)
        lines = [
            {"item": f"sku:{sku(row)}", "quantity": quantity}
            for row, quantity in zip(rows[part], quantities[part], strict=True)
        ]
        answer = await client.post("/v1/prices:lookup", json={"book": "usd", "at": at, "lines": lines})
        assert answer.status_code == 200, answer.text
        found += answer.json()["prices"]
    return found


def is_exactly(found: str, given: str) -> bool:
    """The digits that were given, padded to the cents of the currency at most."""
    return found == given or (Decimal(found) == Decimal(given) and len(found.partition(".")[2]) == 2)


async def test_published_prices_come_back_digit_for_digit(client: Client) -> None:
    rows = conformance.rows("prices/genai-prices.csv")
    assert len(rows) == 3145
    await client.post("/v1/books", json={"key": "usd", "name": "USD", "currency": "USD"})

    # Seven lines carry the noise of floats, and are refused by name; everything else is taken.
    too_long = [row for row in rows if len(row["price"].partition(".")[2]) > DECIMAL_DIGITS]
    answers = dict(zip(map(id, rows), await record(client, rows), strict=True))
    refused = [row for row in rows if answers[id(row)].status_code != 201]
    assert refused == too_long
    assert Counter(row["price"] for row in refused) == {"0.18000000000000002": 1, "0.08333333333333334": 6}
    for row in refused:
        problem = answers[id(row)].json()
        assert problem["status"] == 422
        assert [(fault["pointer"], fault["code"]) for fault in problem["errors"]] == [
            ("/price/amount", "too-many-digits")
        ]
        unknown = await client.get("/v1/items", params={"sku": sku(row)})
        assert unknown.json()["items"] == [], "an item whose price is refused is not created"

    # Each line answers from the day on which it starts, for the quantity at which it starts.
    taken = [row for row in rows if row not in refused]
    windows = [row for row in taken if row["daily_start"]]
    steady = [row for row in taken if not row["daily_start"]]
    assert (len(windows), len(steady)) == (6, 3132)
    days = Counter(row["start_date"] or SINCE_EVER for row in steady)
    assert sorted(days) == ["2020-01-01", "2025-06-10", "2026-03-13", "2026-09-01"]
    for day in days:
        starting = [row for row in steady if (row["start_date"] or SINCE_EVER) == day]
        for row, price in zip(
            starting, await look_up(client, starting, day, [row["tier_start"] or "1" for row in starting]), strict=True
        ):
            assert is_exactly(price["amount"], row["price"]), (row, price)
            assert (price["per"], price["currency"], price["sku"]) == (row["per"], "USD", sku(row))
            assert (price["min_quantity"], price["valid_from"]) == (row["tier_start"] or "1", f"{day}T00:00:00Z")
    assert max(len(row["price"].partition(".")[2]) for row in taken) == 6, "more digits than the currency has"

    # One unit below a tier, the base price answers.
    tiers = [row for row in steady if row["tier_start"]]
    assert len(tiers) == 65
    base = {sku(row): row["price"] for row in steady if not row["tier_start"] and not row["start_date"]}
    below = await look_up(client, tiers, SINCE_EVER, [str(int(row["tier_start"]) - 1) for row in tiers])
    assert [Decimal(price["amount"]) for price in below] == [Decimal(base[sku(row)]) for row in tiers]

    # The day before a start date, the price before it answers.
    dated = [row for row in steady if row["start_date"]]
    assert len(dated) == 27
    for row in dated:
        query = {"book": "usd", "at": f"{row['start_date']}T00:00:00Z"}
        address = f"/v1/items/sku:{sku(row)}/prices"
        steps = (await client.get(address, params={"book": "usd"})).json()["steps"]
        before, after = (next(step for step in steps if step[edge] == query["at"]) for edge in ("to", "from"))
        assert (Decimal(before["amount"]), Decimal(after["amount"])) == (Decimal(base[sku(row)]), Decimal(row["price"]))

    # A daily window holds on its day, from its first instant until before its end.
    quantities = ["1"] * len(windows)
    for time, inside in [
        ("00:29:59.999999Z", False),
        ("00:30:00Z", True),
        ("16:29:59.999999Z", True),
        ("16:30:00Z", False),
    ]:
        found = await look_up(client, windows, f"{SAMPLE_DAY}T{time}", quantities)
        expected = [row["price"] if inside else base[sku(row)] for row in windows]
        assert [Decimal(price["amount"]) for price in found] == [Decimal(price) for price in expected]
    assert all(row["price"] != base[sku(row)] for row in windows)
