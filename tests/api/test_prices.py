"""Recording prices, and reading the one in force."""

from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import httpx2
import pytest

Client = httpx2.AsyncClient


async def item(client: Client, **fields: Any) -> str:
    answer = await client.post("/v1/items", json={"name": "Frame", **fields})
    return f"/v1/items/{answer.json()['id']}"


async def record(client: Client, address: str, amount: str | None, **fields: Any) -> dict[str, Any]:
    answer = await client.post(f"{address}/prices", json={"amount": amount, **fields})
    assert answer.status_code == 201, answer.text
    assert answer.headers["pricebook-seq"] == str(answer.json()["seq"])
    row: dict[str, Any] = answer.json()
    return row


async def amount(client: Client, address: str, at: str | None = None, **query: Any) -> str:
    """The amount at an instant, or the slug of the problem."""
    answer = await client.get(f"{address}/price", params={"at": at, **query} if at else query)
    document = answer.json()
    return str(document["amount"] if answer.status_code == 200 else document["type"].rsplit("/")[-1])


async def test_a_row_says_everything_about_itself(client: Client) -> None:
    address = await item(client, sku="A")
    body = {
        "book": "default",
        "amount": "19.9",
        "per": "100",
        "min_quantity": "1.50",
        "tax_rate": "19.0",
        "tax": None,
        "tax_included": True,
        "valid_from": "2026-12-01T01:00:00+01:00",
        "valid_to": "2027-01-01",
        "supersedes": None,
        "reason": "spring list",
    }
    row = (await client.post(f"{address}/prices", json=body)).json()
    assert row == {
        "id": row["id"],
        "item_id": address.rsplit("/")[-1],
        "book": "default",
        "currency": "EUR",
        "amount": "19.90",
        "per": "100",
        "min_quantity": "1.5",
        "tax_rate": "19",
        "tax": None,
        "tax_included": True,
        "valid_from": "2026-12-01T00:00:00Z",
        "valid_to": "2027-01-01T00:00:00Z",
        "supersedes": None,
        "void": False,
        "reason": "spring list",
        "seq": 3,
        "recorded_at": row["recorded_at"],
        "recorded_by": "anonymous",
        "import_id": None,
    }
    answer = await client.get(f"{address}/price", params={"at": "2026-12-24", "quantity": "2"})
    price = answer.json()
    assert price == {
        "item_id": row["item_id"],
        "sku": "A",
        "book": "default",
        "currency": "EUR",
        "at": "2026-12-24T00:00:00Z",
        "known_seq": 3,
        "quantity": "2",
        **{name: row[name] for name in ("amount", "per", "min_quantity", "tax_rate", "tax", "tax_included")},
        **{name: row[name] for name in ("valid_from", "valid_to", "seq", "recorded_at", "reason")},
        "effective_until": "2027-01-01T00:00:00Z",
        "price_id": row["id"],
        "display": {"net": "16.72", "tax": "3.18", "gross": "19.90"},
        "explain": None,
    }


async def test_defaults(client: Client) -> None:
    address = await item(client)
    row = await record(client, address, "5")
    assert row["valid_from"] == row["recorded_at"]
    expected = {"per": "1", "min_quantity": "1", "tax_rate": None, "tax": None, "tax_included": False, "valid_to": None}
    assert {name: row[name] for name in expected} == expected


async def test_past_present_and_future(client: Client) -> None:
    address = await item(client)
    await record(client, address, "1", valid_from="2020-01-01")
    await record(client, address, "2", valid_from="2025-01-01")
    await record(client, address, "3", valid_from="2999-01-01")
    assert [
        await amount(client, address, at) for at in ("2019-12-31", "2020-01-01", "2024-12-31T23:59:59.999999Z")
    ] == [
        "no-price",
        "1.00",
        "1.00",
    ]
    assert [await amount(client, address, at) for at in ("2025-01-01", "2998-12-31", "2999-01-01")] == [
        "2.00",
        "2.00",
        "3.00",
    ]
    assert await amount(client, address) == "2.00"


async def test_a_sale_beats_the_list_price_and_gives_way_by_itself(client: Client) -> None:
    address = await item(client)
    await record(client, address, "10", valid_from="2026-01-01")
    await record(client, address, "7", valid_from="2026-06-01", valid_to="2026-06-15")
    await record(client, address, "11", valid_from="2026-06-10")

    async def step(at: str) -> tuple[str, str | None]:
        price = (await client.get(f"{address}/price", params={"at": at})).json()
        return price["amount"], price["effective_until"]

    assert await step("2026-05-31") == ("10.00", "2026-06-01T00:00:00Z")
    # The new list price starts during the sale and does not end it.
    assert await step("2026-06-01") == ("7.00", "2026-06-15T00:00:00Z")
    assert await step("2026-06-14T23:59:59.999999Z") == ("7.00", "2026-06-15T00:00:00Z")
    assert await step("2026-06-15") == ("11.00", None)


async def test_volume_prices(client: Client) -> None:
    address = await item(client)
    await record(client, address, "10", valid_from="2026-01-01")
    await record(client, address, "8", valid_from="2025-01-01", min_quantity="100")
    quantities = ("0.5", "1", "99.999", "100", "5000")
    found = [await amount(client, address, "2026-02-01", quantity=quantity) for quantity in quantities]
    assert found == ["no-price", "10.00", "10.00", "8.00", "8.00"]


async def test_the_same_interval_again_is_answered_by_the_later_row(client: Client) -> None:
    address = await item(client)
    for value in ("1", "2", "3"):
        await record(client, address, value, valid_from="2026-01-01")
    assert await amount(client, address, "2026-01-01") == "3.00"


async def test_no_longer_for_sale(client: Client) -> None:
    address = await item(client)
    await record(client, address, "1", valid_from="2026-01-01")
    await record(client, address, None, valid_from="2026-02-01")
    assert await amount(client, address, "2026-01-31") == "1.00"
    assert await amount(client, address, "2026-02-01") == "not-for-sale"


async def test_a_correction_hides_the_row_it_corrects(client: Client, owner: asyncpg.Connection) -> None:
    address = await item(client)
    wrong = await record(client, address, "100", valid_from="2026-01-01", valid_to="2026-02-01")
    right = await record(client, address, "10", valid_from="2026-01-01", supersedes=wrong["id"])
    assert right["supersedes"] == wrong["id"]
    # Without the correction the bounded row would win.
    assert await amount(client, address, "2026-01-15") == "10.00"
    assert await owner.fetchval("SELECT amount FROM price_rows WHERE id = $1", wrong["id"]) == 100

    again = await client.post(f"{address}/prices", json={"amount": "9", "supersedes": wrong["id"]})
    assert (again.status_code, again.json()["type"]) == (409, "/problems/already-superseded")
    assert wrong["id"] in again.json()["detail"]


async def test_only_rows_of_the_same_item_can_be_corrected(client: Client) -> None:
    one, other = await item(client), await item(client)
    row = await record(client, one, "1")
    for target in (row["id"], "01a20537-de50-7ff8-9c93-02db0b06a11c"):
        answer = await client.post(f"{other}/prices", json={"amount": "2", "supersedes": target})
        assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, "/supersedes")


async def test_a_price_just_written_is_the_price_now(client: Client, owner: asyncpg.Connection) -> None:
    """Even if another machine's clock, or this one's after a step, is behind the ledger's."""
    address = await item(client)
    ahead = datetime.now(UTC) + timedelta(minutes=5)
    await owner.execute("UPDATE ledger SET recorded_at = $1", ahead)
    try:
        first = await record(client, address, "1")
        assert await amount(client, address) == "1.00"
        second = await record(client, address, "2")
        assert ahead < datetime.fromisoformat(first["recorded_at"]) < datetime.fromisoformat(second["recorded_at"])
        assert await amount(client, address) == "2.00"
    finally:
        await owner.execute("UPDATE ledger SET recorded_at = now()")


async def test_the_largest_price_is_readable_everywhere(client: Client) -> None:
    largest = {"amount": "999999999999.999999999999", "tax_rate": "999999999999.999999999999"}
    answer = await client.post("/v1/items", json={"name": "Large", "price": largest})
    assert answer.status_code == 201, answer.text
    plain = await client.post("/items/", json={"name": "Large", "price": 999999999999, "tax": 999999999999})
    assert plain.json()["price_with_tax"] == 1999999999998
    for address in ("/items/", "/v1/items", f"/v1/items/{answer.json()['id']}/price"):
        assert (await client.get(address)).status_code == 200


@pytest.mark.parametrize(
    "given", ['"0.061232374"', "0.061232374", '"123456789012.123456789012"', "123456789012.123456789012"]
)
async def test_amounts_are_exact_as_strings_and_as_numbers(client: Client, given: str) -> None:
    address = await item(client)
    answer = await client.post(
        f"{address}/prices", content=f'{{"amount": {given}}}', headers={"content-type": "application/json"}
    )
    assert answer.json()["amount"] == given.strip('"')
    assert await amount(client, address) == given.strip('"')
