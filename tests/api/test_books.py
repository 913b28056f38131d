"""Books: price lists, each in one currency, with a zone, a tax default and a rounding policy."""

import asyncio
import json
from datetime import datetime
from typing import Any

import asyncpg
import httpx2
import pytest

Client = httpx2.AsyncClient

ROUNDS = 40


async def create(client: Client, key: str = "shop", **fields: Any) -> dict[str, Any]:
    answer = await client.post("/v1/books", json={"key": key, "name": "Shop", "currency": "EUR", **fields})
    assert answer.status_code == 201, answer.text
    document: dict[str, Any] = answer.json()
    return document


async def patch(client: Client, key: str = "shop", match: str = "*", **changes: Any) -> httpx2.Response:
    return await client.patch(f"/v1/books/{key}", json=changes, headers={"If-Match": match})


async def item(client: Client, **fields: Any) -> str:
    answer = await client.post("/v1/items", json={"name": "Frame", **fields})
    assert answer.status_code == 201, answer.text
    return f"/v1/items/{answer.json()['id']}"


async def record(client: Client, address: str, amount: str | None, **fields: Any) -> dict[str, Any]:
    answer = await client.post(f"{address}/prices", json={"amount": amount, **fields})
    assert answer.status_code == 201, answer.text
    row: dict[str, Any] = answer.json()
    return row


async def price(client: Client, address: str, **query: Any) -> dict[str, Any]:
    answer = await client.get(f"{address}/price", params=query)
    assert answer.status_code == 200, answer.text
    document: dict[str, Any] = answer.json()
    return document


def problem(answer: httpx2.Response) -> tuple[int, str, list[tuple[str, str]]]:
    """Status, slug, and the faults as (pointer, code)."""
    document = answer.json()
    slug = document["type"].removeprefix("/problems/")
    return answer.status_code, slug, [(fault["pointer"], fault["code"]) for fault in document["errors"]]


async def test_a_book_says_everything_about_itself(client: Client) -> None:
    body = {
        "key": "retail-de",
        "name": "Retail Germany",
        "currency": "CHF",
        "time_zone": "Europe/Zurich",
        "tax_included": True,
        "rounding": {"mode": "half_even", "level": "line", "cash_increment": "0.050"},
    }
    answer = await client.post("/v1/books", json=body)
    assert answer.status_code == 201
    created = answer.json()
    assert created == {
        **body,
        "rounding": {"mode": "half_even", "level": "line", "cash_increment": "0.05"},
        "version": 1,
        "created_at": created["created_at"],
        "updated_at": created["created_at"],
    }
    assert answer.headers["location"] == "/v1/books/retail-de"
    assert answer.headers["etag"] == '"1"'
    assert answer.headers["pricebook-seq"] == "2"
    assert (await client.get("/v1/books/retail-de")).json() == created


async def test_defaults(client: Client) -> None:
    created = await create(client)
    expected = {
        "time_zone": "UTC",
        "tax_included": False,
        "rounding": {"mode": "half_up", "level": "group", "cash_increment": None},
    }
    assert {name: created[name] for name in expected} == expected
    default = (await client.get("/v1/books/default")).json()
    assert {name: default[name] for name in expected} == expected
    assert (default["currency"], default["version"]) == ("EUR", 1)


async def test_all_books_are_listed_by_key(client: Client) -> None:
    for key in ("zoo", "a_1", "eastern-shop"):
        await create(client, key)
    document = (await client.get("/v1/books")).json()
    assert [book["key"] for book in document["items"]] == ["a_1", "default", "eastern-shop", "zoo"]
    assert document["next"] is None
    assert document["items"][3] == (await client.get("/v1/books/zoo")).json()


async def test_a_key_names_one_book(client: Client) -> None:
    await create(client)
    for key in ("shop", "default"):
        answer = await client.post("/v1/books", json={"key": key, "name": "Twin", "currency": "USD"})
        assert problem(answer) == (409, "duplicate-book", [("/key", "duplicate")])
    assert (await client.get("/v1/books/shop")).json()["currency"] == "EUR"
    following = await client.post("/v1/books", json={"key": "next", "name": "Next", "currency": "USD"})
    assert following.headers["pricebook-seq"] == "3", "what was refused took no seq"


async def test_a_merge_patch_changes_what_it_names(client: Client) -> None:
    created = await create(client, rounding={"mode": "half_even", "level": "unit", "cash_increment": "0.05"})
    answer = await patch(client, name="New", rounding={"level": "line"})
    assert answer.status_code == 200, answer.text
    changed = answer.json()
    assert changed == {
        **created,
        "name": "New",
        "rounding": {"mode": "half_even", "level": "line", "cash_increment": "0.05"},
        "version": 2,
        "updated_at": changed["updated_at"],
    }
    assert changed["updated_at"] > created["updated_at"]
    assert (answer.headers["etag"], answer.headers["pricebook-seq"]) == ('"2"', "3")
    assert (await client.get("/v1/books/shop")).json() == changed

    for changes, rounding in [
        ({"mode": "down"}, {"mode": "down", "level": "line", "cash_increment": "0.05"}),
        ({"cash_increment": None}, {"mode": "down", "level": "line", "cash_increment": None}),
        ({"cash_increment": 0.1}, {"mode": "down", "level": "line", "cash_increment": "0.10"}),
    ]:
        assert (await patch(client, rounding=changes)).json()["rounding"] == rounding
    others: dict[str, Any] = {"currency": "USD", "time_zone": "Asia/Tokyo", "tax_included": True}
    last = (await patch(client, **others)).json()
    assert {name: last[name] for name in others} == others
    assert (last["name"], last["version"]) == ("New", 6)


@pytest.mark.parametrize(
    "changes",
    [
        {"name": "Shop"},
        {"rounding": {}},
        {"rounding": {"cash_increment": "0.0500"}},
        {"rounding": {"mode": "half_up"}, "currency": "EUR", "time_zone": "UTC", "tax_included": False},
    ],
)
async def test_a_patch_that_changes_nothing_writes_nothing(client: Client, changes: dict[str, Any]) -> None:
    created = await create(client, rounding={"cash_increment": "0.05"})
    answer = await patch(client, **changes)
    assert (answer.status_code, answer.json()) == (200, created)
    assert "pricebook-seq" not in answer.headers
    assert answer.headers["etag"] == '"1"'
    changed = await patch(client, name="New")
    assert changed.headers["pricebook-seq"] == "3", "the seq after the creation's"


async def test_changes_need_the_current_version(client: Client) -> None:
    created = await create(client)
    headers: list[tuple[dict[str, str], int]] = [({}, 428), ({"If-Match": '"7"'}, 412), ({"If-Match": "1"}, 422)]
    for given, status in headers:
        answer = await client.patch("/v1/books/shop", json={"name": "Lost"}, headers=given)
        assert answer.status_code == status, answer.text
    assert (await client.get("/v1/books/shop")).json() == created
    assert (await patch(client, match='"1"', name="Second")).json()["version"] == 2
    assert problem(await patch(client, match='"1"', name="Lost"))[:2] == (412, "precondition-failed")
    unknown = await patch(client, key="none", name="Lost")
    assert problem(unknown) == (404, "unknown-book", [("path/key", "unknown-book")])


async def test_conditional_reads(client: Client) -> None:
    await create(client)
    fresh = await client.get("/v1/books/shop", headers={"If-None-Match": '"1"'})
    assert (fresh.status_code, fresh.content, fresh.headers["etag"]) == (304, b"", '"1"')
    await patch(client, name="New")
    changed = await client.get("/v1/books/shop", headers={"If-None-Match": '"1"'})
    assert (changed.status_code, changed.headers["etag"]) == (200, '"2"')
    unknown = await client.get("/v1/books/none")
    assert problem(unknown) == (404, "unknown-book", [("path/key", "unknown-book")])


async def test_the_currency_changes_only_while_there_are_no_prices(client: Client) -> None:
    await create(client)
    assert (await patch(client, currency="USD")).json()["currency"] == "USD"
    # A price in another book fixes nothing here.
    address = await item(client, price={"amount": "1"})
    assert (await patch(client, currency="JPY")).json()["currency"] == "JPY"
    row = await record(client, address, "100", book="shop")
    refused = await patch(client, currency="EUR", name="Lost")
    assert problem(refused)[:2] == (409, "currency-fixed")
    assert "JPY" in refused.json()["detail"]
    # A void price is still a price of the ledger.
    await client.delete(f"/v1/prices/{row['id']}")
    assert problem(await patch(client, currency="EUR"))[:2] == (409, "currency-fixed")
    book = (await patch(client, currency="JPY", name="Kept")).json()
    assert (book["currency"], book["name"], book["version"]) == ("JPY", "Kept", 4)


@pytest.mark.parametrize(
    ("currency", "shown", "exact", "gross"),
    [
        ("JPY", "120", "0.5", "120"),
        ("EUR", "120.00", "0.50", "120.00"),
        ("KWD", "120.000", "0.500", "120.000"),
        ("CLF", "120.0000", "0.5000", "120.0000"),
    ],
)
async def test_amounts_are_padded_to_the_currency_of_the_book(
    client: Client, currency: str, shown: str, exact: str, gross: str
) -> None:
    await create(client, currency=currency)
    address = await item(client, sku="A")
    row = await record(client, address, "120", book="shop", tax="0.5", tax_included=True, valid_from="2024-01-01")
    assert (row["currency"], row["amount"], row["tax"], row["book"]) == (currency, shown, exact, "shop")
    found = await price(client, address, book="shop")
    assert (found["currency"], found["amount"], found["tax"], found["book"]) == (currency, shown, exact, "shop")
    assert found["display"]["gross"] == gross
    query = {"book": "shop", "at": "2024-06-01"}
    listed = (await client.get("/v1/items", params=query)).json()["items"][0]["price"]
    looked_up = (await client.post("/v1/prices:lookup", json={**query, "lines": [{"item": "sku:A"}]})).json()
    assert looked_up["prices"] == [listed]
    assert (looked_up["currency"], listed["amount"]) == (currency, shown)
    timeline = (await client.get(f"{address}/prices", params={"book": "shop"})).json()
    assert (timeline["currency"], timeline["steps"][1]["amount"]) == (currency, shown)
    # An exact unit price keeps all its digits, whatever the currency's.
    await record(client, address, "0.061232374", book="shop")
    assert (await price(client, address, book="shop"))["amount"] == "0.061232374"


async def test_books_do_not_share_prices(client: Client) -> None:
    await create(client)
    address = await item(client, price={"amount": "1", "valid_from": "2024-01-01"})
    assert problem(await client.get(f"{address}/price", params={"book": "shop"}))[:2] == (404, "no-price")
    row = await record(client, address, "2", book="shop", valid_from="2024-01-01")
    assert (await price(client, address))["amount"] == "1.00"
    assert (await price(client, address, book="shop"))["amount"] == "2.00"
    schedule = await client.get("/v1/schedule", params={"book": "shop", "from": "2024-01-01"})
    assert [boundary["after"]["price_id"] for boundary in schedule.json()["boundaries"]] == [row["id"]]
    across = {"amount": "3", "supersedes": row["id"]}
    refused = await client.post(f"{address}/prices", json=across)
    assert problem(refused) == (422, "invalid-request", [("/supersedes", "unknown-price")])


async def test_new_rows_include_tax_as_the_book_says(client: Client) -> None:
    await create(client, tax_included=True)
    address = await item(client)
    first = await record(client, address, "119", book="shop", tax_rate="19", valid_from="2024-01-01")
    said = await record(client, address, "119", book="shop", tax_rate="19", tax_included=False, valid_from="2024-02-01")
    assert [first["tax_included"], said["tax_included"]] == [True, False]
    with_item = await item(client, price={"amount": "119", "book": "shop", "tax_rate": "19"})
    assert (await price(client, with_item, book="shop"))["display"] == {
        "net": "100.00",
        "tax": "19.00",
        "gross": "119.00",
    }
    # The default is copied into the row: rows that are there keep theirs.
    await patch(client, tax_included=False)
    assert (await price(client, address, book="shop", at="2024-01-15"))["tax_included"] is True
    later = await record(client, address, "119", book="shop", tax_rate="19", valid_from="2024-03-01")
    assert later["tax_included"] is False
    found = await price(client, address, book="shop", at="2024-03-15")
    assert found["display"] == {"net": "119.00", "tax": "22.61", "gross": "141.61"}


async def test_prices_are_shown_rounded_as_the_book_says(client: Client) -> None:
    modes = {"half_up": "0.13", "half_even": "0.12", "half_down": "0.12", "up": "0.13", "down": "0.12"}
    address = await item(client)
    for mode, gross in modes.items():
        await create(client, mode, rounding={"mode": mode})
        await record(client, address, "0.125", book=mode)
        found = await price(client, address, book=mode)
        assert (found["amount"], found["display"]["gross"]) == ("0.125", gross)
    for key, amount, gross in [("up", "0.121", "0.13"), ("down", "0.129", "0.12"), ("half_even", "0.135", "0.14")]:
        await record(client, address, amount, book=key)
        assert (await price(client, address, book=key))["display"]["gross"] == gross
    await patch(client, key="half_up", rounding={"mode": "half_even"})
    assert (await price(client, address, book="half_up"))["display"]["gross"] == "0.12"


async def test_bare_dates_begin_in_the_zone_of_the_book(client: Client) -> None:
    await create(client, time_zone="Asia/Kolkata")
    address = await item(client)
    row = await record(client, address, "1", book="shop", valid_from="2024-01-01")
    assert row["valid_from"] == "2023-12-31T18:30:00Z"
    await patch(client, time_zone="Europe/Berlin")
    assert (await price(client, address, book="shop", at="2024-01-01"))["at"] == "2023-12-31T23:00:00Z"
    assert (await price(client, address, book="shop"))["valid_from"] == "2023-12-31T18:30:00Z", "rows stay"


async def test_changes_hold_whole_documents(client: Client, owner: asyncpg.Connection) -> None:
    await owner.set_type_codec("jsonb", schema="pg_catalog", encoder=str, decoder=json.loads)
    created = await create(client, rounding={"cash_increment": "0.05"})
    changed = (await patch(client, rounding={"mode": "down"}, name="New")).json()
    await patch(client, name="New")
    moved = (await patch(client, currency="CHF")).json()
    rows = await owner.fetch("SELECT * FROM changes WHERE seq > 1 ORDER BY seq")
    assert [(row["seq"], row["type"], row["before"], row["after"]) for row in rows] == [
        (2, "book.created", None, created),
        (3, "book.updated", created, changed),
        (4, "book.updated", changed, moved),
    ]
    assert [row["at"] for row in rows] == [
        datetime.fromisoformat(document["updated_at"]) for document in (created, changed, moved)
    ]
    assert {(row["actor"], row["item_id"], row["price_id"]) for row in rows} == {("anonymous", None, None)}
    assert {row["book_id"] for row in rows} == {await owner.fetchval("SELECT id FROM books WHERE key = 'shop'")}


@pytest.mark.parametrize(
    ("currency", "increment", "code"),
    [
        ("EUR", "0", "not-in-currency"),
        ("EUR", "0.005", "not-in-currency"),
        ("EUR", "-0.05", "negative"),
        ("JPY", "0.5", "not-in-currency"),
        ("KWD", "0.0005", "not-in-currency"),
        ("EUR", "five", "not-a-number"),
        ("EUR", True, "not-a-number"),
        ("EUR", "0.0500000000000", "too-many-digits"),
    ],
)
async def test_a_cash_increment_is_an_amount_of_the_currency(
    client: Client, currency: str, increment: object, code: str
) -> None:
    rounding = {"cash_increment": increment}
    body = {"key": "shop", "name": "Shop", "currency": currency, "rounding": rounding}
    expected = (422, "invalid-request", [("/rounding/cash_increment", code)])
    assert problem(await client.post("/v1/books", json=body)) == expected
    created = await create(client, currency=currency)
    assert problem(await patch(client, rounding=rounding)) == expected
    assert (await client.get("/v1/books/shop")).json() == created


async def test_a_cash_increment_stays_an_amount_when_the_currency_changes(client: Client) -> None:
    created = await create(client, currency="CHF", rounding={"cash_increment": "0.05"})
    refused = await patch(client, currency="JPY")
    assert problem(refused) == (422, "invalid-request", [("/rounding/cash_increment", "not-in-currency")])
    assert (await client.get("/v1/books/shop")).json() == created
    answer = await patch(client, currency="JPY", rounding={"cash_increment": "5"})
    assert answer.json()["rounding"]["cash_increment"] == "5"
    assert (await patch(client, currency="KWD")).json()["rounding"]["cash_increment"] == "5.000"


async def test_no_price_gets_into_a_book_whose_currency_changes_after_it(
    client: Client, owner: asyncpg.Connection
) -> None:
    """The first price and a change of the currency at once: either comes first, and both know."""
    address = await item(client)
    fixed = changed = 0
    for number in range(ROUNDS):
        key = f"race-{number}"
        await create(client, key)
        body = {"amount": "1", "book": key}
        writes = [
            patch(client, key, currency="JPY"),
            client.post(f"{address}/prices", json=body),
            client.post("/v1/items", json={"name": "x", "price": body}),
        ]
        # Each of them is the first to start in some rounds.
        order = [(place + number) % 3 for place in range(3)]
        answers = dict(zip(order, await asyncio.gather(*(writes[place] for place in order)), strict=True))
        assert [answers[place].status_code for place in (1, 2)] == [201, 201]
        book = (await client.get(f"/v1/books/{key}")).json()
        seqs = [int(answers[place].headers["pricebook-seq"]) for place in (1, 2)]
        if answers[0].status_code == 200:
            changed += 1
            assert book["currency"] == "JPY"
            assert int(answers[0].headers["pricebook-seq"]) < min(seqs)
        else:
            fixed += 1
            assert problem(answers[0])[:2] == (409, "currency-fixed")
            assert book["currency"] == "EUR"
        assert answers[1].json()["currency"] == answers[2].json()["price"]["currency"] == book["currency"]
    assert fixed, "a price came first in some rounds"
    assert changed, "the change came first in some rounds"
    assert await owner.fetchval("SELECT count(*) FROM price_rows") == 2 * ROUNDS
