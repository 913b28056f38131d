"""How long after a fault every server writes and reads again."""

import asyncio
import time

from tests.chaos.caller import Caller, pause
from tests.chaos.fleet import Fleet, Server
from tests.chaos.record import Attempt, Record
from tests.chaos.writers import insist

_MOST_SECONDS = 60
"""Far beyond what is promised, because the machine is busy; who is not back then does not come back by itself."""


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

    async def measure(self, fault: str) -> str:
        """Wait until each server has written and read, and add the seconds from now to the record; what was last."""
        began, last = time.monotonic(), ""
        works = [work(server) for work in (self._write, self._read) for server in self._fleet.servers]
        for ended in asyncio.as_completed(works):
            last = await ended
        seconds = time.monotonic() - began
        self._record.recoveries[fault].append(seconds)
        if seconds > _MOST_SECONDS:
            self._record.violation(f"{fault}: {last} took {seconds:.0f} s")
        return f"{seconds:.1f} s, {last} last"

    async def _write(self, server: Server) -> str:
        self._writes += 1
        attempt = Attempt(f"probe-{self._writes}", "price")
        document = {"amount": "1.00", "tax_rate": "19", "reason": attempt.token}
        caller = Caller(self._fleet, self._record)
        await insist(caller, attempt, lambda: server, f"/v1/items/{self._item}/prices", json=document)
        await caller.close()
        return f"a write to {server.name}"

    async def _read(self, server: Server) -> str:
        caller = Caller(self._fleet, self._record)
        while True:
            answer = await caller.ask(server, "GET", f"/v1/items/{self._item}/price")
            if answer is not None and answer.status_code == 200:
                break
            await pause()
        await caller.close()
        return f"a read from {server.name}"
