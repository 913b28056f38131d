"""Answers from memory: the same as from the database, as long as they are right, and for those who may see them."""

import asyncio
import json
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import asyncpg
import httpx2
import pytest
from fastapi import FastAPI
from sqlalchemy.engine import URL

from app.access import Scope
from app.feed_position import Position
from app.main import create_app
from app.services.price_reads import PriceReads
from tests.api.test_changes import create, until
from tests.api.test_imports import applied, sent
from tests.api.test_statements import statements
from tests.api.test_trouble import client_of, slug
from tests.conftest import make_settings
from tests.observability.test_metrics import increases, samples, value
from tests.support import postgres
from tests.support.access import ADMIN_KEY, bearer, make_key
from tests.support.tcp_proxy import TcpProxy

JSON = dict[str, Any]
READS = "pricebook_response_cache_reads_total"
OTHER_KEY = "pb_0123456789abcdef_" + "x" * 43


class Replica(httpx2.AsyncClient):
    """One of several applications over one database, and a client of it."""

    def __init__(self, app: FastAPI) -> None:
        super().__init__(transport=httpx2.ASGITransport(app=app), base_url="http://pricebook.test")
        self.app = app

    @property
    def seq(self) -> int:
        """What its follower has."""
        seq: int = self.app.state.follower.seq
        return seq

    async def price(self, address: str = "/v1/items/sku:A/price", **headers: str) -> httpx2.Response:
        answer = await self.get(address, headers={name.replace("_", "-"): text for name, text in headers.items()})
        assert answer.status_code == 200, answer.text
        return answer

    async def amount(self, address: str = "/v1/items/sku:A/price", **headers: str) -> str:
        amount: str = (await self.price(address, **headers)).json()["amount"]
        return amount

    async def record(self, amount: str, address: str = "/v1/items/sku:A", **fields: Any) -> int:
        """Record a price, and return its seq."""
        answer = await self.post(f"{address}/prices", json={"amount": amount, **fields})
        assert answer.status_code == 201, answer.text
        return int(answer.headers["pricebook-seq"])

    def pass_time(self, seconds: float, *, monotonic: bool = True) -> None:
        """Let its clocks, or only its wall clock, be so much later than they are."""
        clocks = self.app.state.clocks
        clocks.wall = lambda: time.time() + seconds
        if monotonic:
            clocks.monotonic = lambda: time.monotonic() + seconds


@asynccontextmanager
async def replica(url: URL, **changes: Any) -> AsyncIterator[Replica]:
    settings = make_settings(postgres.as_serving_role(url), **{"feed_poll_seconds": 0.2, **changes})
    app = create_app(settings.model_copy(update={"database_pool_size": 4}))
    async with app.router.lifespan_context(app), Replica(app) as client:
        await until(lambda: app.state.follower.live)
        yield client


@pytest.fixture
async def one(own_url: URL) -> AsyncIterator[Replica]:
    """A replica with the item A, which costs 1."""
    async with replica(own_url) as client:
        await create(client, sku="A", price={"amount": "1", "valid_from": "2024-01-01"})
        await until(lambda: client.seq == 3)
        yield client


@asynccontextmanager
async def deaf(url: URL, monkeypatch: pytest.MonkeyPatch, **changes: Any) -> AsyncIterator[Replica]:
    """A replica that hears of no change for as long as a test takes."""

    async def hear_nothing(*_: object) -> None:
        """The notifications are lost."""

    with monkeypatch.context() as patched:
        patched.setattr(asyncpg.Connection, "add_listener", hear_nothing)
        async with replica(url, feed_poll_seconds=60, response_cache_lag_seconds=60, **changes) as client:
            yield client


async def reads(client: Replica, reading: Callable[[], Awaitable[object]]) -> dict[str, float]:
    """What the cache says of the reads."""
    before = await samples(client.app)
    await reading()
    return increases(before, await samples(client.app), READS)


# Hits


async def test_a_hit_is_the_same_answer_and_costs_no_statement(one: Replica) -> None:
    async def read() -> httpx2.Response:
        return await one.price(x_request_id="till-7.1")

    first = await read()
    before = await samples(one.app)
    with statements(one.app) as seen:
        again = await read()
    after = await samples(one.app)
    assert seen == []
    assert again.content == first.content
    assert dict(again.headers) == dict(first.headers)
    assert increases(before, after, READS) == {"hit": 1}
    labels = {"method": "GET", "handler": "/v1/items/{item}/price", "status": "200"}
    for name, by in (
        ("http_requests_total", labels),
        ("http_request_duration_seconds_count", labels),
        ("pricebook_request_seconds_count", {"outcome": "answered"}),
        ("http_request_size_bytes_count", {"handler": labels["handler"]}),
        ("http_response_size_bytes_count", {"handler": labels["handler"]}),
        ("pricebook_price_reads_total", {"outcome": "answered"}),
    ):
        assert value(after, name, **by) == value(before, name, **by) + 1, name
    sizes = [value(found, "http_response_size_bytes_sum", handler=labels["handler"]) for found in (before, after)]
    assert sizes[1] - sizes[0] == len(again.content)


@pytest.mark.parametrize(
    ("path", "kept"),
    [
        ("", True),
        ("/price", True),
        ("/price?book=default&quantity=7", True),
        ("/price?at=2025-06-01", True),
        ("/price?at=2025-06-01T00:00:00Z&known_seq=3", True),
        ("/price?known_seq=3", True),
        ("/price?known_at=2999-01-01T00:00:00Z", True),
        ("/price?explain=true", False),
        ("/price?explain=true&at=2025-06-01", True),
        ("/prices", True),
        ("/prices?rows=true&known_seq=3", True),
        ("/prior-price?reduced_at=2025-06-01", False),
    ],
)
async def test_what_is_kept(one: Replica, path: str, kept: bool) -> None:
    address = f"/v1/items/sku:A{path}"
    first = await one.price(address)
    with statements(one.app) as seen:
        again = await one.price(address)
    assert (seen == []) is kept
    if kept:
        assert again.content == first.content
        assert again.headers["cache-control"] == first.headers["cache-control"] if path else True


async def test_a_client_that_has_the_answer_is_told_so(one: Replica) -> None:
    tag = (await one.price()).headers["etag"]
    for given in (tag, f'"other", {tag}', f"W/{tag}", "*"):
        answer = await one.get("/v1/items/sku:A/price", headers={"If-None-Match": given})
        assert (answer.status_code, answer.content) == (304, b"")
        assert answer.headers["etag"] == tag
        assert answer.headers["cache-control"] == "max-age=5"
        assert "content-length" not in answer.headers
        assert answer.headers["x-request-id"]
    counted = await reads(one, lambda: one.price(if_none_match='"other"'))
    assert counted == {"hit": 1}
    malformed = await one.get("/v1/items/sku:A/price", headers={"If-None-Match": "other"})
    assert slug(malformed) == (422, "invalid-request")


async def test_what_the_application_would_refuse_is_refused_on_a_hit(one: Replica) -> None:
    await one.price()
    address = "/v1/items/sku:A/price"
    assert slug(await one.get(address, headers={"Accept": "text/html"})) == (406, "not-acceptable")
    assert slug(await one.get(f"{address}?colour=red")) == (422, "invalid-request")
    assert slug(await one.get(address, headers={"Pricebook-Min-Seq": "soon"})) == (422, "invalid-request")
    one.app.state.traffic.in_flight += (limit := one.app.state.traffic.limit)
    assert slug(await one.get(address)) == (503, "overloaded")
    one.app.state.traffic.in_flight -= limit
    one.app.state.traffic.draining = True
    assert (await one.price()).headers["connection"] == "close"
    assert one.app.state.traffic.in_flight == 0


async def test_a_hit_is_logged_like_others(one: Replica, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "pricebook.access"):
        for _ in range(2):
            await one.price(x_request_id="till-7.1")
    first, hit = (record.msg for record in caplog.records if record.name == "pricebook.access")
    assert isinstance(first, dict)
    assert isinstance(hit, dict)
    for line in (first, hit):
        del line["milliseconds"], line["timestamp"]
    assert first == hit
    assert hit["request_id"] == "till-7.1"


async def test_none_are_kept_where_that_is_turned_off(own_url: URL) -> None:
    async with replica(own_url, response_cache_bytes=0) as client:
        await create(client, sku="A", price={"amount": "1"})
        await client.price()
        with statements(client.app) as seen:
            assert await reads(client, client.price) == {}
        assert len(seen) == 1


async def test_memory_is_bounded_and_the_least_used_answers_go(own_url: URL) -> None:
    async with replica(own_url, response_cache_bytes=65_536) as client:
        await create(client, sku="A", price={"amount": "1"})
        await until(lambda: client.seq == 3)
        for quantity in range(1, 60):
            await client.price()
            await client.price(f"/v1/items/sku:A/price?quantity={quantity}")
        found = await samples(client.app)
        assert 65_536 / 2 < value(found, "pricebook_response_cache_bytes") <= 65_536
        assert value(found, "pricebook_response_cache_limit_bytes") == 65_536
        assert await reads(client, client.price) == {"hit": 1}
        assert await reads(client, lambda: client.price("/v1/items/sku:A/price?quantity=1")) == {"miss": 1}
        await client.record("2")
        assert value(await samples(client.app), "pricebook_response_cache_bytes") == 0


async def test_lists_take_no_room_from_prices(own_url: URL) -> None:
    async with replica(own_url, response_cache_bytes=65_536) as client:
        await create(client, sku="A", price={"amount": "1"})
        await until(lambda: client.seq == 3)
        await client.price()
        for limit in range(1, 41):
            await client.get(f"/v1/items?limit={limit}")
            await client.get("/v1/items?limit=1000")
        assert await reads(client, client.price) == {"hit": 1}
        assert await reads(client, lambda: client.get("/v1/items?limit=1000")) == {"hit": 1}
        assert await reads(client, lambda: client.get("/v1/items?limit=1")) == {"miss": 1}


# Changes


async def test_a_change_at_another_replica_is_followed(one: Replica, own_url: URL) -> None:
    async with replica(own_url) as other:
        cases: list[tuple[Callable[[], Awaitable[int]], str, str, object]] = [
            (partial(one.record, "2"), "/v1/items/sku:A/price", "amount", "2.00"),
            (partial(one.record, "3"), "/v1/items/sku:A/prices?rows=true", "known_seq", 5),
            (partial(_patch, one, "items/sku:A", {"name": "B"}), "/v1/items/sku:A", "name", "B"),
            (
                partial(_patch, one, "books/default", {"rounding": {"mode": "up"}}),
                "/v1/items/sku:A/price",
                "known_seq",
                7,
            ),
            (partial(_patch, one, "items/sku:A", {"sku": "Z"}), "/v1/items/sku:A", "type", "/problems/unknown-item"),
        ]
        for write, read, field, expected in cases:
            await other.get(read)
            assert await reads(other, partial(other.get, read)) == {"hit": 1}
            await until_applied(other, await write())
            assert (await other.get(read)).json()[field] == expected


async def _patch(client: Replica, path: str, document: JSON) -> int:
    answer = await client.patch(f"/v1/{path}", json=document, headers={"If-Match": "*"})
    assert answer.status_code == 200, answer.text
    return int(answer.headers["pricebook-seq"])


async def test_what_a_change_does_not_touch_stays(one: Replica) -> None:
    await create(one, sku="B", price={"amount": "1"})
    await until(lambda: one.seq == 5)
    await one.price()
    await one.price("/v1/items/sku:B/price")
    await until_applied(one, await one.record("2"))
    assert await reads(one, lambda: one.price("/v1/items/sku:B/price")) == {"hit": 1}
    assert await reads(one, one.price) == {"miss": 1}


@pytest.mark.parametrize("query", ["", "?q=items", "?limit=1", "?at=2999-01-01T00:00:00Z"])
async def test_a_list_is_kept_until_something_of_it_changes(one: Replica, query: str) -> None:
    async def listed() -> list[JSON]:
        items: list[JSON] = (await one.get(f"/v1/items{query}")).json()["items"]
        return items

    async def is_kept() -> bool:
        with statements(one.app) as seen:
            await listed()
        return not seen

    await until_applied(one, await _patch(one, "items/sku:A", {"name": "Of all items"}))
    await listed()
    assert await is_kept()
    if query != "?limit=1":
        await create(one, sku="B", name="Another of the items")
        assert [item["sku"] for item in await listed()] == ["A", "B"], "one more"
    await _patch(one, "items/sku:A", {"sku": "C"})
    assert (await listed())[0]["sku"] == "C", "another name"
    await one.record("2", address="/v1/items/sku:C")
    assert (await listed())[0]["price"]["amount"] == "2.00", "another price"
    seq = await _patch(one, "books/default", {"rounding": {"mode": "down"}})
    await until_applied(one, seq)
    assert (await listed())[0]["price"]["known_seq"] == seq, "another book"
    assert await is_kept()
    await one.delete("/v1/items/sku:C", headers={"If-Match": "*"})
    assert not [item for item in await listed() if item["sku"] == "C"], "archived"


LINES = [{"item": "sku:A", "quantity": "5"}, {"item": "sku:N"}]


async def look_up(client: Replica, *lines: JSON, **fields: Any) -> JSON:
    answer = await client.post("/v1/prices:lookup", json={"lines": [*lines], **fields})
    assert answer.status_code == 200, answer.text
    document: JSON = answer.json()
    return document


async def test_a_lookup_is_made_of_lines_that_were_asked_for_before(one: Replica) -> None:
    await create(one, sku="N")
    await create(one, sku="B", price={"amount": "7", "valid_from": "2024-01-01"})
    await until(lambda: one.seq == 6)
    first = await look_up(one, *LINES)
    await look_up(one, {"item": "sku:B"})
    before = await samples(one.app)
    with statements(one.app) as seen:
        both = await look_up(one, *reversed(LINES), {"item": "sku:B"})
    assert not seen
    found = await samples(one.app)
    assert increases(before, found, READS) == {"hit": 1}
    counted = increases(before, found, "pricebook_price_reads_total")
    assert counted == {"answered": 2, "no_price": 1}
    assert both["known_seq"] == 6
    for line in both["prices"][1:]:
        assert (line["at"], line["known_seq"]) == (both["at"], 6)
        pinned = {"at": both["at"], "known_seq": 6, "quantity": line["quantity"]}
        assert line == (await one.get(f"/v1/items/{line['item_id']}/price", params=pinned)).json()
    assert both["prices"][0]["error"] == "no-price"
    assert both["at"] >= first["at"]
    for fields in ({"at": both["at"]}, {"book": "default", "lines": [{"item": "sku:A", "quantity": "6"}]}):
        with statements(one.app) as seen:
            await look_up(one, *LINES, **fields)
        assert len(seen) == 1, "about another instant, for another quantity"


async def test_a_lookup_knows_of_what_its_caller_has_seen(one: Replica) -> None:
    await look_up(one, *LINES)
    one.app.state.follower._head = 7  # The primary has come so far, and the replica that is followed has not.
    with statements(one.app) as seen:
        answer = await one.post("/v1/prices:lookup", json={"lines": LINES}, headers={"Pricebook-Min-Seq": "7"})
    assert answer.status_code == 200
    assert len(seen) == 1


async def test_lines_of_items_that_there_are_not_are_not_kept(one: Replica) -> None:
    size = one.app.state.lookup_memory._cache.bytes
    for _ in range(2):
        with statements(one.app) as seen:
            answer = await look_up(one, {"item": "sku:none"})
        assert answer["prices"][0]["error"] == "unknown-item"
        assert len(seen) == 1
    assert one.app.state.lookup_memory._cache.bytes == size


async def test_a_line_is_not_put_together_with_one_from_after_its_boundary(one: Replica) -> None:
    """As it is made where the clocks of two servers differ."""
    await create(one, sku="B", price={"amount": "7", "valid_from": "2024-01-01"})
    begins = datetime.now(UTC) + timedelta(hours=1)
    await until_applied(one, await one.record("2", valid_from=begins.isoformat()))
    lines = [{"item": "sku:A"}, {"item": "sku:B"}]
    await look_up(one, *lines)
    with statements(one.app) as seen:
        await look_up(one, *lines)
    assert not seen
    kept = one.app.state.lookup_memory._cache._entries
    (key,) = (key for key in kept if key[0] == "line" and "sku:B" in key)
    kept[key] = replace(kept[key], offer=replace(kept[key].offer, at=begins))
    with statements(one.app) as seen:
        answer = await look_up(one, *lines)
    assert len(seen) == 1
    assert datetime.fromisoformat(answer["at"]) < begins


@pytest.mark.parametrize("change", ["price", "first price", "book", "lag", "boundary", "not followed"])
async def test_a_line_goes_with_what_it_depends_on(one: Replica, change: str) -> None:
    await create(one, sku="N")
    begins = datetime.now(UTC) + timedelta(hours=1)
    await until_applied(one, await one.record("2", valid_from=begins.isoformat()))
    await look_up(one, *LINES)
    with statements(one.app) as seen:
        await look_up(one, *LINES)
    assert not seen
    match change:
        case "price":
            await until_applied(one, await one.record("9"))
        case "first price":
            await until_applied(one, await one.record("9", address="/v1/items/sku:N"))
        case "book":
            await until_applied(one, await _patch(one, "books/default", {"rounding": {"mode": "down"}}))
        case "lag":
            one.app.state.clocks.monotonic = lambda: one.app.state.follower.caught_up_at + 3.1
        case "boundary":
            one.pass_time(3601)
            one.app.state.follower.caught_up_at = time.monotonic() + 3601
        case "not followed":
            one.app.state.follower.window.start_at(Position(4, None))
    with statements(one.app) as seen:
        await look_up(one, *LINES)
    assert len(seen) >= 1


async def test_no_list_outlives_the_first_boundary_of_its_prices(one: Replica) -> None:
    begins = datetime.now(UTC) + timedelta(hours=1)
    later = {"amount": "3", "valid_from": (begins + timedelta(hours=1)).isoformat()}
    await create(one, sku="B", price=later)
    await until_applied(one, await one.record("2", valid_from=begins.isoformat()))
    for seconds, kept in ((3590, True), (3610, False)):
        one.pass_time(0)
        await one.get("/v1/items")
        one.pass_time(seconds)
        one.app.state.follower.caught_up_at = time.monotonic() + seconds
        with statements(one.app) as seen:
            assert (await one.get("/v1/items")).is_success
        assert (not seen) is kept


async def until_applied(client: Replica, seq: int) -> None:
    await until(lambda: client.seq >= seq)


async def test_a_pinned_answer_stays_whatever_changes(one: Replica) -> None:
    pinned = "/v1/items/sku:A/price?at=2025-06-01T00:00:00Z&known_seq=3"
    first = await one.price(pinned)
    await until_applied(one, await one.record("2", valid_from="2025-01-01"))
    assert await reads(one, lambda: one.price(pinned)) == {"hit": 1}
    assert (await one.price(pinned)).content == first.content


async def test_a_write_is_seen_at_once_where_it_was_sent(own_url: URL, monkeypatch: pytest.MonkeyPatch) -> None:
    async with deaf(own_url, monkeypatch) as client:
        await create(client, sku="A", price={"amount": "1"})
        assert await client.amount() == "1.00"
        assert await client.amount() == "1.00"
        await client.record("2")
        assert await client.amount() == "2.00"
        assert await reads(client, client.price) == {"hit": 1}
        preview = await sent(client, b"sku,amount\nA,3.00\n", max_change_percent=1000)
        await applied(client, preview)
        assert await client.amount() == "3.00"
        assert client.seq == 1, "nothing was followed"


async def test_a_follower_that_lags_is_not_trusted(one: Replica, own_url: URL, monkeypatch: pytest.MonkeyPatch) -> None:
    async with deaf(own_url, monkeypatch) as client:
        assert await client.amount() == "1.00"
        await one.record("2")
        assert await client.amount() == "1.00", "less than a minute old"
        assert await client.amount(pricebook_min_seq="3") == "1.00"
        client.app.state.clocks.monotonic = lambda: time.monotonic() + 61
        assert await reads(client, client.price) == {"bypassed": 1, "miss": 1}
        assert await client.amount() == "2.00"


async def test_an_answer_that_a_change_overtook_is_not_kept(
    one: Replica, own_url: URL, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, go_on = asyncio.Event(), asyncio.Event()
    whole = PriceReads.read

    async def slow(*arguments: Any, **more: Any) -> Any:
        answer = await whole(*arguments, **more)
        read.set()
        await go_on.wait()
        return answer

    async with replica(own_url) as other:
        monkeypatch.setattr(PriceReads, "read", slow)
        overtaken = asyncio.create_task(one.amount())
        await read.wait()
        monkeypatch.setattr(PriceReads, "read", whole)
        await until_applied(one, await other.record("2"))
        go_on.set()
        assert await overtaken == "1.00", "as it was when it was read"
        assert await one.amount() == "2.00"


# Time


async def test_no_answer_outlives_its_boundary(one: Replica) -> None:
    until_instant = datetime.now(UTC) + timedelta(hours=1)
    await until_applied(one, await one.record("2", valid_from=until_instant.isoformat()))
    assert (await one.price()).headers["cache-control"] == "max-age=5"
    one.pass_time(3598)
    one.app.state.follower.caught_up_at += 3600
    hit = await one.price()
    assert hit.headers["cache-control"] in {"max-age=1", "no-cache"}
    for monotonic in (True, False):
        await one.price()
        one.pass_time(3601, monotonic=monotonic)
        with statements(one.app) as seen:
            await one.price()
        assert len(seen) == 1


async def test_a_clock_that_was_set_back_is_not_trusted(one: Replica) -> None:
    await one.price()
    one.pass_time(-60, monotonic=False)
    assert await reads(one, one.price) == {"bypassed": 1, "miss": 1}
    assert await reads(one, one.price) == {"hit": 1}, "read at the time that it is now"


# Pricebook-Min-Seq


async def test_nothing_older_than_the_caller_has_seen(one: Replica, own_url: URL) -> None:
    async with replica(own_url) as other:
        await other.price()
        seq = await one.record("2")
        for path in (
            "/v1/items/sku:A/price",
            "/v1/items/sku:A/prices",
            "/v1/items/sku:A",
            "/v1/items",
            "/v1/items/sku:A/prior-price?reduced_at=2025-06-01",
            "/v1/schedule",
            "/items/sku:A",
            "/items/",
        ):
            answer = await other.get(path, headers={"Pricebook-Min-Seq": str(seq)})
            assert answer.status_code == 200, path
            assert answer.json().get("known_seq", seq) >= seq if isinstance(answer.json(), dict) else True
        assert await other.amount(pricebook_min_seq=str(seq)) == "2.00"
        # A change of something else: the answer kept is right, and still does not know of it.
        await create(one, sku="B")
        assert (await other.price(pricebook_min_seq=str(seq + 1))).json()["known_seq"] == seq + 1
        lookup = {"lines": [{"item": "sku:A"}]}
        answer = await other.post("/v1/prices:lookup", json=lookup, headers={"Pricebook-Min-Seq": str(seq + 1)})
        assert answer.json()["known_seq"] == seq + 1


async def test_a_read_waits_for_the_change_that_its_caller_has_seen(
    own_url: URL, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with deaf(own_url, monkeypatch, min_seq_wait_seconds=30) as client:
        await create(client, sku="A", price={"amount": "1"})
        await client.price()
        waiting = asyncio.create_task(client.amount(pricebook_min_seq="4"))
        await until(lambda: bool(client.app.state.follower._reaching))
        await client.record("2")
        assert not waiting.done()
        client.app.state.follower._woken.set()  # as a notification does
        assert await waiting == "2.00"


async def test_a_change_that_does_not_come_is_a_problem(own_url: URL) -> None:
    async with replica(own_url, min_seq_wait_seconds=0.05) as client:
        await create(client, sku="A", price={"amount": "1"})
        await client.price()
        for path in ("/v1/items/sku:A/price", "/v1/items"):
            answer = await client.get(path, headers={"Pricebook-Min-Seq": "4"})
            assert slug(answer) == (503, "seq-not-reached")
            assert answer.headers["retry-after"] == "1"


# Keys


async def test_a_hit_asks_for_the_key(own_url: URL) -> None:
    guarded = {"auth_required": True, "admin_key": ADMIN_KEY}
    async with replica(own_url, **guarded) as client, replica(own_url, **guarded) as other:
        document = {"name": "x", "sku": "A", "price": {"amount": "1"}}
        assert (await client.post("/v1/items", json=document, headers=bearer(ADMIN_KEY))).status_code == 201
        may = await make_key(client, "till", [Scope.PRICES_READ])
        may_not = await make_key(client, "shelf", [Scope.ITEMS_READ])
        address = "/v1/items/sku:A/price"
        for _ in range(3):
            answer = await other.get(address, headers=bearer(may["key"]))
            assert answer.status_code == 200
        counted = await reads(other, lambda: other.get(address, headers=bearer(may["key"])))
        assert counted == {"hit": 1}
        assert slug(await other.get(address)) == (401, "unauthenticated")
        assert slug(await other.get(address, headers=bearer(OTHER_KEY))) == (401, "unauthenticated")
        assert slug(await other.get(address, headers=bearer(may["key"][:-1] + "_"))) == (401, "unauthenticated")
        for _ in range(3):
            assert slug(await other.get(address, headers=bearer(may_not["key"]))) == (403, "forbidden")
        twice = [("Authorization", f"Bearer {may['key']}"), ("Authorization", f"Bearer {may['key']}")]
        assert slug(await other.get(address, headers=twice)) == (401, "unauthenticated")
        await client.delete(f"/v1/keys/{may['id']}", headers=bearer(ADMIN_KEY))
        await until(lambda: may["id"] not in other.app.state.keys._keys)
        assert slug(await other.get(address, headers=bearer(may["key"]))) == (401, "unauthenticated")


# Outages


async def test_while_the_database_is_away_what_is_kept_is_answered_for_a_while(own_url: URL) -> None:
    patient = {"database_silence_seconds": 0.3, "database_connect_timeout_seconds": 60, "database_pool_size": 4}
    guarded = {"auth_required": True, "admin_key": ADMIN_KEY, "stale_if_error_seconds": 60}
    address = "/v1/items/sku:A/price"
    with TcpProxy(own_url).open() as proxy:
        app = create_app(make_settings(proxy.url, feed_poll_seconds=0.2, **patient, **guarded))
        async with client_of(app), Replica(app) as client:
            await until(lambda: app.state.follower.live)
            document = {"name": "x", "sku": "A", "price": {"amount": "1"}}
            assert (await client.post("/v1/items", json=document, headers=bearer(ADMIN_KEY))).status_code == 201
            ends = (datetime.now(UTC) + timedelta(seconds=30)).isoformat()
            body = {"amount": "1", "valid_from": "2024-01-01", "valid_to": ends}
            assert (await client.post("/v1/items/sku:A/prices", json=body, headers=bearer(ADMIN_KEY))).is_success
            key = bearer((await make_key(client, "till", [Scope.PRICES_READ]))["key"])
            await until(lambda: client.seq == 4)
            pinned = f"{address}?at=2025-01-01&known_seq=4"
            for path in (address, f"{address}?quantity=2", pinned):
                first = await client.get(path, headers=key)
                assert first.status_code == 200
            proxy.silence()
            assert slug(await client.get(f"{address}?quantity=3", headers=key)) == (503, "database-unavailable")
            assert app.state.database.circuit.open
            client.pass_time(10)
            before = await samples(app)
            answer = await client.get(address, headers=key)
            assert answer.status_code == 200
            assert 10 <= int(answer.headers["pricebook-stale"]) < 60
            assert answer.headers["cache-control"] == "no-cache"
            assert increases(before, await samples(app), READS) == {"stale": 1}
            assert (await client.get(pinned, headers=key)).headers["cache-control"].endswith("immutable")
            assert slug(await client.get(f"{address}?quantity=3", headers=key)) == (503, "database-unavailable")
            newer = await client.get(address, headers={**key, "Pricebook-Min-Seq": "5"})
            assert newer.status_code == 503
            client.pass_time(31)
            assert slug(await client.get(address, headers=key)) == (503, "database-unavailable"), "beyond its boundary"
            assert (await client.get(pinned, headers=key)).status_code == 200
            client.pass_time(90)
            assert slug(await client.get(pinned, headers=key)) == (503, "database-unavailable"), "away for too long"
            proxy.resume()
            await until(lambda: not app.state.database.circuit.open)
            client.pass_time(0)
            await until(lambda: time.monotonic() - app.state.follower.caught_up_at < 1)
            again = await client.get(address, headers=key)
            assert "pricebook-stale" not in again.headers
            assert json.loads(again.content)["amount"] == "1.00"
