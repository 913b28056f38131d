"""Documents that are written from rows are what the schemas of their answers would write, to the byte."""

from typing import Any

import httpx2
import pytest
from pydantic import BaseModel

from app.schemas.change import ChangePage
from app.schemas.item import ItemList
from app.schemas.price import LookupAnswer, PriceAnswer, PriceRow
from tests.api.test_changes import create

ITEMS: list[dict[str, Any]] = [
    {"sku": "A", "description": "Ünï\n", "attributes": {"n": 1, "s": "ä", "b": True}, "price": {"amount": "19.9"}},
    {"sku": "B", "gtin": "4006381333931", "price": {"amount": "0.061232374", "tax_rate": "19", "reason": "ä"}},
    {"price": {"amount": "5", "per": "100", "tax": "0.5", "tax_included": True, "valid_to": "2999-01-01T00:00:00Z"}},
    {"sku": "D", "price": {"amount": None, "valid_from": "2024-01-01T00:00:00.5Z"}},
    {"sku": "E"},
]
LINES = [{"item": f"sku:{sku}", "quantity": "2.5"} for sku in ("A", "B", "D", "E", "none")]


@pytest.mark.parametrize(
    ("model", "method", "address"),
    [
        (ItemList, "GET", "/v1/items"),
        (ItemList, "GET", "/v1/items?limit=2&at=2030-01-01"),
        (ItemList, "GET", "/v1/items?q=nothing"),
        (LookupAnswer, "POST", "/v1/prices:lookup"),
        (PriceAnswer, "GET", "/v1/items/sku:A/price"),
        (PriceAnswer, "GET", "/v1/items/sku:B/price?known_at=2999-01-01T00:00:00Z"),
        (PriceAnswer, "GET", "/v1/items/sku:B/price?explain=true"),
    ],
)
async def test_as_its_schema_says(
    client: httpx2.AsyncClient, model: type[BaseModel], method: str, address: str
) -> None:
    for item in ITEMS:
        await create(client, name="x", **item)
    answer = await client.request(method, address, json={"lines": LINES} if method == "POST" else None)
    assert answer.status_code == 200, answer.text
    _check(answer, model)


def _check(answer: httpx2.Response, model: type[BaseModel]) -> None:
    assert answer.headers["content-type"] == "application/json"
    assert model.model_validate_json(answer.content).model_dump_json().encode() == answer.content


async def test_price_rows_and_changes_as_their_schemas_say(client: httpx2.AsyncClient) -> None:
    for item in ITEMS:
        await create(client, name="x", **item)
    rows = [
        {"amount": "0.061232374", "per": "1000.00", "tax_rate": "7.50", "reason": "ä, ö"},
        {"amount": None, "min_quantity": "2.5", "valid_from": "2999-01-01T00:00:00.5Z"},
        {"amount": "5", "tax": "0.5", "tax_included": True, "valid_to": "2999-01-01T00:00:00Z"},
    ]
    for row in rows:
        recorded = await client.post("/v1/items/sku:A/prices", json=row)
        assert recorded.status_code == 201, recorded.text
        _check(recorded, PriceRow)
    correction = {"amount": "6", "supersedes": recorded.json()["id"]}
    assert (await client.post("/v1/items/sku:A/prices", json=correction)).status_code == 201
    voided = await client.delete(f"/v1/prices/{recorded.json()['id']}")
    assert voided.status_code == 409
    first = (await client.get("/v1/items/sku:A/prices?rows=true")).json()["rows"][0]
    voided = await client.delete(f"/v1/prices/{first['id']}")
    assert voided.status_code == 200, voided.text
    _check(voided, PriceRow)
    assert (await client.post("/v1/books", json={"key": "b", "name": "Ü", "currency": "JPY"})).status_code == 201
    assert (await client.patch("/v1/items/sku:A", json={"name": "y"}, headers={"If-Match": "*"})).status_code == 200
    page = await client.get("/v1/changes")
    assert {change["type"] for change in page.json()["changes"]} >= {
        *("book.created", "item.created", "item.updated", "price.recorded", "price.voided")
    }
    _check(page, ChangePage)
