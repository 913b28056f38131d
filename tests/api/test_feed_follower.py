"""The feed under load and in trouble: whatever happens, a consumer sees every change once and in order."""

import asyncio
import json
import logging
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import httpx2
import pytest
from fastapi import FastAPI
from sqlalchemy import text
from sqlalchemy.engine import URL

from app import follower as follower_module
from app.database import Database
from app.feed_position import Position
from app.follower import Follower
from app.main import create_app
from tests.api.test_changes import begun, create, read, until
from tests.api.test_ledger import failing_commits
from tests.api.test_statements import statements
from tests.api.test_trouble import client_of, slug
from tests.conftest import make_settings
from tests.observability.test_ledger_watch import without_database
from tests.observability.test_metrics import samples, value
from tests.support import postgres
from tests.support.feed import events, serving

JSON = dict[str, Any]
WRITERS = 12
WRITES = 20
LAST = "the last one"


def own_app(url: URL, **settings: Any) -> FastAPI:
    return create_app(make_settings(postgres.as_serving_role(url), **{"feed_poll_seconds": 0.1, **settings}))


@asynccontextmanager
async def followed(app: FastAPI) -> AsyncIterator[httpx2.AsyncClient]:
    """A client of an application whose follower has begun."""
    async with client_of(app) as client:
        await until(lambda: app.state.follower.live)
        yield client


async def consume(client: httpx2.AsyncClient, after: int = 0, **parameters: object) -> list[JSON]:
    """Everything until the last one, by pages or long polls."""
    found: list[JSON] = []
    while not found or name(found[-1]) != LAST:
        page = await read(client, after, **parameters)
        found += page["changes"]
        after = page["next_after"]
    return found


def name(change: JSON) -> object:
    return change["after"].get("name")


async def listen(client: httpx2.AsyncClient, after: int = 0, *, reconnect_after: int | None = None) -> list[JSON]:
    """Everything until the last one, by a stream, or by many streams of so many events."""
    found: list[JSON] = []
    last: str | None = None
    while not found or name(found[-1]) != LAST:
        received = 0
        async with events(client, after, last_event_id=last) as stream:
            async for event in stream:
                if "data" not in event:
                    continue
                found.append(json.loads(event["data"]))
                last = event["id"]
                received += 1
                if received == reconnect_after or name(found[-1]) == LAST:
                    break
    return found


def check(found: list[JSON], first: int = 1) -> None:
    assert [change["seq"] for change in found] == list(range(first, first + len(found))), "a gap, or out of order"


@pytest.mark.long
async def test_every_reader_sees_every_change_once_and_in_order(app: FastAPI, client: httpx2.AsyncClient) -> None:
    await create(client, sku="contended", price={"amount": 1})
    chance = random.Random(11)  # noqa: S311 - not for secrets
    database: Database = app.state.database
    statuses: set[int] = set()

    async def write(writer: int) -> None:
        for number in range(WRITES):
            match chance.randrange(4):
                case 0:
                    answer = await client.post("/v1/items", json={"name": f"{writer}-{number}", "price": {"amount": 1}})
                case 1:
                    body = {"amount": str(number)}
                    answer = await client.post("/v1/items/sku:contended/prices", json=body)
                case 2:
                    patch = {"name": f"{writer}-{number}"}
                    answer = await client.patch("/v1/items/sku:contended", json=patch, headers={"if-match": "*"})
                case _:  # fails after it took its number
                    answer = await client.post("/v1/items", json={"name": "Twin", "sku": "contended"})
            statuses.add(answer.status_code)

    async with serving(app) as url, httpx2.AsyncClient(base_url=url, timeout=60) as http:
        consumers = [
            consume(client),
            consume(client, limit=3),
            consume(client, wait=60),
            consume(client, wait=60, limit=1),
            consume(http, wait=60, limit=7),
            listen(http),
            listen(http, reconnect_after=5),
            listen(http, reconnect_after=1),
        ]
        reading = [asyncio.ensure_future(consumer) for consumer in consumers]
        with failing_commits(database.writer, chance) as failures:
            await asyncio.gather(*(write(writer) for writer in range(WRITERS)))
        assert failures
        await create(client, LAST)
        async with asyncio.timeout(60):
            found = await asyncio.gather(*reading)
    assert {201, 200, 409} <= statuses
    head = (await read(client, limit=1))["head"]
    assert head > WRITERS * WRITES / 2
    for one in found:
        check(one)
        assert one == found[0], "all of them see the same"
    assert len(found[0]) == head
    assert app.state.traffic.in_flight == sum(app.state.traffic.waiting.values()) == 0


async def test_lost_notifications_are_made_up_for_by_looking(own_url: URL, monkeypatch: pytest.MonkeyPatch) -> None:
    async def deaf(*_: object) -> None:
        """As a pooler makes it: the server takes the LISTEN, and nobody hears."""

    monkeypatch.setattr(asyncpg.Connection, "add_listener", deaf)
    app = own_app(own_url)
    catch_ups = "pricebook_feed_catch_ups_total"
    async with followed(app) as client:
        before = await samples(app)
        waiting = await begun(app, read(client, 1, wait=60))
        await create(client)
        assert (await waiting)["next_after"] == 2
        after = await samples(app)
    assert value(after, catch_ups, woken_by="poll") > value(before, catch_ups, woken_by="poll")
    assert value(after, catch_ups, woken_by="notification") == value(before, catch_ups, woken_by="notification")


async def test_a_notification_wakes_it_long_before_it_would_look(own_url: URL) -> None:
    app = own_app(own_url, feed_poll_seconds=60)
    async with followed(app) as client:
        waiting = await begun(app, read(client, 1, wait=60))
        async with asyncio.timeout(30):
            await create(client)
            assert (await waiting)["next_after"] == 2


def logged(caplog: pytest.LogCaptureFixture, event: str) -> list[JSON]:
    records: list[Any] = [record.msg for record in caplog.records]
    return [record for record in records if isinstance(record, dict) and record["event"] == event]


async def test_a_connection_that_is_cut_is_opened_again(
    own_url: URL, own_owner: asyncpg.Connection, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    followers = "FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'pricebook-follower'"
    app = own_app(own_url)
    async with followed(app) as client:
        waiting = await begun(app, read(client, 1, wait=60))
        for _ in range(3):
            assert await own_owner.fetch(f"SELECT pg_terminate_backend(pid) {followers}") == [(True,)]
            await until(lambda: not app.state.follower.live)
            await until(lambda: app.state.follower.live)
        assert not waiting.done()
        await create(client)
        assert (await waiting)["next_after"] == 2
        assert await own_owner.fetchval(f"SELECT count(*) {followers}") == 1
    assert len(logged(caplog, "follower cut off")) == len(logged(caplog, "follower back")) == 3
    assert await own_owner.fetchval(f"SELECT count(*) {followers}") == 0


async def test_a_connection_that_is_cut_is_noticed_long_before_it_would_look(
    own_url: URL, own_owner: asyncpg.Connection
) -> None:
    app = own_app(own_url, feed_poll_seconds=60)
    async with followed(app):
        pid = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'pricebook-follower'"
        assert await own_owner.fetch(f"{pid} AND datname = current_database()") == [(True,)]
        await until(lambda: not app.state.follower.live)


async def test_an_outage_is_logged_once_and_then_everything_is_made_up_for(
    server: URL, own_url: URL, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    app = own_app(own_url, feed_poll_seconds=0.02)
    async with followed(app) as client:
        waiting = await begun(app, read(client, 1, wait=60))
        async with without_database(server, own_url.database):
            await until(lambda: not app.state.follower.live)
            assert value(await samples(app), "pricebook_feed_listening") == 0
            assert slug(await client.get("/v1/changes?after=1")) == (503, "database-unavailable")
            assert slug(await client.get("/v1/changes?after=1&wait=9")) == (503, "database-unavailable")
            await asyncio.sleep(0.3)  # many attempts
        await until(lambda: app.state.follower.live)
        assert value(await samples(app), "pricebook_feed_listening") == 1
        assert not waiting.done()
        await create(client, LAST)
        assert (await waiting)["next_after"] == 2
    assert len(logged(caplog, "follower cut off")) == len(logged(caplog, "follower back")) == 1
    assert logged(caplog, "follower cut off")[0]["reason"]


async def test_a_database_that_is_away_at_the_start_is_followed_once_it_is_there(server: URL, own_url: URL) -> None:
    app = own_app(own_url)
    async with without_database(server, own_url.database), client_of(app) as client:
        assert slug(await client.get("/v1/changes?after=1&wait=9")) == (503, "database-unavailable")
        admin = await asyncpg.connect(postgres.text(server))
        await admin.execute(f'ALTER DATABASE "{own_url.database}" WITH ALLOW_CONNECTIONS true')
        await admin.close()
        await until(lambda: app.state.follower.live)
        waiting = await begun(app, read(client, 1, wait=60))
        await create(client)
        assert (await waiting)["next_after"] == 2


RESTORE = """
    SET session_replication_role = replica;
    DELETE FROM changes WHERE seq > 3; UPDATE ledger SET seq = 3;
    SET session_replication_role = DEFAULT;
"""


async def test_a_ledger_that_was_set_back_is_followed_anew(
    own_url: URL, own_owner: asyncpg.Connection, caplog: pytest.LogCaptureFixture
) -> None:
    app = own_app(own_url)
    async with followed(app) as client, serving(app) as url, httpx2.AsyncClient(base_url=url, timeout=60) as http:
        for number in range(5):
            await create(client, f"Before {number}")
        await until(lambda: app.state.follower.seq == 6)
        waiting = await begun(app, client.get("/v1/changes?after=6&wait=60"))
        async with events(http, 6) as stream:
            await until(lambda: app.state.traffic.waiting["stream"] == 1)
            await own_owner.execute(RESTORE)
            answer = await waiting
            assert slug(answer) == (409, "history-diverged")
            assert "the newest is 3" in answer.json()["detail"]
            assert [event async for event in stream] == [], "a stream ends, and its client is told when it comes again"
        assert [line["head"] for line in logged(caplog, "the ledger was replaced")] == [3]
        for number in range(5):
            await create(client, f"After {number}", description=LAST)
        found = (await read(client, 1, wait=60))["changes"]
        check(found, 2)
        names = ["Before 0", "Before 1", *(f"After {number}" for number in range(5))]
        assert [name(change) for change in found][: len(names)] == names[: len(found)]
        assert (await read(client, 3, wait=60))["changes"][0]["after"]["name"] == "After 0"


async def test_a_ledger_that_was_replaced_and_is_longer_by_now_is_followed_anew(
    own_url: URL, own_owner: asyncpg.Connection, caplog: pytest.LogCaptureFixture
) -> None:
    app = own_app(own_url)
    async with followed(app) as client:
        for number in range(3):
            await create(client, f"Item {number}")
        await until(lambda: app.state.follower.seq == 4)
        async with own_owner.transaction():
            await own_owner.execute("SET LOCAL session_replication_role = replica")
            await own_owner.execute("UPDATE changes SET actor = 'another', at = at + interval '1 hour' WHERE seq > 2")
        pid = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'pricebook-follower'"
        await own_owner.execute(f"{pid} AND datname = current_database()")
        await until(lambda: bool(logged(caplog, "the ledger was replaced")))
        await until(lambda: app.state.follower.live)
        actors = [change["actor"] for change in (await read(client, 1, wait=60))["changes"]]
    assert actors == ["anonymous", "another", "another"]


async def test_a_ledger_that_forgot_meanwhile_is_still_the_same(
    own_url: URL, own_owner: asyncpg.Connection, caplog: pytest.LogCaptureFixture
) -> None:
    app = own_app(own_url)
    async with followed(app) as client:
        await create(client, price={"amount": 1})
        await until(lambda: app.state.follower.seq == 3)
        await own_owner.execute("UPDATE ledger SET feed_floor = 3")
        pid = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'pricebook-follower'"
        await own_owner.execute(f"{pid} AND datname = current_database()")
        await until(lambda: bool(logged(caplog, "follower cut off")))
        await until(lambda: app.state.follower.live)
        await create(client, LAST)
        assert name((await read(client, 3, wait=60))["changes"][0]) == LAST
    assert logged(caplog, "the ledger was replaced") == []


async def test_a_change_that_cannot_be_rendered_is_a_defect(
    own_url: URL, own_owner: asyncpg.Connection, caplog: pytest.LogCaptureFixture
) -> None:
    event = "follower stopped by a change that cannot be rendered"
    app = own_app(own_url, feed_poll_seconds=0.02)
    async with followed(app) as client:
        await create(client)
        await until(lambda: app.state.follower.seq == 2)
        async with own_owner.transaction():
            await own_owner.execute("UPDATE ledger SET seq = 3")
            await own_owner.execute(
                "INSERT INTO changes (seq, at, actor, type, item_id, after) "
                "SELECT 3, at, actor, 'item.updated', item_id, '{}' FROM changes WHERE seq = 2"
            )
        await until(lambda: bool(logged(caplog, event)))
        await asyncio.sleep(0.2)  # many attempts
        await own_owner.execute("SET session_replication_role = replica")
        await own_owner.execute(
            "UPDATE changes SET after = first.after || '{\"of_a_later_release\": 1}' FROM changes AS first "
            "WHERE changes.seq = 3 AND first.seq = 2"
        )
        await until(lambda: app.state.follower.seq == 3)
        (change,) = (await read(client, 2, wait=60))["changes"]
        assert name(change) == "Frame"
        assert "of_a_later_release" not in change["after"]
    assert [line["seq"] for line in logged(caplog, event)] == [3]
    assert logged(caplog, "follower cut off") == []


BURST = """
    WITH head AS (UPDATE ledger SET seq = seq + 100 RETURNING seq - 100 AS seq, pg_notify('pricebook_changes', ''))
    INSERT INTO changes (seq, at, actor, type, item_id, after)
    SELECT head.seq + n, at + interval '1 microsecond' * n, actor, 'item.updated', item_id,
           after || jsonb_build_object('version', n)
    FROM head, changes, generate_series(1, 100) AS n WHERE changes.seq = 2
"""


async def test_those_who_just_go_to_ask_again_count_as_waiting(
    own_url: URL, own_owner: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(follower_module, "_MOST_CHANGES", 10)
    app = own_app(own_url)
    follower: Follower = app.state.follower
    async with followed(app) as client:
        await create(client)
        await until(lambda: follower.seq == 2)
        # A stream that sends what it has is not parked at that instant.
        monkeypatch.setitem(app.state.traffic.waiting, "stream", 1)
        await own_owner.execute(BURST)
        await until(lambda: follower.seq == 102)
        assert len(follower.window) == 10


@pytest.mark.parametrize("waits", [True, False])
async def test_a_burst_larger_than_the_window_loses_nobody(
    own_url: URL, own_owner: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch, *, waits: bool
) -> None:
    monkeypatch.setattr(follower_module, "_MOST_CHANGES", 10)
    monkeypatch.setattr(follower_module, "_AT_ONCE", 4)
    app = own_app(own_url)
    follower: Follower = app.state.follower
    async with followed(app) as client, serving(app) as url, httpx2.AsyncClient(base_url=url, timeout=60) as http:
        await create(client)
        await until(lambda: follower.seq == 2)
        reading = []
        if waits:
            reading = [
                asyncio.ensure_future(one)
                for one in (consume(client, 2, wait=60, limit=5), consume(client, 2, wait=60), listen(http, 2))
            ]
            await until(lambda: sum(app.state.traffic.waiting.values()) == 3)
        for _ in range(3):
            await own_owner.execute(BURST)
        await until(lambda: follower.seq == 302)
        assert len(follower.window) == (10 if waits else 0), "without anybody to read it, it is not read"
        await create(client, LAST)
        reading += [asyncio.ensure_future(one) for one in (consume(client, 2), listen(http, 2))]
        async with asyncio.timeout(60):
            found = await asyncio.gather(*reading)
        assert len(follower.window) <= 10
    for one in found:
        check(one, 3)
        assert len(one) == 301


async def test_those_who_are_behind_share_few_connections(
    own_url: URL, own_owner: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = own_app(own_url, database_pool_size=4, database_pool_timeout_seconds=0.5)
    reader = app.state.database.reader
    async with followed(app) as client:
        for number in range(12):
            await create(client, f"Item {number}")
        # The follower knows nothing, as one that has just begun.
        await until(lambda: app.state.follower.seq == 13)
        app.state.follower.window.start_at(Position(13, app.state.follower.window.at))

        with statements(app) as reads:
            async with own_owner.transaction():
                await own_owner.execute("LOCK TABLE price_rows IN ACCESS EXCLUSIVE MODE")
                asking = [
                    asyncio.ensure_future(client.get(f"/v1/changes?after={after}&wait=60"))
                    for after in [1] * 20 + [2] * 20
                ]
                asking += [asyncio.ensure_future(client.get(f"/v1/changes?after={after}")) for after in range(3, 9)]
                await until(lambda: len(reads) == 2)
                # Who asked first may leave.
                asking.pop(0).cancel()
                await asyncio.sleep(0.7)
                assert reader.pool.checkedout() == len(reads) == 2
                async with app.state.database.reading() as session:
                    assert await session.scalar(text("SELECT 1")) == 1, "the others are left to the rest of the service"
            found = await asyncio.gather(*asking)
    assert [answer.status_code for answer in found] == [200] * 45
    for answer in found:
        check(answer.json()["changes"], int(answer.request.url.params["after"]) + 1)
    assert sum("changes" in statement for statement in reads) == 2 + 6, "what is asked alike is read once"


async def test_a_follower_that_hangs_is_seen_to_lag(own_url: URL, own_owner: asyncpg.Connection) -> None:
    app = own_app(own_url, ledger_watch_seconds=0.05)
    async with followed(app) as client:
        assert value(await samples(app), "pricebook_feed_lag_seconds") == 0
        async with own_owner.transaction():
            # It holds up the feed's reads, and not those of the ledger.
            await own_owner.execute("LOCK TABLE price_rows IN ACCESS EXCLUSIVE MODE")
            await client.post("/v1/books", json={"key": "other", "name": "Other", "currency": "EUR"})
            await until(lambda: app.state.follower.lag_seconds > 0.2)
            found = await samples(app)
            assert value(found, "pricebook_feed_seq") == 1
            assert value(found, "pricebook_ledger_seq") == 2
        await until(lambda: app.state.follower.lag_seconds == 0)
        assert value(await samples(app), "pricebook_feed_seq") == 2


async def test_it_ends_with_the_application_and_sends_everybody_home(own_url: URL) -> None:
    app = own_app(own_url)
    before = asyncio.all_tasks()
    async with asyncio.timeout(20):
        async with followed(app) as client:
            waiting = await begun(app, read(client, 1, wait=60))
            app.state.traffic.draining = True
            page = await waiting
            assert (page["changes"], page["next_after"], page["head"]) == ([], 1, 1)
            assert (await read(client, 1, wait=60))["changes"] == [], "nobody waits for a process that stops"
    assert asyncio.all_tasks() <= before | {asyncio.current_task()}
