"""Servers are stopped and replaced, again and again, under clients that keep their connections: no request is lost."""

import asyncio
import contextlib
import itertools
import logging
import random
import signal
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy.engine import URL

from tests.support import postgres
from tests.support.processes import SECRET, Service, start, wait_until_ready

pytestmark = pytest.mark.long

STOPS = 20
CLIENTS = 300
FRESH_CLIENTS = 10
"""These take a new connection for each request."""
THINK_SECONDS = (1, 4)
DRAIN_SECONDS = 10

CHEAP = b"GET /problems/overloaded HTTP/1.1\r\nHost: x\r\n\r\n"
READ = b"GET /v1/items/sku:M4/price HTTP/1.1\r\nHost: x\r\n\r\n"
NEW_ITEM = b'{"name":"Bolt"}'
WRITE = b"POST /v1/items HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (
    len(NEW_ITEM),
    NEW_ITEM,
)
REQUESTS = (*[CHEAP] * 150, *[READ] * 49, WRITE)


@dataclass
class Tally:
    """What the clients saw."""

    answers: int = 0
    lost: list[str] = field(default_factory=list)
    """Requests without a whole answer, or with one that blames the server."""
    cut: int = 0
    """Idle connections that the server closed without a word."""
    told: int = 0
    """Connections that ended with ``Connection: close``."""


class Clients:
    """Clients of a service: they connect to any of its endpoints, and stay connected until they are told to go."""

    def __init__(self, ports: list[int]) -> None:
        self.ports = ports
        self.tally = Tally()
        self._done = False
        self._requests = itertools.cycle(REQUESTS)
        self._chance = random.Random(300)  # noqa: S311 - not for secrets

    @contextlib.asynccontextmanager
    async def at_work(self) -> AsyncIterator[None]:
        async with asyncio.TaskGroup() as tasks:
            for number in range(CLIENTS + FRESH_CLIENTS):
                tasks.create_task(self._work(keep_alive=number < CLIENTS))
            try:
                yield
            finally:
                self._done = True

    async def _work(self, *, keep_alive: bool) -> None:
        await asyncio.sleep(self._chance.uniform(*THINK_SECONDS))
        while not self._done:
            port = self._chance.choice(self.ports)
            try:
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError as error:
                self._lose(port, repr(error))
                await asyncio.sleep(0.1)
                continue
            try:
                await self._use(reader, writer, port, keep_alive=keep_alive)
            except (OSError, asyncio.IncompleteReadError) as error:
                self._lose(port, repr(error))
            finally:
                writer.close()
                with contextlib.suppress(OSError):
                    await writer.wait_closed()

    async def _use(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, port: int, *, keep_alive: bool
    ) -> None:
        while not self._done:
            writer.write(next(self._requests))
            status, last, body = await read_answer(reader)
            self.tally.answers += 1
            if status >= 500:
                self._lose(port, body)
            if last:
                self.tally.told += 1
            think = self._chance.uniform(*THINK_SECONDS)
            if last or not keep_alive:
                await asyncio.sleep(think)
                return
            try:
                await asyncio.wait_for(reader.read(1), think)
            except TimeoutError:
                continue
            self.tally.cut += 1
            return

    def _lose(self, port: int, what: str) -> None:
        self.tally.lost.append(f"{datetime.now(UTC).time()} port {port}: {what}")


async def read_answer(reader: asyncio.StreamReader) -> tuple[int, bool, str]:
    """The status, whether the server says that the connection ends, and the body."""
    status_line, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().strip().splitlines()
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
    body = await reader.readexactly(int(headers["content-length"]))
    return int(status_line.split()[1]), headers.get("connection") == "close", body.decode()


@pytest.mark.parametrize("kind", ["gunicorn", "uvicorn"])
def test_stops_lose_no_request(own_url: URL, tmp_path: Path, kind: str) -> None:
    settings = {
        "database_url": postgres.text(postgres.as_serving_role(own_url)),
        "database_pool_size": 5,
        "secret_key": SECRET,
        "server": kind,
        "drain_seconds": DRAIN_SECONDS,
        # A machine that is busy with other things is slow, and that is not what this is about.
        "database_pool_timeout_seconds": 30,
        "database_lock_timeout_milliseconds": 30_000,
        "database_statement_timeout_milliseconds": 30_000,
    }
    services: list[Service] = []

    def start_one() -> Service:
        service = start("serve", tmp_path, **settings)
        services.append(service)
        wait_until_ready(service)
        return service

    async def roll() -> Tally:
        serving = [await asyncio.to_thread(start_one) for _ in range(2)]
        clients = Clients([service.port for service in serving])
        async with clients.at_work():
            for _ in range(STOPS):
                serving.append(await asyncio.to_thread(start_one))
                leaving = serving.pop(0)
                clients.ports[:] = [service.port for service in serving]
                leaving.process.send_signal(signal.SIGTERM)
                stopped.append(leaving)
                ends.append(asyncio.create_task(asyncio.to_thread(leaving.process.wait, 60)))
            assert await asyncio.gather(*ends) == [0] * STOPS
        return clients.tally

    stopped: list[Service] = []
    ends: list[asyncio.Task[int]] = []
    try:
        tally = asyncio.run(roll())
    finally:
        for service in services:
            service.process.kill()
            service.process.wait()

    figures = f"{tally.answers} answers, {tally.told} connections told to close, {tally.cut} cut"
    logging.getLogger(__name__).info("%s: %s", kind, figures)
    assert tally.lost == [], f"{len(tally.lost)} lost, such as {tally.lost[:3]}; {figures}"
    assert tally.cut == 0, figures
    assert tally.told > STOPS * CLIENTS / 4, f"the servers that were stopped had clients: {figures}"
