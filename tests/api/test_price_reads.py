"""Reads of prices that arrive together: each gets what it would have got alone, whatever becomes of the others."""

import asyncio
import random
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import httpx2
import pytest
from fastapi import FastAPI
from sqlalchemy.engine import URL

from app.access import Scope
from app.main import create_app
from tests.api.test_changes import until
from tests.api.test_statements import statements
from tests.api.test_trouble import client_of, slug
from tests.conftest import make_settings
from tests.observability.test_metrics import increases, samples
from tests.support import postgres
from tests.support.access import ADMIN_KEY, bearer, make_key

NOBODY = "01a20537-de50-7ff8-9c93-02db0b06a11c"
AT = "2026-06-15T12:00:00Z"
OF_THE_REQUEST = {"x-request-id", "date"}

# Another parameter that says nothing: such a read goes the way of all other requests, alone.
ALONE = {"explain": "false"}


@pytest.fixture
async def app(own_url: URL) -> FastAPI:
    """One that answers nothing from memory."""
    return make_app(own_url)


def make_app(url: URL, **changes: Any) -> FastAPI:
    return create_app(make_settings(postgres.as_serving_role(url), response_cache_bytes=0, **changes))


@pytest.fixture
async def client(app: FastAPI) -> AsyncIterator[httpx2.AsyncClient]:
    async with client_of(app) as client:
        yield client


async def some_items(client: httpx2.AsyncClient) -> list[str]:
    """Items of every kind, as addresses name them."""
    assert (await client.post("/v1/books", json={"key": "chf", "name": "CHF", "currency": "CHF"})).status_code == 201
    items = []
    for number in range(12):
        fields: dict[str, Any] = {"name": "Frame", "sku": f"S-{number}"}
        if number % 4 != 3:
            # Every fourth has no price, and one of three is not for sale.
            amount = None if number % 4 == 2 else f"{number + 1}.5"
            fields["price"] = {"amount": amount, "tax_rate": "19", "valid_from": "2026-01-01"}
        created = (await client.post("/v1/items", json=fields)).json()
        items += [created["id"], f"sku:S-{number}"]
        rows: list[dict[str, Any]] = [
            {"book": "chf", "amount": number + 100},
            {"amount": number, "min_quantity": 10},
        ]
        for more in rows:
            if number % 2:
                more["valid_from"] = "2026-01-01"
                recorded = await client.post(f"/v1/items/{created['id']}/prices", json=more)
                assert recorded.status_code == 201, recorded.text
    archived = await client.delete(f"/v1/items/{items[0]}", headers={"If-Match": '"1"'})
    assert archived.status_code == 200
    return [*items, NOBODY, "sku:nothing", "sku:Ünicode", "sku:a/b", NOBODY.upper(), "nonsense"]


def kept(answer: httpx2.Response) -> tuple[int, dict[str, str], dict[str, Any] | bytes]:
    """What must not differ between two answers to the same request."""
    headers = {name: text for name, text in answer.headers.items() if name not in OF_THE_REQUEST}
    if answer.status_code < 400:
        return answer.status_code, headers, answer.content
    assert answer.json()["request_id"] == answer.headers["x-request-id"]
    del headers["content-length"]
    return answer.status_code, headers, answer.json() | {"request_id": None}


async def test_a_hundred_at_once_are_answered_as_each_alone(client: httpx2.AsyncClient, app: FastAPI) -> None:
    items = await some_items(client)
    head = int((await client.get("/v1/items/sku:S-1/price")).json()["known_seq"])
    chance = random.Random(20261129)  # noqa: S311 - not for secrets
    requests: list[tuple[str, dict[str, str]]] = []
    for number in range(300):
        query = {"at": AT} if number % 10 else {"at": chance.choice(("2026-06-15", "2025-01-01T00:00:00Z", "never"))}
        for name, values in (
            ("book", ("chf", "chf", "nothing", "No Book")),
            ("quantity", ("10", "9.999999999999", "1e3", "0")),
            ("known_seq", (str(head), str(head - 5), str(head + 1))),
        ):
            if chance.random() < 0.25:
                query[name] = chance.choice(values)
        requests.append((f"/v1/items/{chance.choice(items)}/price", query))
    before = await samples(app)
    with statements(app) as seen:
        together: list[httpx2.Response] = []
        for start in range(0, len(requests), 100):
            part = requests[start : start + 100]
            together += await asyncio.gather(*(client.get(path, params=query) for path, query in part))
    counted = increases(before, await samples(app), "pricebook_price_reads_total")
    before = await samples(app)
    for (path, query), answer in zip(requests, together, strict=True):
        alone = await client.get(path, params=query | ALONE)
        assert kept(answer) == kept(alone), (path, query)
    assert increases(before, await samples(app), "pricebook_price_reads_total") == counted
    assert {answer.status_code for answer in together} == {200, 404, 422}
    assert len([statement for statement in seen if "unnest" in statement]) < len(requests) / 4


async def test_now_is_after_what_was_committed_before(client: httpx2.AsyncClient) -> None:
    await client.post("/v1/items", json={"name": "x", "sku": "A", "price": {"amount": "0"}})
    reading = True

    async def read_on() -> None:
        while reading:
            await client.get("/v1/items/sku:A/price")

    readers = [asyncio.create_task(read_on()) for _ in range(8)]
    for number in range(1, 40):
        recorded = await client.post("/v1/items/sku:A/prices", json={"amount": str(number)})
        seq = int(recorded.headers["pricebook-seq"])
        answer = (await client.get("/v1/items/sku:A/price")).json()
        assert (answer["amount"], answer["known_seq"]) == (f"{number}.00", seq)
    reading = False
    await asyncio.gather(*readers)


async def test_a_copy_at_hand_and_headers_that_cannot_be_read(client: httpx2.AsyncClient) -> None:
    await client.post("/v1/items", json={"name": "x", "sku": "A", "price": {"amount": "1"}})
    path, at = "/v1/items/sku:A/price", {"at": "2100-01-01T00:00:00Z"}
    tag = (await client.get(path, params=at)).headers["etag"]
    for headers in (
        {"If-None-Match": tag},
        {"If-None-Match": f'"other", W/{tag}'},
        {"If-None-Match": "*"},
        {"If-None-Match": '"other"'},
        {"If-None-Match": "nonsense"},
        {"Accept": "text/html"},
        {"Accept": "application/problem+json"},
    ):
        answers = [await client.get(path, params=query, headers=headers) for query in (at, at | ALONE)]
        assert kept(answers[0]) == kept(answers[1]), headers


async def test_a_key_is_needed_all_the_same(own_url: URL) -> None:
    async with client_of(make_app(own_url, auth_required=True, admin_key=ADMIN_KEY)) as client:
        item = {"name": "x", "sku": "A", "price": {"amount": "1"}}
        await client.post("/v1/items", json=item, headers=bearer(ADMIN_KEY))
        reader = (await make_key(client, "reader", [Scope.PRICES_READ]))["key"]
        writer = (await make_key(client, "writer", [Scope.PRICES_WRITE]))["key"]
        for _ in range(2):  # The second time, they are known.
            for key, status in ((reader, 200), (writer, 403), ("pb_0123456789abcdef_" + "x" * 43, 401), (None, 401)):
                headers = bearer(key) if key else {}
                answer = await client.get("/v1/items/sku:A/price", headers=headers)
                assert answer.status_code == status


# Trouble


@pytest.fixture
async def locked(own_owner: asyncpg.Connection, client: httpx2.AsyncClient) -> asyncpg.transaction.Transaction:
    """The items A0 to A19; nobody can read prices until this is rolled back."""
    for number in range(20):
        await client.post("/v1/items", json={"name": "x", "sku": f"A{number}", "price": {"amount": number}})
    transaction = own_owner.transaction()
    await transaction.start()
    await own_owner.execute("LOCK TABLE price_rows IN ACCESS EXCLUSIVE MODE")
    return transaction


def asking(client: httpx2.AsyncClient) -> list[asyncio.Task[httpx2.Response]]:
    return [asyncio.create_task(client.get(f"/v1/items/sku:A{number}/price")) for number in range(20)]


_WAITING = "SELECT pid FROM pg_locks WHERE relation = 'price_rows'::regclass AND NOT granted"


async def waiting(owner: asyncpg.Connection) -> list[int]:
    """The backends that wait for the lock, once there are some."""
    pids: list[int] = []
    while not pids:
        await asyncio.sleep(0.01)
        pids = [row["pid"] for row in await owner.fetch(_WAITING)]
    return pids


async def test_one_who_gives_up_takes_nothing_from_the_others(
    locked: asyncpg.transaction.Transaction, own_owner: asyncpg.Connection, client: httpx2.AsyncClient, app: FastAPI
) -> None:
    tasks = asking(client)
    await waiting(own_owner)
    assert app.state.traffic.in_flight == 20
    tasks[0].cancel()
    tasks[7].cancel()
    await locked.rollback()
    answers = await asyncio.gather(*tasks, return_exceptions=True)
    for number, answer in enumerate(answers):
        if number in (0, 7):
            assert isinstance(answer, asyncio.CancelledError)
        else:
            assert isinstance(answer, httpx2.Response)
            assert answer.json()["amount"] == f"{number}.00"
    assert app.state.traffic.in_flight == 0


async def test_what_is_lost_with_a_connection_is_asked_again(
    locked: asyncpg.transaction.Transaction, own_owner: asyncpg.Connection, client: httpx2.AsyncClient
) -> None:
    tasks = asking(client)
    for pid in await waiting(own_owner):
        await own_owner.fetchval("SELECT pg_terminate_backend($1)", pid)
    await locked.rollback()
    answers = await asyncio.gather(*tasks)
    assert [answer.json()["amount"] for answer in answers] == [f"{number}.00" for number in range(20)]


async def test_a_database_that_is_too_slow_is_a_problem_for_each(own_url: URL, own_owner: asyncpg.Connection) -> None:
    app = make_app(own_url, database_statement_timeout_milliseconds=300)
    async with client_of(app) as client:
        await client.post("/v1/items", json={"name": "x", "sku": "A1", "price": {"amount": "1"}})
        async with own_owner.transaction():
            await own_owner.execute("LOCK TABLE price_rows IN ACCESS EXCLUSIVE MODE")
            answers = await asyncio.gather(*asking(client))
        assert {slug(answer) for answer in answers} == {(503, "busy")}
        assert len({answer.json()["request_id"] for answer in answers}) == 20
        await until(lambda: app.state.traffic.in_flight == 0)
        assert (await client.get("/v1/items/sku:A1/price")).status_code == 200
