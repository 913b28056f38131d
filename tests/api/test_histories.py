"""A past that was replaced: whoever followed another ledger is told so, also when the new one has grown beyond it."""

import asyncio
from typing import Any

import asyncpg
import httpx2
import pytest
from sqlalchemy.engine import URL

from app.database import ReadSession
from app.feed_position import Position
from app.feed_window import Page, Question
from app.follower import Follower
from app.services import changes
from tests.api.test_changes import begun, create, read, seq_of, until
from tests.api.test_feed_follower import followed, logged, own_app
from tests.api.test_feed_retention import AGE, BLOCK, finished
from tests.api.test_trouble import slug
from tests.support.feed import events, serving

JSON = dict[str, Any]
Client = httpx2.AsyncClient

LAST_KEPT = 3
SET_BACK = (
    "DELETE FROM changes WHERE seq > $1",
    "UPDATE ledger SET (seq, recorded_at) = (SELECT seq, at FROM changes WHERE seq = $1)",
)
REGROW = """
    WITH ledger AS (UPDATE ledger SET seq = seq + $1, recorded_at = clock_timestamp() RETURNING seq, recorded_at)
    INSERT INTO changes (seq, at, actor, type, item_id, after)
    SELECT ledger.seq - n, recorded_at, 'another', type, item_id, after
    FROM ledger, changes, generate_series(0, $1 - 1) AS n WHERE changes.seq = 2
"""


async def set_back(owner: asyncpg.Connection, *, then: int = 0, notify: bool = True) -> None:
    """Restore what was known after the last change that is kept, and write so many others, all in one step."""
    async with owner.transaction():
        await owner.execute("SET LOCAL session_replication_role = replica")
        for statement in SET_BACK:
            await owner.execute(statement, LAST_KEPT)
        if then:
            await owner.execute(REGROW, then)
        await owner.execute("SET LOCAL session_replication_role = DEFAULT")
        if notify:
            await owner.execute("NOTIFY pricebook_changes")


def pair(page: JSON) -> JSON:
    """What a consumer keeps of a page, and sends to go on."""
    return {"after": page["next_after"], "after_at": page["next_after_at"]}


async def filled(client: Client, changes: int) -> JSON:
    """The position of a consumer that has so many changes, after the book that is there from the start."""
    for number in range(changes - 1):
        await create(client, f"Before {number}")
    return pair(await read(client, limit=1000))


@pytest.mark.parametrize("wait", [0, 60])
async def test_every_page_says_when_its_last_change_was_recorded(own_url: URL, wait: int) -> None:
    app = own_app(own_url)
    async with followed(app) as client:
        for number in range(4):
            await create(client, f"Item {number}", price={"amount": number})
        await until(lambda: app.state.follower.seq == 9)
        at = {change["seq"]: change["at"] for change in (await read(client))["changes"]}
        at_of_all = [at[seq] for seq in range(1, 10)]
        assert at_of_all == sorted(at_of_all)
        for after in range(9):
            for types in ({}, {"types": "price.recorded"}):
                page = await read(client, after, limit=2, wait=wait, **types)
                assert page["next_after_at"] == at[page["next_after"]]
                # It is what it takes to go on, wherever the answer comes from.
                following = {**pair(page), "wait": wait} if page["next_after"] < 9 else pair(page)
                assert (await client.get("/v1/changes", params=following)).status_code == 200
    # Of an app that has just begun, which knows nothing but the newest change.
    app = own_app(own_url)
    async with followed(app) as client:
        assert (await read(client, 9, wait=1, after_at=at[9]))["next_after_at"] == at[9]


async def test_a_page_that_finds_nothing_says_when_the_last_change_it_looked_at_was_recorded(
    own_url: URL, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(changes, "_MOST_LOOKED_AT", 3)
    async with followed(own_app(own_url)) as client:
        await filled(client, 6)
        everything = await read(client, limit=1000) | {"changes": []}
        at = {}
        for seq in range(1, 7):
            (change,) = (await read(client, seq - 1, limit=1))["changes"]
            at[seq] = change["at"]
        page = await read(client, 1, types="book.updated")
        assert pair(page) == {"after": 4, "after_at": at[4]}
        page = await read(client, 4, types="book.updated")
        assert pair(page) == {"after": 6, "after_at": at[6]}
        assert everything["head"] == 6


# One more, exactly as many as before, and one fewer than the consumer has.
@pytest.mark.parametrize("then", [0, 2, 3, 4, 50])
@pytest.mark.parametrize("wait", [0, 60])
async def test_who_followed_another_ledger_is_told_so(
    own_url: URL, own_owner: asyncpg.Connection, then: int, wait: int
) -> None:
    app = own_app(own_url)
    async with followed(app) as client:
        ahead = await filled(client, LAST_KEPT + 3)
        at_backup = pair(await read(client, LAST_KEPT - 1, limit=1))
        behind = pair(await read(client, LAST_KEPT - 2, limit=1))
        await until(lambda: app.state.follower.seq == LAST_KEPT + 3)
        await set_back(own_owner, then=then)
        await until(lambda: app.state.follower.window.at is not None and app.state.follower.seq == LAST_KEPT + then)
        answer = await client.get("/v1/changes", params={**ahead, "wait": wait})
        assert slug(answer) == (409, "history-diverged")
        assert answer.json()["errors"][0]["pointer"] == "query/after_at"
        assert f"change {LAST_KEPT + 3}, recorded at {ahead['after_at']}" in answer.json()["detail"]
        assert "Take a snapshot" in answer.json()["detail"]
        if then < 3:
            assert f"the newest is {LAST_KEPT + then}" in answer.json()["detail"]
        # Those whose past is in the backup go on, and get what the new ledger has.
        for position in (at_backup, behind):
            page = await read(client, **position, limit=1000, **({"wait": wait} if then else {}))
            assert [change["seq"] for change in page["changes"]] == list(
                range(position["after"] + 1, LAST_KEPT + then + 1)
            )
            assert [change["actor"] for change in page["changes"] if change["seq"] > LAST_KEPT] == ["another"] * then


async def test_without_the_instant_a_seq_that_there_is_again_is_taken(
    own_url: URL, own_owner: asyncpg.Connection
) -> None:
    async with followed(own_app(own_url)) as client:
        ahead = await filled(client, LAST_KEPT + 3)
        await set_back(own_owner, then=10)
        page = await read(client, ahead["after"])
        assert page["changes"][0]["seq"] == ahead["after"] + 1


async def test_a_poll_that_began_before_ends_with_the_news(own_url: URL, own_owner: asyncpg.Connection) -> None:
    """Also one that did not say which ledger it follows: it knows since its first look."""
    app = own_app(own_url)
    async with followed(app) as client:
        ahead = await filled(client, LAST_KEPT + 3)
        await until(lambda: app.state.follower.seq == ahead["after"])
        for sent in (["after", "after_at"], ["after"]):
            parameters = {name: ahead[name] for name in sent}
            waiting = await begun(app, client.get("/v1/changes", params={**parameters, "wait": 60}))
            await set_back(own_owner, then=7)
            assert slug(await waiting) == (409, "history-diverged")
            # The next one follows what is there now.
            await until(lambda: app.state.follower.seq == LAST_KEPT + 7)
            ahead = pair(await read(client, limit=1000))


async def test_a_stream_that_began_before_ends(own_url: URL, own_owner: asyncpg.Connection) -> None:
    app = own_app(own_url)
    async with followed(app) as client, serving(app) as url, Client(base_url=url, timeout=60) as http:
        ahead = await filled(client, LAST_KEPT + 3)
        await until(lambda: app.state.follower.seq == ahead["after"])
        async with events(http, ahead["after"] - 1) as stream:
            last = await anext(stream)
            assert last["id"] == f"{ahead['after']}@{ahead['after_at']}"
            await until(lambda: app.state.traffic.waiting["stream"] == 1)
            await set_back(own_owner, then=7)
            assert [event async for event in stream] == [], "nothing of the other ledger"
        # A client that connects again, as all of them do by themselves, is told why.
        headers = {"accept": "text/event-stream", "last-event-id": last["id"]}
        assert slug(await http.get("/v1/changes", params={"after": 1}, headers=headers)) == (409, "history-diverged")
        async with events(http, 1, last_event_id=str(ahead["after"])) as stream:
            assert seq_of(await anext(stream)) == ahead["after"] + 1, "a seq alone can be of any ledger"


async def test_a_follower_that_has_not_noticed_yet_refuses_nobody(
    own_url: URL, own_owner: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its memory does not say which ledger is right: that is the database's."""
    app = own_app(own_url)
    async with followed(app) as client:
        ahead = await filled(client, LAST_KEPT + 3)
        await until(lambda: app.state.follower.seq == ahead["after"])
        await set_back(own_owner, then=7)
        page = pair(await read(client, ahead["after"] - 1, limit=1))
        await until(lambda: app.state.follower.seq == LAST_KEPT + 7)
        window = app.state.follower.window
        window.start_at(Position(ahead["after"], window.at))
        monkeypatch.setattr(app.state.follower, "live", True)
        assert (await read(client, **page, wait=60))["changes"][0]["seq"] == ahead["after"] + 1
        assert slug(await client.get("/v1/changes", params={**ahead, "wait": 60})) == (409, "history-diverged")


@pytest.mark.parametrize("streams", [False, True], ids=["poll", "stream"])
@pytest.mark.parametrize("behind", [False, True], ids=["within its memory", "before its memory"])
async def test_who_waits_beside_a_follower_that_has_not_noticed_yet_does_not_ask_all_the_time(
    own_url: URL, own_owner: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch, *, streams: bool, behind: bool
) -> None:
    app = own_app(own_url, feed_poll_seconds=60)
    follower: Follower = app.state.follower
    looks = 0
    read_page = changes.read_page

    async def counted(session: ReadSession, question: Question) -> Page:
        nonlocal looks
        looks += 1
        return await read_page(session, question)

    async with followed(app) as client, serving(app) as url, Client(base_url=url, timeout=60) as http:
        ahead = await filled(client, LAST_KEPT + 9)
        await until(lambda: follower.seq == ahead["after"])
        if behind:
            follower.window.start_at(Position(follower.seq, follower.window.at))
        await set_back(own_owner, then=3, notify=False)
        newest = pair(await read(client, limit=1000))
        assert newest["after"] < follower.seq
        monkeypatch.setattr(changes, "read_page", counted)
        if streams:
            headers = {"accept": "text/event-stream"}
            async with http.stream("GET", "/v1/changes", params=newest, headers=headers):
                await until(lambda: app.state.traffic.waiting["stream"] == 1)
                await asyncio.sleep(1)
        else:
            waited = await read(client, **newest, wait=1)
            assert (waited["changes"], waited["next_after"]) == ([], newest["after"])
        # At the beginning, and at the end of the wait.
        assert 1 <= looks <= 2


async def test_a_look_that_began_before_the_news_is_not_taken_for_one_after_it(
    own_url: URL, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = own_app(own_url, feed_poll_seconds=60)
    follower: Follower = app.state.follower
    held, begun_looks = asyncio.Event(), 0
    read_page = changes.read_page

    async def slow(session: ReadSession, question: Question) -> Page:
        nonlocal begun_looks
        begun_looks += 1
        page = await read_page(session, question)
        await held.wait()
        return page

    async with followed(app) as client:
        newest = pair(await read(client, limit=1000))
        monkeypatch.setattr(changes, "read_page", slow)
        # Not from memory, as while the follower is on another ledger.
        monkeypatch.setattr(follower, "page", lambda _: None)
        first = asyncio.create_task(read(client, **newest, wait=60))
        await until(lambda: begun_looks == 1)
        moves = follower.moves
        await create(client, "News")
        await until(lambda: follower.moves > moves)
        second = asyncio.create_task(read(client, **newest, wait=60))
        await until(lambda: app.state.traffic.in_flight == 2)
        await asyncio.sleep(0.1)
        held.set()
        async with asyncio.timeout(30):
            for page in await asyncio.gather(first, second):
                assert [change["after"]["name"] for change in page["changes"]] == ["News"]


async def test_a_follower_notices_without_losing_its_connection(
    own_url: URL, own_owner: asyncpg.Connection, caplog: pytest.LogCaptureFixture
) -> None:
    app = own_app(own_url)
    async with followed(app) as client:
        ahead = await filled(client, LAST_KEPT + 3)
        await until(lambda: app.state.follower.seq == ahead["after"])
        await set_back(own_owner, then=7)
        await until(lambda: bool(logged(caplog, "the ledger was replaced")))
        await until(lambda: app.state.follower.seq == LAST_KEPT + 7)
        actors = [change["actor"] for change in (await read(client, LAST_KEPT, wait=60))["changes"]]
    assert actors == ["another"] * 7
    assert len(logged(caplog, "the ledger was replaced")) == 1
    assert logged(caplog, "follower cut off") == []


async def test_changes_that_were_forgotten_are_checked_all_the_same(
    own_url: URL, own_owner: asyncpg.Connection
) -> None:
    """Of each instant the feed keeps the last change, and those before it have the same instant."""
    app = own_app(own_url, feed_retention_days=1, housekeeping_seconds=1)
    async with followed(app) as client:
        item = await create(client)
        await own_owner.execute(BLOCK, item["id"])
        await own_owner.execute(AGE)
        page = await read(client, limit=1000)
        await finished(own_owner, page["head"])
        gone = await own_owner.fetchval(
            "SELECT max(seq) FROM generate_series(3, 41) AS seq WHERE seq NOT IN (SELECT seq FROM changes)"
        )
        assert gone == 41, "the last one of the block is kept"
        # The floor is beyond it: the snapshot is what it needs in any case, but the history is the same one.
        right = {"after": gone, "after_at": page["next_after_at"]}
        assert slug(await client.get("/v1/changes", params=right)) == (410, "feed-truncated")
        wrong = {"after": gone, "after_at": "2020-01-01T00:00:00Z"}
        assert slug(await client.get("/v1/changes", params=wrong)) == (409, "history-diverged")
        await own_owner.execute("UPDATE ledger SET feed_floor = 41")
        assert (await client.get("/v1/changes", params=right)).status_code == 200
        export = await client.get("/v1/export?format=snapshot&known_seq=41")
        assert export.headers["pricebook-recorded-at"] == page["next_after_at"]


@pytest.mark.parametrize("form", ["csv", "ndjson", "snapshot"])
async def test_an_export_has_the_pair_that_the_feed_goes_on_from(
    own_url: URL, own_owner: asyncpg.Connection, form: str
) -> None:
    app = own_app(own_url)
    async with followed(app) as client:
        ahead = await filled(client, LAST_KEPT + 3)
        for query in ({}, {"known_seq": LAST_KEPT}):
            headers = (await client.get("/v1/export", params={"format": form, **query})).headers
            position: JSON = {"after": int(headers["pricebook-seq"]), "after_at": headers["pricebook-recorded-at"]}
            assert position == (pair(await read(client, LAST_KEPT - 1, limit=1)) if query else ahead)
            assert (await client.get("/v1/changes", params=position)).status_code == 200
        await set_back(own_owner, then=10)
        assert slug(await client.get("/v1/changes", params=ahead)) == (409, "history-diverged")
