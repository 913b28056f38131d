"""What is wrong about a quote is refused with its place, everything or nothing. Quotes never write."""

import json
from dataclasses import dataclass
from typing import Any

import asyncpg
import httpx2
import pytest

from tests.api.test_bad_input import JSON, state

Client = httpx2.AsyncClient

VERIFY = "/v1/quotes:verify"
NOBODY = "01a20537-de50-7ff8-9c93-02db0b06a11c"


@dataclass
class Case:
    """A request that is refused, and how: each fault's pointer and code."""

    name: str
    body: bytes
    faults: list[tuple[str, str]]
    status: int = 422
    slug: str = "invalid-request"
    path: str = "/v1/quotes"


def quote(name: str, pointer: str, code: str, status: int = 422, slug: str = "invalid-request", **body: Any) -> Case:
    """A quote of one line at a stated price, unless other lines are given."""
    document = {"lines": [{"unit_price": "1", "tax_rate": "19"}], **body}
    return Case(name, json.dumps(document).encode(), [(pointer, code)], status, slug)


def line(name: str, pointer: str, code: str, status: int = 422, slug: str = "invalid-request", **fields: Any) -> Case:
    """A quote whose second line is at fault; a field that is ``...`` is left out."""
    whole = {"unit_price": "1", "tax_rate": "19", **fields}
    second = {name: value for name, value in whole.items() if value is not ...}
    lines = [{"unit_price": "1", "tax_rate": "19"}, second]
    return quote(name, f"/lines/1{pointer}", code, status, slug, lines=lines)


def of_item(
    name: str, pointer: str, code: str, status: int = 422, slug: str = "invalid-request", **fields: Any
) -> Case:
    """A line at the book's price is at fault."""
    return line(name, pointer, code, status, slug, **{"unit_price": ..., "tax_rate": ..., **fields})


def adjustment(name: str, pointer: str, code: str, **fields: Any) -> Case:
    """A line's adjustment is at fault."""
    return line(name, f"/adjustments/0{pointer}", code, adjustments=[fields])


def of_document(name: str, pointer: str, code: str, **fields: Any) -> Case:
    """The document's adjustment is at fault."""
    return quote(name, f"/adjustments/0{pointer}", code, adjustments=[{"tax_rate": "19", **fields}])


def raw(name: str, body: bytes | str, pointer: str, code: str) -> Case:
    return Case(name, body.encode() if isinstance(body, str) else body, [(pointer, code)])


def verify(
    name: str, pointer: str, code: str, status: int = 422, slug: str = "invalid-request", **changed: Any
) -> Case:
    """A quote that is sent back with other fields; one that is ``...`` is left out."""
    answer = {name: value for name, value in {**ANSWER, **changed}.items() if value is not ...}
    return Case(f"verify: {name}", json.dumps(answer).encode(), [(pointer, code)], status, slug, VERIFY)


def verify_line(name: str, pointer: str, code: str, **changed: Any) -> Case:
    """The same of its line."""
    return verify(name, f"/lines/0{pointer}", code, lines=[{**ANSWER_LINE, **changed}])


ANSWER_LINE: dict[str, Any] = {
    "id": None,
    "item": None,
    "price_id": None,
    "quantity": "1",
    "unit_price": "1.00",
    "per": "1",
    "tax_rate": "19",
    "tax_category": "S",
    "tax_included": False,
    "adjustments": [],
    "amount": "1.00",
    "net": "1.00",
    "tax": "0.19",
    "gross": "1.19",
    "explain": None,
}
ANSWER: dict[str, Any] = {
    "book": "default",
    "currency": "EUR",
    "at": "2026-01-01T00:00:00Z",
    "known_seq": 1,
    "algorithm": "pricebook-1",
    "rounding": {"mode": "half_up", "level": "group", "digits": 2, "cash_increment": None},
    "lines": [ANSWER_LINE],
    "adjustments": [],
    "tax_groups": [{"tax_category": "S", "tax_rate": "19", "tax_included": False, "base": "1.00", "tax": "0.19"}],
    "net": "1.00",
    "tax": "0.19",
    "gross": "1.19",
    "cash_rounding": "0.00",
    "prepaid": "0.00",
    "payable": "1.19",
    "digest": "0" * 64,
}

TOO_LONG, NOT_A_NUMBER = "too-many-digits", "not-a-number"
RATE_REQUIRED, RATE_WITHOUT_NEED = "rate-required", "rate-with-untaxed-category"

CASES = [
    # The document
    quote("no line", "", "no-lines", lines=[]),
    quote("lines left out", "/lines", "list-type", lines=None),
    quote("10,001 lines", "/lines", "too-long", lines=[{"unit_price": 1, "tax_rate": 0}] * 10_001),
    quote("1,001 adjustments", "/adjustments", "too-long", adjustments=[{"amount": 1, "tax_rate": 0}] * 1001),
    quote("unknown field", "/total", "extra-forbidden", total="1"),
    quote("unknown book", "/book", "unknown-book", 404, "unknown-book", book="none"),
    quote("unknown book by day", "/book", "unknown-book", 404, "unknown-book", book="none", at="2026-01-01"),
    quote("key of a book", "/book", "string-pattern-mismatch", book="Default"),
    quote("another currency than the book's", "/currency", "currency-mismatch", book="default", currency="USD"),
    quote("unknown currency", "/currency", "unknown-currency", currency="ABC"),
    quote("gold", "/currency", "unknown-currency", currency="XAU"),
    quote("no instant", "/at", "not-an-instant", at="now"),
    quote("edge of the calendar", "/at", "not-an-instant", book="shop", at="0001-01-01"),
    quote("prepaid is no number", "/prepaid", NOT_A_NUMBER, prepaid="1,00"),
    quote("prepaid finer than results", "/prepaid", TOO_LONG, prepaid="0.001"),
    quote("prepaid finer than yen", "/prepaid", TOO_LONG, currency="JPY", prepaid="0.1"),
    # Rounding
    quote("rounding mode", "/rounding/mode", "enum", rounding={"mode": "half"}),
    quote("rounding level", "/rounding/level", "enum", rounding={"level": "page"}),
    quote("13 digits", "/rounding/digits", "less-than-equal", rounding={"digits": 13}),
    quote("negative digits", "/rounding/digits", "greater-than-equal", rounding={"digits": -1}),
    quote("digits in words", "/rounding/digits", "int-type", rounding={"digits": "2"}),
    quote(
        "cash finer than digits", "/rounding/cash_increment", "not-in-currency", rounding={"cash_increment": "0.001"}
    ),
    quote(
        "cash of the book finer than digits",
        "/rounding/digits",
        "not-in-currency",
        book="shop",
        rounding={"digits": 1},
    ),
    quote("no cash", "/rounding/cash_increment", "not-in-currency", rounding={"cash_increment": 0}),
    quote("negative cash", "/rounding/cash_increment", "negative", rounding={"cash_increment": "-0.05"}),
    # Lines
    line("unknown field of a line", "/price", "extra-forbidden", price=1),
    line("neither item nor price", "", "no-price-given", unit_price=...),
    line("neither price nor rate", "", "no-price-given", unit_price=..., tax_rate=...),
    line("price without rate", "", RATE_REQUIRED, tax_rate=...),
    line("price without rate, rated category", "", RATE_REQUIRED, tax_rate=..., tax_category="L"),
    line("unknown category", "/tax_category", "literal-error", tax_category="X"),
    line("category in small letters", "/tax_category", "literal-error", tax_category="s"),
    line("rate with exempt category", "", RATE_WITHOUT_NEED, tax_category="E"),
    line("rate with reverse charge", "", RATE_WITHOUT_NEED, tax_category="AE", tax_rate="0.01"),
    line("rate without category", "", "rate-without-category", tax_category=None),
    line("negative rate", "/tax_rate", "negative", tax_rate="-1"),
    line("negative price", "/unit_price", "negative", unit_price="-1"),
    line("per zero", "/per", "not-positive", per=0),
    line("per nothing", "/per", NOT_A_NUMBER, per="1e3"),
    line("no quantity", "/quantity", NOT_A_NUMBER, quantity=None),
    line("13 integer digits", "/quantity", TOO_LONG, quantity="1234567890123"),
    line("13 decimals", "/unit_price", TOO_LONG, unit_price="0.1234567890123"),
    line("101 adjustments", "/adjustments", "too-long", adjustments=[{"amount": 1}] * 101),
    line("empty id", "/id", "too-short", id=""),
    line("long id", "/id", "too-long", id="x" * 101),
    line("two lines in an id", "/id", "not-one-line", id="a\nb"),
    line("stated price of no item", "/item", "unknown-item", 404, "unknown-item", item="sku:none"),
    # Lines at the book's price
    of_item("per with a book's price", "", "belongs-to-price", item="sku:A", per=1),
    of_item("tax_included with a book's price", "", "belongs-to-price", item="sku:A", tax_included=True),
    of_item("no such sku", "/item", "unknown-item", 404, "unknown-item", item="sku:none"),
    of_item("no such id", "/item", "unknown-item", 404, "unknown-item", item=NOBODY),
    of_item("sku without prefix", "/item", "unknown-item", 404, "unknown-item", item="A"),
    of_item("long item", "/item", "too-long", item="sku:" + "x" * 101),
    of_item("no price at all", "/item", "no-price", 404, "no-price", item="sku:BARE"),
    of_item("no price for so few", "/item", "no-price", 404, "no-price", item="sku:A", quantity="0.5"),
    of_item("no price for so few returned", "/item", "no-price", 404, "no-price", item="sku:A", quantity="-0.5"),
    of_item("no price for none", "/item", "no-price", 404, "no-price", item="sku:A", quantity=0),
    of_item("not for sale", "/item", "not-for-sale", 404, "not-for-sale", item="sku:GONE"),
    of_item("exempt item with a rate", "/tax_rate", RATE_WITHOUT_NEED, item="sku:EXEMPT", tax_rate="19"),
    of_item("exempt item with a taxed price", "/item", "tax-conflict", item="sku:CONFLICT"),
    of_item("rated without a rate", "/tax_rate", RATE_REQUIRED, item="sku:A", tax_category="S"),
    quote(
        "no price then",
        "/lines/0/item",
        "no-price",
        404,
        "no-price",
        at="2019-12-31",
        lines=[{"item": "sku:A"}],
    ),
    quote(
        "no price in that book", "/lines/0/item", "no-price", 404, "no-price", book="shop", lines=[{"item": "sku:A"}]
    ),
    quote("no book to take prices from", "/lines/0/unit_price", "no-book", currency="EUR", lines=[{"item": "sku:A"}]),
    # Adjustments
    adjustment("neither amount nor percent", "", "amount-or-percent"),
    adjustment("both amount and percent", "", "amount-or-percent", amount=1, percent=1),
    adjustment("base without percent", "", "base-without-percent", amount=1, base=1),
    adjustment("more than everything", "", "more-than-everything", percent="-100.000000000001"),
    adjustment("negative base", "/base", "negative", percent=1, base=-1),
    adjustment("amount finer than results", "/amount", TOO_LONG, amount="0.005"),
    adjustment("tax of a line's adjustment", "/tax_rate", "extra-forbidden", amount=1, tax_rate=19),
    adjustment("long reason", "/reason", "too-long", amount=1, reason="x" * 501),
    of_document("nothing", "", "amount-or-percent"),
    of_document("less than nothing", "", "more-than-everything", percent=-101),
    of_document("amount of the document finer than results", "/amount", TOO_LONG, amount="0.005"),
    of_document("no rate", "", RATE_REQUIRED, amount=1, tax_rate=None),
    of_document("rate of the document with exempt category", "", RATE_WITHOUT_NEED, amount=1, tax_category="O"),
    of_document("rate of the document without category", "", "rate-without-category", amount=1, tax_category=None),
    of_document("percentage of nothing", "/percent", "no-base", percent=-10, tax_rate="7"),
    of_document("percentage of what includes its tax", "/percent", "no-base", percent=-10, tax_included=True),
    # Documents that JSON can express and nothing else can
    raw("NaN", '{"lines": [{"unit_price": NaN, "tax_rate": 1}]}', "/lines/0/unit_price", NOT_A_NUMBER),
    raw("Infinity", '{"prepaid": -Infinity, "lines": [{"unit_price": 1, "tax_rate": 1}]}', "/prepaid", NOT_A_NUMBER),
    raw("1e400", '{"lines": [{"unit_price": 1, "quantity": 1e400, "tax_rate": 1}]}', "/lines/0/quantity", NOT_A_NUMBER),
    raw("boolean", '{"lines": [{"unit_price": true, "tax_rate": 1}]}', "/lines/0/unit_price", NOT_A_NUMBER),
    raw("lone surrogate", b'{"lines": [{"item": "sku:\\ud800"}]}', "/lines/0/item", "not-one-line"),
    raw("lone surrogate as id", b'{"lines": [{"id": "\\udfff", "item": "A"}]}', "/lines/0/id", "not-one-line"),
    raw("NUL", b'{"lines": [{"item": "a\\u0000"}]}', "/lines/0/item", "not-one-line"),
    raw("not JSON", '{"lines": [', "", "json-invalid"),
    # What is sent back
    verify("seq to come", "/known_seq", "unknown-seq", slug="unknown-seq", known_seq=1000),
    verify("seq before the first", "/known_seq", "greater-than-equal", known_seq=0),
    verify("negative seq", "/known_seq", "greater-than-equal", known_seq=-1),
    verify("huge seq", "/known_seq", "less-than-equal", known_seq=2**63),
    verify("seq in words", "/known_seq", "int-type", known_seq="1"),
    verify("unknown field", "/total", "extra-forbidden", total="1"),
    verify("missing field", "/digest", "missing", digest=...),
    verify("day instead of an instant", "/at", "not-an-instant", at="2026-01-01"),
    verify("instant without offset", "/at", "not-an-instant", at="2026-01-01T00:00:00"),
    verify("number for a figure", "/net", "string-type", net=1),
    verify("lone surrogate", "/net", "string-unicode", net="\ud800"),
    verify("lone surrogate as digest", "/digest", "string-unicode", digest="\ud800"),
    verify("lone surrogate as algorithm", "/algorithm", "string-unicode", algorithm="\ud800"),
    verify("lone surrogate as currency", "/currency", "unknown-currency", currency="\ud800"),
    verify("long digest", "/digest", "string-too-long", digest="0" * 65),
    verify("no line", "", "no-lines", lines=[]),
    verify("another arithmetic", "/algorithm", "unknown-algorithm", algorithm="pricebook-0"),
    verify_line("unknown field of a line", "/price", "extra-forbidden", price="1"),
    verify_line("lone surrogate in a line", "/gross", "string-unicode", gross="\ud800"),
    verify_line("quantity", "/quantity", NOT_A_NUMBER, quantity="1e3"),
    verify_line("neither item nor price row", "", "no-price-given", price_id=NOBODY),
    verify_line("category", "/tax_category", "literal-error", tax_category="X"),
    verify_line("rate", "/tax_rate", NOT_A_NUMBER, tax_rate="19 %"),
]


async def things(client: Client) -> None:
    """A book, and items with all kinds of prices; without, and with a tax that contradicts the item's category."""
    shop = {"key": "shop", "name": "Shop", "currency": "EUR", "time_zone": "Europe/Berlin"}
    assert (await client.post("/v1/books", json={**shop, "rounding": {"cash_increment": "0.05"}})).status_code == 201
    price = {"amount": "1", "valid_from": "2020-01-01"}
    for sku, category, of_item in (
        ("A", "S", price),
        ("BARE", "S", None),
        ("GONE", "S", {"amount": None}),
        ("EXEMPT", "E", price),
        ("CONFLICT", "E", {**price, "tax_rate": "19"}),
    ):
        body = {"sku": sku, "name": sku, "tax_category": category, **({"price": of_item} if of_item else {})}
        assert (await client.post("/v1/items", json=body)).status_code == 201


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
async def test_bad_quotes_are_refused_clearly(client: Client, owner: asyncpg.Connection, case: Case) -> None:
    await things(client)
    before = await state(owner)
    answer = await client.post(case.path, content=case.body, headers=JSON)
    problem = answer.json()
    assert answer.status_code == problem["status"] == case.status, problem
    assert answer.headers["content-type"] == "application/problem+json"
    assert problem["type"] == f"/problems/{case.slug}"
    assert [(fault["pointer"], fault["code"]) for fault in problem["errors"]] == case.faults
    assert problem["detail"].endswith(".")
    assert "pricebook-seq" not in answer.headers
    assert await state(owner) == before


async def faults(client: Client, body: dict[str, Any]) -> tuple[str, str, list[tuple[str, str]]]:
    """Kind, detail and faults of a quote that is refused."""
    problem = (await client.post("/v1/quotes", json=body)).json()
    found = [(fault["pointer"], fault["code"]) for fault in problem["errors"]]
    return problem["type"].rsplit("/")[-1], problem["detail"], found


async def test_the_faults_of_all_lines_are_named_under_the_kind_of_the_first(client: Client) -> None:
    await things(client)
    skus = ("A", "GONE", "none", "BARE", "CONFLICT")
    lines = [{"item": f"sku:{sku}"} for sku in skus]
    expected = [
        ("/lines/1/item", "not-for-sale"),
        ("/lines/2/item", "unknown-item"),
        ("/lines/3/item", "no-price"),
        ("/lines/4/item", "tax-conflict"),
    ]
    assert await faults(client, {"lines": lines}) == (
        "not-for-sale",
        "/lines/1/item is not for sale (3 more).",
        expected,
    )
    kind, _, found = await faults(client, {"lines": lines[::-1]})
    assert (kind, len(found)) == ("invalid-request", 4)
    # A hundred are enough to mend.
    kind, detail, found = await faults(client, {"lines": [{"item": "none"}] * 1000})
    assert (kind, detail, len(found)) == ("unknown-item", "/lines/0/item names no item (999 more).", 100)


async def test_the_limits_themselves_are_allowed(client: Client) -> None:
    most = "999999999999.999999999999"
    adjustment = {"percent": most, "base": most}
    line = {"unit_price": most, "quantity": f"-{most}", "per": "0.000000000001", "tax_rate": most, "tax_included": True}
    body = {
        "currency": "CLF",
        "lines": [{**line, "adjustments": [adjustment] * 100}, {"unit_price": 0, "tax_rate": 0, "quantity": 0}],
        "adjustments": [{**adjustment, "tax_rate": most}, {"percent": "-100", "tax_rate": most, "tax_included": True}],
    }
    for rounding in ({}, {"digits": 12}, {"digits": 0}, {"level": "unit", "digits": 12}, {"level": "line"}):
        answer = await client.post("/v1/quotes?explain=true", json={**body, "rounding": rounding})
        assert answer.status_code == 200, answer.text
        verification = await client.post(VERIFY, content=answer.content, headers=JSON)
        assert verification.json() == {"matches": True, "difference": None}


async def test_ten_thousand_lines_are_taken(client: Client) -> None:
    lines = [{"unit_price": "0.33", "tax_rate": "10"}] * 10_000
    answer = await client.post("/v1/quotes", json={"currency": "EUR", "lines": lines})
    assert (answer.status_code, answer.json()["gross"]) == (200, "3630.00")
