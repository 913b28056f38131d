"""Reads from a real standby: what goes there, what never does, and what becomes of them when it is behind or away."""

import asyncio
import itertools
import random
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx2
import pytest
from sqlalchemy import text

from app.database import Database, ReplicaSession
from app.replica import NotOnReplicaError
from tests.api.test_changes import create, until
from tests.api.test_response_cache import READS, Replica
from tests.api.test_trouble import slug
from tests.failover.servers import Server
from tests.observability.test_metrics import increases, samples, value
from tests.replica.coherence import Traffic
from tests.replica.conftest import LAG_SECONDS, Reads, standby
from tests.support import postgres
from tests.support.access import ADMIN_KEY, bearer, make_key
from tests.support.tcp_proxy import TcpProxy

pytestmark = pytest.mark.long

JSON = dict[str, Any]
PRICE = "/v1/items/sku:A/price"
LONG: JSON = {"database_read_lag_seconds": 60.0}
"""For tests of what a standby answers that is kept behind."""
UNCACHED: JSON = {"response_cache_bytes": 0}


async def body(client: Replica, path: str, status: int = 200, **options: Any) -> JSON:
    answer = await client.request(options.pop("method", "GET"), path, **options)
    assert answer.status_code == status, answer.text
    document: JSON = answer.json()
    return document


def prices(client: Replica, **headers: str) -> dict[str, Callable[[], Awaitable[str]]]:
    """Ways to ask what A costs, and each its answer."""
    sent = {"headers": {name.replace("_", "-"): text for name, text in headers.items()}}
    lookup = {"method": "POST", "json": {"lines": [{"item": "sku:A"}]}, **sent}
    quote = {"method": "POST", "json": {"lines": [{"item": "sku:A", "quantity": "1"}]}, **sent}

    async def of(path: str, *keys: str | int, **options: Any) -> str:
        found: Any = await body(client, path, **(sent | options))
        for key in keys:
            found = found[key]
        return str(found)

    return {
        "price": lambda: of(PRICE, "amount"),
        "explained": lambda: of(f"{PRICE}?explain=true", "amount"),
        "timeline": lambda: of("/v1/items/sku:A/prices", "steps", -1, "amount"),
        "list": lambda: of("/v1/items", "items", 0, "price", "amount"),
        "lookup": lambda: of("/v1/prices:lookup", "prices", 0, "amount", **lookup),
        "quote": lambda: of("/v1/quotes", "lines", 0, "unit_price", **quote),
    }


async def come_to(client: Replica, seq: int) -> None:
    await until(lambda: client.seq == seq)


# What goes where


async def test_prices_are_read_from_the_standby_and_what_was_seen_from_whoever_has_it(reads: Reads) -> None:
    async with reads.service(**LONG, **UNCACHED) as client:
        await reads.pause()
        seq = await client.record("2")
        for name, ask in prices(client).items():
            assert await ask() == "1.00", name
        before = await samples(client.app)
        for name, ask in prices(client, pricebook_min_seq=str(seq)).items():
            assert await ask() == "2.00", name
        # One that the standby has does not trouble the primary.
        for name, ask in prices(client, pricebook_min_seq=str(seq - 1)).items():
            assert await ask() == "1.00", name
        after = await samples(client.app)
        asked = increases(before, after, "pricebook_database_statement_seconds_count")
        # To explain takes two statements, and to ask the standby what it has one more for each request.
        assert asked == {"reader": 7, "replica": 13}
        await reads.resume()
        await until(lambda: client.seq == seq)
        assert {await ask() for ask in prices(client).values()} == {"2.00"}


async def test_what_must_not_be_old_is_read_from_the_primary(reads: Reads) -> None:
    async with reads.service(**LONG, auth_required=True, admin_key=ADMIN_KEY) as client:
        await reads.pause()
        client.headers["Authorization"] = f"Bearer {ADMIN_KEY}"
        key = await make_key(client, "till", ["prices:read"])
        assert await client.amount(**bearer(key["key"])) == "1.00"
        assert [known["id"] for known in (await body(client, "/v1/keys"))["keys"]] == [key["id"]]
        await client.delete(f"/v1/keys/{key['id']}")
        await until_status(client, PRICE, 401, headers=bearer(key["key"]))
        seq = await client.record("2")
        assert (await body(client, "/v1/changes"))["head"] == seq
        exported = await client.get("/v1/export?format=csv")
        assert "2.00" in exported.text
        await body(client, "/v1/books", 201, method="POST", json={"key": "b", "name": "B", "currency": "EUR"})
        assert (await body(client, "/v1/books/b"))["key"] == "b"
        # A second one is refused, since writes read on the primary, too.
        assert slug(await client.post("/v1/items", json={"name": "A", "sku": "A"})) == (409, "duplicate-sku")
        headers = {"Idempotency-Key": "once"}
        first = await client.post("/v1/items", json={"name": "B"}, headers=headers)
        again = await client.post("/v1/items", json={"name": "B"}, headers=headers)
        assert (first.json(), again.headers["idempotency-replayed"]) == (again.json(), "true")


async def until_status(client: Replica, path: str, status: int, **options: Any) -> None:
    deadline = time.monotonic() + 20
    while (await client.get(path, **options)).status_code != status:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)


async def test_what_the_standby_does_not_know_yet_is_asked_of_the_primary(reads: Reads) -> None:
    async with reads.service(**LONG) as client:
        await reads.pause()
        made = await create(client, sku="NEW", price={"amount": "3"})
        before = await samples(client.app)
        for path in (f"/v1/items/{made['id']}", "/v1/items/sku:NEW/price", "/v1/items/sku:NEW/price?explain=true"):
            await body(client, path)
        lookup = {"lines": [{"item": "sku:A"}, {"item": "sku:NEW"}]}
        looked_up = await body(client, "/v1/prices:lookup", method="POST", json=lookup)
        assert [line["amount"] for line in looked_up["prices"]] == ["1.00", "3.00"]
        seq = await client.record("2")
        assert (await body(client, f"{PRICE}?known_seq={seq}"))["amount"] == "2.00"
        assert (await body(client, f"{PRICE}?known_at=2999-01-01T00:00:00Z"))["known_seq"] == seq
        again = increases(before, await samples(client.app), "pricebook_retries_total")
        assert again == {"replica": 5}
        quote = {"lines": [{"item": "sku:NEW", "quantity": "1"}]}
        await reads.resume()
        await until(lambda: client.seq == seq)
        await reads.pause()
        await create(client, sku="NEWER", price={"amount": "3"})
        quote["lines"].append({"item": "sku:NEWER", "quantity": "1"})
        made = await body(client, "/v1/quotes", method="POST", json=quote)
        assert (await body(client, "/v1/quotes:verify", method="POST", json=made))["matches"] is True
        assert slug(await client.get("/v1/items/sku:NOWHERE/price")) == (404, "unknown-item")


async def test_a_seq_that_nobody_has_is_waited_for_in_vain(reads: Reads) -> None:
    async with reads.service(min_seq_wait_seconds=0.1) as client:
        refused = await client.get(PRICE, headers={"Pricebook-Min-Seq": str(client.seq + 1)})
        assert slug(refused) == (503, "seq-not-reached")
    async with reads.service() as client:
        later = asyncio.create_task(client.amount(pricebook_min_seq=str(client.seq + 1)))
        await client.record("2")
        assert await later == "2.00"


async def test_a_change_that_the_primary_has_is_answered_although_the_standby_is_silent(reads: Reads) -> None:
    async with reads.service(min_seq_wait_seconds=0.3, **LONG) as client, reads.away(**LONG) as other:
        reads.pair.standby.signal(signal.SIGSTOP)
        # The follower asks the standby for the first of these, and waits.
        for amount in ("2", "3"):
            seq = await other.record(amount)
            answer = await client.price(pricebook_min_seq=str(seq))
            assert (answer.status_code, answer.json().get("known_seq")) == (200, seq)
        assert standby(client).in_use


# The follower


async def test_the_follower_follows_the_standby_and_hears_of_changes_from_the_primary(reads: Reads) -> None:
    async with reads.service(feed_poll_seconds=30, **LONG) as client, reads.service(**LONG) as other:
        for amount in range(2, 12):
            seq = await other.record(str(amount))
            # Without a notification it would come half a minute later.
            await come_to(client, seq)
        await come_to(other, seq)
        assert await client.amount() == "11.00"
        await reads.pause()
        seq = await other.record("12")
        before = await samples(client.app)
        waiting = asyncio.create_task(body(client, f"/v1/changes?after={client.seq}&wait=10"))
        await asyncio.sleep(0.5)
        assert client.seq == seq - 1
        assert await client.amount() == "11.00"
        await reads.resume()
        await until(lambda: client.seq == other.seq == seq)
        assert [change["seq"] for change in (await waiting)["changes"]] == [seq]
        looks = increases(before, await samples(client.app), "pricebook_feed_catch_ups_total")
        assert sum(looks.values()) == 2, "one for each of the two"
        assert await client.amount() == "12.00"


async def test_a_standby_that_is_always_a_little_behind_is_followed_at_rest(reads: Reads) -> None:
    """Among writes that come faster than they are replayed, the follower never has the last one, and is not behind."""
    await reads.delay("60ms")
    try:
        async with reads.service() as client:
            writing = asyncio.create_task(_write_for(client, seconds=4))
            lags = []
            while not writing.done():
                await asyncio.sleep(0.05)
                lags.append(client.app.state.follower.lag_seconds)
            assert await writing > 20, "else the standby had everything now and then"
            assert standby(client).in_use
            assert max(lags) < 1
    finally:
        await reads.delay("0")


async def _write_for(client: Replica, *, seconds: float) -> int:
    end, written = time.monotonic() + seconds, 0
    while time.monotonic() < end:
        await client.record(str(written + 2))
        written += 1
        await asyncio.sleep(0.02)
    return written


async def test_answers_from_memory_agree_with_the_standby(reads: Reads) -> None:
    async with reads.service(**LONG) as client, reads.service(**LONG) as other:
        await reads.pause()
        assert await client.amount() == "1.00"
        seq = await other.record("2")
        before = await samples(client.app)
        assert await client.amount() == "1.00"
        # The primary's answer takes the place of the older one, and is not dropped for an older one again.
        assert await client.amount(pricebook_min_seq=str(seq)) == "2.00"
        assert await client.amount() == "2.00"
        assert await client.amount(pricebook_min_seq=str(seq)) == "2.00"
        assert increases(before, await samples(client.app), READS) == {"hit": 3, "miss": 1, "bypassed": 1}
        seq = await client.record("3")
        before = await samples(client.app)
        # The standby's answer is older than what is known here to have touched it, and so is not kept.
        assert [await client.amount() for _ in range(2)] == ["1.00", "1.00"]
        assert increases(before, await samples(client.app), READS) == {"miss": 2}
        await reads.resume()
        await until(lambda: client.seq == seq)
        assert await client.amount() == "3.00"


# Trouble


async def test_a_standby_that_is_behind_is_left_and_taken_again(reads: Reads) -> None:
    async with reads.service(**UNCACHED) as client:
        assert (await in_use(client), reads.said()) == (1, ["reads go to the replica"])
        await reads.pause()
        seq = await client.record("2")
        await until(lambda: not standby(client).in_use)
        assert await client.amount() == "2.00"
        await until(lambda: client.seq == seq)
        seq = await client.record("3")
        await until(lambda: client.seq == seq)
        await asyncio.sleep(1)
        assert (await in_use(client), await client.amount()) == (0, "3.00")
        assert reads.said() == ["reads go to the replica", "reads go to the primary"]
        await reads.resume()
        await until(lambda: standby(client).in_use)
        assert (await in_use(client), await client.amount()) == (1, "3.00")
        assert reads.said() == ["reads go to the replica", "reads go to the primary", "reads go to the replica"]


async def in_use(client: Replica) -> float:
    return value(await samples(client.app), "pricebook_database_replica_in_use")


@asynccontextmanager
async def tills(client: Replica, count: int = 5) -> AsyncIterator[list[list[httpx2.Response]]]:
    """Read all the time, each as soon as it was answered. No answer is an error."""
    tills: list[list[httpx2.Response]] = [[] for _ in range(count)]

    async def read(answers: list[httpx2.Response]) -> None:
        for path in itertools.cycle((PRICE, "/v1/items", f"{PRICE}?explain=true")):
            answers.append(await client.get(path))  # noqa: PERF401 - it has no end

    tasks = [asyncio.create_task(read(answers)) for answers in tills]
    try:
        yield tills
    finally:
        for task in tasks:
            task.cancel()
        ended = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(isinstance(error, asyncio.CancelledError) for error in ended), ended
    assert {answer.status_code for answers in tills for answer in answers} == {200}


async def more(tills: list[list[httpx2.Response]]) -> None:
    """Wait until each has had some more answers."""
    goals = [len(answers) + 6 for answers in tills]
    await until(lambda: all(len(answers) >= goal for answers, goal in zip(tills, goals, strict=True)))


async def test_no_request_fails_because_the_standby_is_killed(reads: Reads) -> None:
    async with reads.service(**UNCACHED) as client, tills(client) as answers:
        await more(answers)
        reads.pair.standby.end()
        await more(answers)
        assert await in_use(client) == 0
        await asyncio.to_thread(reads.pair.standby.start)
        await until(lambda: standby(client).in_use)
        await more(answers)
    assert reads.said() == ["reads go to the replica", "reads go to the primary", "reads go to the replica"]


async def test_no_request_fails_because_the_standby_falls_silent(reads: Reads) -> None:
    # It is not this that ends what waits.
    patience: JSON = {"database_statement_timeout_milliseconds": 600_000, "database_pool_timeout_seconds": 60}
    async with reads.service(**UNCACHED, **patience) as client, tills(client) as answers:
        await more(answers)
        reads.pair.standby.signal(signal.SIGSTOP)
        await until(lambda: not standby(client).in_use)
        await more(answers)
        reads.pair.standby.signal(signal.SIGCONT)
        await until(lambda: standby(client).in_use)
        await more(answers)
    assert reads.said() == ["reads go to the replica", "reads go to the primary", "reads go to the replica"]


async def test_what_the_standby_cancels_for_the_sake_of_its_replay_is_answered(reads: Reads) -> None:
    await reads.ask("ALTER SYSTEM SET max_standby_streaming_delay = 0")
    await reads.ask("SELECT pg_reload_conf()")
    async with reads.service(**LONG, **UNCACHED) as client:
        database = client.app.state.database
        before = await reads.ask("SELECT sum(confl_lock) FROM pg_stat_database_conflicts")
        slow = asyncio.create_task(_read_slowly(database))
        await asyncio.sleep(0.2)
        await _lock_prices(reads)
        with pytest.raises(NotOnReplicaError) as refusal:
            await slow
        assert "conflict with recovery" in str(refusal.value.__cause__)
        async with tills(client) as answers:
            for _ in range(3):
                await more(answers)
                await _lock_prices(reads)
                await reads.ask(
                    "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name = 'pricebook'"
                )
        assert await reads.ask("SELECT sum(confl_lock) FROM pg_stat_database_conflicts") > before
        assert standby(client).in_use
    assert reads.said() == ["reads go to the replica"]
    await reads.ask("ALTER SYSTEM RESET max_standby_streaming_delay")
    await reads.ask("SELECT pg_reload_conf()")


async def test_a_look_of_the_follower_that_is_cancelled_is_made_again(reads: Reads) -> None:
    async with reads.service(**LONG) as client:
        transaction = reads.primary.transaction()
        await transaction.start()
        await reads.primary.execute("LOCK TABLE changes IN ACCESS EXCLUSIVE MODE")
        # The standby's replay takes the lock as well, and keeps it while it is paused. A commit sends it on its way.
        await reads.ask("SELECT pg_current_xact_id()", reads.pair.primary)
        locks = "SELECT count(*) > 0 FROM pg_locks WHERE relation = 'changes'::regclass AND mode LIKE 'AccessExcl%'"
        await until_true(reads, locks)
        await reads.ask("SELECT pg_wal_replay_pause()")
        await transaction.rollback()
        seq = await client.record("2")
        follower = "FROM pg_stat_activity WHERE application_name LIKE '%follower' AND wait_event_type = 'Lock'"
        for _ in range(2):
            await until_true(reads, f"SELECT count(*) = 1 {follower}")
            assert await reads.ask(f"SELECT pg_cancel_backend(pid) {follower}")
        await reads.resume()
        await until(lambda: client.seq == seq)
    assert reads.said() == ["reads go to the replica"]


async def until_true(reads: Reads, question: str) -> None:
    deadline = time.monotonic() + 20
    while not await reads.ask(question):
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)


async def _read_slowly(database: Database) -> None:
    async with database.answering() as session:
        assert isinstance(session, ReplicaSession)
        await session.execute(text("SELECT pg_sleep(20) FROM price_rows LIMIT 1"))


async def _lock_prices(reads: Reads) -> None:
    """The standby's replay takes the lock as well, and ends the statements that are in its way."""
    async with reads.primary.transaction():
        await reads.primary.execute("LOCK TABLE price_rows IN ACCESS EXCLUSIVE MODE")


async def test_a_standby_that_is_not_there_at_the_start_is_said_once(reads: Reads) -> None:
    nowhere = postgres.text(reads.pair.standby.url.set(port=1))
    async with reads.away(database_read_url=nowhere) as client:
        await until(lambda: bool(reads.said()))
        await asyncio.sleep(1)
        assert (await client.amount(), await in_use(client)) == ("1.00", 0)
    assert reads.said() == ["reads go to the primary"]


# Other ledgers, and other servers


async def test_another_ledger_is_never_read(reads: Reads) -> None:
    rogue = reads.pair.primary.copied(reads.pair.primary.log.with_name("rogue"), "--write-recovery-conf")
    try:
        await asyncio.to_thread(rogue.start)
        await _diverge(reads, rogue)
    finally:
        rogue.end()


async def _diverge(reads: Reads, rogue: Server) -> None:
    async with reads.service(rogue) as client:
        await reads.ask("SELECT pg_promote()", rogue)
        assert standby(client).in_use, "so far it has what the primary has"
        behind = client.seq
        waiting = asyncio.create_task(body(client, f"/v1/changes?after={behind}&wait=20"))
        async with reads.away(database_url=postgres.text(rogue.url), database_read_url=None) as other:
            lost = await other.record("666")
        await until(lambda: not standby(client).in_use)
        assert (await client.amount(), client.seq) == ("1.00", behind)
        for amount in ("2", "3"):
            seq = await client.record(amount)
            await come_to(client, seq)
        assert (await client.amount(), seq) == ("3.00", lost + 1)
        assert [change["after"]["amount"] for change in (await waiting)["changes"]] == ["2.00"], "nobody learns of it"
        await asyncio.sleep(1)
        assert not standby(client).in_use
        changes = (await body(client, f"/v1/changes?after={behind}&wait=1"))["changes"]
        assert [change["after"]["amount"] for change in changes] == ["2.00", "3.00"]
    assert reads.said() == ["reads go to the replica", "reads go to the primary"]


async def test_of_several_servers_behind_one_address_those_that_are_behind_are_left(reads: Reads) -> None:
    # The follower is led to the primary, which keeps up with itself, and all others to the standby.
    with TcpProxy(postgres.as_serving_role(reads.pair.primary.url)).open() as proxy:
        async with reads.service(database_read_url=postgres.text(proxy.url), **UNCACHED) as client:
            proxy._upstream = reads.pair.standby.url
            assert await client.amount() == "1.00"
            await reads.pause()
            seq = await client.record("2")
            await until_amount(client, "2.00")
            for _ in range(5):
                assert await client.amount() == "2.00"
                assert await client.amount(pricebook_min_seq=str(seq)) == "2.00"
            assert standby(client).in_use


async def until_amount(client: Replica, amount: str) -> None:
    deadline = time.monotonic() + 20
    while await client.amount() != amount:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)


# All of it together


async def test_no_answer_is_older_than_it_may_be(reads: Reads, record_property: Callable[[str, object], None]) -> None:
    seed = random.SystemRandom().randrange(10**6)
    memory: JSON = {"response_cache_lag_seconds": LAG_SECONDS}
    async with reads.service(**memory) as one, reads.service(**memory) as other:
        for sku in ("B", "C"):
            await create(one, sku=sku, price={"amount": "1", "valid_from": "2024-01-01"})
        traffic = Traffic([one, other], seed)
        before = await samples(one.app)
        tasks = [asyncio.create_task(work()) for work in (*[traffic.write] * 2, *[traffic.read] * 6)]
        try:
            for mishap in (_pause_briefly, _pause_long, _silence, _pause_briefly, _kill, _pause_long):
                await asyncio.sleep(0.3)
                await mishap(reads)
            await until(lambda: standby(one).in_use and standby(other).in_use)
        finally:
            for task in tasks:
                task.cancel()
            ended = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(isinstance(error, asyncio.CancelledError) for error in ended), (seed, ended)
        after = await samples(one.app)
    assert await traffic.faults(reads.primary, LAG_SECONDS) == [], seed
    assert increases(before, after, READS)["hit"] > 0
    asked = increases(before, after, "pricebook_database_statement_seconds_count")
    assert min(asked["reader"], asked["replica"]) > 0
    record_property(
        "summary", f"replica: {len(traffic.answers)} answers and {len(traffic.writes)} writes (seed {seed})"
    )


async def _pause_briefly(reads: Reads) -> None:
    await _pause(reads, LAG_SECONDS / 3)


async def _pause_long(reads: Reads) -> None:
    await _pause(reads, LAG_SECONDS * 2)


async def _pause(reads: Reads, seconds: float) -> None:
    await reads.ask("SELECT pg_wal_replay_pause()")
    await asyncio.sleep(seconds)
    await reads.resume()


async def _silence(reads: Reads) -> None:
    reads.pair.standby.signal(signal.SIGSTOP)
    await asyncio.sleep(LAG_SECONDS * 1.5)
    reads.pair.standby.signal(signal.SIGCONT)


async def _kill(reads: Reads) -> None:
    reads.pair.standby.end()
    await asyncio.to_thread(reads.pair.standby.start)
