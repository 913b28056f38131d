"""The feed forgets what is old, if it is told to; answers pinned to the past stay as they were, all the same."""

import asyncio
from typing import Any

import asyncpg
import httpx2
import pytest
from sqlalchemy.engine import URL

from app import housekeeping
from app.database import WriteSession
from app.services import changes
from tests.api.test_changes import create, read, until
from tests.api.test_feed_follower import check, followed, own_app
from tests.api.test_trouble import client_of, slug

JSON = dict[str, Any]

BLOCK = """
    WITH head AS (
        UPDATE ledger SET seq = seq + 40, recorded_at = recorded_at + interval '1 second' RETURNING seq - 40 AS seq,
            recorded_at
    ), rows AS (
        INSERT INTO price_rows (item_id, book_id, amount, per, min_quantity, tax_included, valid_from, seq, recorded_at,
            recorded_by)
        SELECT $1, 1, n, 1, 1, false, '2026-01-01', head.seq + n, recorded_at, 'import'
        FROM head, generate_series(1, 40) AS n
        RETURNING *
    )
    INSERT INTO changes (seq, at, actor, type, item_id, book_id, price_id)
    SELECT seq, recorded_at, recorded_by, 'price.recorded', item_id, book_id, id FROM rows
"""
"""Forty prices in one transaction, as an import records them."""

AGE = """
    SET session_replication_role = replica;
    UPDATE changes SET at = at - interval '10 days';
    UPDATE price_rows SET recorded_at = recorded_at - interval '10 days';
    UPDATE ledger SET recorded_at = recorded_at - interval '10 days';
    SET session_replication_role = DEFAULT;
"""


async def fill(client: httpx2.AsyncClient, owner: asyncpg.Connection) -> str:
    """Changes of all kinds, ten days old."""
    item = await create(client, sku="A", price={"amount": 1})
    path = f"/v1/items/{item['id']}"
    await client.patch(path, json={"sku": "B"}, headers={"if-match": "*"})
    await owner.execute(BLOCK, item["id"])
    await client.patch("/v1/books/default", json={"rounding": {"mode": "up"}}, headers={"if-match": "*"})
    await owner.execute(BLOCK, item["id"])
    row = (await client.post(f"{path}/prices", json={"amount": 7})).json()
    await client.delete(f"/v1/prices/{row['id']}")
    await client.patch(path, json={"sku": "C"}, headers={"if-match": "*"})
    await owner.execute(AGE)
    return path


async def answers(client: httpx2.AsyncClient, path: str, head: int, instants: list[str]) -> list[JSON]:
    """All that can be asked about the past."""
    pins = [{"known_seq": seq} for seq in range(head + 1)] + [{"known_at": instant} for instant in instants]
    found = []
    for pin in pins:
        for address in (path, "/v1/items/sku:A", "/v1/items/sku:B", "/v1/items/sku:C"):
            answer = await client.get(f"{address}/price", params={"at": "2026-06-01", **pin})
            found.append({name: value for name, value in answer.json().items() if name != "request_id"})
        answer = await client.get(f"{path}/prices", params={"rows": "true", **pin})
        found.append({name: value for name, value in answer.json().items() if name != "request_id"})
    return found


async def finished(owner: asyncpg.Connection, floor: int) -> None:
    async with asyncio.timeout(30):
        while await owner.fetchval("SELECT feed_floor FROM ledger") < floor:  # noqa: ASYNC110 - it tells nobody.
            await asyncio.sleep(0.02)


@pytest.mark.long
async def test_forgetting_changes_no_answer_about_the_past(
    own_url: URL,
    own_owner: asyncpg.Connection,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(changes, "_FORGET_AT_ONCE", 7)
    async with followed(own_app(own_url)) as client:
        path = await fill(client, own_owner)
        page = await read(client, limit=1000)
        old = page["head"]
        assert old == 88
        check(page["changes"])
        fresh = [await create(client, f"Fresh {number}", price={"amount": 1}) for number in range(3)]
        moments = await own_owner.fetch(
            "SELECT DISTINCT at + d * interval '1 microsecond' AS at FROM changes, generate_series(-1, 1) d ORDER BY 1"
        )
        instants = [row["at"].isoformat() for row in moments]
        before = await answers(client, path, old, instants)

    keeper, other = (own_app(own_url, feed_retention_days=5, housekeeping_seconds=0.05) for _ in range(2))
    async with followed(keeper) as client, client_of(other):
        await finished(own_owner, old)
        await asyncio.sleep(0.3)  # for what it should not do
        assert await own_owner.fetchval("SELECT feed_floor FROM ledger") == old
        kept = [row["seq"] for row in await own_owner.fetch("SELECT seq FROM changes ORDER BY seq")]
        # Of each block, all but the last one: it maps the block's instant to its seq.
        assert kept == [1, 2, 3, 4, 44, 45, *range(85, old + 1), *range(old + 1, old + 7)]
        assert await answers(client, path, old, instants) == before

        for parameters in ({}, {"wait": 60}, {"types": "book.created"}):
            answer = await client.get("/v1/changes", params={"after": old - 1, **parameters})
            assert slug(answer) == (410, "feed-truncated")
            assert f"the changes after {old}" in answer.json()["detail"]
            assert "export?format=snapshot" in answer.json()["detail"]
        answer = await client.get("/v1/changes?after=0", headers={"accept": "text/event-stream"})
        assert slug(answer) == (410, "feed-truncated")
        page = await read(client, old)
        check(page["changes"], old + 1)
        assert page["changes"][-1]["item_id"] == fresh[-1]["id"]


async def test_without_a_retention_nothing_is_forgotten(
    own_url: URL,
    own_owner: asyncpg.Connection,
) -> None:
    async with followed(own_app(own_url, housekeeping_seconds=0.02)) as client:
        await fill(client, own_owner)
        await asyncio.sleep(0.3)
        check((await read(client, limit=1000))["changes"])


async def test_housekeeping_goes_on_after_a_failure(
    own_url: URL,
    own_owner: asyncpg.Connection,
    caplog: pytest.LogCaptureFixture,
) -> None:
    app = own_app(own_url, feed_retention_days=5, housekeeping_seconds=0.05, database_lock_timeout_milliseconds=50)
    async with followed(app) as client:
        await fill(client, own_owner)
        # The floor is raised at once if the first fill was quick; what comes later has to wait for the lock.
        async with own_owner.transaction():
            await own_owner.execute("LOCK TABLE changes IN ACCESS EXCLUSIVE MODE")
            await until(lambda: "housekeeping failed" in caplog.text)
        await finished(own_owner, 88)


@pytest.mark.parametrize("old", [0, 1, 60])
async def test_no_more_is_forgotten_than_is_old(own_url: URL, own_owner: asyncpg.Connection, old: int) -> None:
    app = own_app(own_url)
    async with followed(app) as client:
        await fill(client, own_owner)
        async with own_owner.transaction():
            await own_owner.execute("SET LOCAL session_replication_role = replica")
            await own_owner.execute("UPDATE changes SET at = at + interval '8 days' WHERE seq > $1", old)
        for _ in range(3):
            async with app.state.database.writing() as session:
                assert not await changes.forget(session, retention_days=5)
            assert await own_owner.fetchval("SELECT feed_floor FROM ledger") == old
        check((await read(client, old, limit=1000))["changes"], old + 1)
        assert len((await read(client, old, limit=1000))["changes"]) == 88 - old


async def test_of_two_processes_one_works_at_a_time(own_url: URL, monkeypatch: pytest.MonkeyPatch) -> None:
    at_work, most, turns = 0, 0, 0

    async def job(_: WriteSession) -> bool:
        nonlocal at_work, most, turns
        at_work += 1
        turns += 1
        most = max(most, at_work)
        try:
            await asyncio.sleep(0.05)
        finally:
            # Also when the process stops at its work: the lock is given back after this.
            at_work -= 1
        return True

    monkeypatch.setattr(housekeeping, "jobs", lambda _: {"count": job})
    monkeypatch.setattr(housekeeping, "_BETWEEN_SECONDS", 0.001)
    async with (
        client_of(own_app(own_url, housekeeping_seconds=0.01)),
        client_of(own_app(own_url, housekeeping_seconds=0.01)),
    ):
        await until(lambda: turns >= 10)
    assert most == 1


async def test_writers_get_their_turn_between_two_pieces_of_work(own_url: URL, monkeypatch: pytest.MonkeyPatch) -> None:
    turns = 0

    async def job(_: WriteSession) -> bool:
        nonlocal turns
        turns += 1
        return True

    monkeypatch.setattr(housekeeping, "jobs", lambda _: {"count": job})
    monkeypatch.setattr(housekeeping, "_BETWEEN_SECONDS", 3600)
    async with client_of(own_app(own_url, housekeeping_seconds=0.01)):
        await until(lambda: turns > 0)
        await asyncio.sleep(0.2)  # for what it should not do
    assert turns == 1


async def test_versions_cannot_be_deleted_even_by_the_owner(
    own_url: URL,
    own_owner: asyncpg.Connection,
) -> None:
    async with followed(own_app(own_url)) as client:
        await create(client, price={"amount": 1})
        await client.post("/v1/books", json={"key": "b", "name": "b", "currency": "EUR"})
    for seq in (1, 2, 4):
        with pytest.raises(asyncpg.RestrictViolationError, match="rows of changes stay"):
            await own_owner.execute("DELETE FROM changes WHERE seq = $1", seq)
    assert await own_owner.execute("DELETE FROM changes WHERE seq = 3") == "DELETE 1"
