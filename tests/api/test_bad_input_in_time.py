"""What is wrong about books, intervals, corrections and reads in time is refused clearly, and nothing is stored."""

import json
from typing import Any

import asyncpg
import httpx2
import pytest

from tests.api.test_bad_input import JSON, MATCH, Case, state

NOBODY = "01a20537-de50-7ff8-9c93-02db0b06a11c"
NO_INSTANT, EMPTY = "not-an-instant", "empty-interval"
A = "/v1/items/sku:A"


def post(
    name: str, path: str, body: dict[str, Any], code: str | None, pointer: str | None, status: int = 422, slug: str = ""
) -> Case:
    """A POST that is refused; ``<row>`` and the like in it stand for the ids of rows."""
    raw = json.dumps(body).encode()
    return Case(name, "POST", path, status, slug or "invalid-request", pointer, code, raw, JSON)


def price(
    name: str, fields: dict[str, Any], code: str | None, pointer: str | None, status: int = 422, slug: str = ""
) -> Case:
    """A price row for the item ``sku:A``."""
    return post(name, f"{A}/prices", {"amount": "1", **fields}, code, pointer, status, slug)


def book(name: str, fields: dict[str, Any], code: str, pointer: str) -> Case:
    """A new book; a field that is ``...`` is left out."""
    body = {"key": "new", "name": "New", "currency": "EUR", **fields}
    return post(name, "/v1/books", {field: value for field, value in body.items() if value is not ...}, code, pointer)


def patch(name: str, fields: dict[str, Any], code: str, pointer: str) -> Case:
    """A change of the book ``empty``, which has no prices and a cash increment of 0.05 EUR."""
    raw = json.dumps(fields).encode()
    return Case(name, "PATCH", "/v1/books/empty", 422, "invalid-request", pointer, code, raw, JSON | MATCH)


def get(name: str, path: str, code: str | None, pointer: str, status: int = 422, slug: str = "") -> Case:
    return Case(name, "GET", path, status, slug or "invalid-request", pointer, code)


CASES = [
    # Rows
    price("ends before it starts", {"valid_from": "2024-02-01", "valid_to": "2024-01-31"}, EMPTY, "/valid_to"),
    price(
        "ends as it starts, by another offset",
        {"valid_from": "2024-02-01T01:00:00+01:00", "valid_to": "2024-02-01T00:00:00Z"},
        EMPTY,
        "/valid_to",
    ),
    price(
        "ends a microsecond before it starts",
        {"valid_from": "2024-02-01T00:00:00.000001Z", "valid_to": "2024-02-01T00:00:00Z"},
        EMPTY,
        "/valid_to",
    ),
    price("corrects by an empty interval", {"supersedes": "<row>", "valid_to": "2020-01-01"}, EMPTY, "/valid_to"),
    price(
        "ends as it starts in the zone of the book",
        {"book": "shop", "valid_from": "2024-02-01", "valid_to": "2024-01-31T23:00:00Z"},
        EMPTY,
        "/valid_to",
    ),
    price("no day in February", {"valid_to": "2023-02-29"}, NO_INSTANT, "/valid_to"),
    price("end without offset", {"valid_to": "2999-01-01T00:00:00"}, NO_INSTANT, "/valid_to"),
    price("end as a number", {"valid_to": 1767225600}, NO_INSTANT, "/valid_to"),
    price("start as a boolean", {"valid_from": True}, NO_INSTANT, "/valid_from"),
    price("edge of the calendar", {"book": "shop", "valid_from": "0001-01-01"}, NO_INSTANT, "/valid_from"),
    price("both taxes as zero", {"tax": "0", "tax_rate": "0"}, "two-taxes", "/tax"),
    price("negative tax", {"tax": "-0.01"}, "negative", "/tax"),
    price("tax above the amount", {"tax": "1.01", "tax_included": True}, "tax-exceeds-amount", "/tax"),
    price("negative price", {"amount": "-1"}, "negative", "/amount"),
    price("negative price as a number", {"amount": -0.01}, "negative", "/amount"),
    price("13 integer digits", {"amount": "1234567890123"}, "too-many-digits", "/amount"),
    price("no least quantity", {"min_quantity": "0"}, "not-positive", "/min_quantity"),
    price("negative per", {"per": "-1"}, "not-positive", "/per"),
    price("per is null", {"per": None}, "not-a-number", "/per"),
    price("tax included is null in words", {"tax_included": "perhaps"}, "bool-type", "/tax_included"),
    price("tax included is a number", {"tax_included": 1}, "bool-type", "/tax_included"),
    price("tax included is a text", {"tax_included": "true"}, "bool-type", "/tax_included"),
    price("two lines of reason", {"reason": "a\nb"}, "not-one-line", "/reason"),
    price("long reason", {"reason": "x" * 501}, "too-long", "/reason"),
    price("empty reason", {"reason": ""}, "too-short", "/reason"),
    price("void by hand", {"void": True}, "extra-forbidden", "/void"),
    price("seq by hand", {"seq": 1}, "extra-forbidden", "/seq"),
    price("currency by hand", {"currency": "EUR"}, "extra-forbidden", "/currency"),
    price("recorded_at by hand", {"recorded_at": "2024-01-01"}, "extra-forbidden", "/recorded_at"),
    price("unknown book", {"book": "none"}, "unknown-book", "/book", 404, "unknown-book"),
    price("book key", {"book": "Shop"}, "string-pattern-mismatch", "/book"),
    # Corrections
    price("corrects no row", {"supersedes": NOBODY}, "unknown-price", "/supersedes"),
    price("corrects a row of another item", {"supersedes": "<other item>"}, "unknown-price", "/supersedes"),
    price("corrects a row of another book", {"supersedes": "<other book>"}, "unknown-price", "/supersedes"),
    price("corrects across books", {"supersedes": "<row>", "book": "shop"}, "unknown-price", "/supersedes"),
    price("corrects by a sku", {"supersedes": "sku:A"}, "uuid-parsing", "/supersedes"),
    price(
        "corrects what is superseded",
        {"supersedes": "<superseded>"},
        "already-superseded",
        "/supersedes",
        409,
        "already-superseded",
    ),
    price(
        "corrects what is void",
        {"supersedes": "<void>"},
        "already-superseded",
        "/supersedes",
        409,
        "already-superseded",
    ),
    Case("voids what is superseded", "DELETE", "/v1/prices/<superseded>", 409, "already-superseded", "path/price_id"),
    Case("voids what is void", "DELETE", "/v1/prices/<void>", 409, "already-superseded", "path/price_id"),
    Case("voids no row", "DELETE", f"/v1/prices/{NOBODY}", 404, "unknown-price"),
    Case("voids by no id", "DELETE", "/v1/prices/1", 422, "invalid-request", "path/price_id", "uuid-parsing"),
    # Items
    post(
        "archived item", "/v1/items/sku:Z/prices", {"amount": "1"}, "item-archived", "path/item", 409, "item-archived"
    ),
    post(
        "correction for an archived item",
        "/v1/items/sku:Z/prices",
        {"amount": "1", "supersedes": "<archived>"},
        "item-archived",
        "path/item",
        409,
        "item-archived",
    ),
    post("no item", "/v1/items/sku:none/prices", {"amount": "1"}, None, None, 404, "unknown-item"),
    post(
        "both taxes of a first price",
        "/v1/items",
        {"name": "x", "price": {"amount": "1", "tax": "1", "tax_rate": "19"}},
        "two-taxes",
        "/price/tax",
    ),
    post(
        "negative first price",
        "/v1/items",
        {"name": "x", "price": {"amount": "-1"}},
        "negative",
        "/price/amount",
    ),
    post(
        "first price with an empty interval",
        "/v1/items",
        {"name": "x", "price": {"amount": "1", "valid_from": "2024-02-01", "valid_to": "2024-01-01"}},
        EMPTY,
        "/price/valid_to",
    ),
    post(
        "first price before the calendar",
        "/v1/items",
        {"name": "x", "price": {"amount": "1", "book": "shop", "valid_from": "0001-01-01"}},
        NO_INSTANT,
        "/price/valid_from",
    ),
    post(
        "first price with too much tax",
        "/v1/items",
        {"name": "x", "price": {"amount": "1", "tax": "2", "tax_included": True}},
        "tax-exceeds-amount",
        "/price/tax",
    ),
    # Books
    book("no key", {"key": ...}, "missing", "/key"),
    book("capitals in a key", {"key": "Shop"}, "string-pattern-mismatch", "/key"),
    book("long key", {"key": "x" * 64}, "string-pattern-mismatch", "/key"),
    book("slash in a key", {"key": "a/b"}, "string-pattern-mismatch", "/key"),
    book("line break after a key", {"key": "a\n"}, "string-pattern-mismatch", "/key"),
    book("no name", {"name": ...}, "missing", "/name"),
    book("no currency", {"currency": ...}, "missing", "/currency"),
    book("unknown currency", {"currency": "ABC"}, "unknown-currency", "/currency"),
    book("currency in small letters", {"currency": "eur"}, "unknown-currency", "/currency"),
    book("name of a currency", {"currency": "Euro"}, "unknown-currency", "/currency"),
    book("gold has no minor units", {"currency": "XAU"}, "unknown-currency", "/currency"),
    book("drawing rights have no minor units", {"currency": "XDR"}, "unknown-currency", "/currency"),
    book("test code", {"currency": "XTS"}, "unknown-currency", "/currency"),
    book("no currency code", {"currency": "XXX"}, "unknown-currency", "/currency"),
    book("unknown zone", {"time_zone": "Europe/Bonn"}, "unknown-time-zone", "/time_zone"),
    book("zone leads out", {"time_zone": "../../etc/passwd"}, "unknown-time-zone", "/time_zone"),
    book("absolute zone", {"time_zone": "/etc/localtime"}, "unknown-time-zone", "/time_zone"),
    book("empty zone", {"time_zone": ""}, "unknown-time-zone", "/time_zone"),
    book("folder of zones", {"time_zone": "Europe"}, "unknown-time-zone", "/time_zone"),
    book("zone as an offset", {"time_zone": "+01:00"}, "unknown-time-zone", "/time_zone"),
    book("NUL in a zone", {"time_zone": "UTC\0"}, "unknown-time-zone", "/time_zone"),
    book("unknown rounding mode", {"rounding": {"mode": "half"}}, "enum", "/rounding/mode"),
    book("unknown rounding level", {"rounding": {"level": "page"}}, "enum", "/rounding/level"),
    book("unknown rounding field", {"rounding": {"digits": 2}}, "extra-forbidden", "/rounding/digits"),
    book("finer than a cent", {"rounding": {"cash_increment": "0.001"}}, "not-in-currency", "/rounding/cash_increment"),
    book(
        "finer than a yen",
        {"currency": "JPY", "rounding": {"cash_increment": "0.5"}},
        "not-in-currency",
        "/rounding/cash_increment",
    ),
    book("unknown field", {"version": 1}, "extra-forbidden", "/version"),
    post(
        "key taken",
        "/v1/books",
        {"key": "shop", "name": "x", "currency": "EUR"},
        "duplicate",
        "/key",
        409,
        "duplicate-book",
    ),
    patch("nothing", {}, "empty-patch", ""),
    patch("key is fixed", {"key": "other"}, "extra-forbidden", "/key"),
    patch("null name", {"name": None}, "string-type", "/name"),
    patch("null currency", {"currency": None}, "string-type", "/currency"),
    patch("currency without minor units", {"currency": "XAG"}, "unknown-currency", "/currency"),
    patch("currency too coarse for the cash", {"currency": "JPY"}, "not-in-currency", "/rounding/cash_increment"),
    patch("null zone", {"time_zone": None}, "string-type", "/time_zone"),
    patch("null mode", {"rounding": {"mode": None}}, "enum", "/rounding/mode"),
    patch("zero cash", {"rounding": {"cash_increment": 0}}, "not-in-currency", "/rounding/cash_increment"),
    Case(
        "currency of a book with prices",
        "PATCH",
        "/v1/books/shop",
        409,
        "currency-fixed",
        "/currency",
        body=b'{"currency": "USD"}',
        headers=JSON | MATCH,
    ),
    Case("change of no book", "PATCH", "/v1/books/none", 404, "unknown-book", "path/key", None, b'{"name": "x"}', JSON),
    Case(
        "stale book",
        "PATCH",
        "/v1/books/shop",
        412,
        "precondition-failed",
        None,
        None,
        b'{"name": "x"}',
        JSON | {"if-match": '"9"'},
    ),
    Case(
        "book without precondition",
        "PATCH",
        "/v1/books/shop",
        428,
        "precondition-required",
        None,
        None,
        b'{"name": "x"}',
        JSON,
    ),
    # Reads
    Case("seq to come", "GET", f"{A}/price?known_seq=1000", 422, "unknown-seq", "query/known_seq"),
    get("negative seq", f"{A}/price?known_seq=-1", "greater-than-equal", "query/known_seq"),
    get("huge seq", f"{A}/price?known_seq=9223372036854775808", "less-than-equal", "query/known_seq"),
    get("seq with a fraction", f"{A}/price?known_seq=1.5", "int-parsing", "query/known_seq"),
    get("two pins", f"{A}/price?known_seq=1&known_at=2024-01-01", "two-pins", "query/known_seq"),
    get("two pins of steps", f"{A}/prices?known_seq=1&known_at=2024-01-01", "two-pins", "query/known_seq"),
    get("known_at", f"{A}/price?known_at=today", NO_INSTANT, "query/known_at"),
    get("window backwards", f"{A}/prices?from=2024-02-01&to=2024-01-01", EMPTY, "query/to"),
    get("empty window of the schedule", "/v1/schedule?from=2024-02-01&to=2024-02-01", EMPTY, "query/to"),
    get("cursor of the schedule", "/v1/schedule?cursor=abc", "wrong-cursor", "query/cursor"),
    get("limit of the schedule", "/v1/schedule?limit=1001", "less-than-equal", "query/limit"),
    get("no days", f"{A}/prior-price?days=0", "greater-than-equal", "query/days"),
    get("too many days", f"{A}/prior-price?days=3661", "less-than-equal", "query/days"),
    get("quantity of steps", f"{A}/prices?quantity=-1", "not-positive", "query/quantity"),
    get("explain perhaps", f"{A}/price?explain=perhaps", "bool-parsing", "query/explain"),
    get("book of the schedule", "/v1/schedule?book=none", "unknown-book", "query/book", 404, "unknown-book"),
    get(
        "book of the schedule by day", "/v1/schedule?book=none&from=2024-01-01", None, "query/book", 404, "unknown-book"
    ),
    get("book of steps", f"{A}/prices?book=none", "unknown-book", "query/book", 404, "unknown-book"),
    get("book of a prior price", f"{A}/prior-price?book=none", "unknown-book", "query/book", 404, "unknown-book"),
    get("book key of a read", f"{A}/price?book=NONE", "string-pattern-mismatch", "query/book"),
    Case("no book", "GET", "/v1/books/none", 404, "unknown-book", "path/key", "unknown-book"),
    Case("steps of no item", "GET", "/v1/items/sku:none/prices", 404, "unknown-item"),
    Case("prior price of no item", "GET", "/v1/items/sku:none/prior-price", 404, "unknown-item"),
    Case("prior price of a young item", "GET", f"{A}/prior-price", 409, "history-too-short"),
    post("no lines", "/v1/prices:lookup", {"lines": []}, "too-short", "/lines"),
    post("1001 lines", "/v1/prices:lookup", {"lines": [{"item": "sku:A"}] * 1001}, "too-long", "/lines"),
    post("line without item", "/v1/prices:lookup", {"lines": [{"quantity": 1}]}, "missing", "/lines/0/item"),
    post(
        "line without quantity",
        "/v1/prices:lookup",
        {"lines": [{"item": "sku:A", "quantity": None}]},
        "not-a-number",
        "/lines/0/quantity",
    ),
    post("lookup at no instant", "/v1/prices:lookup", {"at": "now", "lines": [{"item": "sku:A"}]}, NO_INSTANT, "/at"),
    post(
        "lookup in no book",
        "/v1/prices:lookup",
        {"book": "none", "lines": [{"item": "sku:A"}]},
        "unknown-book",
        "/book",
        404,
        "unknown-book",
    ),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
async def test_bad_input_in_time_is_refused_clearly_and_nothing_is_stored(
    client: httpx2.AsyncClient, owner: asyncpg.Connection, case: Case
) -> None:
    rows = await ledger(client)
    path, body = case.path, (case.body or b"").decode()
    for name, row in rows.items():
        path, body = path.replace(f"<{name}>", row), body.replace(f"<{name}>", row)
    before = await state(owner)
    answer = await client.request(case.method, path, content=body.encode(), headers=case.headers)
    problem = answer.json()
    assert answer.status_code == problem["status"] == case.status, problem
    assert answer.headers["content-type"] == "application/problem+json"
    assert problem["type"] == f"/problems/{case.slug}"
    assert problem["detail"].endswith(".")
    if case.pointer is not None:
        assert [fault["pointer"] for fault in problem["errors"]] == [case.pointer]
    if case.code is not None:
        assert [fault["code"] for fault in problem["errors"]] == [case.code]
    if case.slug == "already-superseded":
        assert rows["superseded" if "superseded" in case.name else "void"] in problem["detail"]
    assert "pricebook-seq" not in answer.headers
    assert await state(owner) == before
    # No seq is used: the next change has the next number.
    following = await client.post(f"{A}/prices", json={"amount": "2"})
    assert following.headers["pricebook-seq"] == str(before[0][0]["seq"] + 1)


async def ledger(client: httpx2.AsyncClient) -> dict[str, str]:
    """Items, books and rows to break the rules with; the ids of the rows by what they are."""

    async def write(path: str, **body: Any) -> str:
        answer = await client.post(path, json=body)
        assert answer.status_code == 201, answer.text
        return str(answer.json().get("id"))

    await write("/v1/books", key="shop", name="Shop", currency="EUR", time_zone="Europe/Berlin")
    await write("/v1/books", key="empty", name="Empty", currency="EUR", rounding={"cash_increment": "0.05"})
    for sku in ("A", "B", "Z"):
        await write("/v1/items", name="Frame", sku=sku)
    rows = {
        "row": await write(f"{A}/prices", amount="1"),
        "superseded": await write(f"{A}/prices", amount="1"),
        "void": await write(f"{A}/prices", amount="1"),
        "other item": await write("/v1/items/sku:B/prices", amount="1"),
        "other book": await write(f"{A}/prices", amount="1", book="shop"),
        "archived": await write("/v1/items/sku:Z/prices", amount="1"),
    }
    await write(f"{A}/prices", amount="1", supersedes=rows["superseded"])
    assert (await client.delete(f"/v1/prices/{rows['void']}")).status_code == 200
    assert (await client.delete("/v1/items/sku:Z", headers=MATCH)).status_code == 200
    return rows
