"""Whatever is wrong with a request is said in one problem document, and nothing is stored."""

from dataclasses import dataclass, field
from typing import Any

import asyncpg
import httpx2
import pytest

JSON = {"content-type": "application/json"}
MATCH = {"if-match": "*"}


@dataclass
class Case:
    """A request that must be refused, and how."""

    name: str
    method: str
    path: str
    status: int
    slug: str
    pointer: str | None = None
    code: str | None = None
    body: bytes | None = None
    headers: dict[str, str] = field(default_factory=dict)


def post(name: str, path: str, body: bytes | str, code: str, pointer: str | None = None, **more: Any) -> Case:
    """A POST of a JSON document that answers 422."""
    raw = body.encode() if isinstance(body, str) else body
    return Case(name, "POST", path, 422, "invalid-request", pointer, code, raw, JSON, **more)


def get(name: str, path: str, code: str, pointer: str) -> Case:
    """A GET that answers 422."""
    return Case(name, "GET", path, 422, "invalid-request", pointer, code)


def price(name: str, fields: str, code: str, pointer: str) -> Case:
    """A price row for the item ``sku:A`` that answers 422."""
    body = f'{{"amount": "1", {fields}}}' if '"amount"' not in fields else f"{{{fields}}}"
    return post(name, "/v1/items/sku:A/prices", body, code, pointer)


def item(name: str, fields: str, code: str, pointer: str) -> Case:
    """An item that answers 422."""
    body = f'{{"name": "x", {fields}}}' if '"name"' not in fields else f"{{{fields}}}"
    return post(name, "/v1/items", body, code, pointer)


CASES = [
    # Documents that cannot be read
    post("NaN", "/items/", '{"name": "x", "price": NaN}', "not-a-number", "/price"),
    post("Infinity", "/items/", '{"name": "x", "price": -Infinity}', "not-a-number", "/price"),
    post("1e400", "/items/", '{"name": "x", "price": 1e400}', "not-a-number", "/price"),
    post("exponent", "/items/", '{"name": "x", "price": 1e2}', "not-a-number", "/price"),
    post("lone surrogate", "/items/", b'{"name": "\\ud800", "price": 1}', "not-one-line", "/name"),
    post("lone surrogate as key", "/v1/items", b'{"name": "x", "\\ud800": 1}', "string-unicode"),
    post("NUL", "/items/", '{"name": "a\\u0000b", "price": 1}', "not-one-line", "/name"),
    post("NUL in a paragraph", "/items/", '{"name": "a", "price": 1, "description": "\\u0000"}', "control-character"),
    post("deep nesting", "/items/", b'{"name":' + b"[" * 200_000, "json-invalid", ""),
    post("deep nesting, closed", "/items/", b"[" * 900 + b"]" * 900, "model-attributes-type", ""),
    post("not UTF-8", "/items/", b'{"name": "\xff"}', "json-invalid", ""),
    post("a key twice", "/items/", '{"name": "x", "price": 1, "price": 2}', "json-invalid", ""),
    post("cut off", "/items/", '{"name": "x"', "json-invalid", ""),
    post("a list", "/items/", "[]", "model-attributes-type", ""),
    post("null", "/items/", "null", "model-attributes-type", ""),
    post("empty body", "/items/", "", "missing", ""),
    # Fields
    post("no price", "/items/", '{"name": "x"}', "missing", "/price"),
    post("negative price", "/items/", '{"name": "x", "price": -1}', "negative", "/price"),
    post("boolean price", "/items/", '{"name": "x", "price": true}', "not-a-number", "/price"),
    post("4,301 digits", "/items/", '{"name": "x", "price": ' + "9" * 4301 + "}", "too-many-digits", "/price"),
    item("unknown field", '"price_eur": 1', "extra-forbidden", "/price_eur"),
    item("unknown field with a slash", '"a/b~c": 1', "extra-forbidden", "/a~1b~0c"),
    item("empty name", '"name": ""', "too-short", "/name"),
    item("long name", f'"name": "{"x" * 201}"', "too-long", "/name"),
    item("blank sku", '"sku": " "', "not-one-line", "/sku"),
    item("line break in a sku", '"sku": "a\\nb"', "not-one-line", "/sku"),
    item("wrong check digit", '"gtin": "4006381333932"', "not-a-gtin", "/gtin"),
    item("unit", '"unit": "piece"', "string-pattern-mismatch", "/unit"),
    item("tax category", '"tax_category": "X"', "enum", "/tax_category"),
    item("nested attribute", '"attributes": {"a": {"b": 1}}', "not-an-attribute", "/attributes/a"),
    item("decimal attribute", '"attributes": {"a": 1.5}', "not-an-attribute", "/attributes/a"),
    item("NaN attribute", '"attributes": {"a": NaN}', "not-an-attribute", "/attributes/a"),
    item("NUL in an attribute", '"attributes": {"a": "\\u0000"}', "control-character", "/attributes/a"),
    item("lone surrogate in an attribute", '"attributes": {"a": "\\ud800"}', "control-character", "/attributes/a"),
    item("sku that hides a sub-resource", '"sku": "x/price"', "reserved-sku", "/sku"),
    item("null attribute", '"attributes": {"a": null}', "not-an-attribute", ""),
    item(
        "too many attributes",
        '"attributes": {' + ",".join(f'"a{number}": 1' for number in range(51)) + "}",
        "too-many-attributes",
        "/attributes",
    ),
    item(
        "price of a new item corrects nothing",
        '"price": {"amount": 1, "supersedes": "x"}',
        "none-required",
        "/price/supersedes",
    ),
    item(
        "empty interval of a first price",
        '"price": {"amount": 1, "valid_to": "2020-01-01"}',
        "empty-interval",
        "/price/valid_to",
    ),
    price("two taxes", '"tax": "1", "tax_rate": "19"', "two-taxes", "/tax"),
    price("more tax than amount", '"tax": "2", "tax_included": true', "tax-exceeds-amount", "/tax"),
    price("negative amount", '"amount": "-0.01"', "negative", "/amount"),
    price("negative rate", '"tax_rate": "-1"', "negative", "/tax_rate"),
    price("per zero", '"per": 0', "not-positive", "/per"),
    post("no amount", "/v1/items/sku:A/prices", '{"reason": "x"}', "missing", "/amount"),
    item(
        "long attribute name", '"attributes": {"' + "a" * 65 + '": 1}', "too-long", "/attributes/" + "a" * 65 + "/[key]"
    ),
    price("13 decimals", '"amount": "1.0000000000000"', "too-many-digits", "/amount"),
    price(
        "ends before it starts", '"valid_from": "2026-02-01", "valid_to": "2026-01-01"', "empty-interval", "/valid_to"
    ),
    price("ends as it starts", '"valid_from": "2026-02-01", "valid_to": "2026-02-01"', "empty-interval", "/valid_to"),
    price("ended before now", '"valid_to": "2020-01-01"', "empty-interval", "/valid_to"),
    price("year 10000", '"valid_from": "10000-01-01T00:00:00Z"', "not-an-instant", "/valid_from"),
    price("no offset", '"valid_from": "2026-01-01T00:00:00"', "not-an-instant", "/valid_from"),
    price("no such day", '"valid_from": "2026-02-29"', "not-an-instant", "/valid_from"),
    price("a number as a date", '"valid_from": 1767225600', "not-an-instant", "/valid_from"),
    price("supersedes is no id", '"supersedes": "first"', "uuid-parsing", "/supersedes"),
    price("book key", '"book": "Großhandel"', "string-pattern-mismatch", "/book"),
    Case(
        "unknown book",
        "POST",
        "/v1/items/sku:A/prices",
        404,
        "unknown-book",
        "/book",
        "unknown-book",
        b'{"amount": 1, "book": "b"}',
        JSON,
    ),
    Case(
        "unknown book of a first price",
        "POST",
        "/v1/items",
        404,
        "unknown-book",
        "/price/book",
        "unknown-book",
        b'{"name": "x", "price": {"amount": 1, "book": "b"}}',
        JSON,
    ),
    Case(
        "duplicate sku",
        "POST",
        "/v1/items",
        409,
        "duplicate-sku",
        "/sku",
        "duplicate",
        b'{"name": "x", "sku": "A"}',
        JSON,
    ),
    Case(
        "price of no item",
        "POST",
        "/v1/items/sku:none/prices",
        404,
        "unknown-item",
        body=b'{"amount": 1}',
        headers=JSON,
    ),
    # Patches
    Case("empty patch", "PATCH", "/v1/items/sku:A", 422, "invalid-request", "", "empty-patch", b"{}", JSON | MATCH),
    Case(
        "null name",
        "PATCH",
        "/v1/items/sku:A",
        422,
        "invalid-request",
        "/name",
        "string-type",
        b'{"name": null}',
        JSON | MATCH,
    ),
    Case(
        "archive by patch",
        "PATCH",
        "/v1/items/sku:A",
        422,
        "invalid-request",
        "/archived_at",
        "none-required",
        b'{"archived_at": "2026-01-01"}',
        JSON | MATCH,
    ),
    Case(
        "id by patch",
        "PATCH",
        "/v1/items/sku:A",
        422,
        "invalid-request",
        "/id",
        "extra-forbidden",
        b'{"id": 1}',
        JSON | MATCH,
    ),
    Case(
        "NUL in a patched attribute",
        "PATCH",
        "/v1/items/sku:A",
        422,
        "invalid-request",
        "/attributes/a",
        "control-character",
        b'{"attributes": {"a": "\\u0000"}}',
        JSON | MATCH,
    ),
    # Queries and addresses
    get("misspelt parameter", "/v1/items/sku:A/price?boook=wholesale", "extra-forbidden", "query/boook"),
    get("parameter of another operation", "/v1/items?known_seq=1", "extra-forbidden", "query/known_seq"),
    get("limit 0", "/v1/items?limit=0", "greater-than-equal", "query/limit"),
    get("limit 1001", "/v1/items?limit=1001", "less-than-equal", "query/limit"),
    get("cursor", "/v1/items?cursor=abc", "wrong-cursor", "query/cursor"),
    get("cursor of the plain form", "/items/?cursor=%00", "wrong-cursor", "query/cursor"),
    get("NUL in a query", "/v1/items?sku=%00", "not-one-line", "query/sku"),
    get("at", "/v1/items/sku:A/price?at=yesterday", "not-an-instant", "query/at"),
    get("at with a bare plus", "/v1/items/sku:A/price?at=2026-01-01T00:00:00+01:00", "not-an-instant", "query/at"),
    get(
        "at the edge of the calendar",
        "/v1/items/sku:A/price?at=0001-01-01T00:00:00%2B23:59",
        "not-an-instant",
        "query/at",
    ),
    get("quantity 0", "/v1/items/sku:A/price?quantity=0", "not-positive", "query/quantity"),
    get("quantity NaN", "/v1/items/sku:A/price?quantity=NaN", "not-a-number", "query/quantity"),
    Case("unknown book asked", "GET", "/v1/items/sku:A/price?book=b", 404, "unknown-book", "query/book"),
    Case(
        "unknown book asked by day",
        "GET",
        "/v1/items/sku:A/price?book=b&at=2026-01-01",
        404,
        "unknown-book",
        "query/book",
    ),
    Case("unknown book of a list", "GET", "/v1/items?book=b", 404, "unknown-book", "query/book"),
    Case("unknown id", "GET", "/v1/items/01a20537-de50-7ff8-9c93-02db0b06a11c", 404, "unknown-item"),
    Case("no id", "GET", "/v1/items/seven", 404, "unknown-item"),
    Case("NUL in an address", "GET", "/v1/items/sku:%00", 404, "unknown-item"),
    Case("no id, plain form", "GET", "/items/seven", 404, "unknown-item"),
    # HTTP
    Case("nowhere", "GET", "/nowhere", 404, "not-found"),
    Case("method", "PUT", "/items/", 405, "method-not-allowed"),
    Case("accept", "GET", "/v1/items", 406, "not-acceptable", headers={"accept": "text/html, application/json;q=0"}),
    Case(
        "content type",
        "POST",
        "/items/",
        415,
        "unsupported-media-type",
        body=b"name=x",
        headers={"content-type": "application/x-www-form-urlencoded"},
    ),
    Case("no content type", "POST", "/items/", 415, "unsupported-media-type", body=b'{"name": "x", "price": 1}'),
    Case(
        "too large",
        "POST",
        "/items/",
        413,
        "content-too-large",
        body=b'{"name": "' + b"x" * 1_048_576 + b'"}',
        headers=JSON,
    ),
    Case(
        "etag",
        "PATCH",
        "/v1/items/sku:A",
        422,
        "invalid-request",
        "header/if-match",
        "not-an-entity-tag",
        b'{"name": "y"}',
        JSON | {"if-match": "1"},
    ),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
async def test_bad_input_is_refused_clearly_and_nothing_is_stored(
    client: httpx2.AsyncClient, owner: asyncpg.Connection, case: Case
) -> None:
    await client.post("/v1/items", json={"name": "Frame", "sku": "A"})
    before = await state(owner)
    answer = await client.request(case.method, case.path, content=case.body, headers=case.headers)
    problem = answer.json()
    assert answer.status_code == problem["status"] == case.status, problem
    assert answer.headers["content-type"] == "application/problem+json"
    assert list(problem) == ["type", "title", "status", "detail", "request_id", "errors"]
    assert problem["type"] == f"/problems/{case.slug}"
    assert problem["request_id"] == answer.headers["x-request-id"]
    assert problem["detail"].endswith(".")
    if case.pointer is not None:
        assert [fault["pointer"] for fault in problem["errors"]] == [case.pointer]
    if case.code is not None:
        assert [fault["code"] for fault in problem["errors"]] == [case.code]
    assert len(answer.content) < 2_000, "input is not echoed at length"
    assert await state(owner) == before


async def state(owner: asyncpg.Connection) -> list[Any]:
    """Everything that is stored."""
    tables = ("ledger", "changes", "items", "price_rows", "price_retirements", "books")
    return [await owner.fetch(f"SELECT * FROM {table} ORDER BY 1") for table in tables]  # noqa: S608 - fixed names


async def test_a_chunked_body_is_limited_too(client: httpx2.AsyncClient) -> None:
    async def chunks() -> Any:
        for _ in range(1100):
            yield b" " * 1024

    answer = await client.post("/items/", content=chunks(), headers=JSON)
    assert (answer.status_code, answer.json()["type"]) == (413, "/problems/content-too-large")


async def test_the_allowed_methods_are_listed(client: httpx2.AsyncClient) -> None:
    answer = await client.put("/v1/items")
    assert set(answer.headers["allow"].split(", ")) == {"GET", "POST"}


async def test_many_faults_are_named_at_once(client: httpx2.AsyncClient) -> None:
    body = {"sku": "", "gtin": "1", "unit": "?", "price": {"amount": "x", "per": 0}}
    problem = (await client.post("/v1/items", json=body)).json()
    pointers = {fault["pointer"] for fault in problem["errors"]}
    assert pointers == {"/sku", "/name", "/gtin", "/unit", "/price/amount", "/price/per"}
    assert problem["detail"].endswith("(5 more).")
