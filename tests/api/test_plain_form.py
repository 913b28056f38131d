"""The plain form behaves as the reader of a first tutorial expects."""

from decimal import Decimal
from typing import Any

import httpx2
import pytest

from app import exact_json

Client = httpx2.AsyncClient


async def create(client: Client, **fields: Any) -> dict[str, Any]:
    answer = await client.post("/items/", json=fields)
    assert answer.status_code == 200, answer.text
    document: dict[str, Any] = answer.json()
    return document


async def test_the_tutorial_works(client: Client) -> None:
    created = await create(client, name="Foo", description="A very nice item", price=35.4, tax=3.2)
    assert created == {
        "id": created["id"],
        "name": "Foo",
        "description": "A very nice item",
        "price": 35.4,
        "tax": 3.2,
        "price_with_tax": 38.6,
    }
    assert (await client.get(f"/items/{created['id']}")).json() == created
    assert (await client.get("/items/")).json() == [created]


async def test_description_and_tax_are_optional_and_unknown_fields_ignored(client: Client) -> None:
    created = await create(client, name="Bar", price=62, colour="red")
    assert created == {
        "id": created["id"],
        "name": "Bar",
        "description": None,
        "price": 62,
        "tax": None,
        "price_with_tax": 62,
    }


@pytest.mark.parametrize(
    ("price", "tax", "with_tax"),
    [
        ("0.1", "0.2", "0.3"),
        ("123456789012.123456789012", "0.000000000001", "123456789012.123456789013"),
        ("0.061232374", "0", "0.061232374"),
        ("35.40", "3.20", "38.6"),
    ],
)
async def test_numbers_are_exact_in_both_directions(client: Client, price: str, tax: str, with_tax: str) -> None:
    body = f'{{"name": "Exact", "price": {price}, "tax": {tax}}}'
    answer = await client.post("/items/", content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 200, answer.text
    document = exact_json.loads(answer.content)
    found = [Decimal(document[name]) for name in ("price", "tax", "price_with_tax")]
    assert found == [Decimal(price), Decimal(tax), Decimal(with_tax)]
    assert f'"price":{Decimal(price).normalize():f}' in answer.text, "as a JSON number, not as a string"


async def test_an_amount_beyond_the_digits_is_refused_not_changed(client: Client) -> None:
    body = '{"name": "Big", "price": 12345678901234567.89}'
    answer = await client.post("/items/", content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["code"] == "too-many-digits"
    assert (await client.get("/items/")).json() == []


async def test_prices_in_other_forms_are_shown_with_their_tax(client: Client) -> None:
    price = {"amount": "119.00", "tax_rate": "19", "tax_included": True}
    await client.post("/v1/items", json={"name": "Inclusive", "price": price})
    await client.post("/v1/items", json={"name": "Rate", "price": {"amount": "10.005", "tax_rate": "7"}})
    await client.post("/v1/items", json={"name": "Exact", "price": {"amount": "0.061232374", "tax_included": True}})
    await client.post("/v1/items", json={"name": "By the hundred", "price": {"amount": "45.20", "per": "100"}})
    await client.post("/v1/items", json={"name": "No price yet"})
    await client.post("/v1/items", json={"name": "Not for sale", "price": {"amount": None}})
    shown = [(item["price"], item["tax"], item["price_with_tax"]) for item in (await client.get("/items/")).json()]
    assert shown == [
        (100, 19, 119),
        (10.01, 0.7, 10.71),
        (0.061232374, None, 0.061232374),
        (None, None, None),
        (None, None, None),
        (None, None, None),
    ]


async def test_long_lists_are_linked_page_by_page(client: Client) -> None:
    names = [(await create(client, name=f"Item {number}", price=number))["name"] for number in range(7)]
    seen, address = [], "/items/?limit=3"
    for _ in range(3):
        page = await client.get(address)
        assert len(page.json()) <= 3
        seen += [item["name"] for item in page.json()]
        address = page.links.get("next", {}).get("url", "")
    assert (seen, address) == (names, "")
