"""An export, imported into an empty book and exported again, is the same file: in its service and in a new one."""

from collections.abc import AsyncIterator

import httpx2
import pytest
from sqlalchemy.engine import URL

from app.main import create_app
from app.migrations import migrate
from tests.api.test_exports import Ledger, book, export, fill
from tests.conftest import make_settings

Client = httpx2.AsyncClient

TYPES = {"csv": "text/csv", "ndjson": "application/x-ndjson"}


@pytest.fixture
async def fresh_client(fresh_url: URL) -> AsyncIterator[Client]:
    """A client of a service with a database of its own."""
    settings = make_settings(fresh_url, database_pool_size=2)
    await migrate(settings)
    app = create_app(settings)
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


@pytest.mark.parametrize("form", TYPES)
@pytest.mark.parametrize(("key", "currency"), [("default", "EUR"), ("yen", "JPY"), ("dinar", "KWD")])
async def test_one_of_everything(client: Client, fresh_client: Client, form: str, key: str, currency: str) -> None:
    await fill(client)
    await name_the_unnumbered(client)
    content = (await export(client, form, book=key)).content
    assert b"FR-R92B" in content
    for other in (client, fresh_client):
        await book(other, "copy", currency)
        await bring(other, content, form, "copy")
        assert (await export(other, form, book="copy")).content == content


@pytest.mark.parametrize("seed", range(2))
async def test_random_ledgers(client: Client, fresh_client: Client, seed: int) -> None:
    ledger = Ledger(client, 100 + seed)
    for _ in range(80):
        await ledger.step()
    form = ["csv", "ndjson"][seed % 2]
    content = (await export(client, form)).content
    for other in (client, fresh_client):
        await book(other, "copy", "EUR")
        await bring(other, content, form, "copy")
        assert (await export(other, form, book="copy")).content == content
        # Once more changes nothing.
        again = await other.post(
            "/v1/imports", params={"book": "copy"}, content=content, headers={"Content-Type": TYPES[form]}
        )
        counts = again.json()["counts"]
        assert counts["unchanged"] == counts["rows"]
