"""Quotes: prices from the book or stated, taxed, added up, and verified whatever was recorded since."""

import hashlib
import json
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import httpx2
import pytest

from tests.support import quote_oracle

Client = httpx2.AsyncClient
Quote = dict[str, Any]


async def write(client: Client, path: str, **body: Any) -> dict[str, Any]:
    answer = await client.post(path, json=body)
    assert answer.status_code == 201, answer.text
    document: dict[str, Any] = answer.json()
    return document


async def item(client: Client, sku: str, amount: str | None = None, **price: Any) -> dict[str, Any]:
    """An item, with a price from 2020 on if an amount is given; ``category`` is its tax category."""
    fields = {"tax_category": price.pop("category", "S")}
    if amount is not None:
        fields["price"] = {"amount": amount, "valid_from": "2020-01-01", **price}
    return await write(client, "/v1/items", sku=sku, name=sku, **fields)


async def quoted(client: Client, *, explain: bool = False, **body: Any) -> Quote:
    answer = await client.post("/v1/quotes", json=body, params={"explain": "true"} if explain else {})
    assert answer.status_code == 200, answer.text
    quote: Quote = answer.json()
    return quote


async def verified(client: Client, quote: Quote) -> dict[str, Any]:
    answer = await client.post("/v1/quotes:verify", json=quote)
    assert answer.status_code == 200, answer.text
    verification: dict[str, Any] = answer.json()
    return verification


MATCHES = {"matches": True, "difference": None}


def of_lines(quote: Quote, *names: str) -> list[Any]:
    """Fields of each line; of one field, not as a tuple."""
    found = [tuple(line[name] for name in names) for line in quote["lines"]]
    return [values[0] for values in found] if len(names) == 1 else found


def totals(quote: Quote) -> str:
    return f"{quote['net']} + {quote['tax']} = {quote['gross']}"


def digest(quote: Quote) -> str:
    """As documented: SHA-256 of the answer without digest and explanations, as canonical JSON."""
    document = {name: value for name, value in quote.items() if name != "digest"}
    document["lines"] = [{name: line[name] for name in line if name != "explain"} for line in quote["lines"]]
    canonical = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(canonical.encode()).hexdigest()


async def test_the_answer_has_every_field(client: Client) -> None:
    frame = await item(client, "A", "10.5", tax_rate="19.0", per="2")
    quote = await quoted(
        client,
        at="2026-12-24T01:00:00+01:00",
        prepaid=5,
        lines=[{"id": "1", "item": "sku:A", "quantity": "3.0", "adjustments": [{"percent": -10, "reason": "Fräse"}]}],
        adjustments=[{"amount": "1", "tax_rate": 7}, {"percent": "2", "base": 50, "tax_category": "Z"}],
    )
    # 3 x 10.5 / 2 = 15.75, less 1.575 -> 1.58; 19 % of 14.17 is 2.6923.
    assert quote == {
        "book": "default",
        "currency": "EUR",
        "at": "2026-12-24T00:00:00Z",
        "known_seq": 3,
        "algorithm": "pricebook-1",
        "rounding": {"mode": "half_up", "level": "group", "digits": 2, "cash_increment": None},
        "lines": [
            {
                "id": "1",
                "item": frame["id"],
                "price_id": frame["price"]["price_id"],
                "quantity": "3",
                "unit_price": "10.50",
                "per": "2",
                "tax_rate": "19",
                "tax_category": "S",
                "tax_included": False,
                "adjustments": [{"amount": "-1.58", "percent": "-10", "base": None, "reason": "Fräse"}],
                "amount": "14.17",
                "net": "14.17",
                "tax": "2.69",
                "gross": "16.86",
                "explain": None,
            }
        ],
        "adjustments": [
            {
                "amount": "1.00",
                "percent": None,
                "base": None,
                "reason": None,
                "tax_rate": "7",
                "tax_category": "S",
                "tax_included": False,
                "net": "1.00",
                "tax": "0.07",
                "gross": "1.07",
            },
            {
                "amount": "1.00",
                "percent": "2",
                "base": "50",
                "reason": None,
                "tax_rate": "0",
                "tax_category": "Z",
                "tax_included": False,
                "net": "1.00",
                "tax": "0.00",
                "gross": "1.00",
            },
        ],
        "tax_groups": [
            {"tax_category": "S", "tax_rate": "19", "tax_included": False, "base": "14.17", "tax": "2.69"},
            {"tax_category": "S", "tax_rate": "7", "tax_included": False, "base": "1.00", "tax": "0.07"},
            {"tax_category": "Z", "tax_rate": "0", "tax_included": False, "base": "1.00", "tax": "0.00"},
        ],
        "net": "16.17",
        "tax": "2.76",
        "gross": "18.93",
        "cash_rounding": "0.00",
        "prepaid": "5.00",
        "payable": "13.93",
        "digest": digest(quote),
    }
    assert await verified(client, quote) == MATCHES


async def test_prices_of_then_now_and_to_come(client: Client) -> None:
    address = f"/v1/items/{(await item(client, 'A', '10'))['id']}/prices"
    await write(client, address, amount="12", valid_from="2026-01-01")
    await write(client, address, amount="9", valid_from="2999-01-01")
    for at, price in (
        (None, "12.00"),
        ("2025-12-31T23:59:59.999999Z", "10.00"),
        ("2026-01-01", "12.00"),
        ("2999-01-01T01:00:00+01:00", "9.00"),
    ):
        quote = await quoted(client, at=at, lines=[{"item": "sku:A"}])
        assert of_lines(quote, "quantity", "unit_price") == [("1", price)], at
        assert await verified(client, quote) == MATCHES
    # A day starts at midnight in the book's time zone.
    await write(client, "/v1/books", key="tokyo", name="Tokyo", currency="JPY", time_zone="Asia/Tokyo")
    await write(client, address, book="tokyo", amount="1500", valid_from="2026-01-01")
    quote = await quoted(client, book="tokyo", at="2026-01-01", lines=[{"item": "sku:A"}])
    assert (quote["at"], quote["currency"], quote["gross"]) == ("2025-12-31T15:00:00Z", "JPY", "1500")
    # Without a book, in UTC.
    quote = await quoted(client, currency="JPY", at="2026-01-01", lines=[{"unit_price": 1, "tax_rate": 0}])
    assert (quote["book"], quote["at"]) == (None, "2026-01-01T00:00:00Z")


async def test_volume_prices_sales_and_returned_goods(client: Client) -> None:
    address = f"/v1/items/{(await item(client, 'A', '10'))['id']}/prices"
    await write(client, address, amount="8", valid_from="2020-01-01", min_quantity="100")
    sale = {"valid_from": "2026-06-01", "valid_to": "2026-06-15"}
    await write(client, address, amount="7", **sale)
    lines = [{"item": "sku:A", "quantity": quantity} for quantity in ("1", "99.999", "100", "-1", "-100")]
    quote = await quoted(client, at="2026-05-01", lines=lines)
    # What comes back had the price of as many that were bought.
    assert of_lines(quote, "unit_price") == ["10.00", "10.00", "8.00", "10.00", "8.00"]
    assert of_lines(quote, "amount") == ["10.00", "999.99", "800.00", "-10.00", "-800.00"]
    assert (quote["net"], quote["payable"]) == ("999.99", "999.99")
    quote = await quoted(client, at="2026-06-14T23:59:59Z", lines=lines)
    assert of_lines(quote, "unit_price") == ["7.00"] * 5, "a sale beats the list price, whatever the quantity"
    quote = await quoted(client, at="2026-06-15", lines=lines[3:])
    assert (quote["gross"], quote["payable"]) == ("-810.00", "-810.00")
    assert await verified(client, quote) == MATCHES


async def test_stated_prices(client: Client) -> None:
    frame = await item(client, "A", "10", tax_rate="7")
    quote = await quoted(
        client,
        lines=[
            {"item": "sku:A", "unit_price": "0.061232374", "per": 1000, "quantity": 1000000, "tax_rate": 19},
            {"unit_price": 0, "tax_rate": 19},
            {"item": frame["id"], "unit_price": "11.9", "tax_rate": "19", "tax_included": True},
            {"unit_price": 3, "tax_category": None},
            {"unit_price": 4, "tax_category": "AE"},
            {"unit_price": 5, "tax_category": "E", "tax_rate": 0},
            {"unit_price": 6, "tax_category": "L", "tax_rate": 7, "quantity": 0},
        ],
    )
    assert of_lines(quote, "price_id") == [None] * 7
    assert of_lines(quote, "item") == [frame["id"], None, frame["id"], None, None, None, None]
    assert of_lines(quote, "unit_price", "tax_category", "tax_rate", "amount", "net", "tax") == [
        ("0.061232374", "S", "19", "61.23", "61.23", "11.63"),
        ("0.00", "S", "19", "0.00", "0.00", "0.00"),
        ("11.90", "S", "19", "11.90", "10.00", "1.90"),
        ("3.00", None, None, "3.00", "3.00", "0.00"),
        ("4.00", "AE", "0", "4.00", "4.00", "0.00"),
        ("5.00", "E", "0", "5.00", "5.00", "0.00"),
        ("6.00", "L", "7", "0.00", "0.00", "0.00"),
    ]
    groups = [(group["tax_category"], group["tax_included"]) for group in quote["tax_groups"]]
    assert groups == [("S", False), ("S", True), ("AE", False), ("E", False), ("L", False)]
    assert totals(quote) == "83.23 + 13.53 = 96.76"
    assert await verified(client, quote) == MATCHES


async def test_a_currency_without_a_book(client: Client) -> None:
    frame = await item(client, "A", "10")
    lines = [{"item": "sku:A", "unit_price": "0.0105", "tax_rate": "5"}]
    quote = await quoted(client, currency="KWD", tax_included=True, lines=lines)
    # 0.0105 -> 0.011; x 5 / 105 = 0.00052...
    assert (quote["book"], quote["currency"], quote["rounding"]["digits"]) == (None, "KWD", 3)
    assert (totals(quote), of_lines(quote, "item")) == ("0.010 + 0.001 = 0.011", [frame["id"]])
    assert await verified(client, quote) == MATCHES
    # The default book is taken where none is named and no currency either; naming its currency too changes nothing.
    assert (await quoted(client, lines=[{"item": "sku:A"}]))["book"] == "default"
    both = await quoted(client, book="default", currency="EUR", lines=[{"item": "sku:A"}])
    assert (both["book"], both["gross"]) == ("default", "10.00")


@pytest.mark.parametrize(
    ("price", "line", "expected"),
    [
        # From the row and the item
        ({"tax_rate": "19"}, {}, ("S", "19", "19.00")),
        ({"tax_rate": "7", "category": "L"}, {}, ("L", "7", "7.00")),
        ({"tax_rate": "0", "category": "Z"}, {}, ("Z", "0", "0.00")),
        ({"category": "AE"}, {}, ("AE", "0", "0.00")),
        ({}, {}, (None, None, "0.00")),
        ({"category": "M"}, {}, (None, None, "0.00")),
        ({"tax": "3.2"}, {}, ("S", None, "3.20")),
        ({"tax": "0"}, {}, ("S", None, "0.00")),
        # From the line
        ({"tax_rate": "19"}, {"tax_rate": "7"}, ("S", "7", "7.00")),
        ({"tax_rate": "19"}, {"tax_rate": "0"}, ("S", "0", "0.00")),
        ({"tax_rate": "19"}, {"tax_category": "K"}, ("K", "0", "0.00")),
        ({"tax_rate": "19"}, {"tax_category": None}, (None, None, "0.00")),
        ({"tax_rate": "19"}, {"tax_category": "M"}, ("M", "19", "19.00")),
        ({"tax_rate": "19"}, {"tax_category": "L", "tax_rate": "3"}, ("L", "3", "3.00")),
        ({"tax": "3.2"}, {"tax_rate": "5"}, ("S", "5", "5.00")),
        ({"tax": "3.2"}, {"tax_category": "S"}, ("S", None, "3.20")),
        ({"tax": "3.2"}, {"tax_category": "G"}, ("G", "0", "0.00")),
        ({"category": "E"}, {"tax_category": "S", "tax_rate": "25"}, ("S", "25", "25.00")),
        ({"category": "E"}, {"tax_rate": "0"}, ("E", "0", "0.00")),
        ({"tax_rate": "19", "category": "E"}, {"tax_category": "S"}, ("S", "19", "19.00")),
    ],
)
async def test_tax_of_the_row_the_item_or_the_line(
    client: Client, price: dict[str, Any], line: dict[str, Any], expected: tuple[str, ...]
) -> None:
    await item(client, "A", "100", **price)
    quote = await quoted(client, lines=[{"item": "sku:A", **line}])
    assert of_lines(quote, "tax_category", "tax_rate", "tax") == [expected]
    assert len(quote["tax_groups"]) == (expected[0] is not None)
    assert await verified(client, quote) == MATCHES


async def test_items_of_the_plain_form(client: Client) -> None:
    answer = await client.post("/items/", json={"name": "Foo", "price": 35.4, "tax": 3.2})
    line = {"item": answer.json()["id"], "quantity": 3}
    quote = await quoted(client, lines=[line, {**line, "adjustments": [{"amount": "-6.20"}]}])
    # The tax is an amount for each unit; an allowance does not change it.
    assert of_lines(quote, "amount", "tax", "gross") == [("106.20", "9.60", "115.80"), ("100.00", "9.60", "109.60")]
    assert quote["tax_groups"] == [
        {"tax_category": "S", "tax_rate": None, "tax_included": False, "base": "206.20", "tax": "19.20"}
    ]
    assert await verified(client, quote) == MATCHES


async def test_a_book_whose_prices_contain_the_tax(client: Client) -> None:
    await write(client, "/v1/books", key="shop", name="Shop", currency="EUR", tax_included=True)
    await item(client, "A", "11.90", tax_rate="19", book="shop")
    await item(client, "B", "10", tax_rate="19", book="shop", tax_included=False)
    lines = [{"item": "sku:A"}, {"item": "sku:B"}, {"unit_price": "1.19", "tax_rate": 19}]
    quote = await quoted(client, book="shop", lines=lines, adjustments=[{"percent": -10, "tax_rate": 19}])
    assert of_lines(quote, "tax_included") == [True, False, True]
    # 10 % of 11.90 + 1.19 = 13.09; what remains, 11.78 x 19 / 119, is 1.8808...
    assert quote["adjustments"][0]["amount"] == "-1.31"
    assert [(group["base"], group["tax"]) for group in quote["tax_groups"]] == [("9.90", "1.88"), ("10.00", "1.90")]
    assert await verified(client, quote) == MATCHES
    # The quote may say otherwise of what it states; a row's price is what the row says.
    quote = await quoted(client, book="shop", lines=lines, tax_included=False)
    assert of_lines(quote, "tax_included") == [True, False, False]


async def test_the_policy_is_the_books_with_what_the_quote_says_instead(client: Client) -> None:
    rounding = {"mode": "half_even", "level": "line", "cash_increment": "0.05"}
    await write(client, "/v1/books", key="shop", name="Shop", currency="EUR", rounding=rounding)
    lines = [{"unit_price": "0.33", "tax_rate": 10}] * 3

    async def under(**given: Any) -> tuple[str, Any]:
        quote = await quoted(client, book="shop", lines=lines, **given)
        assert await verified(client, quote) == MATCHES
        return f"{totals(quote)}, {quote['cash_rounding']}, {quote['payable']}", quote["rounding"]

    same = {**rounding, "digits": 2}
    # Each line's tax is 0.03.
    assert await under() == ("0.99 + 0.09 = 1.08, 0.02, 1.10", same)
    assert await under(rounding={}) == ("0.99 + 0.09 = 1.08, 0.02, 1.10", same)
    assert await under(rounding={"level": "group"}) == ("0.99 + 0.10 = 1.09, 0.01, 1.10", {**same, "level": "group"})
    assert await under(rounding={"mode": "up"}) == ("0.99 + 0.12 = 1.11, 0.04, 1.15", {**same, "mode": "up"})
    assert await under(rounding={"cash_increment": None}) == (
        "0.99 + 0.09 = 1.08, 0.00, 1.08",
        {**same, "cash_increment": None},
    )
    assert await under(rounding={"digits": 3}) == (
        "0.990 + 0.099 = 1.089, 0.011, 1.100",
        {**same, "digits": 3, "cash_increment": "0.050"},
    )
    # What was paid before counts: 1.08 - 1.00 = 0.08.
    assert (await under(prepaid="1.00"))[0] == "0.99 + 0.09 = 1.08, 0.02, 0.10"
    assert (await under(prepaid="2.00"))[0] == "0.99 + 0.09 = 1.08, 0.02, -0.90"
    assert (await under(prepaid="-0.02"))[0] == "0.99 + 0.09 = 1.08, 0.00, 1.10"


async def test_only_adjustments(client: Client) -> None:
    quote = await quoted(
        client, lines=[], adjustments=[{"amount": "50", "tax_rate": 21}, {"amount": 3, "tax_category": None}]
    )
    assert (totals(quote), len(quote["tax_groups"])) == ("53.00 + 10.50 = 63.50", 1)
    assert await verified(client, quote) == MATCHES


async def test_explanations_are_no_part_of_the_digest(client: Client) -> None:
    await item(client, "A", "4.99", tax_rate="19", per="100")
    body: dict[str, Any] = {
        "at": "2026-01-01",
        "lines": [{"item": "sku:A", "quantity": 250}, {"unit_price": 1, "tax_category": None}],
    }
    plain, explained = await quoted(client, **body), await quoted(client, explain=True, **body)
    assert of_lines(plain, "explain") == [None, None]
    assert of_lines(explained, "explain") == [
        [
            "250 x 4.99 / 100 = 12.475 -> 12.48",
            "tax: 12.48 x 19 / 100 = 2.3712 -> 2.37 (this line's part of its group's tax)",
        ],
        ["1 x 1 = 1.00", "no tax stated"],
    ]
    assert plain["digest"] == explained["digest"] == digest(plain) == digest(explained)
    assert await verified(client, explained) == MATCHES
    explained["lines"][0]["explain"] = ["anything"]
    assert await verified(client, explained) == MATCHES


async def test_the_same_question_has_the_same_answer(client: Client) -> None:
    await item(client, "A", "10")
    body: dict[str, Any] = {"at": "2026-01-01T00:00:00Z", "lines": [{"item": "sku:A", "quantity": "2.50", "id": "ü"}]}
    one, two = await quoted(client, **body), await quoted(client, **body)
    assert one == two
    body["lines"][0]["quantity"] = 2.5
    assert await quoted(client, **body) == one
    assert one["digest"] == digest(one)


async def later(client: Client) -> Quote:
    """A quote, after which about everything changes that it rests on."""
    await write(client, "/v1/books", key="shop", name="Shop", currency="EUR", tax_included=True)
    addresses = {}
    rows = {}
    for sku in ("SUPERSEDED", "VOIDED", "RENAMED", "ARCHIVED", "SOLD"):
        created = await item(client, sku, "11.90", tax_rate="19", book="shop")
        addresses[sku], rows[sku] = f"/v1/items/{created['id']}", created["price"]["price_id"]
    lines = [{"item": f"sku:{sku}", "quantity": 3} for sku in addresses]
    quote = await quoted(
        client, book="shop", at="2026-01-01", lines=lines, adjustments=[{"percent": "-3", "tax_rate": "19"}]
    )
    any_version = {"if-match": "*"}
    body: dict[str, Any] = {"book": "shop", "valid_from": "2020-01-01", "tax_rate": "20"}
    await write(client, f"{addresses['SUPERSEDED']}/prices", **body, amount="99", supersedes=rows["SUPERSEDED"])
    await write(client, f"{addresses['SOLD']}/prices", **body, amount="1", valid_to="2027-01-01")
    for answer in (
        await client.delete(f"/v1/prices/{rows['VOIDED']}"),
        await client.patch(addresses["RENAMED"], json={"sku": "NEW", "tax_category": "E"}, headers=any_version),
        await client.delete(addresses["ARCHIVED"], headers=any_version),
        await client.patch(
            "/v1/books/shop",
            json={"rounding": {"mode": "down", "level": "unit"}, "tax_included": False, "time_zone": "Asia/Tokyo"},
            headers=any_version,
        ),
    ):
        assert answer.status_code == 200, answer.text
    await item(client, "RENAMED", "1", book="shop")  # Another item with its old sku.
    return quote


async def test_a_quote_verifies_after_any_change(client: Client) -> None:
    quote = await later(client)
    assert await verified(client, quote) == MATCHES
    # In the state of knowledge of today, prices are others.
    today = {
        **quote,
        "known_seq": int((await quoted(client, currency="EUR", lines=[{"unit_price": 1, "tax_rate": 0}]))["known_seq"]),
    }
    difference = (await verified(client, today))["difference"]
    assert (difference["pointer"], difference["computed"]) == ("/lines/1/item", None), "its only row was voided"
    del today["lines"][1]
    assert (await verified(client, today))["difference"]["pointer"] == "/lines/0/price_id"


async def test_a_book_whose_currency_changes_is_known_as_it_was(client: Client) -> None:
    await write(client, "/v1/books", key="new", name="New", currency="EUR", rounding={"cash_increment": "0.05"})
    quote = await quoted(client, book="new", lines=[{"unit_price": "1.02", "tax_rate": 0}])
    answer = await client.patch("/v1/books/new", json={"currency": "USD"}, headers={"if-match": "*"})
    assert answer.status_code == 200, answer.text
    assert await verified(client, quote) == MATCHES
    assert (await quoted(client, book="new", lines=[{"unit_price": 1, "tax_rate": 0}]))["currency"] == "USD"


def put(*path: str | int, value: Any) -> Callable[[Quote], None]:
    """A change of one place of a quote."""

    def change(quote: Quote) -> None:
        place: Any = quote
        for step in path[:-1]:
            place = place[step]
        place[path[-1]] = value

    return change


def _one_more_group(quote: Quote) -> None:
    quote["tax_groups"].append({**quote["tax_groups"][0], "tax_category": "Z"})


def _groups_the_other_way(quote: Quote) -> None:
    quote["tax_groups"].reverse()


NOBODY = "01a20537-de50-7ff8-9c93-02db0b06a11c"


@pytest.mark.parametrize(
    ("change", "pointer", "stated", "computed"),
    [
        (put("lines", 1, "amount", value="20.01"), "/lines/1/amount", "20.01", "20.00"),
        (put("lines", 0, "unit_price", value="9.99"), "/lines/0/unit_price", "9.99", "10.00"),
        (put("lines", 0, "unit_price", value="10.0"), "/lines/0/unit_price", "10.0", "10.00"),
        (put("lines", 0, "per", value="2"), "/lines/0/per", "2", "1"),
        (put("lines", 0, "price_id", value=NOBODY), "/lines/0/price_id", NOBODY, ...),
        (put("lines", 0, "item", value="sku:A"), "/lines/0/item", "sku:A", ...),
        (put("lines", 0, "quantity", value="2"), "/lines/0/amount", "10.00", "20.00"),
        (put("lines", 1, "unit_price", value="21"), "/lines/1/unit_price", "21", "21.00"),
        (put("lines", 1, "unit_price", value="21.00"), "/lines/1/amount", "20.00", "21.00"),
        (put("lines", 1, "tax_rate", value="6"), "/lines/1/tax", "1.40", "1.20"),
        (put("lines", 0, "tax_included", value=True), "/lines/0/tax_included", True, False),
        (put("lines", 0, "net", value="1"), "/lines/0/net", "1", "10.00"),
        (put("lines", 0, "tax", value="1.91"), "/lines/0/tax", "1.91", "1.90"),
        (put("lines", 0, "gross", value="x"), "/lines/0/gross", "x", "11.90"),
        (put("adjustments", 0, "amount", value="-1.01"), "/adjustments/0/amount", "-1.01", "-1.00"),
        (put("adjustments", 0, "percent", value="-5"), "/adjustments/0/amount", "-1.00", "-0.50"),
        (put("adjustments", 0, "reason", value="other"), "/digest", ..., ...),
        (put("tax_groups", 0, "base", value="9.01"), "/tax_groups/0/base", "9.01", "9.00"),
        (put("tax_groups", 0, "tax_rate", value=None), "/tax_groups/0/tax_rate", None, "19"),
        (_one_more_group, "/tax_groups", ..., ...),
        (_groups_the_other_way, "/tax_groups/0/tax_rate", "7", "19"),
        (put("tax_groups", value=[]), "/tax_groups", [], ...),
        (put("net", value="29.01"), "/net", "29.01", "29.00"),
        (put("tax", value="0.00"), "/tax", "0.00", "3.11"),
        (put("gross", value="32.12"), "/gross", "32.12", "32.11"),
        (put("cash_rounding", value="0.01"), "/cash_rounding", "0.01", "0.00"),
        (put("prepaid", value="1.00"), "/payable", "32.11", "31.11"),
        (put("payable", value="0"), "/payable", "0", "32.11"),
        (put("lines", 0, "tax_included", value=0), "/lines/0/tax_included", 0, False),
        (put("rounding", "digits", value=True), "/rounding/digits", ..., ...),
        (put("at", value=1767225600), "/at", 1767225600, "2026-01-01T00:00:00Z"),
        (put("lines", 0, "item", value=NOBODY), "/lines/0/item", NOBODY, None),
        (put("currency", value="USD"), "/currency", "USD", None),
        (put("digest", value="0" * 64), "/digest", "0" * 64, ...),
        (put("rounding", "mode", value="down"), "/digest", ..., ...),
        (put("rounding", "digits", value=3), "/lines/0/amount", "10.00", "10.000"),
        (put("known_seq", value=5), "/digest", ..., ...),
        (put("at", value="2026-01-01T00:00:01Z"), "/digest", ..., ...),
        (put("book", value=None), "/lines/0/unit_price", "10.00", None),
        (put("book", value="nowhere"), "/book", "nowhere", None),
    ],
)
async def test_the_first_difference_is_named(
    client: Client, change: Callable[[Quote], None], pointer: str, stated: Any, computed: Any
) -> None:
    await item(client, "A", "10", tax_rate="19")
    await write(client, "/v1/items", name="later")
    body: dict[str, Any] = {
        "at": "2026-01-01",
        "lines": [{"item": "sku:A"}, {"unit_price": 20, "tax_rate": 7}],
        "adjustments": [{"percent": -10, "tax_rate": 19, "reason": "some"}],
    }
    quote = await quoted(client, **body)
    await write(client, "/v1/items", name="later still")
    original = json.loads(json.dumps(quote))
    change(quote)
    verification = await verified(client, quote)
    difference = verification["difference"]
    assert (verification["matches"], difference["pointer"]) == (False, pointer)
    if stated is not ...:
        assert difference["stated"] == stated
    if computed is not ...:
        assert difference["computed"] == computed
    assert await verified(client, original) == MATCHES


@pytest.mark.parametrize("knowledge", ["one seq earlier", "the seq of the quote"])
async def test_a_quote_is_verified_in_its_own_state_of_knowledge(client: Client, knowledge: str) -> None:
    address = f"/v1/items/{(await item(client, 'A', '10'))['id']}/prices"
    await write(client, address, amount="11", valid_from="2020-01-01")
    quote = await quoted(client, at="2026-01-01", lines=[{"item": "sku:A"}])
    await write(client, address, amount="12", valid_from="2020-01-01")
    if knowledge == "the seq of the quote":
        assert await verified(client, quote) == MATCHES
    else:
        quote["known_seq"] -= 1
        difference = (await verified(client, quote))["difference"]
        assert difference["pointer"] == "/lines/0/price_id"


async def test_the_category_of_an_item_with_a_stated_price_is_its_own(client: Client) -> None:
    await write(client, "/v1/items", sku="L", name="L", tax_category="L")
    await write(client, "/v1/items", sku="AE", name="AE", tax_category="AE")
    quote = await quoted(
        client,
        lines=[{"item": "sku:L", "unit_price": 10, "tax_rate": 7}, {"item": "sku:AE", "unit_price": 10}],
    )
    assert [(line["tax_category"], line["tax_rate"]) for line in quote["lines"]] == [("L", "7"), ("AE", "0")]
    assert await verified(client, quote) == MATCHES


async def test_a_quote_in_a_currency_that_was_withdrawn_stays_right(client: Client) -> None:
    quote = await quoted(client, currency="BGN", lines=[{"unit_price": "1.955", "tax_rate": 20}])
    assert (quote["lines"][0]["amount"], quote["gross"]) == ("1.96", "2.35")
    assert await verified(client, quote) == MATCHES


def request_of(document: quote_oracle.OracleDocument) -> dict[str, Any]:
    """A random document as a request with stated prices."""

    def adjusted(given: quote_oracle.OracleAdjustment) -> dict[str, Any]:
        fields = {"amount": given.amount, "percent": given.percent, "base": given.base}
        return {name: value for name, value in fields.items() if value is not None}

    def taxed(tax: quote_oracle.OracleTax) -> dict[str, Any]:
        return {"tax_category": tax.category, "tax_rate": tax.rate, "tax_included": tax.included}

    return {
        "currency": "EUR",
        "rounding": {
            "mode": document.mode,
            "level": document.level,
            "digits": document.digits,
            "cash_increment": document.increment,
        },
        "prepaid": document.prepaid,
        "lines": [
            {
                "quantity": line.quantity,
                "unit_price": line.price,
                "per": line.per,
                **taxed(line.tax),
                "adjustments": [adjusted(each) for each in line.adjustments],
            }
            for line in document.lines
        ],
        "adjustments": [{**adjusted(each), **taxed(tax)} for each, tax in document.adjustments],
    }


async def test_random_documents_come_back_as_the_oracle_has_them_and_verify(client: Client) -> None:
    answered = 0
    for document in quote_oracle.documents(5, 150):
        answer = await client.post("/v1/quotes", json=request_of(document))
        if answer.status_code == 422:  # More off than there is, or a tax stated as an amount, which only prices have.
            continue
        assert answer.status_code == 200, answer.text
        quote, expected = answer.json(), quote_oracle.figures(document)
        for name in ("net", "tax", "gross", "prepaid", "payable", "cash_rounding"):
            assert Fraction(quote[name]) * 10**document.digits == expected[name], (name, document)
        for number, line in enumerate(quote["lines"]):
            assert Fraction(line["tax"]) * 10**document.digits == expected[f"lines/{number}/tax"], document
        assert await verified(client, quote) == MATCHES
        answered += 1
    assert answered > 50
