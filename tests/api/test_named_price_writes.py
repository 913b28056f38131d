"""Prices with an ``Idempotency-Key`` that arrive together: each is recorded once, whatever becomes of the answers."""

import asyncio
import hashlib
from collections import Counter

import asyncpg
import httpx2
import pytest
from fastapi import FastAPI
from sqlalchemy.engine import URL

from app.services import stored_answers
from tests.api.test_price_writes import items, rows_of
from tests.api.test_retries import cut_after_commit
from tests.api.test_trouble import slug
from tests.support import postgres

QUOTE = {"currency": "EUR", "lines": [{"quantity": "1", "unit_price": "1", "tax_rate": "19"}]}


@pytest.fixture
async def known(client: httpx2.AsyncClient) -> list[str]:
    """Ids of items."""
    return [item["id"] for item in (await items(client, "named"))[:-1]]


async def post(client: httpx2.AsyncClient, item: str, key: str | None, amount: str = "5.00") -> httpx2.Response:
    headers = {} if key is None else {"Idempotency-Key": key}
    return await client.post(f"/v1/items/{item}/prices", json={"amount": amount}, headers=headers)


async def seqs(client: httpx2.AsyncClient) -> list[int]:
    """Those of all changes."""
    changes = (await client.get("/v1/changes?after=0&limit=1000")).json()["changes"]
    return [change["seq"] for change in changes]


async def test_each_is_done_once_and_together(client: httpx2.AsyncClient, known: list[str]) -> None:
    before = len(await seqs(client))

    async def insist(number: int) -> httpx2.Response:
        while (answer := await post(client, known[number % len(known)], f"key-{number}")).status_code == 409:
            assert slug(answer) == (409, "request-in-progress")
        return answer

    answers = await asyncio.gather(*(insist(number) for _ in range(3) for number in range(30)))
    assert {answer.status_code for answer in answers} == {201}
    recorded = {answer.json()["id"]: answer.json() for answer in answers}
    assert sorted(row["seq"] for row in recorded.values()) == (await seqs(client))[before:]
    assert len(recorded) == 30
    assert len({row["recorded_at"] for row in recorded.values()}) < 15
    assert sum(answer.headers.get("idempotency-replayed") == "true" for answer in answers) == 60


async def test_of_two_requests_with_a_key_in_one_batch_one_is_done(
    client: httpx2.AsyncClient, known: list[str]
) -> None:
    answers = await asyncio.gather(*(post(client, known[0], "same", f"{number}.00") for number in range(1, 6)))
    statuses = Counter(answer.status_code for answer in answers)
    assert statuses[201] == 1
    assert {slug(answer)[1] for answer in answers if not answer.is_success} <= {
        "idempotency-key-reused",
        "request-in-progress",
    }
    assert len(await rows_of(client, known[0])) == 2


async def test_one_that_is_worked_on_elsewhere_is_turned_away_alone(
    client: httpx2.AsyncClient, owner: asyncpg.Connection, known: list[str]
) -> None:
    lock = int.from_bytes(hashlib.sha256(b"anonymous/elsewhere").digest()[:8], signed=True)
    async with owner.transaction():
        await owner.execute("SELECT pg_advisory_xact_lock($1)", lock)
        assert slug(await post(client, known[0], "elsewhere")) == (409, "request-in-progress")
        keys = ["elsewhere", *[None] * 5, *(f"here-{number}" for number in range(5))]
        answers = await asyncio.gather(*(post(client, item, key) for item, key in zip(known, keys, strict=True)))
        assert slug(answers[0]) == (409, "request-in-progress")
        assert [answer.status_code for answer in answers[1:]] == [201] * 10
    assert (await post(client, known[0], "elsewhere")).status_code == 201


async def test_a_commit_whose_answer_is_lost_is_found_by_each(
    client: httpx2.AsyncClient, app: FastAPI, known: list[str]
) -> None:
    with cut_after_commit(app, 1):
        answers = await asyncio.gather(*(post(client, item, f"lost-{item}") for item in known))
    assert {answer.status_code for answer in answers} == {201}
    assert not any("idempotency-replayed" in answer.headers for answer in answers), "each was sent once"
    again = await asyncio.gather(*(post(client, item, f"lost-{item}") for item in known))
    assert [answer.content for answer in again] == [answer.content for answer in answers]
    assert all(answer.headers["idempotency-replayed"] == "true" for answer in again)
    for item in known:
        assert len(await rows_of(client, item)) == 2


async def test_a_key_that_another_request_takes_meanwhile_undoes_its_own_price_only(
    client: httpx2.AsyncClient, owner: asyncpg.Connection, known: list[str]
) -> None:
    before = len(await seqs(client))
    async with owner.transaction():
        await owner.execute("SELECT FROM ledger FOR UPDATE")
        tasks = [asyncio.create_task(post(client, item, f"meanwhile-{item}")) for item in known]
        waiting = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND granted"
        while not await owner.fetchval(waiting):  # noqa: ASYNC110 - PostgreSQL tells nobody
            await asyncio.sleep(0.01)
        quote = await client.post("/v1/quotes", json=QUOTE, headers={"Idempotency-Key": f"meanwhile-{known[3]}"})
        assert quote.status_code == 200, quote.text
    answers = await asyncio.gather(*tasks)
    assert slug(answers.pop(3)) == (422, "idempotency-key-reused")
    assert {answer.status_code for answer in answers} == {201}
    assert sorted(answer.json()["seq"] for answer in answers) == (await seqs(client))[before:]


async def test_answers_that_cannot_be_stored_take_what_was_done_with_them(
    client: httpx2.AsyncClient, known: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: object) -> bool:
        raise RuntimeError("no room")

    monkeypatch.setattr(stored_answers, "keep_together", fail)
    answers = await asyncio.gather(*(post(client, item, f"room-{item}") for item in known))
    assert {answer.status_code for answer in answers} == {500}
    monkeypatch.undo()
    for item in known:
        assert len(await rows_of(client, item)) == 1
    answers = await asyncio.gather(*(post(client, item, f"room-{item}") for item in known))
    assert {answer.status_code for answer in answers} == {201}


async def test_answers_of_yesterday_are_overwritten_while_others_are_forgotten(
    client: httpx2.AsyncClient, app: FastAPI, owner: asyncpg.Connection, owner_url: URL, known: list[str]
) -> None:
    first = await asyncio.gather(*(post(client, item, f"daily-{item}") for item in known))
    await owner.execute("UPDATE stored_answers SET created_at = now() - interval '25 hours'")
    other = await asyncpg.connect(postgres.text(owner_url))
    try:
        async with other.transaction():
            await other.execute("SELECT FROM ledger FOR UPDATE")
            tasks = [asyncio.create_task(post(client, item, f"daily-{item}")) for item in known]
            await asyncio.sleep(0.1)
            async with owner.transaction():
                # As a request that overwrites one holds it.
                await owner.execute("SELECT FROM stored_answers WHERE key = $1 FOR UPDATE", f"daily-{known[0]}")
                async with app.state.database.writing() as session:
                    await asyncio.wait_for(stored_answers.forget(session, hours=24), timeout=3)
                assert await owner.fetchval("SELECT count(*) FROM stored_answers") == 1
    finally:
        await other.close()
    second = await asyncio.gather(*tasks)
    assert {answer.status_code for answer in second} == {201}
    assert not {answer.json()["id"] for answer in first} & {answer.json()["id"] for answer in second}
    assert await owner.fetchval("SELECT count(*) FROM stored_answers") == len(known)
