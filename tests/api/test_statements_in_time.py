"""What reads in time cost the database: one statement, however much they ask for."""

from typing import Any

import httpx2
import pytest
from fastapi import FastAPI

from tests.api.test_statements import statements

Client = httpx2.AsyncClient

SEQ = "known_seq=20"
AT = "at=2024-06-01T00:00:00Z"
KNOWN = "known_at=2999-01-01T00:00:00Z"
WINDOW = "from=2024-01-01T00:00:00Z&to=2025-01-01T00:00:00Z"
PRIOR = "reduced_at=2024-06-01T00:00:00Z"


async def prices(client: Client) -> None:
    """Sixty items with histories of three rows."""
    await client.post("/v1/books", json={"key": "shop", "name": "Shop", "currency": "EUR"})
    for number in range(60):
        price = {"amount": number + 1, "valid_from": "2024-01-01"}
        await client.post("/v1/items", json={"name": "x", "sku": f"S{number}", "price": price})
        for month in (6, 12):
            body = {"amount": number + month, "valid_from": f"2024-{month:02}-01"}
            answer = await client.post(f"/v1/items/sku:S{number}/prices", json=body)
            assert answer.status_code == 201


async def counted(client: Client, app: FastAPI, method: str, path: str, body: Any = None) -> tuple[int, Any]:
    """How many statements a request ran, and its answer."""
    with statements(app) as seen:
        answer = await client.request(method, path, json=body)
    assert answer.status_code == 200, answer.text
    return len(seen), answer.json()


async def test_reads_in_time_cost_one_statement(client: Client, app: FastAPI) -> None:
    await prices(client)
    found = {}
    for path in (
        f"/v1/items/sku:S3/price?{AT}&{SEQ}",
        f"/v1/items/sku:S3/price?{SEQ}",
        f"/v1/items/sku:S3/price?{AT}&{KNOWN}",
        f"/v1/items/sku:S3/price?{AT}&{KNOWN}&quantity=5",
        f"/v1/items?limit=50&{AT}",
        "/v1/items?limit=50",
        "/v1/items?limit=50&q=s",
        f"/v1/schedule?{WINDOW}&limit=1000",
        "/v1/schedule",
        "/v1/items/sku:S3/prices",
        f"/v1/items/sku:S3/prices?{WINDOW}&quantity=7",
        f"/v1/items/sku:S3/prices?{SEQ}",
        f"/v1/items/sku:S3/prices?{KNOWN}",
        "/v1/items/sku:S3/prices?rows=true",
        f"/v1/items/sku:S3/prices?rows=true&{SEQ}",
        f"/v1/items/sku:S3/prior-price?{PRIOR}",
        "/v1/items/sku:S3/prior-price",
        "/v1/books",
        "/v1/books/shop",
    ):
        found[path], document = await counted(client, app, "GET", path)
        if "/schedule?" in path:
            assert len(document["boundaries"]) == 180
        if "/items?" in path:
            assert len(document["items"]) == 50
            assert document["items"][49]["price"]["amount"]
    assert found == dict.fromkeys(found, 1)


@pytest.mark.parametrize("count", [1, 50, 1000])
async def test_a_lookup_costs_one_statement(client: Client, app: FastAPI, count: int) -> None:
    await prices(client)
    ids = [each["id"] for each in (await client.get("/v1/items")).json()["items"]]
    lines = [
        {"item": ids[number % 60] if number % 2 else f"sku:S{number % 70}", "quantity": number + 1}
        for number in range(count)
    ]
    body = {"at": "2024-06-01T00:00:00Z", "lines": lines}
    statements_run, document = await counted(client, app, "POST", "/v1/prices:lookup", body)
    assert statements_run == 1
    assert len(document["prices"]) == count


async def test_an_explanation_costs_a_second_statement(client: Client, app: FastAPI) -> None:
    await prices(client)
    for pin in ("", f"&{SEQ}", f"&{KNOWN}"):
        path = f"/v1/items/sku:S3/price?{AT}&explain=true{pin}"
        statements_run, document = await counted(client, app, "GET", path)
        assert (statements_run, len(document["explain"])) == (2, 3)


@pytest.mark.parametrize("count", [1, 1000])
async def test_a_quote_costs_one_statement_and_so_does_its_verification(
    client: Client, app: FastAPI, count: int
) -> None:
    await prices(client)
    lines = [
        {"unit_price": 1, "tax_rate": 19}
        if number % 3 == 1
        else {"item": f"sku:S{number % 60}", "quantity": number + 1}
        for number in range(count)
    ]
    for at, expected in (("2024-06-01T00:00:00Z", 1), (None, 1), ("2024-06-01", 2)):
        run, quote = await counted(client, app, "POST", "/v1/quotes?explain=true", {"at": at, "lines": lines})
        assert (run, len(quote["lines"])) == (expected, count), at
        run, verification = await counted(client, app, "POST", "/v1/quotes:verify", quote)
        assert (run, verification["matches"]) == (1, True)
    stated = {"currency": "EUR", "at": "2024-06-01", "lines": [{"unit_price": 1, "tax_rate": 19}] * count}
    assert (await counted(client, app, "POST", "/v1/quotes", stated))[0] == 1
