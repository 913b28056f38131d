"""The feed: every change once and in order, by pages, long polls and streams."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import asyncpg
import httpx2
import pytest
from fastapi import FastAPI

from app import feed
from app.feed_position import Position
from app.feed_window import Page, Question
from app.models import ChangeType
from app.services import changes
from app.traffic import Place
from tests.api.test_statements import statements
from tests.observability.test_metrics import samples, value
from tests.support.feed import events, serving

JSON = dict[str, Any]


@pytest.fixture
async def over_http(app: FastAPI, client: httpx2.AsyncClient) -> AsyncIterator[httpx2.AsyncClient]:
    """A client that receives answers as they come."""
    async with serving(app) as url, httpx2.AsyncClient(base_url=url, timeout=60) as opened:
        yield opened


async def read(client: httpx2.AsyncClient, after: int = 0, **parameters: Any) -> JSON:
    answer = await client.get("/v1/changes", params={"after": after, **parameters})
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["cache-control"] == "no-store"
    page: JSON = answer.json()
    return page


async def create(client: httpx2.AsyncClient, name: str = "Frame", **fields: Any) -> JSON:
    answer = await client.post("/v1/items", json={"name": name, **fields})
    assert answer.status_code == 201, answer.text
    item: JSON = answer.json()
    return item


async def position(client: httpx2.AsyncClient, seq: int) -> JSON:
    """Where a page that ends with this change says to go on."""
    (change,) = (await read(client, seq - 1, limit=1))["changes"]
    return {"next_after": seq, "next_after_at": change["at"]}


def seq_of(event: JSON) -> int:
    return int(event["id"].partition("@")[0])


def without_price(item: JSON) -> JSON:
    return {name: value for name, value in item.items() if name != "price"}


async def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.005)


async def begun(app: FastAPI, request: Awaitable[Any], waiters: int = 1) -> asyncio.Task[Any]:
    """A request that waits for a change."""
    task = asyncio.ensure_future(request)
    await until(lambda: sum(app.state.traffic.waiting.values()) == waiters or task.done())
    assert not task.done(), "it should wait"
    return task


async def test_every_type_of_change_holds_the_documents_that_were_answered(client: httpx2.AsyncClient) -> None:
    book = (await client.post("/v1/books", json={"key": "retail", "name": "Retail", "currency": "JPY"})).json()
    patch = {"rounding": {"cash_increment": "5"}}
    patched = (await client.patch("/v1/books/retail", json=patch, headers={"if-match": '"1"'})).json()
    attributes = {"b": True, "a": 1, "long name": "x"}
    item = without_price(await create(client, sku="FR-1", attributes=attributes))
    path = f"/v1/items/{item['id']}"
    renamed = (await client.patch(path, json={"name": "Rahmen"}, headers={"if-match": '"1"'})).json()
    row = {"book": "retail", "amount": "1200", "per": "100", "min_quantity": "2.5", "valid_from": "2026-01-01"}
    first = (await client.post(f"{path}/prices", json={**row, "valid_to": "2030-01-01T00:00:00.5Z"})).json()
    second = (await client.post(f"{path}/prices", json={**row, "supersedes": first["id"], "reason": "typo"})).json()
    voided = (await client.delete(f"/v1/prices/{second['id']}")).json()
    archived = (await client.delete(path, headers={"if-match": '"2"'})).json()
    default = (await client.get("/v1/books/default")).json()

    page = await read(client)
    assert page["next_after"] == page["head"] == 9
    expected = [
        ("book.created", None, "default", None, default),
        ("book.created", None, "retail", None, book),
        ("book.updated", None, "retail", book, patched),
        ("item.created", item["id"], None, None, item),
        ("item.updated", item["id"], None, item, renamed),
        ("price.recorded", item["id"], "retail", None, first),
        ("price.recorded", item["id"], "retail", first, second),
        ("price.voided", item["id"], "retail", second, voided),
        ("item.archived", item["id"], None, renamed, archived),
    ]
    assert {kind for kind, *_ in expected} == set(ChangeType)
    fields = ["seq", "at", "actor", "type", "item_id", "book", "before", "after"]
    for seq, (change, (kind, item_id, key, before, after)) in enumerate(
        zip(page["changes"], expected, strict=True), start=1
    ):
        assert list(change) == fields
        assert (change["seq"], change["type"], change["item_id"], change["book"]) == (seq, kind, item_id, key)
        assert change["actor"] == ("migration" if seq == 1 else "anonymous")
        # As text: the order of the fields is theirs, too.
        assert [json.dumps(change["before"]), json.dumps(change["after"])] == [json.dumps(before), json.dumps(after)]
    assert page["changes"][5]["at"] == first["recorded_at"]
    assert voided["void"] is True


async def test_pages_join_without_gap_or_overlap(client: httpx2.AsyncClient) -> None:
    for number in range(5):
        await create(client, f"Item {number}", price={"amount": number})
    seen: list[int] = []
    after = 0
    while True:
        page = await read(client, after, limit=3)
        assert page["head"] == 11
        seen += [change["seq"] for change in page["changes"]]
        after = page["next_after"]
        if not page["changes"]:
            break
        assert page["next_after"] == seen[-1]
    assert seen == list(range(1, 12))


async def test_types_leave_changes_out_and_go_on_past_them(client: httpx2.AsyncClient) -> None:
    for number in range(4):
        await create(client, f"Item {number}", price={"amount": number})
    page = await read(client, 1, types="price.recorded", limit=2)
    assert ([change["seq"] for change in page["changes"]], page["next_after"]) == ([3, 5], 5)
    page = await read(client, 5, types="price.recorded,price.voided")
    assert ([change["seq"] for change in page["changes"]], page["next_after"]) == ([7, 9], 9)
    page = await read(client, 1, types="book.updated")
    assert (page["changes"], page["next_after"], page["head"]) == ([], 9, 9)


async def test_one_statement_looks_at_only_so_many_changes(
    client: httpx2.AsyncClient, owner: asyncpg.Connection
) -> None:
    item = await create(client, "Late")
    await owner.execute(
        "INSERT INTO changes (seq, at, actor, type, item_id, after) SELECT 2 + n, at + n * interval '1 microsecond', "
        "actor, 'item.updated', item_id, after FROM changes, generate_series(1, 12000) AS n WHERE seq = 2"
    )
    await owner.execute("UPDATE ledger SET seq = 12002")
    page = await read(client, 2, types="item.created")
    assert (page["changes"], page["next_after"], page["head"]) == ([], 10_002, 12_002)
    page = await read(client, 10_002, types="item.updated", limit=1000)
    assert page["next_after"] == 11_002
    assert page["changes"][0]["after"]["id"] == item["id"]


LARGE = """
    INSERT INTO changes (seq, at, actor, type, item_id, after)
    SELECT 2 + n, at + n * interval '1 microsecond', actor, 'item.updated', item_id,
        after || jsonb_build_object('description', repeat('x', 10000))
    FROM changes, generate_series(1, 300) AS n WHERE seq = 2
"""


@pytest.mark.parametrize("wait", [0, 60])
async def test_a_page_of_large_documents_ends_early(
    app: FastAPI, client: httpx2.AsyncClient, owner: asyncpg.Connection, wait: int
) -> None:
    await create(client)
    await owner.execute(LARGE)
    await owner.execute("UPDATE ledger SET seq = 302")
    await until(lambda: app.state.follower.seq == 302)
    if not wait:
        # From the database, as for everybody who is behind.
        app.state.follower.window.start_at(Position(302, app.state.follower.window.at))
    seen: list[int] = []
    sizes = []
    while not seen or seen[-1] < 302:
        answer = await client.get("/v1/changes", params={"after": seen[-1] if seen else 2, "limit": 1000, "wait": wait})
        sizes.append(len(answer.content))
        page = answer.json()
        seen += [change["seq"] for change in page["changes"]]
        assert page["next_after"] == seen[-1]
    assert seen == list(range(3, 303))
    assert len(sizes) == 3
    assert max(sizes) < 2**20 + 20_000


async def test_others_get_their_turn_while_a_page_is_rendered(
    app: FastAPI, client: httpx2.AsyncClient, owner: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    await create(client)
    await owner.execute(LARGE.replace("10000", "1").replace("300", "1000"))
    await owner.execute("UPDATE ledger SET seq = 1002")
    await until(lambda: app.state.follower.seq == 1002)
    rendered, turns = 0, []
    render = changes._rendered

    def count(row: Any) -> Any:
        nonlocal rendered
        rendered += 1
        return render(row)

    async def look() -> None:
        while True:
            turns.append(rendered)
            await asyncio.sleep(0)

    monkeypatch.setattr(changes, "_rendered", count)
    looking = asyncio.create_task(look())
    assert len((await read(client, 2, limit=1000))["changes"]) == 1000
    looking.cancel()
    assert {200, 400, 600, 800} <= set(turns)


@pytest.mark.parametrize("after", [2**63 - 1, 2**63 - 2, 2**63 - 10_001, 2**63 - 10_002, 10**18])
async def test_a_cursor_near_the_end_of_numbers_is_ahead_of_the_ledger(
    client: httpx2.AsyncClient, over_http: httpx2.AsyncClient, after: int
) -> None:
    stream = {"accept": "text/event-stream"}
    for answer in (
        await client.get(f"/v1/changes?after={after}"),
        await client.get(f"/v1/changes?after={after}&types=price.voided"),
        await client.get(f"/v1/changes?after={after}&wait=1"),
        await over_http.get(f"/v1/changes?after={after}", headers=stream),
        await over_http.get("/v1/changes", headers={**stream, "last-event-id": str(after)}),
    ):
        assert (answer.status_code, answer.json()["type"]) == (422, "/problems/unknown-seq")


async def test_a_page_without_wait_has_what_was_written_before(client: httpx2.AsyncClient) -> None:
    for number in range(20):
        await create(client, f"Item {number}")
        page = await read(client, number + 1)
        assert [change["seq"] for change in page["changes"]] == [number + 2]


@pytest.mark.parametrize(("types", "seqs"), [("", [2]), ("price.recorded", [3])])
async def test_a_long_poll_ends_with_the_next_change(
    app: FastAPI, client: httpx2.AsyncClient, types: str, seqs: list[int]
) -> None:
    parameters = {"types": types} if types else {}
    waiting = await begun(app, read(client, 1, wait=60, limit=1, **parameters))
    assert (app.state.traffic.in_flight, app.state.traffic.waiting["poll"]) == (0, 1)
    await create(client, price={"amount": 1})
    page = await waiting
    assert [change["seq"] for change in page["changes"]] == seqs
    assert app.state.traffic.waiting["poll"] == app.state.traffic.in_flight == 0


async def test_a_long_poll_without_a_change_ends_empty(app: FastAPI, client: httpx2.AsyncClient) -> None:
    waiting = await begun(app, read(client, 1, wait=1, types="book.updated"))
    await create(client)
    assert await waiting == {"changes": [], **await position(client, 2), "head": 2}


async def test_a_long_poll_with_something_to_say_does_not_wait(client: httpx2.AsyncClient) -> None:
    await create(client)
    assert (await read(client, 1, wait=60))["next_after"] == 2
    assert (await read(client, 0, wait=60, limit=1))["next_after"] == 1


async def test_waiting_is_no_latency(app: FastAPI, client: httpx2.AsyncClient, over_http: httpx2.AsyncClient) -> None:
    async def seconds() -> float:
        return value(await samples(app), "pricebook_request_seconds_sum", outcome="answered")

    before = await seconds()
    await read(client, 1, wait=2)
    async with events(over_http, 1):
        await asyncio.sleep(1)
    await until(lambda: not sum(app.state.traffic.waiting.values()))
    assert await seconds() - before < 1


async def test_waiting_for_a_change_asks_the_database_nothing(app: FastAPI, client: httpx2.AsyncClient) -> None:
    await create(client)
    await until(lambda: app.state.follower.seq == 2)
    with statements(app) as seen:
        waiting = await begun(app, read(client, 2, wait=60))
    assert seen == []
    await create(client, "Second")
    assert (await waiting)["next_after"] == 3
    await until(lambda: app.state.follower.seq == 3)
    with statements(app) as seen:
        assert (await read(client, 1, wait=60))["next_after"] == 3
    assert seen == [], "what is in memory is answered from there"


@pytest.mark.parametrize("parameters", [{}, {"wait": 60}], ids=["page", "poll"])
async def test_a_cursor_ahead_of_the_ledger_is_told_so(client: httpx2.AsyncClient, parameters: JSON) -> None:
    answer = await client.get("/v1/changes", params={"after": 2, **parameters})
    assert (answer.status_code, answer.json()["type"]) == (422, "/problems/unknown-seq")
    assert "newest change is 1" in answer.json()["detail"]
    assert "set back" in answer.json()["detail"]


@pytest.mark.parametrize(
    ("query", "pointer"),
    [
        ("after=-1", "query/after"),
        ("after=9223372036854775808", "query/after"),
        ("after=x", "query/after"),
        ("limit=0", "query/limit"),
        ("limit=1001", "query/limit"),
        ("wait=61", "query/wait"),
        ("wait=-1", "query/wait"),
        ("types=item.created,item.deleted", "query/types"),
        ("types=", "query/types"),
        ("since=1", "query/since"),
        ("after=1&after_at=x", "query/after_at"),
        ("after=1&after_at=2026-11-22", "query/after_at"),
        ("after=0&after_at=2026-11-22T09:30:00Z", "query/after_at"),
        ("after_at=2026-11-22T09:30:00Z", "query/after_at"),
    ],
)
async def test_bad_input(client: httpx2.AsyncClient, query: str, pointer: str) -> None:
    answer = await client.get(f"/v1/changes?{query}")
    assert (answer.status_code, answer.json()["type"]) == (422, "/problems/invalid-request")
    assert [fault["pointer"] for fault in answer.json()["errors"]] == [pointer]


@pytest.mark.parametrize(
    "event_id",
    ["x", "", "-1", "9223372036854775808", "1@", "1@x", "1@2026-11-22", "0@2026-11-22T09:30:00Z", "1@1@1", "1" * 70],
)
async def test_bad_event_ids(client: httpx2.AsyncClient, event_id: str) -> None:
    headers = {"accept": "text/event-stream", "last-event-id": event_id}
    answer = await client.get("/v1/changes", headers=headers)
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, "header/last-event-id")
    # A page would pass it over, and what is wrong shall not look right.
    assert (await client.get("/v1/changes", headers={"last-event-id": event_id})).status_code == 422


async def test_bad_headers(client: httpx2.AsyncClient) -> None:
    answer = await client.get("/v1/changes", headers={"accept": "text/html"})
    assert answer.status_code == 406
    assert "application/json, text/event-stream" in answer.json()["detail"]
    answer = await client.get("/v1/books", headers={"accept": "text/event-stream"})
    assert answer.status_code == 406
    for accept in (
        "*/*",
        "application/*",
        "text/html, application/json",
        "text/event-stream;q=0, application/json",
        "text/event-stream, application/json",
        "application/json, text/event-stream;q=0.9",
        "text/html, text/*, */*;q=0.8",
    ):
        answer = await client.get("/v1/changes", headers={"accept": accept})
        assert answer.headers["content-type"] == "application/json"


@pytest.mark.parametrize(
    "accept", ["Text/Event-Stream", "text/event-stream, */*", "application/json;q=0.5, text/event-stream"]
)
async def test_who_prefers_events_gets_them(over_http: httpx2.AsyncClient, accept: str) -> None:
    async with over_http.stream("GET", "/v1/changes", headers={"accept": accept}) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")


async def test_a_stream_sends_what_there_is_and_what_comes(
    app: FastAPI, client: httpx2.AsyncClient, over_http: httpx2.AsyncClient
) -> None:
    await create(client, "Line\u2028end \U0001f381", price={"amount": 1})
    async with events(over_http, 0) as stream:
        received = [await anext(stream) for _ in range(3)]
        await until(lambda: app.state.traffic.waiting["stream"] == 1)
        assert app.state.traffic.in_flight == 0
        await create(client, "Second")
        received.append(await anext(stream))
    page = await read(client)
    assert [(event["id"], event["event"]) for event in received] == [
        (f"{change['seq']}@{change['at']}", change["type"]) for change in page["changes"]
    ]
    assert [json.loads(event["data"]) for event in received] == page["changes"]
    await until(lambda: app.state.traffic.waiting["stream"] == 0)


async def test_a_stream_goes_on_after_the_last_event(client: httpx2.AsyncClient, over_http: httpx2.AsyncClient) -> None:
    await create(client, price={"amount": 1})
    async with events(over_http, 0, last_event_id="2") as stream:
        assert seq_of(await anext(stream)) == 3
    async with events(over_http, 0, types="item.created") as stream:
        assert seq_of(await anext(stream)) == 2


async def test_a_silent_stream_has_a_heart_beat(
    client: httpx2.AsyncClient, over_http: httpx2.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed, "HEARTBEAT_SECONDS", 0.05)
    async with events(over_http, 1, types="book.updated") as stream:
        assert await anext(stream) == {"comment": ""}
        await create(client)
        # What is left out moves the cursor all the same, once.
        async for event in stream:
            if event != {"comment": ""}:
                at = (await position(client, 2))["next_after_at"]
                assert event == {"comment": "", "id": f"2@{at}"}
                break
        assert await anext(stream) == {"comment": ""}
        await client.patch("/v1/books/default", json={"name": "Other"}, headers={"if-match": '"1"'})
        async for event in stream:
            if event != {"comment": ""}:
                assert (event["event"], seq_of(event)) == ("book.updated", 3)
                break
    await client.patch("/v1/books/default", json={"name": "Default"}, headers={"if-match": '"2"'})


async def test_a_stream_that_looks_through_what_it_leaves_out_has_a_heart_beat(
    client: httpx2.AsyncClient, over_http: httpx2.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(6):
        await create(client, f"Item {number}")
    # Each look takes longer than a heart beat, and is at one change only.
    monkeypatch.setattr(feed, "HEARTBEAT_SECONDS", 0.01)
    look = feed.Feed._look

    async def slowly(self: feed.Feed, question: Question) -> Page:
        await asyncio.sleep(0.02)
        page = await look(self, question)
        return Page([], min(question.after + 1, page.head), None, page.head)

    monkeypatch.setattr(feed.Feed, "_look", slowly)
    async with events(over_http, 1, types="book.updated") as stream:
        beats = [await anext(stream) for _ in range(4)]
        first = int(beats[0]["id"])
        assert beats == [{"comment": "", "id": str(seq)} for seq in range(first, first + 4)]


async def test_a_drain_that_begins_during_a_heart_beat_ends_the_stream(
    app: FastAPI, client: httpx2.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert (await read(client, 1))["head"] == 1
    monkeypatch.setattr(feed, "HEARTBEAT_SECONDS", 0.01)
    place = Place(app.state.traffic)
    try:
        stream = await app.state.feed.stream(Question(1, 100), place)
        assert (await anext(stream)).startswith(b"retry: ")
        assert await anext(stream) == b":\n\n"
        monkeypatch.setattr(feed, "HEARTBEAT_SECONDS", 3600)
        app.state.traffic.draining = True
        async with asyncio.timeout(20):
            assert [event async for event in stream] == []
    finally:
        app.state.traffic.draining = False
        place.leave()


async def test_streams_do_not_all_come_back_at_once(over_http: httpx2.AsyncClient) -> None:
    async def beginning() -> str:
        headers = {"accept": "text/event-stream"}
        async with over_http.stream("GET", "/v1/changes?after=1", headers=headers) as answer:
            return await anext(answer.aiter_lines())

    assert len({await beginning() for _ in range(10)}) > 1


async def test_a_stream_that_cannot_begin_is_a_problem(over_http: httpx2.AsyncClient) -> None:
    answer = await over_http.get("/v1/changes?after=2", headers={"accept": "text/event-stream"})
    assert (answer.status_code, answer.json()["type"]) == (422, "/problems/unknown-seq")


async def test_more_waiters_than_the_limit_are_refused(
    app: FastAPI, client: httpx2.AsyncClient, over_http: httpx2.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app.state.traffic, "waiters_limit", 2)
    shed = app.state.traffic.shed
    waiting = await begun(app, read(client, 1, wait=60))
    async with events(over_http, 1):
        await until(lambda: app.state.traffic.waiting == {"poll": 1, "stream": 1})
        refused = [
            await client.get("/v1/changes?after=1&wait=60"),
            await over_http.get("/v1/changes?after=1", headers={"accept": "text/event-stream"}),
        ]
        for answer in refused:
            assert (answer.status_code, answer.json()["type"]) == (503, "/problems/overloaded")
            assert "2 requests wait for changes (MAX_FEED_WAITERS)" in answer.json()["detail"]
            assert answer.headers["retry-after"] == "1"
        assert app.state.traffic.shed == shed + 2
        assert (await client.get("/v1/changes?after=1")).status_code == 200, "that one does not wait"
        assert (await client.get("/v1/changes?after=0&wait=60")).status_code == 200, "and neither does this one"
    await create(client)
    assert (await waiting)["next_after"] == 2
    assert app.state.traffic.in_flight == 0


async def test_a_poll_that_ends_no_longer_listens_to_its_client(app: FastAPI, client: httpx2.AsyncClient) -> None:
    assert (await read(client, 1))["head"] == 1
    listening, ended = asyncio.Event(), asyncio.Event()

    async def hung_up() -> None:
        listening.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    place = Place(app.state.traffic)
    try:
        page = await app.state.feed.poll(Question(1, 100), place, seconds=0.1, hung_up=hung_up)
    finally:
        place.leave()
    assert page.next_after == 1
    assert listening.is_set()
    async with asyncio.timeout(20):
        await ended.wait()


async def test_who_goes_away_waits_no_longer(
    app: FastAPI, client: httpx2.AsyncClient, over_http: httpx2.AsyncClient
) -> None:
    waiting = await begun(app, read(client, 1, wait=60))
    waiting.cancel()
    await until(lambda: app.state.traffic.waiting["poll"] == 0)
    waiting = await begun(app, read(over_http, 1, wait=60))
    waiting.cancel()
    await until(lambda: app.state.traffic.waiting["poll"] == 0)
    assert app.state.traffic.in_flight == 0
