"""A request with an Idempotency-Key is done once, however often and wherever it is sent."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import uuid4

import asyncpg
import httpx2
import pytest
from fastapi import FastAPI
from starlette.types import Message

from app.database import WriteSession
from app.services import import_uploads, stored_answers
from app.settings import Settings
from tests.support.access import ADMIN_KEY, bearer, guarded, make_key

ITEM = {"name": "Frame", "sku": "FR", "price": {"amount": "19.99"}}


def named(key: str = "", **more: str) -> dict[str, str]:
    return {"Idempotency-Key": f'"{key or uuid4()}"', **more}


@pytest.fixture
async def other(settings: Settings, client: httpx2.AsyncClient) -> AsyncIterator[httpx2.AsyncClient]:
    """Another process over the same database."""
    async with guarded(settings, auth_required=False) as result:
        yield result


@pytest.fixture
async def item(client: httpx2.AsyncClient) -> str:
    return str((await client.post("/v1/items", json={"name": "A", "sku": "A"})).json()["id"])


BODIES: dict[str, dict[str, Any]] = {
    "/items/": {"json": {"name": "Foo", "price": 35.4, "tax": 3.2}},
    "/v1/items": {"json": ITEM},
    "/v1/items/sku:A/prices": {"json": {"amount": "1.00"}},
    "/v1/books": {"json": {"key": "chf", "name": "Swiss", "currency": "CHF"}},
    "/v1/prices:lookup": {"json": {"lines": [{"item": "sku:A"}]}},
    "/v1/quotes": {"json": {"book": "default", "lines": [{"unit_price": "1.00", "tax_rate": "19"}]}},
    "/v1/keys": {"json": {"name": "till", "scopes": ["quotes"]}},
    "/v1/imports": {"content": b"sku,name,amount\nP,P,1\n", "headers": {"Content-Type": "text/csv"}},
}


@pytest.mark.parametrize("path", BODIES)
async def test_every_post_is_answered_as_before(
    client: httpx2.AsyncClient, other: httpx2.AsyncClient, owner: asyncpg.Connection, item: str, path: str
) -> None:
    body = BODIES[path]
    headers = named() | body.get("headers", {})
    first = await client.post(path, **body | {"headers": headers})
    assert first.is_success, first.text
    assert "Idempotency-Replayed" not in first.headers
    seq = await owner.fetchval("SELECT seq FROM ledger")
    for again in (
        await client.post(path, **body | {"headers": headers}),
        await other.post(path, **body | {"headers": headers}),
    ):
        assert again.headers["Idempotency-Replayed"] == "true"
        assert again.status_code == first.status_code
        expected = first.json() | ({"key": None} if path == "/v1/keys" else {})
        assert again.json() == expected
        for name in ("Location", "ETag", "Pricebook-Seq", "Content-Type"):
            assert again.headers.get(name) == first.headers.get(name), name
    assert await owner.fetchval("SELECT seq FROM ledger") == seq
    if path == "/v1/keys":
        stored = await owner.fetchval("SELECT body FROM stored_answers")
        assert first.json()["key"].encode() not in stored


async def test_applying_an_import(client: httpx2.AsyncClient) -> None:
    rows = {"content": b"sku,name,amount\nP,P,1\n", "headers": {"Content-Type": "text/csv"}}
    preview = (await client.post("/v1/imports", **rows)).json()  # type: ignore[arg-type]  # content and headers
    headers = named()
    first, again = [await client.post(f"/v1/imports/{preview['id']}:apply", headers=headers) for _ in range(2)]
    assert (first.json(), first.json()["state"]) == (again.json(), "applied")
    assert again.headers["Idempotency-Replayed"] == "true"


def test_every_post_says_so(app: FastAPI) -> None:
    posts = [methods["post"] for methods in app.openapi()["paths"].values() if "post" in methods]
    assert len(posts) >= 10
    for post in posts:
        assert "Idempotency-Key" in [p["name"].title() for p in post["parameters"] if p["in"] == "header"], post[
            "summary"
        ]
        assert "request-in-progress" in post["responses"]["409"]["content"]["application/problem+json"]["examples"]


@pytest.mark.parametrize("path", BODIES)
async def test_any_post_fifty_times_at_once_is_done_once(
    client: httpx2.AsyncClient, other: httpx2.AsyncClient, owner: asyncpg.Connection, item: str, path: str
) -> None:
    count = """
        SELECT (SELECT count(*) FROM items), (SELECT count(*) FROM price_rows), (SELECT count(*) FROM books),
            (SELECT count(*) FROM imports), (SELECT count(*) FROM api_keys)
    """
    before = await owner.fetchrow(count)
    body = BODIES[path]
    headers = named() | body.get("headers", {})
    answers = await asyncio.gather(
        *((client, other)[number % 2].post(path, **body | {"headers": headers}) for number in range(50))
    )
    done = [answer for answer in answers if answer.is_success]
    for answer in answers:
        if answer not in done:
            assert (answer.status_code, answer.json()["type"]) == (409, "/problems/request-in-progress")
            assert answer.headers["Retry-After"] == "1"
    assert sum("Idempotency-Replayed" not in answer.headers for answer in done) == 1
    assert len({answer.headers.get("Pricebook-Seq") for answer in done}) == 1
    after = await owner.fetchrow(count)
    assert all(now - then <= 1 for now, then in zip(after, before, strict=True))


async def test_another_request_with_the_key_is_refused(client: httpx2.AsyncClient, owner: asyncpg.Connection) -> None:
    headers = named("once")
    assert (await client.post("/v1/items", json=ITEM, headers=headers)).status_code == 201
    for path, document in (
        ("/v1/items", ITEM | {"name": "Other"}),
        ("/v1/items?x=1", ITEM),
        ("/v1/books", {"key": "chf", "name": "Swiss", "currency": "CHF"}),
        ("/v1/prices:lookup", {"lines": [{"item": "sku:FR"}]}),
    ):
        refused = await client.post(path, json=document, headers=headers)
        assert refused.status_code == 422, path
        if "?" not in path:
            assert refused.json()["type"] == "/problems/idempotency-key-reused"
    assert await owner.fetchval("SELECT count(*) FROM items") == 1


async def test_another_file_with_the_key_is_refused(client: httpx2.AsyncClient, owner: asyncpg.Connection) -> None:
    headers = named(**{"Content-Type": "text/csv"})
    assert (await client.post("/v1/imports", content=b"sku,amount\nP,1\n", headers=headers)).status_code == 201
    refused = await client.post("/v1/imports", content=b"sku,amount\nP,2\n", headers=headers)
    assert refused.json()["type"] == "/problems/idempotency-key-reused"
    assert await owner.fetchval("SELECT count(*) FROM imports") == 1


APPLY: dict[str, Any] = {"params": {"mode": "apply"}, "content": b"sku,name,amount\nP,P,1\nQ,Q,2\n"}


async def test_a_list_that_comes_ten_times_at_once_is_applied_once(
    client: httpx2.AsyncClient, other: httpx2.AsyncClient, owner: asyncpg.Connection
) -> None:
    headers = named(**{"Content-Type": "text/csv"})
    for _ in range(3):
        answers = await asyncio.gather(
            *((client, other)[number % 2].post("/v1/imports", **APPLY, headers=headers) for number in range(10))
        )
        # 200, if another one applied what the first had only planned so far.
        assert {answer.status_code for answer in answers} in ({200}, {201})
        assert len({answer.content for answer in answers}) == 1
        rows = await owner.fetch("SELECT state, last_seq - first_seq FROM imports")
        assert [tuple(row) for row in rows] == [("applied", 3)]
    assert await owner.fetchval("SELECT count(*) FROM price_rows") == 2
    assert await owner.fetchval("SELECT count(*) FROM import_staging") == 0


@pytest.mark.parametrize("mode", ["preview", "apply"])
async def test_an_upload_whose_answer_is_lost_is_answered_when_it_comes_again(
    client: httpx2.AsyncClient, owner: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    """Whatever ends a request after its last commit. What somebody else recorded meanwhile stays."""
    upload = import_uploads.upload

    async def fail(*arguments: Any, **options: Any) -> None:
        await upload(*arguments, **options)
        raise RuntimeError("of no use any more")

    monkeypatch.setattr(import_uploads, "upload", fail)
    headers = named(**{"Content-Type": "text/csv"})
    assert (await client.post("/v1/imports", **APPLY | {"params": {"mode": mode}}, headers=headers)).status_code == 500
    monkeypatch.undo()
    await client.post("/v1/items", json={"name": "Q", "sku": "Q"})
    await client.post("/v1/items/sku:Q/prices", json={"amount": "3"})
    seq = await owner.fetchval("SELECT seq FROM ledger")
    again = await client.post("/v1/imports", **APPLY | {"params": {"mode": mode}}, headers=headers)
    assert (again.status_code, again.headers["Idempotency-Replayed"]) == (201, "true")
    assert again.json()["state"] == {"preview": "previewed", "apply": "applied"}[mode]
    assert again.headers["Location"] == f"/v1/imports/{again.json()['id']}"
    assert again.content == (await client.get(again.headers["Location"])).content
    assert await owner.fetchval("SELECT seq FROM ledger") == seq
    assert await owner.fetchval("SELECT count(*) FROM imports") == 1


async def test_an_upload_whose_answer_cannot_be_stored_is_not_applied(
    client: httpx2.AsyncClient, owner: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: Any) -> bool:
        raise RuntimeError("no room")

    monkeypatch.setattr(stored_answers, "keep", fail)
    headers = named(**{"Content-Type": "text/csv"})
    assert (await client.post("/v1/imports", **APPLY, headers=headers)).status_code == 500
    assert await owner.fetchval("SELECT count(*) FROM price_rows") == 0
    monkeypatch.undo()
    assert (await client.post("/v1/imports", **APPLY, headers=headers)).json()["state"] == "applied"


async def test_a_list_whose_key_another_request_took_meanwhile_is_not_applied(
    client: httpx2.AsyncClient, owner: asyncpg.Connection
) -> None:
    headers = named()
    async with owner.transaction():
        await owner.execute("SELECT FROM ledger FOR UPDATE")
        upload = asyncio.create_task(
            client.post("/v1/imports", **APPLY, headers=headers | {"Content-Type": "text/csv"})
        )
        while not await owner.fetchval("SELECT count(*) FROM imports WHERE state = 'previewed'"):  # noqa: ASYNC110 - PostgreSQL tells nobody
            await asyncio.sleep(0.01)
        assert (await client.post("/v1/quotes", **BODIES["/v1/quotes"], headers=headers)).status_code == 200
    refused = await upload
    assert (refused.status_code, refused.json()["type"]) == (422, "/problems/idempotency-key-reused")
    assert await owner.fetchval("SELECT count(*) FROM price_rows") == 0


async def test_what_fails_is_tried_again(client: httpx2.AsyncClient, owner: asyncpg.Connection) -> None:
    headers = named()
    missing = await client.post("/v1/items/sku:LATER/prices", json={"amount": "1"}, headers=headers)
    assert missing.status_code == 404
    assert await owner.fetchval("SELECT count(*) FROM stored_answers") == 0
    await client.post("/v1/items", json={"name": "A", "sku": "LATER"})
    done = await client.post("/v1/items/sku:LATER/prices", json={"amount": "1"}, headers=headers)
    assert done.status_code == 201
    assert "Idempotency-Replayed" not in done.headers


async def test_an_answer_that_cannot_be_stored_takes_what_was_done_with_it(
    client: httpx2.AsyncClient, owner: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: Any) -> bool:
        raise RuntimeError("no room")

    monkeypatch.setattr(stored_answers, "keep", fail)
    headers = named()
    assert (await client.post("/v1/items", json=ITEM, headers=headers)).status_code == 500
    assert await owner.fetchval("SELECT count(*) FROM items") == 0
    monkeypatch.undo()
    assert (await client.post("/v1/items", json=ITEM, headers=headers)).status_code == 201


@asynccontextmanager
async def a_slow_write(
    client: httpx2.AsyncClient, owner: asyncpg.Connection, headers: dict[str, str]
) -> AsyncIterator[asyncio.Task[httpx2.Response]]:
    """A write that waits for the ledger during the block, and holds its key meanwhile."""
    async with owner.transaction():
        await owner.execute("SELECT FROM ledger FOR UPDATE")
        slow = asyncio.create_task(client.post("/v1/items", json=ITEM, headers=headers))
        while not await owner.fetchval("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND granted"):  # noqa: ASYNC110 - PostgreSQL tells nobody
            await asyncio.sleep(0.01)
        yield slow


async def test_one_that_is_being_worked_on_turns_others_away(
    client: httpx2.AsyncClient, owner: asyncpg.Connection
) -> None:
    headers = named()
    async with a_slow_write(client, owner, headers) as slow:
        refused = await client.post("/v1/items", json=ITEM, headers=headers)
        assert refused.json()["type"] == "/problems/request-in-progress"
    assert (await slow).status_code == 201


async def test_a_key_that_another_request_took_meanwhile_undoes_the_write(
    client: httpx2.AsyncClient, owner: asyncpg.Connection
) -> None:
    headers = named()
    async with a_slow_write(client, owner, headers) as slow:
        quote = await client.post("/v1/quotes", **BODIES["/v1/quotes"], headers=headers)
        assert quote.status_code == 200
    refused = await slow
    assert (refused.status_code, refused.json()["type"]) == (422, "/problems/idempotency-key-reused")
    assert await owner.fetchval("SELECT count(*) FROM items") == 0


@pytest.mark.parametrize("key", [[], [(b"idempotency-key", b"cut")]])
@pytest.mark.parametrize(("path", "media_type"), [("/v1/items", b"application/json"), ("/v1/imports", b"text/csv")])
async def test_a_body_that_is_cut_off_is_no_defect(
    app: FastAPI,
    client: httpx2.AsyncClient,
    owner: asyncpg.Connection,
    key: list[tuple[bytes, bytes]],
    path: str,
    media_type: bytes,
) -> None:
    messages: list[Message] = [{"type": "http.request", "body": b"sku,amou", "more_body": True}]
    statuses = []

    async def receive() -> Message:
        return messages.pop() if messages else {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        if message["type"] == "http.response.start":
            statuses.append(message["status"])

    headers = [(b"content-type", media_type), (b"content-length", b"100"), *key]
    scope = {"type": "http", "http_version": "1.1", "method": "POST", "scheme": "http", "query_string": b""}
    await app(scope | {"path": path, "headers": headers, "client": ("127.0.0.1", 1)}, receive, send)
    assert statuses == [400]
    assert await owner.fetchval("SELECT count(*) FROM imports WHERE state <> 'failed'") == 0
    assert await owner.fetchval("SELECT count(*) FROM stored_answers") == 0


async def test_callers_do_not_share_keys(settings: Settings, client: httpx2.AsyncClient) -> None:
    async with guarded(settings) as guard:
        keys = [(await make_key(guard, name, ["items:write"]))["key"] for name in ("one", "two")]
        for number, key in enumerate(keys):
            document = {"name": f"Of {number}"}
            done = await guard.post("/v1/items", json=document, headers=named("same") | bearer(key))
            assert done.status_code == 201
            assert "Idempotency-Replayed" not in done.headers
        # Without the scope there is nothing to be had, known or not.
        weak = (await make_key(guard, "weak", ["quotes"]))["key"]
        assert (await guard.post("/v1/items", json={}, headers=named("same") | bearer(weak))).status_code == 403
        assert (await guard.post("/v1/items", json={}, headers=named("same"))).status_code == 401
        assert (await guard.get("/v1/keys", headers=bearer(ADMIN_KEY))).status_code == 200


@pytest.mark.parametrize(
    ("text", "fits"),
    [
        ("8e03978e-40d5-43dd-bc93-6894a57f9324", True),
        ('"8e03978e-40d5-43dd-bc93-6894a57f9324"', True),
        ('"with a blank and \\" in it"', True),
        ("x" * 255, True),
        ("x" * 256, False),
        ('""', False),
        ('"open', False),
        ("a b", False),
        ("", False),
    ],
)
async def test_the_header(client: httpx2.AsyncClient, text: str, fits: bool) -> None:
    answer = await client.post("/v1/items", json=ITEM, headers={"Idempotency-Key": text})
    assert answer.status_code == (201 if fits else 422), answer.text
    if not fits:
        assert answer.json()["errors"][0]["pointer"] == "header/Idempotency-Key"


async def test_quotes_around_the_key_make_no_difference(client: httpx2.AsyncClient) -> None:
    for text in ("same", '"same"'):
        answer = await client.post("/v1/items", json=ITEM, headers={"Idempotency-Key": text})
        assert answer.status_code == 201


async def test_answers_are_forgotten_after_a_day(
    app: FastAPI, client: httpx2.AsyncClient, owner: asyncpg.Connection
) -> None:
    headers = named()
    first = await client.post("/v1/items", json={"name": "A"}, headers=headers)
    await owner.execute("UPDATE stored_answers SET created_at = now() - interval '25 hours'")
    second = await client.post("/v1/items", json={"name": "B"}, headers=headers)
    assert (first.status_code, second.status_code) == (201, 201)
    assert second.json()["id"] != first.json()["id"]
    again = await client.post("/v1/items", json={"name": "B"}, headers=headers)
    assert again.json()["id"] == second.json()["id"]
    await owner.execute("UPDATE stored_answers SET created_at = now() - interval '25 hours'")
    await client.post("/v1/items", json={"name": "C"}, headers=named())
    async with app.state.database.writing() as session:
        assert isinstance(session, WriteSession)
        assert not await stored_answers.forget(session, hours=24)
    assert await owner.fetchval("SELECT count(*) FROM stored_answers") == 1
