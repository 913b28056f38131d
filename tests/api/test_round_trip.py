"""An export, imported into an empty book and exported again, is the same file: in its service and in a new one."""

import json
from collections.abc import AsyncIterator
from urllib.parse import quote

import httpx2
import pytest
from sqlalchemy.engine import URL

from app.main import create_app
from tests.api.test_exports import Ledger, book, create, export, fill, record
from tests.conftest import make_settings

Client = httpx2.AsyncClient

TYPES = {"csv": "text/csv", "ndjson": "application/x-ndjson"}


@pytest.fixture
async def fresh_client(own_url: URL) -> AsyncIterator[Client]:
    """A client of a service with a database of its own."""
    app = create_app(make_settings(own_url, database_pool_size=2))
    async with app.router.lifespan_context(app):
        transport = httpx2.ASGITransport(app=app)
        async with Client(transport=transport, base_url="http://pricebook.test") as client:
            yield client


async def bring(client: Client, content: bytes, form: str, key: str) -> None:
    """Import a list; every row of it is new."""
    answer = await client.post(
        "/v1/imports", params={"book": key, "mode": "apply"}, content=content, headers={"Content-Type": TYPES[form]}
    )
    assert answer.status_code == 201, answer.text
    counts = answer.json()["counts"]
    assert counts["create"] == counts["rows"] == (content.count(b"\n") if form == "ndjson" else counts["rows"])


async def name_the_unnumbered(client: Client) -> None:
    """An item without sku and gtin cannot be found by an import."""
    for item in (await client.get("/v1/items", params={"archived": "any"})).json()["items"]:
        if item["sku"] is None:
            address = f"/v1/items/{item['id']}"
            named = await client.patch(address, json={"sku": f"U-{item['id']}"}, headers={"If-Match": "*"})
            assert named.status_code == 200


async def answers(client: Client, key: str) -> dict[str, object]:
    """What the book says at several instants: its list, and the price of each item for some quantities."""
    found: dict[str, object] = {}
    skus = sorted(
        {json.loads(line)["sku"] for line in (await export(client, "ndjson", book=key)).content.split(b"\n") if line}
    )
    for at in INSTANTS:
        found[at] = (await export(client, at=at, book=key)).content
        for sku in skus:
            for quantity in ("0.5", "1", "10"):
                query = {"at": at, "quantity": quantity, "book": key}
                answer = (await client.get(f"/v1/items/sku:{quote(sku, safe='')}/price", params=query)).json()
                found[f"{at} {sku} {quantity}"] = [answer.get(name) for name in ("type", "amount", "valid_to")]
    return found


INSTANTS = ("2025-12-31", "2026-01-15", "2026-02-01", "2026-02-15", "2026-03-15", "2026-06-02", "2031-01-01")


@pytest.mark.parametrize("form", TYPES)
async def test_of_two_sales_that_overlap_the_same_one_answers(client: Client, fresh_client: Client, form: str) -> None:
    tent = await create(client, "Tent", sku="TENT")
    await record(client, tent, "100")
    # The later one answers, although it ends first.
    await record(client, tent, "50", valid_from="2026-01-10", valid_to="2026-03-01")
    await record(client, tent, "40", valid_from="2026-01-10", valid_to="2026-02-10")
    stove = await create(client, "Stove", sku="STOVE")
    await record(client, stove, "40", valid_from="2026-01-10", valid_to="2026-02-10")
    await record(client, stove, "50", valid_from="2026-01-10", valid_to="2026-03-01")
    content = (await export(client, form)).content
    said = await answers(client, "default")
    assert said["2026-01-15 TENT 1"] == [None, "40.00", "2026-02-10T00:00:00Z"]
    assert said["2026-01-15 STOVE 1"] == [None, "50.00", "2026-03-01T00:00:00Z"]
    for other in (client, fresh_client):
        await book(other, "copy", "EUR")
        await bring(other, content, form, "copy")
        assert await answers(other, "copy") == said
        assert (await export(other, form, book="copy")).content == content


@pytest.mark.parametrize("form", TYPES)
@pytest.mark.parametrize(("key", "currency"), [("default", "EUR"), ("yen", "JPY"), ("dinar", "KWD")])
async def test_one_of_everything(client: Client, fresh_client: Client, form: str, key: str, currency: str) -> None:
    await fill(client)
    await name_the_unnumbered(client)
    content = (await export(client, form, book=key)).content
    assert b"FR-R92B" in content
    said = await answers(client, key)
    for other in (client, fresh_client):
        await book(other, "copy", currency)
        await bring(other, content, form, "copy")
        assert (await export(other, form, book="copy")).content == content
        assert await answers(other, "copy") == said


@pytest.mark.parametrize("seed", range(2))
async def test_random_ledgers(client: Client, fresh_client: Client, seed: int) -> None:
    ledger = Ledger(client, 100 + seed)
    for _ in range(80):
        await ledger.step()
    form = ["csv", "ndjson"][seed % 2]
    content = (await export(client, form)).content
    said = await answers(client, "default")
    for other in (client, fresh_client):
        await book(other, "copy", "EUR")
        await bring(other, content, form, "copy")
        assert (await export(other, form, book="copy")).content == content
        assert await answers(other, "copy") == said
        # Once more changes nothing.
        again = await other.post(
            "/v1/imports", params={"book": "copy"}, content=content, headers={"Content-Type": TYPES[form]}
        )
        counts = again.json()["counts"]
        assert counts["unchanged"] == counts["rows"]
