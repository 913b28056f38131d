"""Load from inside the cluster, and a strict account of it. Runs as a pod of the service's own image.

Keep-alive clients with think time, fresh connections at a steady rate, and writers. Three ways to fail are counted:

- *failed*: a request without a whole answer (refused, reset, closed, timed out), or answered with 5xx.
- *unannounced*: an idle keep-alive connection that the server closed without ``Connection: close`` in its last answer.
- *shed*: answers 503 with ``Retry-After``, counted apart and not as failed if ``--shedding-allowed`` is given.

Prints one JSON object per second for watching, and at the end a summary. Ends when the file ``/tmp/stop`` appears, and
at the latest after ``--seconds``.
"""

import argparse
import asyncio
import collections
import json
import math
import os
import random
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

ANSWER_SECONDS = 30.0
STOP = Path("/tmp/stop")  # noqa: S108 - a pod has its own /tmp


@dataclass
class Account:
    """What happened to all requests."""

    statuses: collections.Counter[int] = field(default_factory=collections.Counter)
    failures: collections.Counter[str] = field(default_factory=collections.Counter)
    shed: int = 0
    announced: int = 0
    unannounced: int = 0
    written: int = 0
    milliseconds: list[float] = field(default_factory=list)

    def summary(self) -> dict[str, object]:
        """The account as JSON. Latencies are those of whole answers, from the first byte sent to the last received."""
        ordered = sorted(self.milliseconds)
        return {
            "requests": sum(self.statuses.values()) + sum(self.failures.values()),
            "statuses": {str(status): count for status, count in sorted(self.statuses.items())},
            "failed": sum(self.failures.values()),
            "failures": dict(self.failures.most_common(10)),
            "shed": self.shed,
            "announced_closes": self.announced,
            "unannounced_closes": self.unannounced,
            "written": self.written,
            "p50_ms": round(_quantile(ordered, 0.5), 1),
            "p99_ms": round(_quantile(ordered, 0.99), 1),
        }


def _quantile(ordered: list[float], q: float) -> float:
    return ordered[math.ceil(len(ordered) * q) - 1] if ordered else 0.0


@dataclass
class Answer:
    """One HTTP answer."""

    status: int
    closes: bool
    retry_after: bool
    body: bytes

    def reason(self) -> str:
        """The status and, if the answer is a problem document, its type."""
        try:
            return f"status {self.status} {json.loads(self.body)['type'].rsplit('/', 1)[-1]}"
        except (ValueError, KeyError, TypeError):
            return f"status {self.status}"


class Connection:
    """One connection, HTTP/1.1."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    @classmethod
    async def open(cls, host: str, port: int) -> "Connection":
        """Connect."""
        return cls(*await asyncio.open_connection(host, port))

    async def ask(self, request: bytes) -> Answer:
        """Send one request and read its whole answer."""
        self.writer.write(request)
        head = await self.reader.readuntil(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        return Answer(
            status=int(first.split(" ")[1]),
            closes=headers.get("connection", "").lower() == "close",
            retry_after="retry-after" in headers,
            body=await self.reader.readexactly(int(headers["content-length"])),
        )

    async def closed_within(self, seconds: float) -> bool:
        """Wait; says whether the server closed the connection in the meantime."""
        try:
            async with asyncio.timeout(seconds):
                return not await self.reader.read(1)
        except TimeoutError:
            return False
        except OSError:
            return True

    def close(self) -> None:
        """Close it."""
        self.writer.close()


class Load:
    """All clients of one run."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.account = Account()
        self.until = time.monotonic() + options.seconds
        key = os.environ.get("PRICEBOOK_KEY")
        self.head = f"Host: {options.host}\r\n" + (f"Authorization: Bearer {key}\r\n" if key else "")

    def running(self) -> bool:
        """Whether to go on."""
        return time.monotonic() < self.until and not STOP.exists()

    def read(self) -> bytes:
        """A request that reads one of the paths."""
        path = random.choice(self.options.path)  # noqa: S311 - a mix, not a secret
        return f"GET {path} HTTP/1.1\r\n{self.head}\r\n".encode()

    def write(self) -> bytes:
        """A request that records a price."""
        amount = f"{random.randint(100, 99_999) / 100:.2f}"  # noqa: S311 - as above
        body = json.dumps({"amount": amount, "tax_rate": "19"}).encode()
        head = (
            f"POST {self.options.write_path} HTTP/1.1\r\n{self.head}"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        return head.encode() + body

    async def ask(self, connection: Connection, request: bytes) -> Answer | None:
        """Send one request and account for it; ``None`` if there was no whole answer."""
        began = time.perf_counter()
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                answer = await connection.ask(request)
        except (OSError, EOFError, TimeoutError, asyncio.IncompleteReadError) as error:
            self.account.failures[f"no whole answer: {type(error).__name__}"] += 1
            return None
        self.account.milliseconds.append((time.perf_counter() - began) * 1000)
        self.account.statuses[answer.status] += 1
        if answer.status == 503 and answer.retry_after and self.options.shedding_allowed:
            self.account.shed += 1
        elif answer.status >= 500:
            self.account.statuses[answer.status] -= 1
            self.account.failures[answer.reason()] += 1
        elif answer.status in (401, 403):
            # With a key that is good all the time, that is as wrong as no answer.
            self.account.failures[answer.reason()] += 1
        if answer.status == 201:
            self.account.written += 1
        return answer

    async def connect(self) -> Connection | None:
        """A connection, or ``None`` after a failure that is accounted for."""
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                return await Connection.open(self.options.host, self.options.port)
        except (OSError, TimeoutError) as error:
            self.account.failures[f"no connection: {type(error).__name__}"] += 1
            await asyncio.sleep(0.2)
            return None

    async def keep_alive(self, think_seconds: float, *, writes: bool = False) -> None:
        """One client that keeps its connection as long as the server does."""
        connection: Connection | None = None
        await asyncio.sleep(random.random() * think_seconds)  # noqa: S311 - as above
        while self.running():
            connection = connection or await self.connect()
            if connection is None:
                continue
            answer = await self.ask(connection, self.write() if writes else self.read())
            if answer is None or answer.closes:
                self.account.announced += answer is not None
                connection.close()
                connection = None
                await asyncio.sleep(think_seconds)
            elif await connection.closed_within(think_seconds * random.uniform(0.5, 1.5)):  # noqa: S311 - as above
                self.account.unannounced += 1
                connection.close()
                connection = None
        if connection is not None:
            connection.close()

    async def once(self) -> None:
        """One request on a connection of its own."""
        if (connection := await self.connect()) is not None:
            await self.ask(connection, self.read())
            connection.close()

    async def fresh(self) -> None:
        """New connections at a steady rate, whatever becomes of those before."""
        async with asyncio.TaskGroup() as group:
            while self.running():
                group.create_task(self.once())
                await asyncio.sleep(1 / self.options.fresh_per_second)

    async def watch(self) -> None:
        """A line each second."""
        while self.running():
            await asyncio.sleep(1)
            account = self.account
            line = {
                "at": time.strftime("%H:%M:%S"),
                "answered": sum(account.statuses.values()),
                "failed": sum(account.failures.values()),
                "shed": account.shed,
                "unannounced": account.unannounced,
            }
            print(json.dumps(line), flush=True)  # noqa: T201 - the pod's log is the report

    async def run(self) -> Account:
        """All clients, until the end."""
        options = self.options
        async with asyncio.TaskGroup() as group:
            group.create_task(self.watch())
            for _ in range(options.keep_alive):
                group.create_task(self.keep_alive(options.think_seconds))
            for _ in range(options.writers):
                group.create_task(self.keep_alive(options.think_seconds, writes=True))
            if options.fresh_per_second:
                group.create_task(self.fresh())
        return self.account


def main() -> None:
    """Run the load that the arguments describe and print its account as the last line."""
    parser = argparse.ArgumentParser(description="Load with a strict account.")
    parser.add_argument("--host", required=True)
    parser.add_argument("--port", type=int, default=80)
    parser.add_argument("--path", action="append", required=True, help="read this; may be repeated")
    parser.add_argument("--write-path", help="record prices here")
    parser.add_argument("--keep-alive", type=int, default=0, help="clients that keep their connection")
    parser.add_argument("--writers", type=int, default=0, help="clients that write, keeping their connection")
    parser.add_argument("--think-seconds", type=float, default=1.0, help="mean time between a client's requests")
    parser.add_argument("--fresh-per-second", type=float, default=0, help="requests on connections of their own")
    parser.add_argument("--seconds", type=float, default=600, help="longest time that it runs")
    parser.add_argument("--shedding-allowed", action="store_true", help="503 with Retry-After is no failure")
    account = asyncio.run(Load(parser.parse_args()).run())
    sys.stdout.write(json.dumps({"summary": account.summary()}) + "\n")


if __name__ == "__main__":
    main()
