"""Documents that are written from rows are what the schemas of their answers would write, to the byte."""

from typing import Any

import httpx2
import pytest
from pydantic import BaseModel

from app.schemas.item import ItemList
from app.schemas.price import LookupAnswer, PriceAnswer
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
    assert answer.headers["content-type"] == "application/json"
    assert model.model_validate_json(answer.content).model_dump_json().encode() == answer.content
