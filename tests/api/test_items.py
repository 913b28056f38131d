"""Items of v1: create, read, list, change, archive."""

import asyncio
import itertools
from typing import Any

import httpx2
import pytest

from app.main import create_app
from app.settings import Settings

Client = httpx2.AsyncClient


async def create(client: Client, **fields: Any) -> dict[str, Any]:
    answer = await client.post("/v1/items", json={"name": "Frame", **fields})
    assert answer.status_code == 201, answer.text
    document: dict[str, Any] = answer.json()
    return document


async def patch(client: Client, item: dict[str, Any], **changes: Any) -> httpx2.Response:
    return await client.patch(f"/v1/items/{item['id']}", json=changes, headers={"If-Match": f'"{item["version"]}"'})


async def test_an_item_and_its_first_price(client: Client) -> None:
    body = {
        "sku": "FR-R92B",
        "name": "Frame",
        "gtin": "4006381333931",
        "attributes": {"colour": "black", "size": 58, "carbon": False},
        "price": {"amount": "1431.50", "tax_rate": "19"},
    }
    answer = await client.post("/v1/items", json=body)
    assert answer.status_code == 201
    created = answer.json()
    price = created.pop("price")
    assert created == {
        "id": created["id"],
        "sku": "FR-R92B",
        "name": "Frame",
        "description": None,
        "gtin": "4006381333931",
        "unit": "C62",
        "tax_category": "S",
        "attributes": {"colour": "black", "size": 58, "carbon": False},
        "archived_at": None,
        "version": 1,
        "created_at": created["created_at"],
        "updated_at": created["created_at"],
    }
    assert price["amount"] == "1431.50"
    assert price["display"] == {"net": "1431.50", "tax": "271.99", "gross": "1703.49"}
    assert price["valid_from"] == created["created_at"], "one write, one instant"
    assert answer.headers["location"] == f"/v1/items/{created['id']}"
    assert answer.headers["etag"] == '"1"'
    assert answer.headers["pricebook-seq"] == "3", "the default book, the item, the price"
    for address in (answer.headers["location"], "/v1/items/sku:FR-R92B"):
        assert (await client.get(address)).json() == created


async def test_a_first_price_in_the_future_is_no_price_yet(client: Client) -> None:
    assert (await create(client, price={"amount": "1", "valid_from": "2999-01-01"}))["price"] is None


@pytest.mark.parametrize("sku", ["anthropic/claude-2:v1.0~x", "a b", "50%", "ü", "price", "x/prices/y", "x" * 100])
async def test_skus_are_addresses(client: Client, sku: str) -> None:
    created = await create(client, sku=sku, price={"amount": "2"})
    address = "/v1/items/sku:" + httpx2.URL("http://x").join("/").copy_with(path="/" + sku).raw_path.decode()[1:]
    assert (await client.get(address)).json()["id"] == created["id"]
    assert (await client.get(address + "/price")).json()["amount"] == "2.00"
    assert (await client.get("/v1/items", params={"sku": sku})).json()["items"][0]["id"] == created["id"]


async def test_duplicates_are_refused_and_use_no_seq(client: Client) -> None:
    await create(client, sku="A", gtin="4006381333931")
    other = await create(client, sku="B")
    for fields, slug in [({"sku": "A"}, "duplicate-sku"), ({"gtin": "4006381333931"}, "duplicate-gtin")]:
        for answer in (
            await client.post("/v1/items", json={"name": "Twin", **fields}),
            await patch(client, other, **fields),
        ):
            assert answer.status_code == 409
            assert answer.json()["type"] == f"/problems/{slug}"
            assert answer.json()["errors"][0]["pointer"] == f"/{next(iter(fields))}"
    after = await client.post("/v1/items", json={"name": "Next"})
    assert after.headers["pricebook-seq"] == "4"


async def test_lists_have_filters_and_stable_pages(client: Client) -> None:
    items = [await create(client, sku=f"S{number}", price={"amount": str(number)}) for number in range(5)]
    archived = await create(client, sku="old", gtin="4006381333931")
    await client.delete(f"/v1/items/{archived['id']}", headers={"If-Match": "*"})

    async def skus(**query: Any) -> list[str]:
        return [item["sku"] for item in (await client.get("/v1/items", params=query)).json()["items"]]

    assert await skus() == ["S0", "S1", "S2", "S3", "S4"]
    assert await skus(archived="true") == ["old"]
    assert await skus(archived="any") == ["S0", "S1", "S2", "S3", "S4", "old"]
    assert await skus(sku="S3") == ["S3"]
    assert await skus(archived="any", gtin="4006381333931") == ["old"]
    assert await skus(sku="none") == []

    async def pages(**query: Any) -> list[list[str]]:
        first = (await client.get("/v1/items", params={"limit": 2, **query})).json()
        await client.post(f"/v1/items/{items[3]['id']}/prices", json={"amount": str(next(amounts))})
        second = (await client.get("/v1/items", params={"limit": 2, "cursor": first["next"], **query})).json()
        third = (await client.get("/v1/items", params={"limit": 2, "cursor": second["next"], **query})).json()
        assert third["next"] is None
        return [[item["price"]["amount"] for item in page["items"]] for page in (first, second, third)]

    amounts = itertools.count(99)
    at = items[-1]["price"]["at"]
    # A page shows what the prices are when it is asked for, or all of them what they are at one instant.
    assert await pages(at=at) == [["0.00", "1.00"], ["2.00", "3.00"], ["4.00"]]
    assert await pages() == [["0.00", "1.00"], ["2.00", "100.00"], ["4.00"]]
    first = (await client.get("/v1/items", params={"limit": 2})).json()
    other_filter = await client.get("/v1/items", params={"cursor": first["next"], "archived": "any"})
    assert other_filter.json()["errors"][0]["code"] == "wrong-cursor"


async def test_lists_are_priced_at_any_instant(client: Client) -> None:
    await create(client, price={"amount": "5", "valid_from": "2020-01-01"})
    await create(client, price={"amount": "6", "valid_from": "2030-01-01"})

    async def amounts(at: str) -> list[str | None]:
        items = (await client.get("/v1/items", params={"at": at})).json()["items"]
        return [item["price"] and item["price"]["amount"] for item in items]

    assert await amounts("2019-12-31") == [None, None]
    assert await amounts("2026-01-01T00:00:00Z") == ["5.00", None]
    assert await amounts("2030-01-01") == ["5.00", "6.00"]


async def test_a_merge_patch_changes_what_it_names(client: Client) -> None:
    item = await create(client, sku="A", description="old", attributes={"a": "1", "b": "2"})
    answer = await patch(client, item, name="New", description=None, attributes={"b": None, "c": 3})
    assert answer.status_code == 200, answer.text
    changed = answer.json()
    assert (changed["name"], changed["description"], changed["sku"]) == ("New", None, "A")
    assert changed["attributes"] == {"a": "1", "c": 3}
    assert (changed["version"], answer.headers["etag"], answer.headers["pricebook-seq"]) == (2, '"2"', "3")
    assert changed["updated_at"] > item["updated_at"]
    assert (await client.get(f"/v1/items/{item['id']}")).json() == changed


async def test_true_is_not_one(client: Client) -> None:
    item = await create(client, attributes={"a": 1, "b": 0})
    changed = (await patch(client, item, attributes={"a": True, "b": False})).json()
    assert (changed["version"], changed["attributes"]) == (2, {"a": True, "b": False})
    assert changed["attributes"]["a"] is True


async def test_of_changes_to_the_same_version_one_wins(client: Client) -> None:
    for _ in range(5):
        item = await create(client)
        answers = await asyncio.gather(*(patch(client, item, name=f"Name {number}") for number in range(8)))
        assert sorted(answer.status_code for answer in answers) == [200] + [412] * 7
        assert (await client.get(f"/v1/items/{item['id']}")).json()["version"] == 2


async def test_no_price_lands_on_an_archived_item(client: Client) -> None:
    for _ in range(10):
        address = f"/v1/items/{(await create(client))['id']}"
        archiving = client.delete(address, headers={"If-Match": "*"})
        pricing = [client.post(f"{address}/prices", json={"amount": 1}) for _ in range(6)]
        archived, *recorded = await asyncio.gather(archiving, *pricing)
        last = int(archived.headers["pricebook-seq"])
        assert {answer.status_code for answer in recorded} <= {201, 409}
        assert all(answer.json()["seq"] < last for answer in recorded if answer.status_code == 201)


async def test_a_patch_that_changes_nothing_writes_nothing(client: Client) -> None:
    item = await create(client)
    answer = await patch(client, item, name="Frame", attributes={"absent": None})
    assert (answer.status_code, answer.json()["version"]) == (200, 1)
    assert "pricebook-seq" not in answer.headers


async def test_changes_need_the_current_version(client: Client) -> None:
    item = await create(client)
    address = f"/v1/items/{item['id']}"
    for method in ("PATCH", "DELETE"):
        body = {"name": "Lost"} if method == "PATCH" else None
        for headers, status in [({}, 428), ({"If-Match": '"7"'}, 412), ({"If-Match": "7"}, 422)]:
            answer = await client.request(method, address, json=body, headers=headers)
            assert answer.status_code == status, answer.text
    assert (await client.get(address)).json()["version"] == 1


async def test_conditional_reads(client: Client) -> None:
    item = await create(client)
    address = f"/v1/items/{item['id']}"
    fresh = await client.get(address, headers={"If-None-Match": '"1"'})
    assert (fresh.status_code, fresh.content, fresh.headers["etag"]) == (304, b"", '"1"')
    await patch(client, item, name="New")
    assert (await client.get(address, headers={"If-None-Match": '"1"'})).status_code == 200


async def test_archived_items_leave_lists_but_keep_their_prices(client: Client) -> None:
    item = await create(client, sku="A", price={"amount": "5"})
    address = f"/v1/items/{item['id']}"
    archived = await client.delete(address, headers={"If-Match": '"1"'})
    assert archived.json()["archived_at"] == archived.json()["updated_at"]
    assert (await client.get("/v1/items")).json()["items"] == []
    assert (await client.get(f"{address}/price")).json()["amount"] == "5.00"
    refused = await client.post(f"{address}/prices", json={"amount": "6"})
    assert (refused.status_code, refused.json()["type"]) == (409, "/problems/item-archived")

    again = await client.delete(address, headers={"If-Match": '"2"'})
    assert (again.status_code, again.json()) == (200, archived.json())
    assert "pricebook-seq" not in again.headers

    restored = await patch(client, archived.json(), archived_at=None)
    assert (restored.status_code, restored.json()["archived_at"]) == (200, None)
    assert (await client.post(f"{address}/prices", json={"amount": "6"})).status_code == 201


async def test_the_version_in_the_paths_is_a_setting(settings: Settings) -> None:
    app = create_app(settings.model_copy(update={"api_version": "v7"}))
    async with (
        app.router.lifespan_context(app),
        httpx2.AsyncClient(transport=httpx2.ASGITransport(app=app), base_url="http://pricebook.test") as client,
    ):
        assert (await client.get("/v7/items")).status_code == 200
        assert (await client.get("/v1/items")).status_code == 404
        created = await client.post("/v7/items", json={"name": "Seven"})
        assert created.headers["location"].startswith("/v7/items/")
