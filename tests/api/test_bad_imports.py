"""Files that cannot be imported, and uploads that do not arrive: a clear answer, and nothing is left behind."""

import codecs
import gzip
import io
import itertools
import json
import zipfile
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import httpx2
import pytest

from app.main import create_app
from app.settings import Settings

Client = httpx2.AsyncClient
JSON = dict[str, Any]

CSV, NDJSON = "text/csv", "application/x-ndjson"
HEAD = b"sku,name,amount\r\n"
LONG = 1_048_576


def archive() -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as file:
        file.writestr("xl/workbook.xml", "<workbook/>")
    return target.getvalue()


async def send(client: Client, body: Any, content_type: str = CSV, **query: object) -> httpx2.Response:
    parameters: Any = query
    return await client.post("/v1/imports", params=parameters, content=body, headers={"content-type": content_type})


async def rows_of(client: Client, body: bytes, content_type: str = CSV, **query: object) -> list[JSON]:
    """The report of a preview."""
    answer = await send(client, body, content_type, **query)
    assert answer.status_code in (200, 201), answer.text
    page = (await client.get(f"/v1/imports/{answer.json()['id']}/rows", params={"limit": 1000})).json()
    rows: list[JSON] = page["rows"]
    return rows


async def error_of(client: Client, body: bytes, content_type: str = CSV, **query: object) -> tuple[str | None, str]:
    """Column and code of the one error of the one row of a file."""
    (row,) = await rows_of(client, body, content_type, **query)
    (error,) = row["errors"]
    assert row["status"] == "error"
    assert error["message"]
    return error["column"], error["code"]


@pytest.mark.parametrize(
    ("body", "content_type", "pointer", "code"),
    [
        pytest.param(HEAD + "A,Käse,1\r\n".encode("cp1252"), CSV, "line/2", "wrong-encoding", id="windows-1252"),
        pytest.param(
            HEAD + b"A,a,1\nB,\x81,1\n", f"{CSV}; charset=windows-1252", "line/3", "wrong-encoding", id="no-1252"
        ),
        pytest.param(HEAD + b"A,a,1\nB,\xe2\x82", CSV, "line/3", "wrong-encoding", id="half-a-character"),
        pytest.param(HEAD.decode().encode("utf-16"), CSV, "body", "wrong-encoding", id="utf-16"),
        pytest.param(
            HEAD.decode().encode("utf-16") + b"x", f"{CSV}; charset=utf-16", "line/2", "wrong-encoding", id="odd"
        ),
        pytest.param(archive(), CSV, "body", "not-text", id="xlsx"),
        pytest.param(b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(512), CSV, "body", "not-text", id="xls"),
        pytest.param(b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n", CSV, "body", "not-text", id="pdf"),
        pytest.param(gzip.compress(HEAD + b"A,a,1"), CSV, "body", "not-text", id="gzip"),
        pytest.param(gzip.compress(HEAD + b"A,a,1"), NDJSON, "body", "not-text", id="gzip-ndjson"),
        pytest.param(b"(\xb5/\xfd\x04X", CSV, "body", "not-text", id="zstd"),
        pytest.param(b"", CSV, "body", "empty-file", id="empty"),
        pytest.param(b"", NDJSON, "body", "empty-file", id="empty-ndjson"),
        pytest.param(codecs.BOM_UTF8, CSV, "body", "empty-file", id="byte-order-mark"),
        pytest.param(b"\r\n \r\n", NDJSON, "body", "empty-file", id="blank-lines-ndjson"),
        pytest.param(b"\r\n\r\n", CSV, "body", "empty-file", id="blank-lines"),
        pytest.param(HEAD, CSV, "body", "empty-file", id="header-only"),
        pytest.param(HEAD + b",,\r\n,,\r\n", CSV, "body", "empty-file", id="empty-rows"),
        pytest.param(b"sku,amount,Amount\nA,1,2\n", CSV, "line/1", "duplicate-column", id="twice"),
        pytest.param(b"sku,amount,colour\nA,1,2\n", CSV, "line/1", "unknown-column", id="unknown"),
        pytest.param(b"sku,price\nA,1\n", CSV, "line/1", "unknown-column", id="another-name"),
        pytest.param(b"sku,name\nA,1\n", CSV, "line/1", "missing-column", id="no-amount"),
        pytest.param(b"name,amount\nA,1\n", CSV, "line/1", "missing-column", id="no-key"),
        pytest.param(b"sep=;\r\nsku;name\nA;1\n", CSV, "line/2", "missing-column", id="no-amount-after-sep"),
        pytest.param(b'sep="\r\nsku;amount\nA;1\n', CSV, "line/1", "unknown-column", id="quotes-as-delimiter"),
        pytest.param(b"sku,name,amount\rA,a,1\rB,b,2\r", CSV, "line/1", "not-csv", id="mac"),
        pytest.param(HEAD + b'A,"a"b,1\n', CSV, "line/2", "not-csv", id="text-after-a-quote"),
        pytest.param(HEAD + b'A,a,1\nB,"b,1\nC,c,1\n', CSV, "line/3", "truncated", id="open-quote"),
        pytest.param(HEAD + b"A," + b"x" * LONG, CSV, "line/2", "record-too-long", id="long"),
        pytest.param(HEAD + b"A," + b"x" * LONG + b",1\n", CSV, "line/2", "record-too-long", id="long-line"),
        pytest.param(HEAD + b'A,"' + b"x\n" * LONG, CSV, "line/2", "record-too-long", id="long-quoted"),
        pytest.param(
            b'{"sku":"A","amount":1}\n{' + b" " * LONG + b"}\n", NDJSON, "line/2", "record-too-long", id="object"
        ),
    ],
)
async def test_files_that_are_refused(
    client: Client, owner: asyncpg.Connection, body: bytes, content_type: str, pointer: str, code: str
) -> None:
    for sent in (body, _pieces(body, 1000)):
        answer = await send(client, sent, content_type)
        problem = answer.json()
        assert (answer.status_code, problem["type"]) == (422, "/problems/unreadable-file"), problem
        assert [(error["pointer"], error["code"]) for error in problem["errors"]] == [(pointer, code)]
        assert "newline=" not in problem["detail"]
        (run,) = (await client.get("/v1/imports", params={"limit": 1})).json()["items"]
        assert (run["state"], run["failure"]) == ("failed", problem["detail"])
        applied = await client.post(f"/v1/imports/{run['id']}:apply")
        assert (applied.status_code, applied.json()["type"]) == (409, "/problems/import-not-open")
    await _nothing_left(owner)


async def _pieces(body: bytes, size: int) -> AsyncIterator[bytes]:
    for start in range(0, len(body), size):
        yield body[start : start + size]


async def _nothing_left(owner: asyncpg.Connection) -> None:
    assert await owner.fetchval("SELECT count(*) FROM import_staging") == 0
    assert await owner.fetchval("SELECT count(*) FROM import_rows") == 0
    assert await owner.fetchval("SELECT count(*) FROM items") == 0
    assert await owner.fetchval("SELECT seq FROM ledger") == 1


@pytest.mark.parametrize(
    ("row", "column", "code"),
    [
        ("A,a,1,2", None, "wrong-width"),
        ("A,a", None, "wrong-width"),
        ("A,a,", "amount", "missing"),
        (",a,1", None, "no-key"),
        ("A,,1", "name", "missing"),
        ("A,a,1.234,50", None, "wrong-width"),
        ('A,a,"1,50"', "amount", "not-a-number"),
        ('A,a,"1,234.50"', "amount", "not-a-number"),
        ("A,a,1 234", "amount", "not-a-number"),
        ("A,a,1e3", "amount", "not-a-number"),
        ("A,a,€ 5", "amount", "not-a-number"),
        ("A,a,NaN", "amount", "not-a-number"),
        ("A,a,=1+1", "amount", "not-a-number"),
        ("A,a,Not-For-Sale", "amount", "not-a-number"),
        ("A,a,-0.01", "amount", "negative"),
        ("A,a,1234567890123", "amount", "too-many-digits"),
        ("A,a,0.1234567890123", "amount", "too-many-digits"),
        ("A\0,a,1", "sku", "not-one-line"),
        ("A,a\0,1", "name", "not-one-line"),
        ('"A\n",a,1', None, ""),
        ('"A\nB",a,1', "sku", "not-one-line"),
        (f"{'A' * 101},a,1", "sku", "too-long"),
        (f"A,{'a' * 201},1", "name", "too-long"),
        (f"A,a,{'1' * 5000}", "amount", "too-many-digits"),
        ("A/price,a,1", "sku", "reserved-sku"),
        (r"A,a,\u0000", "amount", "not-a-number"),
        (r"A,a,\N", "amount", "not-a-number"),
        (r"A,a,\.", "amount", "not-a-number"),
    ],
)
async def test_rows_that_are_errors(client: Client, row: str, column: str | None, code: str) -> None:
    body = HEAD + row.encode()
    if not code:
        (good,) = await rows_of(client, body)
        assert good["status"] == "create", good
        return
    assert await error_of(client, body) == (column, code)


@pytest.mark.parametrize(
    ("columns", "cells", "column", "code"),
    [
        ("valid_from", "2026-02-30", "valid_from", "not-an-instant"),
        ("valid_from", "01.12.2026", "valid_from", "not-an-instant"),
        ("valid_from", "2026-12-01T00:00:00", "valid_from", "not-an-instant"),
        ("valid_from", "0001-01-01T00:00:00+14:00", "valid_from", "not-an-instant"),
        ("valid_through", "9999-12-31", "valid_through", "not-an-instant"),
        ("valid_through", "2026-12-31T00:00:00Z", "valid_through", "not-a-date"),
        ("valid_from,valid_to", "2026-12-02,2026-12-01", "valid_to", "empty-interval"),
        ("valid_from,valid_to", "2026-12-02,2026-12-02", "valid_to", "empty-interval"),
        ("valid_from,valid_through", "2026-12-02,2026-12-01", "valid_through", "empty-interval"),
        ("valid_to", "2020-01-01", "valid_to", "empty-interval"),
        ("valid_to,valid_through", "2099-01-01,2099-01-01", None, "two-ends"),
        ("tax,tax_rate", "1,19", None, "two-taxes"),
        ("tax,tax_included", "6,true", "tax", "tax-exceeds-amount"),
        ("tax_included", "perhaps", "tax_included", "bool-parsing"),
        ("per", "0", "per", "not-positive"),
        ("min_quantity", "-1", "min_quantity", "not-positive"),
        ("gtin", "4006381333932", "gtin", "not-a-gtin"),
        ("unit", "piece", "unit", "string-pattern-mismatch"),
        ("tax_category", "X", "tax_category", "enum"),
        ("attributes", "colour=red", "attributes", "not-json"),
        ("attributes", "[1]", "attributes", "dict-type"),
        ("attributes", '"{""a"":1.5}"', "attributes", "not-an-attribute"),
        ("attributes", '"{""a"":1,""a"":2}"', "attributes", "not-json"),
        ("attributes", '"{""a"":{""b"":1}}"', "attributes", "not-an-attribute"),
        ("attributes", '"{""a"":null}"', None, "not-an-attribute"),
        ("description", f"{'x' * 4001}", "description", "string-too-long"),
        ("description", "\x1b[31mred", "description", "control-character"),
        ("reason", "\x1b[31mred", "reason", "not-one-line"),
    ],
)
async def test_cells_that_are_errors(client: Client, columns: str, cells: str, column: str | None, code: str) -> None:
    body = f"sku,name,amount,{columns}\nA,a,5,{cells}\n".encode()
    found = await error_of(client, body)
    assert found == (column, code)


@pytest.mark.parametrize(
    ("line", "column", "code"),
    [
        ('{"sku":"A","name":"a","amount":', None, "not-json"),
        ("sku,name,amount", None, "not-json"),
        ("[1]", None, "not-an-object"),
        ("1", None, "not-an-object"),
        ('"A"', None, "not-an-object"),
        ("null", None, "not-an-object"),
        ('{"sku":"A","name":"a","amount":NaN}', "amount", "not-a-number"),
        ('{"sku":"A","name":"a","amount":Infinity}', "amount", "not-a-number"),
        ('{"sku":"A","name":"a","amount":1e2}', "amount", "not-a-number"),
        ('{"sku":"A","name":"a","amount":true}', "amount", "not-a-number"),
        ('{"sku":"A","name":"a","amount":[1]}', "amount", "not-a-number"),
        ('{"sku":"A","name":"a","amount":{"value":1}}', "amount", "not-a-number"),
        ('{"sku":"A","name":"a","amount":""}', "amount", "not-a-number"),
        ('{"sku":"A","name":"a","amount":-1}', "amount", "negative"),
        (f'{{"sku":"A","name":"a","amount":{"9" * 5000}}}', "amount", "too-many-digits"),
        (f'{{"sku":"A","name":"a","amount":0.{"9" * 5000}}}', "amount", "too-many-digits"),
        ('{"sku":"A","name":"a"}', "amount", "missing"),
        ('{"sku":"A","name":"a","amount":1,"amount":2}', None, "not-json"),
        ('{"sku":"A","name":"a","amount":1,"colour":"red"}', None, "extra-forbidden"),
        ('{"sku":1,"name":"a","amount":1}', "sku", "string-type"),
        ('{"sku":" A","name":"a","amount":1}', "sku", "not-one-line"),
        ('{"sku":"","name":"a","amount":1}', "sku", "too-short"),
        ('{"sku":null,"name":"a","amount":1}', None, "no-key"),
        (r'{"sku":"A\u0000","name":"a","amount":1}', "sku", "not-one-line"),
        (r'{"sku":"A","name":"\ud800","amount":1}', "name", "not-one-line"),
        (r'{"sku":"A","name":"a","amount":1,"description":"\ud800"}', "description", "string-unicode"),
        (r'{"sku":"A","name":"a","amount":"\u0000"}', "amount", "not-a-number"),
        (r'{"sku":"A","name":"a","amount":"\\u0000"}', "amount", "not-a-number"),
        ('{"sku":"A","name":"a","amount":1,"attributes":{"a":[]}}', "attributes", "not-an-attribute"),
        ('{"sku":"A","name":"a","amount":1,"attributes":{"a":1.5}}', "attributes", "not-an-attribute"),
        ('{"sku":"A","name":"a","amount":1,"valid_from":5}', "valid_from", "not-an-instant"),
        ('{"sku":"A","name":"a","amount":' + "[" * 100_000 + "]" * 100_000 + "}", None, "not-json"),
        ('{"sku":"A","name":"a","amount":' + '{"a":' * 50_000 + "1" + "}" * 50_001, None, "not-json"),
    ],
)
async def test_objects_that_are_errors(client: Client, line: str, column: str | None, code: str) -> None:
    assert await error_of(client, line.encode(), NDJSON) == (column, code)


async def test_a_row_is_told_everything_that_is_wrong_with_it(client: Client) -> None:
    body = b"sku,amount,per,valid_from,unit\nA,x,0,soon,piece\n"
    (row,) = await rows_of(client, body)
    assert [error["column"] for error in row["errors"]] == ["unit", "amount", "per", "valid_from"]
    assert [error["value"] for error in row["errors"]] == ["piece", "x", "0", "soon"]


async def test_an_error_names_the_item_whenever_the_row_does(client: Client) -> None:
    """Or else the item would look like one that the file does not name, and its price might end."""
    for line in ('{"sku":"A","amount":1,"colour":"red"}', '{"sku":"A","amount":"x"}'):
        (row,) = await rows_of(client, line.encode(), NDJSON)
        assert (row["status"], row["sku"]) == ("error", "A"), line
    for line in ("A,x,", "A,1,{"):
        (row,) = await rows_of(client, f"sku,amount,attributes\n{line}\n".encode())
        assert (row["status"], row["sku"]) == ("error", "A"), line


async def test_the_price_of_an_item_whose_row_cannot_be_read_does_not_end(client: Client) -> None:
    await send(client, b"sku,name,amount\nA,a,1\nB,b,1\nC,c,1\n", mode="apply")
    bodies = {
        CSV: b"sku,amount\nA,1,5\nB\nC,\n",
        NDJSON: b'{"sku":"A","amount":1,"x":1}\n{"sku":"B","amount":"x"}\n{"sku":"C"}\n',
    }
    for content_type, body in bodies.items():
        rows = await rows_of(client, body, content_type, missing="end", on_error="skip")
        assert [row["status"] for row in rows] == ["error"] * 3, rows


@pytest.mark.parametrize(
    "text",
    [
        "sku,name,amount\nA,a,1\nB,b,2\n",
        "sku;name;amount\r\nA;a;1\r\nB;b;2",
        "sku\tname\tamount\nA\ta\t1\nB\tb\t2\n",
        "sep=|\nsku|name|amount\nA|a|1\nB|b|2\n",
        '"sep=;"\r\nsku;name;amount\nA;a;1\nB;b;2\n',
        "sep=\t\nsku\tname\tamount\nA\ta\t1\nB\tb\t2\n",
        '"sku","name","amount"\n"A","a","1"\n"B","b","2"\n',
        " SKU , Name ,AMOUNT\n A , a , 1 \nB,b,2\n",
        "sku,name,amount\n\n\nA,a,1\n\r\n,,\nB,b,2\n\n\n",
        "import_errors,sku,name,amount\nsome,A,a,1\nnone,B,b,2\n",
        "sku,name,amount,import_errors,\nA,a,1,,\nB,b,2,x,\n",
        "\r\n \r\nsku;name;amount\r\nA;a;1\r\nB;b;2\r\n",
    ],
)
async def test_files_that_spreadsheets_write(client: Client, text: str) -> None:
    for bom in ("", "\ufeff"):
        rows = await rows_of(client, (bom + text).encode())
        found = [(row["sku"], row["status"], row["new"]["amount"]) for row in rows]
        assert found == [("A", "create", "1.00"), ("B", "create", "2.00")]
    for charset in ("utf-16", "windows-1252", "ISO-8859-1", '"utf-8"', "US-ASCII"):
        body = text.encode(charset.strip('"'))
        assert len(await rows_of(client, body, f"text/csv;charset={charset}")) == 2


async def test_text_arrives_as_it_was_written(client: Client) -> None:
    """Quotes, inch marks, line breaks of every kind, and everything that could be taken for something else."""
    names = {
        "A": 'Pipe 5"',
        "B": 'Pipe 5" x 3"',
        "C": "=HYPERLINK(1)",
        "D": "-5 °C",
        "E": r"C:\new\table \N \. \u0000",
        "F": "NULL",
        "G": "a\u2028b",
        "H": "a\x85b",
        "I": "😀 and '",
        "J": "'t Hof",
        "K": "a;b,c",
    }
    written = [f'{sku},"{name}",1' if "," in name else f"{sku},{name},1" for sku, name in names.items()]
    body = ("sku,name,amount\n" + "\n".join(written)).encode()
    assert (await send(client, body, mode="apply")).status_code == 201
    for sku, name in names.items():
        assert (await client.get(f"/v1/items/sku:{sku}")).json()["name"] == name
    body = b'sku,name,description,amount\nL,l,"one\r\ntwo\n\n""three""\t",1\nM,m,,1\n'
    answer = await send(client, body, mode="apply")
    rows = (await client.get(f"{answer.headers['location']}/rows")).json()["rows"]
    assert [row["line"] for row in rows if row["line"]] == [2, 6]
    assert (await client.get("/v1/items/sku:L")).json()["description"] == 'one\r\ntwo\n\n"three"\t'
    assert (await client.get("/v1/items/sku:M")).json()["description"] is None


async def test_windows_1252_is_converted_when_it_is_said(client: Client) -> None:
    body = "sku,name,amount\nA,Käse 5 €,1\n".encode("cp1252")
    answer = await send(client, body, f"{CSV}; charset=windows-1252", mode="apply")
    assert answer.status_code == 201
    assert (await client.get("/v1/items/sku:A")).json()["name"] == "Käse 5 €"


@pytest.mark.parametrize(
    ("amount", "code"),
    [("1,50", None), ("150", None), ("1.234,50", "not-a-number"), ("1.50", "not-a-number"), ("1,2,3", "not-a-number")],
)
async def test_decimal_commas(client: Client, amount: str, code: str | None) -> None:
    (row,) = await rows_of(client, f"sku;name;amount\nA;a;{amount}\n".encode(), decimal=",")
    assert [error["code"] for error in row["errors"]] == ([code] if code else [])
    if code:
        assert row["errors"][0]["value"] == amount


@pytest.mark.parametrize(
    ("query", "status", "pointer"),
    [
        ({"book": "nowhere"}, 404, None),
        ({"book": "No Where"}, 422, "query/book"),
        ({"effective_at": "tomorrow"}, 422, "query/effective_at"),
        ({"effective_at": "2026-02-30"}, 422, "query/effective_at"),
        ({"mode": "try"}, 422, "query/mode"),
        ({"on_error": "ignore"}, 422, "query/on_error"),
        ({"missing": "delete"}, 422, "query/missing"),
        ({"create": "perhaps"}, 422, "query/create"),
        ({"max_change_percent": "-1"}, 422, "query/max_change_percent"),
        ({"max_change_percent": "1e3"}, 422, "query/max_change_percent"),
        ({"max_change_percent": "NaN"}, 422, "query/max_change_percent"),
        ({"decimal": "'"}, 422, "query/decimal"),
        ({"mapping": "colour:amount"}, 422, "query/mapping"),
        ({"mapping": "sku:"}, 422, "query/mapping"),
        ({"mapping": ""}, 422, "query/mapping"),
        ({"mapping": ["sku:a"] * 51}, 422, "query/mapping"),
        ({"delimiter": ";"}, 422, "query/delimiter"),
    ],
)
async def test_parameters_that_are_refused(
    client: Client, owner: asyncpg.Connection, query: JSON, status: int, pointer: str | None
) -> None:
    answer = await client.post("/v1/imports", params=query, content=HEAD + b"A,a,1", headers={"content-type": CSV})
    assert answer.status_code == status, answer.text
    assert pointer in [None, *(error["pointer"] for error in answer.json().get("errors", []))]
    assert await owner.fetchval("SELECT count(*) FROM imports") == 0


@pytest.mark.parametrize(
    ("mapping", "code"),
    [
        (["sku", "amount:Preis"], "unknown-column"),
        (["sku:Nr", "sku:Nr2", "amount:Price"], "unknown-column"),
        (["sku:{Nr} {X}", "amount:Price"], "unknown-column"),
        (["sku:Twice", "amount:Price"], "duplicate-column"),
        (["sku:Nr"], "missing-column"),
        (["amount:Price"], "missing-column"),
    ],
)
async def test_mappings_that_do_not_fit_the_file(client: Client, mapping: list[str], code: str) -> None:
    answer = await send(client, b"Nr,Price,Twice,Twice\nA,1,x,y\n", mapping=mapping)
    assert (answer.status_code, answer.json()["errors"][0]["code"]) == (422, code)


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"content-type": "application/json"},
        {"content-type": "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"},
        {"content-type": "multipart/form-data; boundary=x"},
        {"content-type": "text/csv; charset=klingon"},
        {"content-type": "text/csv; charset=utf-7"},
        {"content-type": "text/csv", "content-encoding": "gzip"},
        {"content-type": "text/csv", "content-encoding": "br"},
        {"content-type": "text/csv", "content-encoding": "identity, gzip"},
    ],
)
async def test_media_types_that_are_refused(client: Client, owner: asyncpg.Connection, headers: dict[str, str]) -> None:
    bomb = gzip.compress(HEAD + b"A,a,1\n" * 1_000_000)
    answer = await client.post("/v1/imports", content=bomb, headers=headers)
    assert (answer.status_code, answer.json()["type"]) == (415, "/problems/unsupported-media-type")
    assert await owner.fetchval("SELECT count(*) FROM imports") == 0


@pytest.mark.parametrize(
    "path",
    [
        "/v1/imports?limit=0",
        "/v1/imports?limit=1001",
        "/v1/imports?state=open",
        "/v1/imports?book=No%20Where",
        "/v1/imports?cursor=x",
        "/v1/imports?x=1",
        "/v1/imports/7",
        "/v1/imports/{id}/rows?limit=0",
        "/v1/imports/{id}/rows?limit=1001",
        "/v1/imports/{id}/rows?status=bad",
        "/v1/imports/{id}/rows?order=random",
        "/v1/imports/{id}/rows?format=xlsx",
        "/v1/imports/{id}/rows?format=file",
        "/v1/imports/{id}/rows?format=file&status=change",
        "/v1/imports/{id}/rows?cursor=x",
    ],
)
async def test_questions_that_are_refused(client: Client, path: str) -> None:
    import_id = (await send(client, HEAD + b"A,a,1")).json()["id"]
    answer = await client.get(path.format(id=import_id))
    assert (answer.status_code, answer.json()["type"]) == (422, "/problems/invalid-request"), answer.text


async def test_imports_that_are_not_there(client: Client) -> None:
    nobody = "/v1/imports/01a20537-de50-7ff8-9c93-02db0b06a11c"
    for method, path in (
        ("GET", nobody),
        ("GET", f"{nobody}/rows"),
        ("GET", f"{nobody}/rows?status=error&format=file"),
        ("POST", f"{nobody}:apply"),
        ("DELETE", nobody),
    ):
        answer = await client.request(method, path)
        assert (answer.status_code, answer.json()["type"]) == (404, "/problems/unknown-import"), path


@pytest.mark.parametrize(
    ("digest", "status"),
    [
        ("sha-256=:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=:", "digest-mismatch"),
        ("sha-256=:!:", "wrong-digest"),
        ("sha-256=:A:", "wrong-digest"),
        ("sha-256=AAAA", "wrong-digest"),
        ("sha-512=:AAAA:", "wrong-digest"),
        ("", "wrong-digest"),
    ],
)
async def test_digests_that_do_not_fit(client: Client, digest: str, status: str) -> None:
    headers = {"content-type": CSV, "content-digest": digest}
    answer = await client.post("/v1/imports", content=HEAD + b"A,a,1", headers=headers)
    assert (answer.status_code, answer.json()["errors"][0]["code"]) == (422, status)


async def test_limits(settings: Settings, owner: asyncpg.Connection, client: Client) -> None:
    """Of bytes, announced or not, and of rows."""
    small = create_app(settings.model_copy(update={"max_import_bytes": 2048, "max_import_rows": 3}))
    transport = httpx2.ASGITransport(app=small)
    async with (
        small.router.lifespan_context(small),
        httpx2.AsyncClient(transport=transport, base_url="http://small.test") as limited,
    ):
        large = HEAD + b"A,a,1\nB," + b"b" * 2048 + b",1\n"
        for body in (large, _pieces(large, 500)):
            answer = await send(limited, body)
            assert (answer.status_code, answer.json()["type"]) == (413, "/problems/content-too-large")
        (run,) = (await limited.get("/v1/imports")).json()["items"]  # of the one that did not announce its size
        assert run["state"] == "failed"
        assert "MAX_IMPORT_BYTES" in run["failure"]
        answer = await send(limited, HEAD + b"".join(b"A%d,a,1\n" % number for number in range(4)))
        assert answer.json()["errors"][0] == answer.json()["errors"][0] | {"pointer": "line/5", "code": "too-many-rows"}
        answer = await send(limited, HEAD + b"".join(b"A%d,a,1\n" % number for number in range(3)))
        assert answer.status_code == 201
    # The limit of other bodies is another one.
    assert (await client.post("/v1/items", json={"name": "x" * 2_000_000})).status_code == 413
    assert await owner.fetchval("SELECT count(*) FROM import_staging") == 0


NASTY = [
    ("text/csv", '\ufeffsku;name;amount\r\nÄ😀;"ä\r\n""ö""";1\r\n\r\nB;5" pipe;x\r\nC;c\r\n'.encode()),
    ("text/csv", b"sep=;\r\nsku;name;amount\nA;a;1\n\nB;b;2"),
    ("text/csv; charset=utf-16", 'sku,name,amount\nÄ😀,"ä\nö",1\n'.encode("utf-16")),
    ("text/csv", b"sku,name,amount\nA,a,1\nB,\xe4,1\nC,c,1"),
    ("text/csv", b'sku,name,amount\nA,a,1\nB,"b" c,1\nC,\xe4,1'),
    ("text/csv", b'sku,name,amount\nA,a,1\nB,"b\nC,c,1\n'),
    ("text/csv", b"sku,name,amount\rA,a,1\r"),
    ("text/csv", b"sku,what,amount\nA,a,1\n\xff"),
    ("text/csv", gzip.compress(HEAD + b"A,a,1", mtime=0)),
    ("text/csv", "sku,name,amount\nA,a,1\n".encode("utf-16")),
    ("application/x-ndjson", '{"sku":"Ä😀","name":"\u2028\x85","amount":1}\r\n\n{"sku":"B"\n[]\n1.5\n'.encode()),
    ("application/x-ndjson", b'{"sku":"A","name":"a","amount":1}\n{"sku":"B","name":"\xff","amount":1}'),
    ("application/x-ndjson", b"%PDF-1.7\n"),
]


@pytest.mark.parametrize("place", range(len(NASTY)))
async def test_the_report_does_not_depend_on_how_the_bytes_arrive(client: Client, place: int) -> None:
    content_type, body = NASTY[place]
    expected = await _outcome(client, body, content_type)
    cuts: list[list[int]] = [list(range(1, len(body))), [0, 0, len(body)], *([cut] for cut in range(1, len(body), 3))]
    for cut in cuts:
        bounds = [0, *cut, len(body)]
        pieces = [body[start:end] for start, end in itertools.pairwise(bounds)]
        assert await _outcome(client, _listed(pieces), content_type) == expected, pieces


async def _listed(pieces: list[bytes]) -> AsyncIterator[bytes]:
    for piece in pieces:
        yield piece


async def _outcome(client: Client, body: Any, content_type: str) -> Any:
    answer = await send(client, body, content_type)
    document = answer.json()
    if answer.status_code != 201:
        return answer.status_code, document["detail"], document["errors"]
    rows = (await client.get(f"/v1/imports/{document['id']}/rows")).json()
    assert (await client.delete(f"/v1/imports/{document['id']}")).json()["state"] == "expired"
    return document["counts"], document["file_sha256"], document["file_bytes"], json.dumps(rows)
