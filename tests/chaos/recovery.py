"""How long after a fault every server writes and reads again."""

import asyncio
import time

from tests.chaos.caller import Caller, pause
from tests.chaos.fleet import Fleet, Server
from tests.chaos.record import Attempt, Record
from tests.chaos.writers import insist


class Prober:
    """Records prices of an item of its own."""

    def __init__(self, fleet: Fleet, record: Record) -> None:
        self._fleet = fleet
        self._record = record
        self._item = ""
        self._writes = 0

    async def begin(self) -> None:
        """Make the item."""
        attempt = Attempt("probe", "create")
        document = {"name": "probe", "price": {"amount": "1.00", "tax_rate": "19", "reason": "probe"}}
        caller = Caller(self._fleet, self._record)
        answer = await insist(caller, attempt, lambda: self._fleet.servers[0], "/v1/items", json=document)
        assert answer is not None
        self._item = answer.json()["id"]
        await caller.close()

    async def measure(self, fault: str) -> float:
        """The seconds from now until each server has written and read, which are added to the record."""
        began = time.monotonic()
        await asyncio.gather(*(work(server) for work in (self._write, self._read) for server in self._fleet.servers))
        seconds = time.monotonic() - began
        self._record.recoveries[fault].append(seconds)
        return seconds

    async def _write(self, server: Server) -> None:
        self._writes += 1
        attempt = Attempt(f"probe-{self._writes}", "price")
        document = {"amount": "1.00", "tax_rate": "19", "reason": attempt.token}
        caller = Caller(self._fleet, self._record)
        await insist(caller, attempt, lambda: server, f"/v1/items/{self._item}/prices", json=document)
        await caller.close()

    async def _read(self, server: Server) -> None:
        caller = Caller(self._fleet, self._record)
        while True:
            answer = await caller.ask(server, "GET", f"/v1/items/{self._item}/price")
            if answer is not None and answer.status_code == 200:
                break
            await pause()
        await caller.close()
