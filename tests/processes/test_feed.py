"""A thousand consumers wait on one small process, and are no burden to it; a stop sends them elsewhere."""

import asyncio
import json
import resource
import signal
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg
import httpx2
import pytest
from sqlalchemy.engine import URL

from tests.support import postgres
from tests.support.processes import SECRET, Service, running

pytestmark = [pytest.mark.long, pytest.mark.parametrize("kind", ["gunicorn", "uvicorn"])]

WAITERS = 1000
POOL = 2


@pytest.fixture
def settings(own_url: URL, kind: str) -> dict[str, object]:
    return {
        "server": kind,
        "database_url": postgres.text(postgres.as_serving_role(own_url)),
        "secret_key": SECRET,
        "database_pool_size": POOL,
        "ledger_watch_seconds": 3600,
    }


@pytest.fixture
def many_files() -> Iterator[None]:
    """As many sockets as the test needs, here and in the processes that it starts."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 2 * WAITERS + 500
    if soft < wanted <= hard or hard == resource.RLIM_INFINITY:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


class Consumer:
    """One connection with one request of the feed on it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def ask(cls, service: Service, query: str, accept: str = "application/json") -> "Consumer":
        reader, writer = await asyncio.open_connection("127.0.0.1", service.port)
        writer.write(f"GET /v1/changes?{query} HTTP/1.1\r\nHost: x\r\nAccept: {accept}\r\n\r\n".encode())
        await writer.drain()
        return cls(reader, writer)

    async def head(self) -> tuple[int, httpx2.Headers]:
        """Status and headers."""
        first, *lines = (await self._reader.readuntil(b"\r\n\r\n")).decode().strip().split("\r\n")
        return int(first.split()[1]), httpx2.Headers(
            [(name, text) for name, _, text in (line.partition(": ") for line in lines)]
        )

    async def answer(self) -> tuple[int, httpx2.Headers, Any]:
        """Status, headers and document."""
        status, headers = await self.head()
        return status, headers, json.loads(await self._reader.readexactly(int(headers["content-length"])))

    async def rest(self) -> bytes:
        """All until the server closes the connection, as it announced."""
        return await self._reader.read()

    def hang_up(self) -> None:
        self._writer.close()


def metric(service: Service, name: str) -> float:
    text = httpx2.get(f"{service.admin}/metrics", timeout=30).text
    return next(float(line.rsplit(" ", 1)[1]) for line in text.splitlines() if line.rsplit(" ", 1)[0] == name)


async def until_waiting(service: Service, kind: str, count: int) -> None:
    async with asyncio.timeout(60):
        name = f'pricebook_feed_waiters{{kind="{kind}"}}'
        while await asyncio.to_thread(metric, service, name) != count:  # noqa: ASYNC110 - it tells nobody.
            await asyncio.sleep(0.1)


@asynccontextmanager
async def polls(service: Service, count: int, query: str) -> AsyncIterator[list[Consumer]]:
    consumers: list[Consumer] = []
    try:
        for start in range(0, count, 40):  # Fewer at once than the process takes, until they wait.
            some = range(start, min(start + 40, count))
            consumers += await asyncio.gather(*(Consumer.ask(service, query) for _ in some))
            await until_waiting(service, "poll", len(consumers))
        yield consumers
    finally:
        for consumer in consumers:
            consumer.hang_up()


async def test_a_thousand_polls_hold_nothing_and_are_woken_by_one_write(
    settings: dict[str, object],
    own_owner: asyncpg.Connection,
    many_files: None,
    tmp_path: Path,
    kind: str,
    record_property: Callable[[str, object], None],
) -> None:
    reads, writes = (f'pricebook_database_statement_seconds_count{{pool="{pool}"}}' for pool in ("reader", "writer"))
    with running("serve", tmp_path, **settings, max_concurrent_requests=50) as service:
        # The first write opens a connection, which costs statements of its own.
        assert httpx2.post(f"{service.api}/v1/items", json={"name": "First"}).status_code == 201
        async with (
            polls(service, WAITERS, "after=2&wait=60") as consumers,
            httpx2.AsyncClient(base_url=service.api, timeout=60) as client,
        ):
            assert await asyncio.to_thread(metric, service, "pricebook_requests_in_flight") == 0
            before = [await asyncio.to_thread(metric, service, name) for name in (reads, writes)]
            others = await asyncio.gather(*(client.get("/v1/books") for _ in range(20)))
            assert {answer.status_code for answer in others} == {200}, "they wait, and do not count"
            activity = "SELECT application_name, state FROM pg_stat_activity WHERE application_name LIKE 'pricebook%'"
            rows = await own_owner.fetch(f"{activity} AND datname = current_database()")
            assert sum(row["application_name"] == "pricebook-follower" for row in rows) == 1
            assert sum(row["application_name"] == "pricebook" for row in rows) <= 2 * POOL
            assert {row["state"] for row in rows} == {"idle"}, "and none of them is held"

            gathered = asyncio.gather(*(consumer.answer() for consumer in consumers))
            await asyncio.sleep(0)
            began = time.monotonic()
            created = await client.post("/v1/items", json={"name": "Awaited"})
            answers = await gathered
            seconds = time.monotonic() - began
            # Statements are what the writer and the twenty needed; nothing for the thousand.
            after = [await asyncio.to_thread(metric, service, name) for name in (reads, writes)]
            late = await client.get("/v1/books")
            resident = await asyncio.to_thread(metric, service, "process_resident_memory_bytes")
    assert created.status_code == 201
    item = {name: value for name, value in created.json().items() if name != "price"}
    assert {status for status, *_ in answers} == {200}
    for _, headers, page in answers:
        assert headers["cache-control"] == "no-store"
        assert (page["next_after"], page["head"], len(page["changes"])) == (3, 3, 1)
        assert page["changes"][0]["after"] == item
    assert late.status_code == 200
    assert [after[0] - before[0], after[1] - before[1]] == [20, 3], "its own: the number, the item, the log"
    note = f"{WAITERS} long polls ({kind}): all answered {seconds:.2f} s after one write; {resident / 2**20:.0f} MiB"
    record_property("summary", note)


async def test_a_stop_answers_polls_at_once_and_ends_streams(settings: dict[str, object], tmp_path: Path) -> None:
    with running("serve", tmp_path, **settings, drain_seconds=60) as service:
        stream = await Consumer.ask(service, "after=0", "text/event-stream")
        await until_waiting(service, "stream", 1)
        async with polls(service, 30, "after=1&wait=60") as consumers:
            code, output = await asyncio.to_thread(service.stop, signal.SIGTERM)
            assert code == 0, output
            answers = [await consumer.answer() for consumer in consumers]
        status, headers = await stream.head()
        received = await stream.rest()
        stream.hang_up()
    for code, given, page in answers:
        assert (code, given["connection"], page) == (200, "close", {**page, "changes": [], "next_after": 1, "head": 1})
    assert (status, headers["content-type"].partition(";")[0]) == (200, "text/event-stream")
    assert headers["connection"] == "close"
    assert b"retry: " in received
    assert b"\nevent: book.created\n" in received
    assert "Traceback" not in output


async def test_who_hangs_up_waits_no_longer(settings: dict[str, object], tmp_path: Path) -> None:
    with running("serve", tmp_path, **settings) as service:
        streams = [await Consumer.ask(service, "after=1", "text/event-stream") for _ in range(5)]
        await until_waiting(service, "stream", 5)
        async with polls(service, 20, "after=1&wait=60"):
            pass
        await until_waiting(service, "poll", 0)
        for stream in streams:
            stream.hang_up()
        await until_waiting(service, "stream", 0)
        assert await asyncio.to_thread(metric, service, "pricebook_requests_in_flight") == 0
        abandoned = 'pricebook_request_seconds_count{outcome="abandoned"}'
        assert await asyncio.to_thread(metric, service, abandoned) == 20
        failed = 'pricebook_request_seconds_count{outcome="failed"}'
        assert await asyncio.to_thread(metric, service, failed) == 0
        code, output = service.stop(signal.SIGTERM)
    assert code == 0
    assert "Traceback" not in output
    statuses = [line["status"] for line in map(json.loads, output.splitlines()) if line["event"] == "request"]
    assert sorted(statuses) == [200] * 5 + [499] * 20
