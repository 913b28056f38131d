"""What rows of one file mean for each other, and the ids and numbers that they get."""

import random
from typing import Any
from uuid import RFC_4122, UUID

import asyncpg
import httpx2
import pytest

from app.services import import_missing
from tests.api.test_imports import applied, get, rows_of, sent

Client = httpx2.AsyncClient
JSON = dict[str, Any]


async def test_ids_are_of_version_7_and_in_the_order_of_the_file(client: Client, owner: asyncpg.Connection) -> None:
    skus = [f"S{number}" for number in range(40)]
    random.Random(3).shuffle(skus)  # noqa: S311 - any order that is none
    rows = [f"{sku},x,{tier + 1},{tier + 1}\r\n" for tier in range(3) for sku in skus]
    for _ in range(2):
        await applied(
            client, await sent(client, "sku,name,amount,min_quantity\r\n" + "".join(rows), effective_at="2026-01-01")
        )
        rows = [row.replace("S", "T") for row in rows]
    items = (await get(client, "/v1/items", limit=100))["items"]
    assert [item["sku"] for item in items] == [*skus, *(sku.replace("S", "T") for sku in skus)]
    for table, count in (("items", 80), ("price_rows", 240)):
        found = await owner.fetch(f"SELECT id::text FROM {table}")  # noqa: S608 - one of these two
        ids = {UUID(row["id"]) for row in found}
        assert len(ids) == count
        assert {(one.version, one.variant) for one in ids} == {(7, RFC_4122)}


async def test_rows_of_a_new_item_complete_each_other(client: Client) -> None:
    body = (
        "sku,gtin,name,amount,min_quantity\r\nA,,,1,1\r\nB,,Bear,2,1\r\n"
        "A,96385074,,0.9,10\r\nA,,Apple,0.8,100\r\nA,,Other,0.7,1000\r\n"
    )
    run = await applied(client, await sent(client, body, effective_at="2026-01-01"))
    item = await get(client, "/v1/items/sku:A")
    assert (item["gtin"], item["name"]) == ("96385074", "Apple")
    assert (run["counts"]["create"], run["last_seq"] - run["first_seq"] + 1) == (5, 7)


async def test_the_log_has_each_item_before_its_prices_in_the_order_of_the_file(client: Client) -> None:
    await applied(client, await sent(client, "sku,name,amount\r\nOLD,o,1\r\n", effective_at="2026-01-01"))
    body = (
        "sku,name,description,unit,tax_category,attributes,amount,min_quantity\r\n"
        'N1,"One ""1""",a\\b,KGM,AE,"{""size"":15,""b"":true}",1,1\r\n'
        "OLD,,,,,,1.10,1\r\nN2,Two,,,,,2,1\r\nN1,,,,,,0.9,10\r\n"
    )
    run = await applied(client, await sent(client, body, effective_at="2026-02-01"))
    feed = (await get(client, "/v1/changes", after=run["first_seq"] - 1))["changes"]
    assert [(change["seq"] - run["first_seq"], change["type"]) for change in feed] == [
        (0, "item.created"),
        (1, "price.recorded"),
        (2, "price.recorded"),
        (3, "item.created"),
        (4, "price.recorded"),
        (5, "price.recorded"),
    ]
    for place, sku in ((0, "N1"), (3, "N2")):
        assert feed[place]["after"] == await get(client, f"/v1/items/sku:{sku}")
        assert (feed[place]["actor"], feed[place]["at"]) == (run["created_by"], run["applied_at"])
    first = feed[0]["after"]
    assert (first["name"], first["description"], first["unit"], first["tax_category"]) == (
        'One "1"',
        "a\\b",
        "KGM",
        "AE",
    )
    assert (first["attributes"], first["created_at"]) == ({"size": 15, "b": True}, run["applied_at"])
    assert (feed[3]["after"]["unit"], feed[3]["after"]["attributes"]) == ("C62", {})


async def test_rows_between_others_count_in_whatever_order(client: Client) -> None:
    """A price that stands already is unchanged, unless another row of the file comes between."""
    await applied(client, await sent(client, "sku,name,amount\r\nA,a,1\r\n", effective_at="2026-01-01"))
    body = "sku,amount,valid_from\r\nA,1,2026-05-01\r\nA,1.20,2026-03-01\r\nA,1,2026-02-01\r\n"
    run = await sent(client, body)
    assert [row["status"] for row in await rows_of(client, run)] == ["change", "change", "unchanged"]


@pytest.mark.parametrize("at_once", [1, 2, 1000])
async def test_what_the_file_does_not_name_is_listed_as_it_stood(
    client: Client, owner: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch, at_once: int
) -> None:
    monkeypatch.setattr(import_missing, "_FEWEST", at_once)
    listed = "".join(f"S{n:02d},x,{n + 1},{tier}\r\n" for n in range(20) for tier in (1, 10))
    await applied(client, await sent(client, "sku,name,amount,min_quantity\r\n" + listed, effective_at="2026-01-01"))
    await client.post("/v1/items", json={"sku": "BARE", "name": "has no price"})
    assert (await client.delete("/v1/items/sku:S07", headers={"If-Match": "*"})).status_code == 200
    run = await sent(client, "sku,amount\r\nS03,4\r\nS18,19\r\nX,1\r\n", effective_at="2026-02-01")
    assert run["counts"] == {"rows": 3, "create": 0, "change": 0, "unchanged": 2, "error": 1, "missing": None}
    expected = [(f"S{n:02d}", f"{n + 1}.00", tier) for n in range(20) if n not in (3, 7, 18) for tier in ("1", "10")]

    async def found(limit: int, **query: str) -> list[JSON]:
        rows: list[JSON] = []
        cursor: JSON = {}
        while True:
            page = await get(client, f"/v1/imports/{run['id']}/rows", limit=limit, **query, **cursor)
            assert len(page["rows"]) <= limit
            rows += page["rows"]
            if page["next"] is None:
                return rows
            cursor = {"cursor": page["next"]}

    for limit in (1, 3, 34, 1000):
        rows = await found(limit, status="missing")
        assert [(row["sku"], row["old"]["amount"], row["old"]["min_quantity"]) for row in rows] == expected
        assert {(row["line"], row["new"], row["percent"], *row["errors"]) for row in rows} == {(None, None, None)}
        for order in ("line", "change"):
            assert (await found(limit, order=order))[3:] == rows
    assert await found(1000, status="unchanged") == (await found(1000))[:2]

    # As it was when it was compared, but for items that are archived since.
    await client.post("/v1/items/sku:S00/prices", json={"amount": "77", "valid_from": "2026-01-15"})
    assert (await client.delete("/v1/items/sku:S01", headers={"If-Match": "*"})).status_code == 200
    assert await found(7, status="missing") == rows[:2] + rows[4:]
    await owner.execute("DELETE FROM import_rows WHERE number = 1")
    assert await found(1000, status="missing") == []
