"""Clients that hang up: in the head of a request, in its body, before the answer, and in its middle."""

import asyncio
import json
import random
from contextlib import suppress

from tests.chaos.caller import pause
from tests.chaos.fleet import Fleet
from tests.chaos.record import Attempt, Record


class RudeClient:
    """Opens a connection for each request, and resets it."""

    def __init__(self, fleet: Fleet, record: Record, seed: str) -> None:
        self.stopping = False
        self._fleet = fleet
        self._record = record
        self._dice = random.Random(seed)
        self._requests = 0

    async def run(self) -> None:
        """Go on until it is to stop, or cancelled."""
        while not self.stopping:
            with suppress(OSError):
                await self._dice.choice([self._half_a_head, self._half_a_body, self._no_answer, self._half_an_answer])()
            self._record.counts["clients that hung up"] += 1
            await pause(self._dice.uniform(0, 0.6))

    async def _half_a_head(self) -> None:
        head = self._head("POST /v1/items", 100)
        await self._say(head[: self._dice.randrange(len(head))])

    async def _half_a_body(self) -> None:
        body = self._item()
        await self._say(self._head("POST /v1/items", len(body)) + body[: self._dice.randrange(len(body))])

    async def _no_answer(self) -> None:
        body = self._item()
        # Whether it is written stays open, as for a writer whose answer was lost.
        self._record.attempts.append(Attempt(json.loads(body)["name"], "create"))
        await self._say(self._head("POST /v1/items", len(body)) + body)

    async def _half_an_answer(self) -> None:
        path = self._dice.choice(["/v1/changes?limit=1000", "/v1/items?limit=500", "/v1/export"])
        await self._say(self._head(f"GET {path}"), read=self._dice.randrange(1, 20_000))

    async def _say(self, what: bytes, *, read: int = 0) -> None:
        port = int(self._fleet.any(self._dice).address.rpartition(":")[2])
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            writer.write(what)
            if read:
                with suppress(asyncio.IncompleteReadError, TimeoutError):
                    async with asyncio.timeout(5):
                        await reader.readexactly(read)
            await pause(self._dice.choice([0, 0.003, 0.02, 0.2]))
        finally:
            writer.transport.abort()

    def _head(self, request: str, length: int = 0) -> bytes:
        headers = {"host": "localhost", "content-type": "application/json", "content-length": str(length)}
        lines = [f"{name}: {value}" for name, value in (headers | self._fleet.headers).items()]
        return "\r\n".join([f"{request} HTTP/1.1", *lines, "", ""]).encode()

    def _item(self) -> bytes:
        self._requests += 1
        token = f"rude-{self._requests}"
        return json.dumps({"name": token, "price": {"amount": "1.00", "tax_rate": "19", "reason": token}}).encode()
