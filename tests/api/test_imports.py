"""The life of an import over HTTP: previewed, applied once, cancelled, expired, in conflict, repeated."""

import asyncio
import base64
import csv
import hashlib
import io
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import httpx2
import pytest
from fastapi import FastAPI

from app.database import Database
from app.housekeeping import jobs
from app.services import imports
from app.settings import Settings
from tests.api.test_statements import statements

Client = httpx2.AsyncClient
JSON = dict[str, Any]

CSV, NDJSON = "text/csv", "application/x-ndjson"
LIST = b"sku,name,amount,tax_rate\r\nA,Apple,1.50,19\r\nB,Bear,2,7\r\nC,Cup,3,7\r\n"
NEW = b"sku,amount\r\nA,1.60\r\nB,2\r\nC,2.50\r\n"
CHRISTMAS = "2090-12-24T00:00:00Z"


async def send(client: Client, body: str | bytes = LIST, content_type: str = CSV, **query: object) -> httpx2.Response:
    parameters: Any = query
    return await client.post("/v1/imports", params=parameters, content=body, headers={"content-type": content_type})


async def sent(client: Client, body: str | bytes = LIST, content_type: str = CSV, **query: object) -> JSON:
    answer = await send(client, body, content_type, **query)
    assert answer.status_code in (200, 201), answer.text
    run: JSON = answer.json()
    return run


async def apply(client: Client, run: JSON) -> httpx2.Response:
    return await client.post(f"/v1/imports/{run['id']}:apply")


async def applied(client: Client, run: JSON) -> JSON:
    answer = await apply(client, run)
    assert answer.status_code == 200, answer.text
    document: JSON = answer.json()
    return document


async def rows_of(client: Client, run: JSON, **query: object) -> list[JSON]:
    parameters: Any = {"limit": 1000, **query}
    answer = await client.get(f"/v1/imports/{run['id']}/rows", params=parameters)
    assert answer.status_code == 200, answer.text
    rows: list[JSON] = answer.json()["rows"]
    return rows


async def get(client: Client, path: str, **query: object) -> JSON:
    parameters: Any = query
    answer = await client.get(path, params=parameters)
    assert answer.status_code == 200, answer.text
    document: JSON = answer.json()
    return document


async def price(client: Client, sku: str, **query: object) -> str:
    amount: str = (await get(client, f"/v1/items/sku:{sku}/price", **query))["amount"]
    return amount


async def error_file(client: Client, run: JSON) -> httpx2.Response:
    answer = await client.get(f"/v1/imports/{run['id']}/rows", params={"status": "error", "format": "file"})
    assert answer.status_code == 200
    return answer


async def test_a_list_is_previewed_then_applied_then_over(client: Client, owner: asyncpg.Connection) -> None:
    answer = await send(client, effective_at="2026-01-01")
    run = answer.json()
    assert (answer.status_code, run["state"], run["mode"]) == (201, "previewed", "preview")
    assert answer.headers["location"] == f"/v1/imports/{run['id']}"
    assert "pricebook-seq" not in answer.headers
    assert run["effective_at"] == "2026-01-01T00:00:00Z"
    assert run["counts"] == {"rows": 3, "create": 3, "change": 0, "unchanged": 0, "error": 0, "missing": None}
    assert (run["file_bytes"], run["file_sha256"]) == (len(LIST), hashlib.sha256(LIST).hexdigest())
    assert await get(client, answer.headers["location"]) == run
    assert (await client.get("/v1/items/sku:A")).status_code == 404

    answer = await apply(client, run)
    done = answer.json()
    assert (answer.status_code, done["state"]) == (200, "applied")
    assert (done["first_seq"], done["last_seq"], answer.headers["pricebook-seq"]) == (2, 7, "7")
    assert done == run | {name: done[name] for name in ("state", "first_seq", "last_seq", "applied_at", "expires_at")}
    assert await price(client, "A") == "1.50"

    again = await apply(client, run)
    assert (again.status_code, again.json(), again.headers["pricebook-seq"]) == (200, done, "7")
    assert await owner.fetchval("SELECT seq FROM ledger") == 7
    read = await client.get(f"/v1/imports/{run['id']}")
    assert (read.json(), read.headers["pricebook-seq"]) == (done, "7")

    refused = await client.delete(f"/v1/imports/{run['id']}")
    assert (refused.status_code, refused.json()["type"]) == (409, "/problems/import-not-open")
    assert [row["new"]["valid_from"] for row in await rows_of(client, run)] == ["2026-01-01T00:00:00Z"] * 3


async def test_apply_at_once(client: Client) -> None:
    answer = await send(client, mode="apply")
    run = answer.json()
    assert (answer.status_code, run["state"], run["effective_at"]) == (201, "applied", None)
    assert answer.headers["pricebook-seq"] == str(run["last_seq"]) == "7"
    document = await get(client, "/v1/items/sku:A/price")
    assert document["valid_from"] == document["recorded_at"] == run["applied_at"]

    nothing = await sent(client, mode="apply")
    assert nothing["id"] != run["id"]
    assert (nothing["state"], nothing["first_seq"], nothing["last_seq"]) == ("applied", None, None)
    assert nothing["counts"]["unchanged"] == 3


async def test_errors_stop_the_whole_unless_they_are_skipped(client: Client, owner: asyncpg.Connection) -> None:
    body = b"sku,name,amount\nA,Apple,1\nB,Bear,x\nC,,3\n"
    answer = await send(client, body, mode="apply")
    problem = answer.json()
    assert (answer.status_code, problem["type"]) == (422, "/problems/import-has-errors")
    faults = [(error["pointer"], error["code"]) for error in problem["errors"]]
    assert faults == [("line/3/amount", "not-a-number"), ("line/4/name", "missing")]
    (failed,) = (await get(client, "/v1/imports"))["items"]
    assert (failed["state"], failed["failure"]) == ("failed", problem["detail"])
    assert [row["status"] for row in await rows_of(client, failed)] == ["create", "error", "error"]
    assert (await apply(client, failed)).status_code == 409
    assert await owner.fetchval("SELECT seq FROM ledger") == 1

    preview = await sent(client, body)
    assert preview["id"] != failed["id"]
    refused = await apply(client, preview)
    assert (refused.status_code, refused.json()["type"]) == (422, "/problems/import-has-errors")
    assert (await get(client, f"/v1/imports/{preview['id']}"))["state"] == "previewed"

    done = await sent(client, body, mode="apply", on_error="skip")
    assert (done["state"], done["first_seq"], done["last_seq"], done["counts"]["error"]) == ("applied", 2, 3, 2)
    assert (await client.get("/v1/items/sku:B")).status_code == 404


async def test_a_slipped_decimal_point_is_stopped(client: Client) -> None:
    await sent(client, mode="apply")
    run = await sent(client, b"sku,amount\nA,15.0\nB,3.00\nC,0.30\n")
    rows = await rows_of(client, run)
    assert [(row["status"], row["percent"]) for row in rows] == [
        ("error", "900.00"),
        ("change", "50.00"),
        ("error", "-90.00"),
    ]
    assert [row["errors"][0]["code"] for row in rows if row["errors"]] == ["change-too-large"] * 2
    assert (await apply(client, run)).status_code == 422
    wanted = await sent(client, b"sku,amount\nA,15.0\nB,3.00\nC,0.30\n", max_change_percent="900", mode="apply")
    assert wanted["state"] == "applied"


async def test_cancelled_is_over(client: Client, owner: asyncpg.Connection) -> None:
    run = await sent(client)
    cancelled = (await client.delete(f"/v1/imports/{run['id']}")).json()
    assert cancelled == run | {"state": "expired", "expires_at": None}
    assert (await client.delete(f"/v1/imports/{run['id']}")).json() == cancelled
    refused = await apply(client, run)
    assert (refused.status_code, refused.json()["type"]) == (409, "/problems/import-not-open")
    again = await sent(client)
    assert (again["id"] != run["id"], again["state"]) == (True, "previewed")
    assert await owner.fetchval("SELECT count(*) FROM import_rows WHERE import_id = $1::uuid", again["id"]) == 3


async def test_a_preview_holds_until_its_time_is_up(client: Client, owner: asyncpg.Connection) -> None:
    """Whether or not housekeeping has come by since."""
    run = await sent(client)
    await owner.execute("UPDATE imports SET expires_at = now() - interval '1 second'")
    again = await send(client)
    assert (again.status_code, again.json()["id"] != run["id"]) == (201, True)
    refused = await apply(client, run)
    assert (refused.status_code, refused.json()["type"]) == (409, "/problems/import-not-open")
    assert "previewed" not in refused.json()["detail"]
    assert await owner.fetchval("SELECT seq FROM ledger") == 1


async def test_the_same_file_is_the_same_import(client: Client) -> None:
    first = await send(client)
    second = await send(client)
    assert (first.status_code, second.status_code) == (201, 200)
    assert second.json() == first.json()
    assert second.headers["location"] == first.headers["location"]
    assert [len(await rows_of(client, first.json()))] == [3]
    others: list[JSON] = [
        {"effective_at": "2090-01-01"},
        {"on_error": "skip"},
        {"missing": "end"},
        {"create": "false"},
        {"max_change_percent": "60"},
        {"decimal": ","},
        {"mapping": ["sku", "name", "amount"]},
        {"mapping": ["sku", "amount", "name"]},
    ]
    ids = [(await sent(client, **other))["id"] for other in others]
    ids.append((await sent(client, content_type="text/csv; charset=windows-1252"))["id"])
    ids.append((await sent(client, LIST + b"\r\n"))["id"])
    await client.post("/v1/books", json={"key": "other", "name": "Other", "currency": "EUR"})
    ids.append((await sent(client, book="other"))["id"])
    assert len({first.json()["id"], *ids}) == len(ids) + 1
    assert [(await sent(client, **other))["id"] for other in others] == ids[: len(others)]
    assert len((await get(client, "/v1/imports"))["items"]) == len(ids) + 1


async def test_the_same_file_at_once_is_one_import(client: Client, owner: asyncpg.Connection) -> None:
    answers = await asyncio.gather(*(send(client, effective_at="2026-01-01", mode="apply") for _ in range(10)))
    codes = sorted(answer.status_code for answer in answers)
    assert set(codes) <= {200, 201, 503}, [answer.text for answer in answers]
    assert codes.count(201) <= 1
    assert len({answer.json()["id"] for answer in answers if answer.status_code != 503}) == 1
    assert {answer.json()["state"] for answer in answers if answer.status_code != 503} == {"applied"}
    assert await owner.fetchval("SELECT seq FROM ledger") == 7
    assert await owner.fetchval("SELECT count(*) FROM price_rows") == 3
    assert await owner.fetchval("SELECT count(*) FROM import_staging") == 0


async def test_the_same_file_after_the_prices_moved_is_compared_again(client: Client) -> None:
    await sent(client, mode="apply")
    first = await sent(client, NEW)
    await client.post("/v1/items/sku:A/prices", json={"amount": "1.60", "tax_rate": "19"})
    second = await send(client, NEW)
    assert (second.status_code, second.json()["counts"]["unchanged"]) == (201, 2)
    assert (await get(client, f"/v1/imports/{first['id']}"))["state"] == "expired"
    # What does not concern the list does not matter.
    await client.post("/v1/items", json={"sku": "Z", "name": "Z", "price": {"amount": 1}})
    assert (await send(client, NEW)).status_code == 200


async def test_the_same_file_after_it_was_applied(client: Client) -> None:
    fixed = await sent(client, mode="apply", effective_at=CHRISTMAS)
    again = await send(client, effective_at=CHRISTMAS)
    assert (again.status_code, again.json()) == (200, fixed)
    assert again.headers["pricebook-seq"] == str(fixed["last_seq"])
    again = await send(client, mode="apply", effective_at=CHRISTMAS)
    assert (again.status_code, again.json()) == (200, fixed)
    # A list for now is sent for another now.
    now = await sent(client, mode="apply")
    await sent(client, NEW, mode="apply")
    back = await sent(client, mode="apply")
    assert (back["id"] != now["id"], back["counts"]["change"]) == (True, 2)
    assert await price(client, "A") == "1.50"


async def test_the_list_of_imports(client: Client) -> None:
    await client.post("/v1/books", json={"key": "other", "name": "Other", "currency": "EUR"})
    runs = [await sent(client, f"sku,name,amount\nA{number},a,1\n") for number in range(5)]
    runs.append(await sent(client, book="other"))
    await applied(client, runs[0])
    await client.delete(f"/v1/imports/{runs[1]['id']}")
    newest = [run["id"] for run in reversed(runs)]

    async def listed(**query: object) -> list[str]:
        found: list[str] = []
        while True:
            page = await get(client, "/v1/imports", **query)
            found += [run["id"] for run in page["items"]]
            assert len(page["items"]) <= query.get("limit", 100)  # type: ignore[operator]
            if page["next"] is None:
                return found
            query["cursor"] = page["next"]

    assert await listed() == newest
    assert await listed(limit=1) == newest
    assert await listed(limit=4) == newest
    assert await listed(limit=6) == newest
    assert await listed(book="other") == newest[:1]
    assert await listed(book="nowhere") == []
    assert await listed(state="applied") == [runs[0]["id"]]
    assert await listed(state="previewed", book="default", limit=2) == newest[1:4]
    page = await get(client, "/v1/imports", limit=1)
    wrong = await client.get("/v1/imports", params={"cursor": page["next"], "book": "other"})
    assert (wrong.status_code, wrong.json()["errors"][0]["pointer"]) == (422, "query/cursor")


async def test_the_report_in_pages_and_orders(client: Client) -> None:
    old = "sku,name,amount\n" + "".join(f"S{number},n,100\n" for number in range(20))
    await sent(client, old, mode="apply")
    amounts = [100 + (number * 7 % 20 - 10) * 3 for number in range(18)]
    lines = "".join(f"S{number},n,{amount}\n" for number, amount in enumerate(amounts))
    run = await sent(client, f"sku,name,amount\n{lines}N,new,5\nS1,,x\n")
    in_order = await rows_of(client, run)
    assert [row["line"] for row in in_order] == [*range(2, 22), None, None]
    size = {row["line"]: abs(float(row["percent"])) if row["percent"] else -1.0 for row in in_order}

    async def paged(limit: int, **query: object) -> list[JSON]:
        found: list[JSON] = []
        while True:
            page = await get(client, f"/v1/imports/{run['id']}/rows", limit=limit, **query)
            assert len(page["rows"]) <= limit
            found += page["rows"]
            if page["next"] is None:
                return found
            query["cursor"] = page["next"]

    for limit in (1, 3, 22, 1000):
        assert await paged(limit) == in_order
        by_change = await paged(limit, order="change")
        assert sorted(by_change, key=str) == sorted(in_order, key=str)
        sizes = [size[row["line"]] for row in by_change]
        assert sizes == sorted(sizes, reverse=True)
        assert by_change == await rows_of(client, run, order="change")
        for status in ("create", "change", "unchanged", "error", "missing"):
            assert await paged(limit, status=status) == [row for row in in_order if row["status"] == status]
    page = await get(client, f"/v1/imports/{run['id']}/rows", limit=1)
    for query in ({"order": "change"}, {"status": "change"}):
        wrong = await client.get(f"/v1/imports/{run['id']}/rows", params={"cursor": page["next"], **query})
        assert (wrong.status_code, wrong.json()["errors"][0]["pointer"]) == (422, "query/cursor")


async def test_a_file_of_errors_is_corrected_and_sent_again(client: Client) -> None:
    body = (
        "sep=;\r\nSKU;Name;amount;import_errors;description\r\n"
        'A;=SUM(1);1;;\r\nB;=1+1;x;old;"two\r\nlines; ""quoted"""\r\nC;;1,5;old;\r\nD;d\r\n'
    )
    run = await sent(client, body, on_error="skip")
    answer = await error_file(client, run)
    assert answer.headers["content-type"].startswith("text/csv")
    assert f'filename="{run["id"]}-errors.csv"' in answer.headers["content-disposition"]
    header, *rows = csv.reader(io.StringIO(answer.text, newline=""), delimiter=";", strict=True)
    assert header == ["SKU", "Name", "amount", "import_errors", "description"] or header[-1] == "import_errors"
    place = header.index("import_errors")
    assert [row[0] for row in rows] == ["B", "C", "D"]
    assert rows[0][1] == "'=1+1", "no spreadsheet runs it"
    assert 'two\r\nlines; "quoted"' in rows[0]
    assert "amount" in rows[0][place]
    assert all("old" not in row for row in rows)

    rows = [["B", "'=1+1", "2", "", ""], ["C", "Cup", "1.5", "whatever", ""], ["D", "d", "4", "", ""]]
    corrected = io.StringIO()
    names = ["SKU", "Name", "amount", "import_errors", "description"]
    csv.writer(corrected, delimiter=";").writerows([names, *rows])
    done = await sent(client, corrected.getvalue(), mode="apply")
    assert done["counts"] == done["counts"] | {"rows": 3, "create": 3, "error": 0}
    assert (await get(client, "/v1/items/sku:B"))["name"] == "=1+1"


async def test_a_file_of_errors_can_be_sent_as_it_is(client: Client) -> None:
    """It has the same errors then; lines that are no objects stay as they were."""
    lines = ['{"sku":"A","amount":"x","reason":"é\\u0000"}', '{"sku":"B","amount":1e2}', "[1,2]", '{"sku":"C"']
    run = await sent(client, "\n".join(lines), NDJSON)
    for _ in range(2):
        answer = await error_file(client, run)
        assert answer.headers["content-type"].startswith(NDJSON)
        found = answer.text.split("\n")
        assert json.loads(found[0]) == json.loads(lines[0]) | {"import_errors": json.loads(found[0])["import_errors"]}
        assert "amount" in json.loads(found[0])["import_errors"]
        assert found[2:] == [*lines[2:], ""]
        again = await sent(client, answer.content, NDJSON)
        # The same bytes are the same import.
        assert (again["id"] == run["id"]) == (again["file_sha256"] == run["file_sha256"])
        codes = [[error["code"] for error in row["errors"]] for row in await rows_of(client, again)]
        assert codes == [[error["code"] for error in row["errors"]] for row in await rows_of(client, run)]
        run = again

    for kind in (b"sku,name,amount\nA,a,x\nB,b\nC,c,1,2\n", b"sku\tamount\timport_errors\nA\tx\tbefore\n"):
        run = await sent(client, kind)
        once = (await error_file(client, run)).content
        again = await sent(client, once)
        assert again["counts"]["error"] == run["counts"]["error"]
        assert (await error_file(client, again)).content.count(b"\n") == once.count(b"\n")


async def test_a_digest_that_fits_is_accepted(client: Client) -> None:
    digest = base64.b64encode(hashlib.sha256(LIST).digest()).decode()
    for value in (f"sha-256=:{digest}:", f"sha-512=:AAAA:, sha-256=:{digest}:"):
        headers = {"content-type": CSV, "content-digest": value}
        answer = await client.post("/v1/imports", content=LIST, headers=headers)
        assert answer.status_code in (200, 201), answer.text


async def test_columns_are_mapped(client: Client) -> None:
    body = b"Model;Color;Price;Cost;Rest;Old\nX1;red;1,50;9;;5\nX2;;;9;2,50;5\n;;3;9;;5\n"
    mapping = ["sku:{Model} {Color}", "name:Model", "amount:Price", "amount:Rest", "reason:from {Old}"]
    run = await sent(client, body, mapping=mapping, decimal=",", on_error="skip")
    rows = await rows_of(client, run)
    assert [row["sku"] for row in rows] == ["X1 red", "X2", None]
    assert [row["new"] and row["new"]["amount"] for row in rows] == ["1.50", "2.50", None]
    assert [error["code"] for error in rows[2]["errors"]] == ["no-key"]
    assert run["options"]["mapping"] == mapping
    await applied(client, run)
    assert (await get(client, "/v1/items/sku:X1 red/price"))["reason"] == "from 5"
    objects = b'{"id":"Y","title":"y","price":{"x":1},"amount":7}\n{"id":"Z","title":"z","price":"1.5"}\n'
    run = await sent(client, objects, NDJSON, mapping=["sku:id", "name:title", "amount:price"])
    assert [row["status"] for row in await rows_of(client, run) if row["line"]] == ["error", "create"]


@pytest.mark.parametrize(
    ("what", "code"),
    [
        ("recorded", "price-moved"),
        ("voided", "price-moved"),
        ("archived", "item-changed"),
        ("renamed", "item-changed"),
        ("gtin", "item-changed"),
        ("created", "item-exists"),
        ("gtin taken", "item-exists"),
        ("unseen", "item-unseen"),
        ("book", "book-changed"),
        ("name", None),
        ("other book", None),
        ("other item", None),
        ("left alone", None),
        ("to be ended", "price-moved"),
    ],
)
async def test_prices_that_moved_since_the_preview(
    client: Client, owner: asyncpg.Connection, what: str, code: str | None
) -> None:
    await client.post("/v1/books", json={"key": "other", "name": "Other", "currency": "EUR"})
    await sent(client, mode="apply")
    row = (await get(client, "/v1/items/sku:A/price"))["price_id"]
    body = b"sku,gtin,name,amount\nA,,,1.60\nB,,,2\nN,96385074,New,1\n"
    run = await sent(client, body, missing="end" if what in ("unseen", "to be ended") else "ignore")
    calls: dict[str, tuple[str, str, JSON | None]] = {
        "recorded": ("POST", "/v1/items/sku:A/prices", {"amount": "9"}),
        "voided": ("DELETE", f"/v1/prices/{row}", None),
        "archived": ("DELETE", "/v1/items/sku:B", None),
        "renamed": ("PATCH", "/v1/items/sku:A", {"sku": "A2"}),
        "gtin": ("PATCH", "/v1/items/sku:B", {"gtin": "4006381333931"}),
        "created": ("POST", "/v1/items", {"sku": "N", "name": "n"}),
        "gtin taken": ("POST", "/v1/items", {"gtin": "96385074", "name": "n"}),
        "unseen": ("POST", "/v1/items", {"sku": "U", "name": "u", "price": {"amount": "1"}}),
        "book": ("PATCH", "/v1/books/default", {"tax_included": True}),
        "name": ("PATCH", "/v1/items/sku:A", {"name": "Another name"}),
        "other book": ("POST", "/v1/items/sku:A/prices", {"amount": "9", "book": "other"}),
        "left alone": ("POST", "/v1/items/sku:C/prices", {"amount": "9"}),
        "to be ended": ("POST", "/v1/items/sku:C/prices", {"amount": "9"}),
        "other item": ("POST", "/v1/items", {"sku": "U", "name": "u", "price": {"amount": "1"}}),
    }
    method, path, document = calls[what]
    headers = {"if-match": '"1"'} if method in ("PATCH", "DELETE") and "prices" not in path else {}
    moved = await client.request(method, path, headers=headers, json=document)
    assert moved.status_code in (200, 201), moved.text
    seq = await owner.fetchval("SELECT seq FROM ledger")
    try:
        answer = await apply(client, run)
        if code is None:
            assert answer.status_code == 200, answer.text
            return
        problem = answer.json()
        assert (answer.status_code, problem["type"]) == (409, "/problems/import-conflict")
        assert {error["code"] for error in problem["errors"]} == {code}
        line = {"archived": "line/3", "gtin": "line/3", "created": "line/4", "gtin taken": "line/4"}.get(what, "line/2")
        pointers = {"unseen": "missing", "to be ended": "missing", "book": "book"}
        assert [error["pointer"] for error in problem["errors"]] == [pointers.get(what, line)]
        assert await owner.fetchval("SELECT seq FROM ledger") == seq
        closed = await get(client, f"/v1/imports/{run['id']}")
        assert (closed["state"], closed["failure"]) == ("conflict", problem["detail"])
        assert (await apply(client, run)).json()["type"] == "/problems/import-not-open"
        again = await send(client, body)
        assert (again.status_code, again.json()["state"]) == (201, "previewed")
    finally:
        await client.patch("/v1/books/default", json={"tax_included": False}, headers={"if-match": "*"})


async def test_a_scheduled_price_that_began_since_the_preview(client: Client, owner: asyncpg.Connection) -> None:
    await sent(client, mode="apply")
    soon = await owner.fetchval("SELECT now() + interval '4 seconds'")
    body = {"amount": "5", "valid_from": soon.isoformat()}
    assert (await client.post("/v1/items/sku:A/prices", json=body)).status_code == 201
    now = await sent(client, NEW)
    fixed = await sent(client, NEW, effective_at="2026-01-01T00:00:00Z", max_change_percent="60")
    await owner.fetchval("SELECT pg_sleep_until($1::timestamptz + interval '1 millisecond')", soon)
    answer = await apply(client, now)
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (409, "line/2")
    assert (await apply(client, fixed)).status_code == 200


async def test_imports_that_overlap_apply_one_after_the_other(client: Client, owner: asyncpg.Connection) -> None:
    items = "".join(f"S{number},n,100\n" for number in range(300))
    await sent(client, f"sku,name,amount\n{items}", mode="apply")
    runs = [
        await sent(client, "sku,amount\n" + "".join(f"S{number},{amount}\n" for number in numbers))
        for amount, numbers in ((110, range(300)), (90, range(299, -1, -1)), (120, range(299, 298, -1)))
    ]
    answers = await asyncio.gather(*(apply(client, run) for run in runs))
    codes = sorted(answer.status_code for answer in answers)
    assert codes == [200, 409, 409], [answer.text for answer in answers]
    done = next(answer.json() for answer in answers if answer.status_code == 200)
    changed = done["counts"]["change"]
    assert await owner.fetchval("SELECT seq FROM ledger") == done["last_seq"] == 601 + changed
    assert await owner.fetchval("SELECT count(*) FROM price_rows WHERE import_id = $1", done["id"]) == changed


async def test_apply_at_once_twice_is_applied_once(client: Client, owner: asyncpg.Connection) -> None:
    run = await sent(client)
    answers = await asyncio.gather(*(apply(client, run) for _ in range(6)))
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.text for answer in answers}) == 1
    assert await owner.fetchval("SELECT seq FROM ledger") == 7


async def test_an_import_among_many_single_writers(client: Client, owner: asyncpg.Connection) -> None:
    """No deadlock, whatever they lock, and a ledger without gaps."""
    items = "".join(f"S{number},n,100\n" for number in range(100))
    await sent(client, f"sku,name,amount\n{items}", mode="apply")
    codes: list[int] = []
    over = asyncio.Event()

    async def write(number: int) -> None:
        turn = 0
        while not over.is_set():
            turn += 1
            place = (number * 17 + turn) % 50
            sku = f"S{place}"
            if turn % 3 == 0:
                sku = f"S{place + 50}"
                patch = {"name": f"{number} {turn}", "gtin": None}
                answer = await client.patch(f"/v1/items/sku:{sku}", json=patch, headers={"if-match": "*"})
            elif turn % 3 == 1:
                answer = await client.post(f"/v1/items/sku:{sku}/prices", json={"amount": "100"})
            else:
                # Wants the sku that the import creates.
                answer = await client.post("/v1/items", json={"sku": f"N{turn % 10}", "name": "n"})
            codes.append(answer.status_code)

    async def import_lists() -> list[int]:
        outcomes = []
        for turn in range(12):
            # Of half of the items the others change the names only, which is no conflict.
            numbers = range(99, -1 if turn % 2 else 49, -1)
            lines = "".join(f"S{number},n,{101 + turn}\n" for number in numbers)
            new = "".join(f"N{number},n,5\n" for number in range(9, -1, -1)) if turn % 4 == 1 else ""
            answer = await send(client, f"sku,name,amount\n{lines}{new}", mode="apply")
            outcomes.append(answer.status_code)
        over.set()
        return outcomes

    writers = [asyncio.create_task(write(number)) for number in range(6)]
    outcomes = await import_lists()
    await asyncio.gather(*writers)
    assert set(outcomes) <= {201, 409}
    assert outcomes[::2] == [201] * 6
    assert set(codes) <= {200, 201, 409}
    last = await owner.fetchval("SELECT seq FROM ledger")
    assert await owner.fetchval("SELECT array_agg(seq ORDER BY seq) FROM changes") == list(range(1, last + 1))
    assert await owner.fetchval("SELECT count(*) FROM imports WHERE state = 'applied'") == 1 + outcomes.count(201)
    assert (
        await owner.fetchval(
            "SELECT count(*) FROM imports WHERE state = 'applied' AND (SELECT count(*) FROM changes AS c "
            "WHERE c.seq BETWEEN first_seq AND last_seq AND c.at = applied_at) <> last_seq - first_seq + 1"
        )
        == 0
    )


async def test_what_is_recorded_says_where_it_came_from(client: Client) -> None:
    body = b'{"sku":"A","name":"Apple","description":"round","gtin":"96385074","unit":"KGM","tax_category":"Z",'
    body += b'"attributes":{"b":true,"a":1,"\xc3\xa4":"x"},"amount":1,"tax_rate":0,"reason":"spring"}\n{"sku":"A",'
    body += b'"amount":0.9,"valid_from":"2090-01-01"}\n'
    run = await sent(client, body, NDJSON, mode="apply")
    assert (run["first_seq"], run["last_seq"]) == (2, 4)
    changes = (await get(client, "/v1/changes", after=1))["changes"]
    assert [change["type"] for change in changes] == ["item.created", "price.recorded", "price.recorded"]
    assert {(change["at"], change["actor"]) for change in changes} == {(run["applied_at"], run["created_by"])}
    item = await client.get("/v1/items/sku:A")
    assert json.dumps(changes[0]["after"]) == json.dumps(item.json())
    assert item.json()["attributes"] == {"b": True, "a": 1, "ä": "x"}
    assert item.headers["etag"] == '"1"'
    rows = (await get(client, "/v1/items/sku:A/prices", rows="true"))["rows"]
    assert rows == [change["after"] for change in changes[1:]]
    assert [(row["import_id"], row["recorded_by"], row["seq"]) for row in rows] == [
        (run["id"], run["created_by"], 3),
        (run["id"], run["created_by"], 4),
    ]
    assert [row["reason"] for row in rows] == ["spring", None]


async def test_an_import_costs_a_fixed_number_of_statements(client: Client, app: FastAPI) -> None:
    counts = []
    for size in (3, 300):
        body = "sku,name,amount\n" + "".join(f"{size}-{number},n,1\n" for number in range(size))
        with statements(app) as seen:
            run = await sent(client, body, effective_at="2026-01-01")
            previewed = len(seen)
            await applied(client, run)
            counts.append((previewed, len(seen)))
    assert counts[0] == counts[1]


async def test_the_plan_does_not_hang_on_what_the_planner_believes(client: Client, owner: asyncpg.Connection) -> None:
    """Statistics of the empty tables, and of the full ones, lead to the same report."""
    old = "sku,name,amount\n" + "".join(f"S{number},n,100\n" for number in range(2000))
    for table in ("items", "price_rows", "price_retirements", "changes", "import_staging", "import_rows"):
        await owner.execute(f"ANALYZE {table}")
    first = await sent(client, old)
    assert first["counts"]["create"] == 2000
    await applied(client, first)
    new = "sku,amount\n" + "".join(f"S{number},{100 + number % 7}\n" for number in range(1999, 0, -1))
    reports = []
    for _ in range(2):
        run = await sent(client, new, missing="end")
        reports.append([run["counts"], *await rows_of(client, run)])
        await client.delete(f"/v1/imports/{run['id']}")
        for table in ("items", "price_rows", "price_retirements", "changes"):
            await owner.execute(f"ANALYZE {table}")
    assert reports[0] == reports[1]
    assert reports[0][0] == {"rows": 1999, "create": 0, "change": 1714, "unchanged": 285, "error": 0, "missing": 1}
    assert await owner.fetchval("SELECT count(*) FROM import_staging") == 0


async def housekeeping(settings: Settings, **changes: object) -> None:
    """What housekeeping does, until nothing is left to do."""
    database = Database(settings)
    try:
        for job in jobs(settings.model_copy(update=changes)).values():
            more = True
            while more:
                async with database.writing() as session:
                    more = await job(session)
    finally:
        await database.close()


async def test_housekeeping_closes_what_is_over_and_forgets_its_rows(
    client: Client, owner: asyncpg.Connection, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(imports, "_FORGET_AT_ONCE", 2)
    over, cancelled = await sent(client), await sent(client, NEW)
    await client.delete(f"/v1/imports/{cancelled['id']}")
    await owner.execute("UPDATE imports SET expires_at = now() - interval '1 second' WHERE id = $1::uuid", over["id"])
    kept, reported = await sent(client, on_error="skip"), await sent(client, NEW, on_error="skip")
    await applied(client, kept)
    old = await sent(client, b"sku,amount\r\nA,1.70\r\n")
    await applied(client, old)
    await owner.execute("UPDATE imports SET created_at = now() - interval '2 days' WHERE id = $1::uuid", old["id"])
    uploading = "01900000-0000-7000-8000-000000000001"
    await owner.execute(
        "INSERT INTO imports (id, book_id, mode, state, options, created_at, created_by, expires_at) "
        "SELECT $1, book_id, mode, 'staged', options, now(), created_by, now() + interval '1 day' FROM imports LIMIT 1",
        uploading,
    )
    await owner.execute(
        "INSERT INTO import_staging (import_id, number, line, tax_stated, cells) "
        "VALUES ($1, 1, 2, false, '[]'), ($2, 1, 2, false, '[]')",
        uploading,
        over["id"],
    )
    await housekeeping(settings, import_report_days=1)
    states = {str(row["id"]): row["state"] for row in await owner.fetch("SELECT id, state FROM imports")}
    assert (states[over["id"]], states[cancelled["id"]], states[uploading]) == ("expired", "expired", "staged")
    assert (states[kept["id"]], states[reported["id"]]) == ("applied", "previewed")
    left = await owner.fetch("SELECT DISTINCT import_id FROM import_rows")
    assert {str(row["import_id"]) for row in left} == {kept["id"], reported["id"]}
    staged = await owner.fetch("SELECT import_id FROM import_staging")
    assert [str(row["import_id"]) for row in staged] == [uploading]
    assert (await get(client, f"/v1/imports/{old['id']}"))["counts"]["rows"] == 1


@pytest.mark.parametrize("first", ["the book", "the import"])
async def test_a_book_may_be_changed_while_a_list_is_applied(
    client: Client, owner: asyncpg.Connection, first: str
) -> None:
    """Neither waits for the other in a circle, whichever comes first."""
    rows = "".join(f"R-{number},Row {number},1\r\n" for number in range(3_000))
    run = await sent(client, f"sku,name,amount\r\n{rows}")
    name = {"name": "While a list is applied"}
    both = [client.patch("/v1/books/default", json=name, headers={"If-Match": "*"}), apply(client, run)]
    if first == "the import":
        both.reverse()
    answers = await asyncio.gather(*both)
    assert [answer.status_code for answer in answers] == [200, 200]


async def test_changes_that_the_feed_forgot_are_a_conflict(
    client: Client, owner: asyncpg.Connection, settings: Settings
) -> None:
    await applied(client, await sent(client))
    stale = await sent(client, NEW)
    await applied(client, await sent(client, b"sku,amount\r\nA,2\r\nB,2.5\r\nC,3.5\r\n"))
    await owner.execute("SET session_replication_role = replica")
    await owner.execute("UPDATE changes SET at = at - interval '3 days'")
    await owner.execute("SET session_replication_role = DEFAULT")
    await housekeeping(settings, feed_retention_days=1)
    refused = await apply(client, stale)
    assert (refused.status_code, refused.json()["type"]) == (409, "/problems/import-conflict")
    assert refused.json()["errors"][0]["code"] == "preview-too-old"


async def test_a_price_that_comes_back_has_its_tax_rate(client: Client) -> None:
    await applied(client, await sent(client))
    await applied(client, await sent(client, b"sku,amount\r\nA,1.50\r\nC,3\r\n", missing="end"))
    assert (await client.get("/v1/items/sku:B/price")).json()["type"] == "/problems/not-for-sale"
    await applied(client, await sent(client, b"sku,amount\r\nA,1.50\r\nB,2\r\nC,3\r\n"))
    assert (await get(client, "/v1/items/sku:B/price"))["tax_rate"] == "7"


async def test_no_item_ends_whose_row_may_be_the_one_that_cannot_be_read(client: Client) -> None:
    await applied(client, await sent(client))
    torn = b'{"sku":"A","amount":"1.50"}\n{"sku":"C","amount":"3"}\n{"sku":"B","amo\n'
    run = await sent(client, torn, NDJSON, missing="end", on_error="skip")
    assert run["counts"] | {"error": 1, "missing": 1} == run["counts"]
    refused = await apply(client, run)
    assert (refused.status_code, refused.json()["type"]) == (422, "/problems/import-has-errors")
    assert (await get(client, "/v1/items/sku:B/price"))["amount"] == "2.00"
    # A row that names no item of ours ends none.
    foreign = b"sku,amount\r\nA,1.50\r\nC,3\r\nZ,1\r\n"
    await applied(client, await sent(client, foreign, missing="end", on_error="skip", create=False))
    assert (await client.get("/v1/items/sku:B/price")).json()["type"] == "/problems/not-for-sale"


async def test_not_for_sale_needs_no_tax(client: Client) -> None:
    item = {"sku": "T", "name": "Taxed", "price": {"amount": "10", "tax": "2"}}
    assert (await client.post("/v1/items", json=item)).status_code == 201
    refused = await sent(client, b"sku,amount\r\nT,11\r\n")
    assert (await rows_of(client, refused))[0]["errors"][0]["code"] == "tax-missing"
    run = await sent(client, b"sku,amount\r\nT,not-for-sale\r\n")
    assert (await rows_of(client, run))[0]["new"]["tax"] is None
    await applied(client, run)


async def test_the_gtin_of_a_new_item_is_that_of_any_of_its_rows(client: Client) -> None:
    rows = b"sku,name,gtin,amount,min_quantity\r\nN,New,,2,1\r\nN,,4006381333931,1,10\r\n"
    await applied(client, await sent(client, rows))
    assert (await get(client, "/v1/items/sku:N"))["gtin"] == "4006381333931"
    two = b"sku,name,gtin,amount,min_quantity\r\nM,Two,96385074,2,1\r\nM,,4012345678901,1,10\r\n"
    faulty = await rows_of(client, await sent(client, two), status="error")
    assert [row["errors"][0]["code"] for row in faulty] == ["conflicting-gtin"] * 2


async def test_files_to_correct_keep_their_faults(client: Client) -> None:
    """Separators, names that look like formulas, and rows of the wrong width come back as they were."""
    body = b"sep=|\r\n+code|=price|extra\r\nA|x|1\r\nB|2\r\n"
    mapping = ["sku:+code", "amount:=price", "name:+code"]
    for _ in range(3):
        run = await sent(client, body, mapping=mapping)
        assert [row["errors"][0]["code"] for row in await rows_of(client, run)] == ["not-a-number", "wrong-width"]
        file = await client.get(f"/v1/imports/{run['id']}/rows", params={"status": "error", "format": "file"})
        body = file.content
        assert body.startswith(b"sep=|\r\n")


@pytest.mark.parametrize("parameter", ["limit", "order", "cursor"])
async def test_a_file_to_correct_is_whole(client: Client, parameter: str) -> None:
    run = await sent(client)
    query = {"status": "error", "format": "file", parameter: {"limit": "1", "order": "line"}.get(parameter, "x")}
    refused = await client.get(f"/v1/imports/{run['id']}/rows", params=query)
    assert refused.json()["errors"][0]["pointer"] == f"query/{parameter}"


@pytest.mark.parametrize("restored", [True, False])
async def test_what_is_missing_only_since_the_preview_is_a_conflict(client: Client, restored: bool) -> None:
    """An item that was restored, and one whose first price began."""
    await applied(client, await sent(client))
    if restored:
        assert (await client.delete("/v1/items/sku:C", headers={"If-Match": "*"})).status_code == 200
    else:
        item = {"sku": "D", "name": "Desk", "price": {"amount": "9", "valid_from": soon()}}
        assert (await client.post("/v1/items", json=item)).status_code == 201
    run = await sent(client, b"sku,amount\r\nA,1.50\r\nB,2\r\n" + (b"" if restored else b"C,3\r\n"), missing="end")
    assert run["counts"]["missing"] == 0
    if restored:
        back = await client.patch("/v1/items/sku:C", json={"archived_at": None}, headers={"If-Match": "*"})
        assert back.status_code == 200
    else:
        await asyncio.sleep(2.2)
        assert (await client.get("/v1/items/sku:D/price")).status_code == 200
    refused = await apply(client, run)
    assert (refused.status_code, refused.json()["errors"][0]["code"]) == (409, "item-unseen")


async def test_a_scheduled_price_that_was_voided_does_not_begin(client: Client) -> None:
    await applied(client, await sent(client))
    row = await client.post("/v1/items/sku:A/prices", json={"amount": "9", "valid_from": soon()})
    await client.delete(f"/v1/prices/{row.json()['id']}")
    run = await sent(client, NEW)
    await asyncio.sleep(2.2)
    assert (await applied(client, run))["state"] == "applied"


def soon() -> str:
    """An instant that has not come when a request or two are answered."""
    return (datetime.now(UTC) + timedelta(seconds=2)).isoformat()
