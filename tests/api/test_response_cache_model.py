"""Several replicas, random writes, notifications that come late or never, outages and clocks that are set: whatever
a replica answers is what the ledger answers at a seq and an instant that it may still answer for.

The replicas hear of nothing by themselves. What a notification or a look would do happens when a rule says so.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar, NamedTuple
from uuid import uuid4

import asyncpg
import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test
from sqlalchemy.engine import URL

from app.services import answers, lookups, priced_items
from tests.api.test_response_cache import Replica, replica
from tests.api.test_statements import statements
from tests.support.effort import examples

JSON = dict[str, Any]
LAG_SECONDS, STALE_SECONDS = 20.0, 300.0
ITEMS, BOOK = ("a", "b"), "default"
QUERIES = ("", "?known_at=2999-01-01T00:00:00Z")
REPLICAS = st.integers(0, 2)
LIST, LOOKUP = "list", "lookup"
"""What is read or touched is an item, or the list of those of this run; or both items are looked up."""
SOME_ITEM = st.sampled_from(ITEMS)
SOMETHING = st.sampled_from([*ITEMS, LIST, LOOKUP])
SOME_QUERY = st.sampled_from(QUERIES)


class Change(NamedTuple):
    """One that touched items or the list, and when each replica's clock said that it was committed."""

    seq: int
    items: tuple[str, ...]
    writer: int
    at: tuple[float, ...]


class Instant(NamedTuple):
    """By both clocks of a replica."""

    wall: float
    monotonic: float


class Node:
    """A replica, and what the test has done to it."""

    def __init__(self, client: Replica) -> None:
        self.client = client
        self.away = False
        self.wall = self.ahead = 0.0
        """What is added to its wall clock, and to both of its clocks."""
        self.read_at: dict[str, Instant] = {}
        """By address, when its database was asked last: by the wall clock before, by the other one after."""
        client.app.state.clocks.wall = lambda: time.time() + self.ahead + self.wall
        client.app.state.clocks.monotonic = self.monotonic

    def monotonic(self) -> float:
        return time.monotonic() + self.ahead

    @property
    def follower(self) -> Any:
        return self.client.app.state.follower

    def reset(self) -> None:
        self.wall = self.ahead = 0.0
        self.restore()

    def cut_off(self) -> None:
        self.away = True
        self.client.app.state.database.circuit._failure = ConnectionRefusedError("the test took it away")

    def restore(self) -> None:
        self.away = False
        self.client.app.state.database.circuit._failure = None

    async def follow(self) -> None:
        """What a notification does, once it is there."""
        caught_up_at = self.follower.caught_up_at
        while self.follower.caught_up_at <= caught_up_at:
            self.follower._woken.set()
            await asyncio.sleep(0.001)
        self.follower.caught_up_at += self.ahead


class Replicas(RuleBasedStateMachine):
    """Writes, reads and mishaps. Every read is checked."""

    nodes: ClassVar[list[Node]]
    oracle: ClassVar[Replica]
    runner: ClassVar[asyncio.Runner]
    answered: ClassVar[dict[str, int]]

    def run_in_loop[T](self, work: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(work)

    @initialize()
    def begin(self) -> None:
        self.changes: list[Change] = []
        self.ids: dict[str, str] = {}
        self.run_name = uuid4().hex
        self.listed: list[tuple[int, frozenset[str]]] = []
        """The ids on the list, after which change."""
        for node in self.nodes:
            node.reset()
        self.run_in_loop(self._begin())

    async def _begin(self) -> None:
        for item in ITEMS:
            price = {"amount": "1", "valid_from": "2024-01-01"}
            made = await self.nodes[0].client.post(
                "/v1/items", json={"name": f"{self.run_name} {item}", "price": price}
            )
            self.ids[item] = made.json()["id"]
        self.listed.append((int(made.headers["pricebook-seq"]), frozenset(self.ids.values())))
        for node in self.nodes:
            await node.follow()
        for at in range(len(self.nodes)):
            for item in (*ITEMS, LIST, LOOKUP):
                for query in QUERIES:
                    await self._read(at, item, query, None)

    @rule(
        at=REPLICAS,
        item=SOME_ITEM,
        amount=st.integers(2, 99),
        ends=st.booleans(),
        begins_in=st.sampled_from([None, 30, 100]),
    )
    def record(self, at: int, item: str, amount: int, ends: bool, begins_in: int | None) -> None:
        if self.nodes[at].away:
            return
        now = datetime.now(UTC)
        body: JSON = {"amount": str(amount)}
        if begins_in is not None:
            body["valid_from"] = (now + timedelta(seconds=begins_in)).isoformat()
        if ends:
            body["valid_to"] = (now + timedelta(seconds=150)).isoformat()
        self.run_in_loop(self._write(at, (item,), f"/v1/items/{self.ids[item]}/prices", "POST", body))

    @rule(at=REPLICAS, mode=st.sampled_from(["up", "down", "half_up"]))
    def change_the_book(self, at: int, mode: str) -> None:
        if not self.nodes[at].away:
            body = {"rounding": {"mode": mode}}
            self.run_in_loop(self._write(at, ITEMS, f"/v1/books/{BOOK}", "PATCH", body))

    @rule(at=REPLICAS, item=SOME_ITEM, number=st.integers(0, 10**6))
    def rename(self, at: int, item: str, number: int) -> None:
        if not self.nodes[at].away:
            body = {"sku": f"{self.ids[item][-8:]}-{number}"}
            self.run_in_loop(self._write(at, (item, LIST), f"/v1/items/{self.ids[item]}", "PATCH", body))

    @rule(at=REPLICAS)
    def create(self, at: int) -> None:
        if not self.nodes[at].away:
            body = {"name": f"{self.run_name} more", "price": {"amount": "3", "valid_from": "2024-01-01"}}
            made = self.run_in_loop(self._write(at, (LIST,), "/v1/items", "POST", body))
            self.listed.append((self.changes[-1].seq, self.listed[-1][1] | {made["id"]}))

    @rule(at=REPLICAS)
    def archive(self, at: int) -> None:
        if not self.nodes[at].away and (more := self.listed[-1][1] - set(self.ids.values())):
            made = self.run_in_loop(self._write(at, (LIST,), f"/v1/items/{min(more)}", "DELETE"))
            self.listed.append((self.changes[-1].seq, self.listed[-1][1] - {made["id"]}))

    async def _write(self, at: int, items: tuple[str, ...], path: str, method: str, body: JSON | None = None) -> JSON:
        client = self.nodes[at].client
        answer = await client.request(method, path, json=body, headers={} if method == "POST" else {"If-Match": "*"})
        assert answer.is_success, answer.text
        if (seq := answer.headers.get("pricebook-seq")) is not None:
            committed = tuple(node.monotonic() for node in self.nodes)
            self.changes.append(Change(int(seq), items, at, committed))
        document: JSON = answer.json()
        return document

    @rule(at=REPLICAS)
    def hear(self, at: int) -> None:
        if not self.nodes[at].away:
            self.run_in_loop(self.nodes[at].follow())

    @rule(at=REPLICAS, seconds=st.sampled_from([1, 5, 15, 40, 120]))
    def let_time_pass(self, at: int, seconds: float) -> None:
        self.nodes[at].ahead += seconds

    @rule(at=REPLICAS, seconds=st.sampled_from([-1000, -60, -1, 1, 40, 120]))
    def set_the_clock(self, at: int, seconds: float) -> None:
        self.nodes[at].wall += seconds

    @rule(at=REPLICAS)
    def lose_the_database(self, at: int) -> None:
        self.nodes[at].cut_off()

    @precondition(lambda self: any(node.away for node in self.nodes))
    @rule()
    def find_the_database(self) -> None:
        for node in self.nodes:
            node.restore()

    @rule(at=REPLICAS, item=SOMETHING, query=SOME_QUERY, seen=st.sampled_from([None, None, "head", "own"]))
    def read(self, at: int, item: str, query: str, seen: str | None) -> None:
        known = {"head": self.changes, "own": [change for change in self.changes if change.writer == at]}
        least = max((change.seq for change in known.get(seen or "", ())), default=None)
        self.run_in_loop(self._read(at, item, query, least))

    @rule(
        at=REPLICAS,
        item=SOMETHING,
        query=SOME_QUERY,
        seconds=st.sampled_from([1, 15, 40, 120]),
        sets=st.sampled_from([0, 0, -40, 40]),
        hears=st.sampled_from([True, True, False]),
    )
    def read_again_later(self, at: int, item: str, query: str, seconds: float, sets: float, hears: bool) -> None:
        self.run_in_loop(self._read(at, item, query, None))
        self.nodes[at].ahead += seconds
        self.nodes[at].wall += sets
        if hears:
            self.hear(at)
        self.run_in_loop(self._read(at, item, query, None))

    @rule(at=REPLICAS, item=SOMETHING, query=SOME_QUERY, writer=REPLICAS, hears=st.booleans())
    def read_while_it_changes(self, at: int, item: str, query: str, writer: int, hears: bool) -> None:
        """The answer is on its way from the database when the item changes, and the replica hears of it or not."""
        if not self.nodes[at].away and not self.nodes[writer].away:
            self.run_in_loop(self._race(at, item, query, writer, hears=hears))

    async def _race(self, at: int, item: str, query: str, writer: int, *, hears: bool) -> None:
        read, go_on = asyncio.Event(), asyncio.Event()
        wholes = answers.read, priced_items.read_page, lookups.look_up

        def slow(whole: Any) -> Any:
            async def read_slowly(*arguments: Any, **more: Any) -> Any:
                answer = await whole(*arguments, **more)
                read.set()
                await go_on.wait()
                return answer

            return read_slowly

        answers.read, priced_items.read_page, lookups.look_up = map(slow, wholes)
        reading = asyncio.create_task(self._read(at, item, query, None))
        waiting = asyncio.create_task(read.wait())
        await asyncio.wait([reading, waiting], return_when=asyncio.FIRST_COMPLETED)
        answers.read, priced_items.read_page, lookups.look_up = wholes
        written = item if item in ITEMS else ITEMS[0]
        await self._write(writer, (written,), f"/v1/items/{self.ids[written]}/prices", "POST", {"amount": "7"})
        if hears:
            await self.nodes[at].follow()
        go_on.set()
        waiting.cancel()
        await reading
        # What was on its way may be answered to the one who asked before; not to one who asks now.
        await self._read(at, item, query, None)

    async def _read(self, at: int, item: str, query: str, least: int | None) -> None:
        node = self.nodes[at]
        address = self._address(item, query)
        headers = {} if least is None else {"Pricebook-Min-Seq": str(least)}
        must_know = self._must_know(node, at, item)
        wall, monotonic = node.client.app.state.clocks.wall(), node.monotonic()
        with statements(node.client.app) as seen:
            if item == LOOKUP:
                lines = [{"item": self.ids[name]} for name in ITEMS]
                answer = await node.client.post(address, json={"lines": lines}, headers=headers)
            else:
                answer = await node.client.get(address, headers=headers)
        asked = [sql for sql in seen if "question" in sql]
        if answer.status_code == 503:
            assert node.away or (least is not None and least > node.follower.seq), answer.text
            return
        assert answer.status_code == 200, (answer.text, node.away)
        document = answer.json()
        listed = document["items"] if item == LIST else []
        prices = document["prices"] if item == LOOKUP else [entry["price"] for entry in listed] or [document]
        known_seq = prices[0]["known_seq"]
        stale = answer.headers.get("pricebook-stale")
        if item == LIST:
            expected = max((entry for entry in self.listed if entry[0] <= known_seq), key=lambda entry: entry[0])[1]
            assert {entry["id"] for entry in listed} == expected
        for price in prices:
            await self._check_it_is_the_ledgers(price)
        if least is not None:
            assert known_seq >= least, "older than its caller has seen"
        if asked:
            node.read_at[address] = Instant(wall, node.monotonic())
            self.answered["database"] += 1
            return
        self.answered["stale" if stale else "memory"] += 1
        if item in (LIST, LOOKUP):
            self.answered[item] += 1
        assert known_seq >= must_know, "it knows of a change that the replica has not answered with"
        age = STALE_SECONDS if stale else LAG_SECONDS
        late = [change.seq for change in self._about(item) if change.at[at] < monotonic - age]
        assert all(seq <= known_seq for seq in late), "older than a replica may be"
        assert not stale or node.away
        read_at = node.read_at[address]
        assert wall >= read_at.wall, "about a time that has not come, by its clock"
        for until in filter(None, (price["effective_until"] for price in prices)):
            assert wall < datetime.fromisoformat(until).timestamp(), "beyond its boundary"
            life = datetime.fromisoformat(until) - datetime.fromisoformat(prices[0]["at"])
            assert monotonic < read_at.monotonic + life.total_seconds(), "beyond its boundary by the database's clock"

    def _address(self, item: str, query: str) -> str:
        if item == LOOKUP:
            return "/v1/prices:lookup"
        return f"/v1/items?q={self.run_name}" if item == LIST else f"/v1/items/{self.ids[item]}/price{query}"

    def _about(self, item: str) -> list[Change]:
        """What an answer about the item or, whatever it touches, about the list has to know."""
        touching = {LIST: {*ITEMS, LIST}, LOOKUP: {*ITEMS}}.get(item, {item})
        return [change for change in self.changes if touching.intersection(change.items)]

    def _must_know(self, node: Node, at: int, item: str) -> int:
        """What the replica knows of it: its own writes, and what it followed."""
        known = (c.seq for c in self._about(item) if c.writer == at or c.seq <= node.follower.seq)
        return max(known, default=0)

    async def _check_it_is_the_ledgers(self, price: JSON) -> None:
        parameters = {"at": price["at"], "known_seq": price["known_seq"], "quantity": price["quantity"]}
        expected = await self.oracle.get(f"/v1/items/{price['item_id']}/price", params=parameters)
        assert price == expected.json()


@asynccontextmanager
async def replicas(url: URL) -> AsyncIterator[tuple[list[Node], Replica]]:
    options = {
        "feed_poll_seconds": 60,
        "response_cache_lag_seconds": LAG_SECONDS,
        "stale_if_error_seconds": STALE_SECONDS,
        "min_seq_wait_seconds": 0,
    }
    async with AsyncExitStack() as stack:
        nodes = [Node(await stack.enter_async_context(replica(url, **options))) for _ in range(3)]
        yield nodes, await stack.enter_async_context(replica(url, response_cache_bytes=0))


def test_no_answer_is_older_than_allowed(own_url: URL, monkeypatch: pytest.MonkeyPatch) -> None:
    async def hear_nothing(*_: object) -> None:
        """The notifications are lost."""

    monkeypatch.setattr(asyncpg.Connection, "add_listener", hear_nothing)
    answered = dict.fromkeys(("memory", "stale", "database", LIST, LOOKUP), 0)
    with asyncio.Runner() as runner:
        context = replicas(own_url)
        nodes, oracle = runner.run(context.__aenter__())
        machine = type("Bound", (Replicas,), {"nodes": nodes, "oracle": oracle, "runner": runner, "answered": answered})
        try:
            run_state_machine_as_test(machine, settings=LIMITS)
        finally:
            runner.run(context.__aexit__(None, None, None))
    assert min(answered[how] for how in ("memory", "database", LIST, LOOKUP)) > 0, answered
    assert answered["stale"] or LIMITS.max_examples < 100, "rare in a short run"


# Each is some seconds of work: the long run is `make fuzz`.
LIMITS = settings(
    max_examples=examples(5, of_fuzz=100),
    stateful_step_count=40,
    report_multiple_bugs=False,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
