"""The SQL rule on crowded ledgers: hundreds of items with random rows, all priced by lookups, against ten lines."""

import random
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import asyncpg
import httpx2

ITEMS = 250
ROWS = 7
DAYS = [datetime(2026, 1, day, tzinfo=UTC) for day in range(1, 7)]
MICRO = timedelta(microseconds=1)


def expected(rows: list[dict[str, Any]], at: datetime, quantity: Decimal) -> UUID | None:
    """Which row answers, by the specification's words."""
    holding = [
        row
        for row in rows
        if not row["retired"]
        and row["min_quantity"] <= quantity
        and row["valid_from"] <= at
        and (row["valid_to"] is None or at < row["valid_to"])
    ]
    for better in (
        lambda row: row["valid_to"] is not None,
        lambda row: row["min_quantity"],
        lambda row: row["valid_from"],
        lambda row: row["seq"],
    ):
        best = max(map(better, holding), default=None)
        holding = [row for row in holding if better(row) == best]
    return holding[0]["id"] if holding else None


async def test_every_item_gets_the_row_of_the_rule(client: httpx2.AsyncClient, owner: asyncpg.Connection) -> None:
    chance = random.Random(20260101)  # noqa: S311 - not for secrets
    ledger: dict[UUID, list[dict[str, Any]]] = {}
    seq = 1
    for _ in range(ITEMS):
        created = await owner.fetchval(
            "INSERT INTO items (name, unit, tax_category, attributes, version, created_at, updated_at)"
            " VALUES ('x', 'C62', 'S', '{}', 1, now(), now()) RETURNING id"
        )
        ledger[created] = []
        for _ in range(chance.randint(1, ROWS)):
            seq += 1
            start = chance.randrange(5)
            row = {
                "id": UUID(int=seq),
                "min_quantity": chance.choice([Decimal(1), Decimal(5)]),
                "valid_from": DAYS[start],
                "valid_to": chance.choice([None, DAYS[chance.randint(start + 1, 5)]]),
                "seq": seq,
                "retired": chance.random() < 0.2,
            }
            ledger[created].append(row)
    await owner.executemany(
        "INSERT INTO price_rows (id, item_id, book_id, amount, per, min_quantity, tax_included, valid_from, valid_to,"
        " seq, recorded_at, recorded_by) SELECT $1, $2, id, 1, 1, $3, false, $4, $5, $6, now(), 'x' FROM books",
        [
            (row["id"], item, row["min_quantity"], row["valid_from"], row["valid_to"], row["seq"])
            for item, rows in ledger.items()
            for row in rows
        ],
    )
    await owner.executemany(
        "INSERT INTO price_retirements (price_id, seq) VALUES ($1, $2)",
        [(row["id"], seq + 1) for rows in ledger.values() for row in rows if row["retired"]],
    )
    await owner.execute("UPDATE ledger SET seq = $1", seq + 1)

    different = 0
    for at in sorted({day + shift for day in DAYS for shift in (-MICRO, timedelta())}):
        for quantity in ("1", "5"):
            lines = [{"item": str(item), "quantity": quantity} for item in ledger]
            answer = await client.post("/v1/prices:lookup", json={"at": at.isoformat(), "lines": lines})
            found = [price.get("price_id") for price in answer.json()["prices"]]
            wanted = [expected(rows, at, Decimal(quantity)) for rows in ledger.values()]
            assert found == [str(row) if row else None for row in wanted]
            until = [price.get("effective_until") for price in answer.json()["prices"]]
            for price_id, boundary, rows in zip(wanted, until, ledger.values(), strict=True):
                if price_id is not None:
                    changes = (day for day in DAYS if day > at and expected(rows, day, Decimal(quantity)) != price_id)
                    first = next(changes, None)
                    assert boundary == (first.isoformat().replace("+00:00", "Z") if first else None)
                    different += first is not None
    assert different > 1000, "the ledgers are crowded enough for answers to change"
