"""Consumers of the feed: pages, long polls, events. Each keeps its position, whatever becomes of its server."""

import hashlib
import json
import random
from typing import Any

import httpx2

from tests.chaos.caller import Caller, pause
from tests.chaos.fleet import Fleet, Server
from tests.chaos.record import Record


def digest(change: dict[str, Any]) -> bytes:
    """What is kept of a change: enough to tell it from any other."""
    return hashlib.blake2b(json.dumps(change, sort_keys=True).encode(), digest_size=16).digest()


class Consumer:
    """What they have in common: the next change is the one after the last, always."""

    name = "consumer"

    def __init__(self, fleet: Fleet, record: Record, seed: str) -> None:
        self.digests: list[bytes] = []
        """Of the changes 1, 2, 3, ..., in the order in which they came."""
        self.connections = 0
        self._fleet = fleet
        self._record = record
        self._caller = Caller(fleet, record)
        self._dice = random.Random(seed)

    @property
    def seq(self) -> int:
        """The last change that it has."""
        return len(self.digests)

    async def run(self) -> None:
        """Follow until cancelled."""
        try:
            while True:
                self.connections += 1
                await self._follow(self._fleet.any(self._dice))
                await pause()
        finally:
            await self._caller.close()

    async def _follow(self, server: Server) -> None:
        raise NotImplementedError

    def _take(self, change: dict[str, Any]) -> None:
        if change["seq"] != self.seq + 1:
            self._record.violation(f"{self.name}: after change {self.seq} comes {change['seq']}")
            raise ConsumerError
        self.digests.append(digest(change))

    async def _ask(self, server: Server, *, limit: int, wait: int) -> bool:
        parameters = {"after": self.seq, "limit": limit, "wait": wait}
        answer = await self._caller.ask(server, "GET", "/v1/changes", params=parameters)
        if answer is None or answer.status_code >= 500:
            return False
        if answer.status_code != 200:
            self._record.violation(f"{self.name} at {self.seq}: {answer.status_code} {answer.text[:500]}")
            return False
        page = answer.json()
        for change in page["changes"]:
            self._take(change)
        if page["next_after"] != self.seq or page["head"] < self.seq:
            self._record.violation(f"{self.name} has {self.seq}, next_after {page['next_after']}, head {page['head']}")
            raise ConsumerError
        return True


class ConsumerError(Exception):
    """A consumer cannot go on; why is among the violations."""


class PageReader(Consumer):
    """Asks for pages of all sizes, each from another server."""

    name = "pages"

    async def _follow(self, server: Server) -> None:
        await self._ask(server, limit=self._dice.choice([1, 7, 100, 1000]), wait=0)


class Poller(Consumer):
    """Waits for changes at one server until that fails."""

    name = "long polls"

    async def _follow(self, server: Server) -> None:
        while await self._ask(server, limit=1000, wait=10):
            await pause(0.02)


class Listener(Consumer):
    """Listens to events of one server until the stream ends; goes on with Last-Event-ID."""

    name = "events"

    async def _follow(self, server: Server) -> None:
        headers = (
            self._fleet.headers
            | {"accept": "text/event-stream"}
            | ({"last-event-id": str(self.seq)} if self.seq else {})
        )
        try:
            async with (
                httpx2.AsyncClient(timeout=30) as client,
                client.stream("GET", f"{server.address}/v1/changes", headers=headers) as answer,
            ):
                if answer.status_code == 200:
                    await self._read(answer)
                    return
                await answer.aread()
                self._caller.check(server, answer, "GET /v1/changes (events)")
                if answer.status_code < 500:
                    self._record.violation(f"events at {self.seq}: {answer.status_code} {answer.text[:500]}")
        except httpx2.TransportError as error:
            self._caller.lost(f"{server.name}: events: {type(error).__name__}")

    async def _read(self, answer: httpx2.Response) -> None:
        event: dict[str, str] = {}
        async for line in answer.aiter_lines():
            if line:
                name, _, content = line.partition(": ")
                event[name] = content
                continue
            if "id" in event:
                change = json.loads(event["data"])
                if event["id"] != f"{change['seq']}@{change['at']}" or event["event"] != change["type"]:
                    self._record.violation(f"the event {event['id']} is called {event['event']}: {event['data'][:300]}")
                self._take(change)
            event = {}
