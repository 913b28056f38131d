"""A real price history that nobody here wrote: 504 products and 395 intervals of AdventureWorks."""

import asyncio
import random
from collections.abc import Coroutine
from datetime import date, timedelta
from decimal import Decimal
from typing import Any

import httpx2
import pytest

from app.money import plain
from tests.support import conformance

pytestmark = pytest.mark.long

AT_ONCE = 8
PAIRS = 400
FAR = date(9999, 12, 30)
"""Stands for the end of intervals that have none."""


async def all_of(work: list[Coroutine[Any, Any, httpx2.Response]]) -> list[httpx2.Response]:
    """Run a few at a time, as a client with a small pool does."""
    gate = asyncio.Semaphore(AT_ONCE)

    async def one(coroutine: Coroutine[Any, Any, httpx2.Response]) -> httpx2.Response:
        async with gate:
            return await coroutine

    return await asyncio.gather(*(one(coroutine) for coroutine in work))


async def test_the_history_answers_as_the_file_says(client: httpx2.AsyncClient) -> None:
    products = conformance.rows("prices/adventureworks-products.csv")
    history = conformance.rows("prices/adventureworks-history.csv")
    assert (len(products), len(history)) == (504, 395)
    skus = {row["product_id"]: row["sku"] for row in products}
    intervals: dict[str, list[tuple[date, date, str]]] = {}
    for row in history:
        start, end = date.fromisoformat(row["start"]), date.fromisoformat(row["end"] or FAR.isoformat())
        intervals.setdefault(row["product_id"], []).append((start, end, row["list_price"]))

    created = await all_of(
        [client.post("/v1/items", json={"sku": row["sku"], "name": row["name"]}) for row in products]
    )
    assert {answer.status_code for answer in created} == {201}
    recorded = await all_of(
        [
            client.post(
                f"/v1/items/sku:{skus[row['product_id']]}/prices",
                json={
                    "amount": row["list_price"],
                    "valid_from": row["start"],
                    # The file's last days are inclusive; the ledger's intervals are half-open.
                    "valid_to": (date.fromisoformat(row["end"]) + timedelta(1)).isoformat() if row["end"] else None,
                },
            )
            for row in history
        ]
    )
    assert {answer.status_code for answer in recorded} == {201}

    chance = random.Random(395)  # noqa: S311 - not for secrets
    pairs = [(product, start) for product, rows in intervals.items() for start, _, _ in rows]
    pairs += [(product, end) for product, rows in intervals.items() for _, end, _ in rows]
    pairs += [(product, end + timedelta(1)) for product, rows in intervals.items() for _, end, _ in rows if end < FAR]
    pairs += [(chance.choice(list(skus)), date(2022, 1, 1) + timedelta(chance.randrange(1400))) for _ in range(PAIRS)]
    answers = await all_of(
        [client.get(f"/v1/items/sku:{skus[product]}/price", params={"at": day.isoformat()}) for product, day in pairs]
    )
    found = [answer.json()["amount"] if answer.status_code == 200 else answer.json()["type"] for answer in answers]
    expected = [
        next(
            (plain(Decimal(price), 2) for start, end, price in intervals.get(product, []) if start <= day <= end),
            "/problems/no-price",
        )
        for product, day in pairs
    ]
    assert found == expected
    assert sum(answer == "/problems/no-price" for answer in expected) > 100, "days without a price are asked too"
