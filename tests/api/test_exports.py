"""Exports, through the front door: against files written by hand, and against what the items say one by one."""

import asyncio
import csv
import io
import itertools
import json
import random
from pathlib import Path
from typing import Any

import httpx2
import pytest
from fastapi import FastAPI

from app import price_list
from app.services import exports
from tests.support.feed import serving

Client = httpx2.AsyncClient

FILES = Path(__file__).parent / "exports"
FORMATS = ["csv", "ndjson", "snapshot"]
SECOND_OF_JUNE = "2026-06-02T00:00:00Z"


async def create(client: Client, name: str, **fields: Any) -> str:
    answer = await client.post("/v1/items", json={"name": name, **fields})
    assert answer.status_code == 201, answer.text
    return f"/v1/items/{answer.json()['id']}"


async def record(client: Client, address: str, amount: str | None, **fields: Any) -> str:
    """Record a price; its id."""
    answer = await client.post(f"{address}/prices", json={"amount": amount, "valid_from": "2026-01-01", **fields})
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


async def void(client: Client, price_id: str) -> None:
    answer = await client.delete(f"/v1/prices/{price_id}")
    assert answer.status_code == 200, answer.text


async def book(client: Client, key: str, currency: str, **fields: Any) -> None:
    answer = await client.post("/v1/books", json={"key": key, "name": key, "currency": currency, **fields})
    assert answer.status_code == 201, answer.text


async def export(client: Client, form: str = "csv", **query: Any) -> httpx2.Response:
    answer = await client.get("/v1/export", params={"format": form, **query})
    assert answer.status_code == 200, answer.text
    return answer


async def fill(client: Client) -> None:
    """One of everything."""
    await book(client, "yen", "JPY", tax_included=True)
    await book(client, "dinar", "KWD", time_zone="Asia/Kuwait")
    frame = await create(
        client,
        'Frame "Rennrad", 58; cm',
        sku="FR-R92B",
        gtin="4006381333931",
        description='Two lines,\r\nand "quotes"\nof text\t\u2028end',
        attributes={"size": 58, "colour": "schwarz", "new": True, "=key": "=value"},
    )
    await record(client, frame, "1431.5", tax_rate="19", reason="list, 2026")
    await record(client, frame, "1400", tax_rate="19", min_quantity="10.5", per="100")
    await record(
        client, frame, "999.999", tax="159.67", tax_included=True, valid_from="2026-06-01", valid_to="2026-06-15"
    )
    await record(client, frame, "1", valid_from="2026-01-01", tax_rate="19", reason="shadows the list")
    await record(client, frame, "2", valid_from="2030-01-01T00:00:00.000001Z", tax_included=False)
    voided = await record(client, frame, "3", valid_from="2026-02-01")
    await void(client, voided)
    wrong = await record(client, frame, "4", valid_from="2026-03-01")
    await record(client, frame, "40", valid_from="2026-03-01", supersedes=wrong, reason="=corrected")
    await record(client, frame, "123456", book="yen")
    await record(client, frame, "1.5", book="dinar", tax_rate="0")
    formulas = await create(client, "=1+1", sku="@SUM(A1)", description="+49 30 123", unit="KGM", tax_category="AE")
    await record(client, formulas, "0.000000000001", reason="-5 %")
    apostrophes = await create(client, "'t Hof", sku="'=1", description="")
    await record(client, apostrophes, None, reason="'gone'")
    await create(client, "Without prices", sku="NONE")
    unnumbered = await create(client, "Ohne Nummer: Größe Ω 漢字 🚲")
    await record(client, unnumbered, "7")
    archived = await create(client, "Archived", sku="OLD")
    await record(client, archived, "8")
    await client.delete(archived, headers={"If-Match": "*"})


@pytest.mark.parametrize(
    ("file", "query"),
    [
        ("everything.csv", {}),
        ("everything.ndjson", {}),
        ("second-of-june.csv", {"at": SECOND_OF_JUNE}),
        ("yen.csv", {"book": "yen"}),
        ("dinar.ndjson", {"book": "dinar"}),
        ("dinar.csv", {"book": "dinar", "at": "2026-01-01"}),
    ],
)
async def test_the_list_is_as_written_by_hand(client: Client, file: str, query: dict[str, str]) -> None:
    await fill(client)
    answer = await export(client, file.rpartition(".")[2], **query)
    assert answer.content.decode() == (FILES / file).read_text(newline="")


async def test_headers(client: Client) -> None:
    await fill(client)
    head = int((await client.get("/v1/changes", params={"after": 0, "limit": 1})).json()["head"])
    answer = await export(client)
    assert answer.headers["pricebook-seq"] == str(head)
    assert answer.headers["content-type"] == "text/csv; charset=utf-8; header=present"
    assert answer.headers["content-disposition"] == f'attachment; filename="default-{head}.csv"'
    assert answer.headers["cache-control"] == "no-store"
    pinned = await export(client, "ndjson", known_seq=head, book="yen")
    assert pinned.headers["content-type"] == "application/x-ndjson"
    assert pinned.headers["content-disposition"] == f'attachment; filename="yen-{head}.ndjson"'
    assert pinned.headers["cache-control"] == "max-age=31536000, immutable"
    assert pinned.headers["vary"] == "Authorization"
    assert "immutable" in (await export(client, known_seq=head, at="2026-01-01")).headers["cache-control"]
    snapshot = await export(client, "snapshot")
    assert snapshot.headers["content-type"] == "application/x-ndjson"
    assert snapshot.headers["content-disposition"] == f'attachment; filename="default-{head}-snapshot.ndjson"'


async def test_http_without_chunks_is_refused(app: FastAPI) -> None:
    async with serving(app) as url:
        reader, writer = await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2]))
        writer.write(b"GET /v1/export HTTP/1.0\r\n\r\n")
        head, _, body = (await reader.read()).partition(b"\r\n\r\n")
        writer.close()
    assert head.split()[1] == b"426"
    assert b"upgrade: http/1.1" in head.lower()
    assert json.loads(body)["type"] == "/problems/upgrade-required"
    assert "proxy_http_version 1.1" in json.loads(body)["detail"]


def test_an_items_document_comes_with_any_of_its_rows() -> None:
    rows: list[dict[str, Any]] = [
        {"page_id": 1, "document": None, "id": 11},
        {"page_id": 1, "document": '{"sku":"A"}', "id": 12},
        {"page_id": 2, "document": None, "id": None},
        {"page_id": 3, "document": '{"sku":"C"}', "id": None},
    ]
    assert list(exports._grouped(rows)) == [({"sku": "A"}, rows[:2]), ({"sku": "C"}, [])]


async def test_an_empty_book(client: Client) -> None:
    assert (await export(client, "csv")).text == price_list.HEADER
    assert (await export(client, "ndjson")).text == ""
    assert (await export(client, "snapshot", known_seq=1)).text == ""


@pytest.mark.parametrize("book_key", ["default", "yen"])
async def test_a_snapshot_has_the_documents_of_the_api_and_of_the_feed(client: Client, book_key: str) -> None:
    await fill(client)
    lines = (await export(client, "snapshot", book=book_key)).content.decode().removesuffix("\n").split("\n")
    assert len(lines) == 6, "archived items and ones without prices too"
    # What the feed says of each document at last, in its very words.
    feed = (await client.get("/v1/changes", params={"after": 0, "limit": 1000})).text
    ids = []
    for line in lines:
        item_id = json.loads(line)["item"]["id"]
        ids.append(item_id)
        item = (await client.get(f"/v1/items/{item_id}")).text
        assert f'"after":{item}' in feed
        rows = (await client.get(f"/v1/items/{item_id}/prices", params={"rows": True, "book": book_key})).json()["rows"]
        gone = {row["supersedes"] for row in rows} | {row["id"] for row in rows if row["void"]}
        texts = [
            json.dumps(row, ensure_ascii=False, separators=(",", ":"))
            for row in sorted(rows, key=lambda row: str(row["id"]))
            if row["id"] not in gone
        ]
        assert all(f'"after":{text}' in feed for text in texts)
        assert line == f'{{"item":{item},"prices":[{",".join(texts)}]}}'
    assert ids == sorted(ids)


async def test_csv_is_read_by_others(client: Client) -> None:
    await fill(client)
    listed = [json.loads(line) for line in (await export(client, "ndjson")).content.split(b"\n") if line]
    read = list(csv.DictReader(io.StringIO((await export(client)).content.decode(), newline=""), strict=True))
    assert len(read) == len(listed) == 8
    for cells, row in zip(read, listed, strict=True):
        for column, value in row.items():
            cell = cells[column]
            if column in price_list.TEXT_COLUMNS:
                assert (price_list.unguard(cell) if cell else None) == value
            elif column == "attributes":
                assert json.loads(cell) == value
            elif column == "amount":
                assert (None if cell == price_list.NOT_FOR_SALE else cell) == value
            else:
                assert cell == {None: "", True: "true", False: "false"}.get(value, value)


@pytest.mark.parametrize("form", FORMATS)
async def test_a_pinned_export_never_changes(client: Client, form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # Small batches, so that writes come between them.
    monkeypatch.setattr(exports, "_ITEMS", 2)
    await fill(client)
    first = await export(client, form)
    query = {"known_seq": first.headers["pricebook-seq"]}
    stop = asyncio.Event()

    async def write() -> None:
        for number in itertools.count():
            listed = (await client.get("/v1/items")).json()["items"]
            address = f"/v1/items/{listed[number % len(listed)]['id']}"
            await record(client, address, str(number), valid_from="2026-06-01")
            await client.patch(address, json={"name": f"Renamed {number}"}, headers={"If-Match": "*"})
            await create(client, f"New {number}", price={"amount": "1"})
            if number % 3 == 2:
                await client.delete(address, headers={"If-Match": "*"})
            await client.patch("/v1/books/yen", json={"name": f"Book {number}"}, headers={"If-Match": "*"})
            if stop.is_set():
                return

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(write())
        try:
            for _ in range(8):
                again = await export(client, form, **query)
                assert again.content == first.content
                assert again.headers["pricebook-seq"] == query["known_seq"]
        finally:
            stop.set()
    assert (await export(client, form)).content != first.content
    assert (await export(client, form, **query)).content == first.content


class Ledger:
    """A random ledger, and what its lists should be by the answers about each item."""

    DAYS = ("2026-01-01", "2026-02-01", "2026-03-01", "2026-04-01")

    def __init__(self, client: Client, seed: int) -> None:
        self.client = client
        self.random = random.Random(seed)  # noqa: S311 - no secret
        self.items: list[str] = []
        self.rows: list[tuple[str, str]] = []

    async def step(self) -> None:
        choose = self.random
        kind = choose.choice(["create", "record", "record", "record", "record", "correct", "void", "rename", "archive"])
        if kind == "create" or not self.items:
            self.items.append(await create(self.client, f"Item {len(self.items)}", sku=f"S-{len(self.items)}"))
            return
        address = choose.choice(self.items)
        terms: dict[str, Any] = {
            "amount": choose.choice([None, "1", "2.5", "3.125"]),
            "valid_from": choose.choice(self.DAYS[:3]),
            "min_quantity": choose.choice(["0.5", "1", "1", "10"]),
        }
        if choose.random() < 0.4:
            terms["valid_to"] = next(day for day in self.DAYS if day > terms["valid_from"])
        if kind == "record":
            self._keep(address, await self.client.post(f"{address}/prices", json=terms))
        elif kind == "correct" and self.rows:
            address, price_id = choose.choice(self.rows)
            self._keep(address, await self.client.post(f"{address}/prices", json=terms | {"supersedes": price_id}))
        elif kind == "void" and self.rows:
            await self.client.delete(f"/v1/prices/{choose.choice(self.rows)[1]}")
        elif kind == "rename":
            await self.client.patch(address, json={"name": f"Named {choose.random()}"}, headers={"If-Match": "*"})
        elif kind == "archive" and choose.random() < 0.5:
            await self.client.delete(address, headers={"If-Match": "*"})

    def _keep(self, address: str, answer: httpx2.Response) -> None:
        if answer.status_code == 201:
            self.rows.append((address, answer.json()["id"]))

    async def expected(self, known_seq: int, items: dict[str, Any], at: str | None) -> list[dict[str, Any]]:
        """The list as known then, of items as they were then."""
        listed = []
        for item_id, item in sorted(items.items()):
            if item["archived_at"] is not None:
                continue
            pinned = {"known_seq": known_seq}
            address = f"/v1/items/{item_id}/prices"
            rows = (await self.client.get(address, params={"rows": True, **pinned})).json()["rows"]
            gone = {row["supersedes"] for row in rows} | {row["id"] for row in rows if row["void"]}
            rows = [row for row in rows if row["id"] not in gone]
            if at is None:
                place = ("min_quantity", "valid_from", "valid_to")
                answering = set({tuple(row[name] for name in place): row["id"] for row in rows}.values())
            else:
                answering = {
                    step["price_id"]
                    for quantity in {row["min_quantity"] for row in rows}
                    for step in (await self.client.get(address, params={"quantity": quantity, **pinned})).json()[
                        "steps"
                    ]
                    if (step["from"] or "") <= at < (step["to"] or "9")
                }
            listed += [
                {column: {**item, **row}[column] for column in price_list.COLUMNS}
                for row in sorted(
                    rows,
                    key=lambda row: (
                        float(row["min_quantity"]),
                        row["valid_from"],
                        row["valid_to"] is None,
                        row["seq"],
                    ),
                )
                if row["id"] in answering
            ]
        return listed


@pytest.mark.parametrize("seed", range(6))
async def test_random_ledgers(client: Client, monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    # The seams between batches are everywhere, and some items have more rows than a batch.
    monkeypatch.setattr(exports, "_ITEMS", 1 + seed % 3)
    monkeypatch.setattr(exports, "_ROWS", 2 + seed)
    ledger = Ledger(client, seed)
    for _ in range(60):
        await ledger.step()
    changes = (await client.get("/v1/changes", params={"after": 0, "limit": 1000})).json()
    head = changes["head"]
    for known_seq in (head, head // 2, head // 3):
        items = {
            change["item_id"]: change["after"]
            for change in changes["changes"]
            if change["type"].startswith("item.") and change["seq"] <= known_seq
        }
        for at in (None, "2026-02-01T00:00:00Z", "2026-03-15T00:00:00Z"):
            query = {"known_seq": known_seq} | ({"at": at} if at else {})
            expected = await ledger.expected(known_seq, items, at)
            answer = await export(client, "ndjson", **query)
            assert [json.loads(line) for line in answer.text.splitlines()] == expected
            cells = (await export(client, "csv", **query)).content.decode()
            assert cells == price_list.HEADER + "".join(map(price_list.csv_line, expected))
        snapshot = (await export(client, "snapshot", known_seq=known_seq)).text.splitlines()
        assert [json.loads(line)["item"] for line in snapshot] == [items[item_id] for item_id in sorted(items)]


@pytest.mark.parametrize(
    ("query", "status", "slug", "pointer"),
    [
        ({"book": "none"}, 404, "unknown-book", "query/book"),
        ({"book": "NONE"}, 422, "invalid-request", "query/book"),
        ({"known_seq": "2"}, 422, "unknown-seq", "query/known_seq"),
        ({"known_seq": "0"}, 404, "unknown-book", None),
        ({"known_seq": "-1"}, 422, "invalid-request", "query/known_seq"),
        ({"known_at": "2026-01-01"}, 422, "invalid-request", "query/known_at"),
        ({"format": "xlsx"}, 422, "invalid-request", "query/format"),
        ({"format": "snapshot", "at": "2026-01-01"}, 422, "invalid-request", "query/at"),
        ({"at": "now"}, 422, "invalid-request", "query/at"),
        ({"at": "0001-01-01", "book": "east"}, 422, "invalid-request", "query/at"),
        ({"limit": "10"}, 422, "invalid-request", "query/limit"),
    ],
)
async def test_bad_requests(client: Client, query: dict[str, str], status: int, slug: str, pointer: str | None) -> None:
    if query.get("book") == "east":
        await book(client, "east", "EUR", time_zone="Asia/Tokyo")
    answer = await client.get("/v1/export", params=query)
    assert answer.status_code == status, answer.text
    problem = answer.json()
    assert problem["type"] == f"/problems/{slug}"
    assert [fault["pointer"] for fault in problem["errors"]] == ([] if pointer is None else [pointer])


@pytest.mark.parametrize("accept", ["text/csv", "application/x-ndjson", "text/*", "*/*", "text/html, */*;q=0.1"])
async def test_accept(client: Client, accept: str) -> None:
    answer = await client.get("/v1/export", headers={"Accept": accept})
    assert answer.status_code == 200


async def test_what_nobody_can_accept(client: Client) -> None:
    answer = await client.get("/v1/export", headers={"Accept": "application/pdf"})
    assert answer.status_code == 406
    assert "text/csv" in answer.json()["detail"]


async def test_a_day_begins_in_the_time_zone_that_the_book_had(client: Client) -> None:
    await book(client, "zoned", "EUR", time_zone="UTC")
    address = await create(client, "Frame", sku="A")
    await record(client, address, "1", valid_from="2026-01-01T00:00:00Z", book="zoned")
    await record(client, address, "2", valid_from="2026-06-01T23:00:00Z", book="zoned")
    seq = (await export(client)).headers["pricebook-seq"]
    moved = await client.patch("/v1/books/zoned", json={"time_zone": "Europe/Berlin"}, headers={"If-Match": "*"})
    assert moved.status_code == 200
    amounts = [
        [
            row["amount"]
            for row in csv.DictReader((await export(client, book="zoned", at="2026-06-02", **query)).text.splitlines())
        ]
        for query in ({}, {"known_seq": seq})
    ]
    assert amounts == [["1.00"], ["2.00"]]
