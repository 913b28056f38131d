"""Rounds of faults under load, and what is looked at after each and after all."""

import asyncio
import random
import time
from collections.abc import Sequence
from pathlib import Path

from tests.chaos import audit, faults, feed_audit, kills, log_audit
from tests.chaos.faults import Fault, Scene
from tests.chaos.fleet import GUNICORN, UVICORN, Fleet, Server
from tests.chaos.load import Load
from tests.chaos.postgres import Postgres
from tests.chaos.record import GRACE_SECONDS, Record
from tests.chaos.recovery import Prober
from tests.chaos.resources import Resources
from tests.support import postgres as databases
from tests.support import processes

FAULTS = [*kills.ALL, *faults.ALL, *faults.ALL]
"""Each of them comes up before any comes up again."""

_CALM_EVERY = 20


def chosen(rounds: int, dice: random.Random) -> list[Fault]:
    """So many, in a random order."""
    order: list[Fault] = []
    while len(order) < rounds:
        order += dice.sample(FAULTS, len(FAULTS))
    return order[:rounds]


class Campaign:
    """Everything that runs: the database, the servers, and the load once these are there."""

    def __init__(
        self, directory: Path, seed: str, *, most_rows: int = 2_000, warm_seconds: float = 20, calm_seconds: float = 10
    ) -> None:
        self.record = Record()
        self.resources = Resources()
        self.head = 0
        self.dice = random.Random(seed)
        self.load: Load | None = None
        self._seed = seed
        self._most_rows = most_rows
        self._warm_seconds = warm_seconds
        self._calm_seconds = calm_seconds
        self._directory = directory
        self._postgres = Postgres.new(directory / "postgres", [GUNICORN, UVICORN])
        self._standby = self._postgres.standby(directory / "standby")
        reads_from = {GUNICORN: None, UVICORN: self._standby.as_role(UVICORN)}
        self._fleet = Fleet(
            [
                Server(name, self._postgres.as_role(name), directory, read_url=read_url)
                for name, read_url in reads_from.items()
            ]
        )
        self._scene = Scene(self._postgres, self._standby, self._fleet, self.record, self.dice)
        self._prober = Prober(self._fleet, self.record)

    async def run(self, order: Sequence[Fault]) -> None:
        """One round for each fault, and the whole audit."""
        try:
            load = await self._begin()
            for number, fault in enumerate(order, 1):
                await self._round(number, fault, load)
                if number % _CALM_EVERY == 0:
                    await self._calm(load)
            await self._end(load)
        finally:
            if self.load is not None:
                await self.load.stop()
            await self._fleet.stop()
            for server in (self._standby, self._postgres):
                server.proxy.stop()
                server.stop()

    async def _begin(self) -> Load:
        await self._postgres.start()
        await self._postgres.proxy.start()
        migrated = await asyncio.to_thread(
            processes.run,
            "migrate",
            directory=self._directory,
            database_url=databases.text(self._postgres.url),
            secret_key=processes.SECRET,
            serving_role=databases.SERVING_ROLE,
        )
        assert migrated.returncode == 0, migrated.stderr
        await self._postgres.copy(self._standby)
        await self._standby.start()
        await self._standby.proxy.start()
        await self._fleet.start()
        await self._prober.begin()
        load = self.load = Load(self._fleet, self.record, self._directory, self._seed, most_rows=self._most_rows)
        self._scene.importers = load.importers
        load.start()
        await asyncio.sleep(self._warm_seconds)
        self.resources.level(self._fleet)
        return load

    async def _round(self, number: int, fault: Fault, load: Load) -> None:
        await asyncio.sleep(self.dice.uniform(0.3, 1.5))
        if self.dice.random() < 0.4:
            load.keeper.kill()
            load.keeper.start()
            self.record.counts["kills of pricebook follow"] += 1
        began = time.monotonic()
        if fault.noticed:
            self.record.fault_begins()
        async with fault.during(self._scene):
            await asyncio.sleep(self.dice.uniform(*fault.seconds))
        took = time.monotonic() - began
        recovered = await self._prober.measure(fault.name)
        await self._fleet.ready()
        if fault.noticed:
            self.record.fault_is_over()
        self._look(load)
        await self._audit_head()
        print(f"{number:3}  {fault.name}: {took:.1f} s, recovered after {recovered}, seq {self.head}", flush=True)

    async def _audit_head(self) -> None:
        connection = await self._postgres.connect()
        try:
            self.head = await audit.head(connection, self.record)
        finally:
            await connection.close()

    async def _calm(self, load: Load) -> None:
        """A while without faults, in which nothing may go wrong, and everything returns to its level."""
        await asyncio.sleep(GRACE_SECONDS + self._calm_seconds)
        self.record.judge_trouble()
        self._look(load)
        for server in self._fleet.servers:
            await server.look_at_standby(self.record)
        connection = await self._postgres.connect()
        try:
            await self.resources.look(connection, self._fleet, self.record)
        finally:
            await connection.close()

    def _look(self, load: Load) -> None:
        load.look()
        for server in self._fleet.servers:
            server.look(self.record)

    async def _end(self, load: Load) -> None:
        await self._calm(load)
        await load.finish()
        await self._quiet()
        await self._close_uploads()
        connection = await self._postgres.connect()
        try:
            self.head = await audit.head(connection, self.record)
            await load.catch_up(self.head)
            await audit.everything(connection, self.record)
            await feed_audit.compare(connection, self._fleet, load.consumers, self.record)
        finally:
            await connection.close()
        load.keeper.kill()
        seq = await load.keeper.verify()
        if seq != self.head:
            self.record.violation(f"pricebook follow verified seq {seq}; the head is {self.head}")
        log_audit.compare(self._fleet, self.record)

    async def _quiet(self) -> None:
        """Wait for what servers go on with although its caller was cut off: an apply comes to its end."""
        connection = await self._postgres.connect()
        writing = "SELECT count(*) FROM pg_stat_activity WHERE usename = ANY($1) AND backend_xid IS NOT NULL"
        servers = [server.name for server in self._fleet.servers]
        try:
            looks, deadline = 0, time.monotonic() + 60
            while looks < 4 and time.monotonic() < deadline:
                looks = 0 if await connection.fetchval(writing, servers) else looks + 1
                await asyncio.sleep(0.5)
        finally:
            await connection.close()

    async def _close_uploads(self) -> None:
        """Uploads whose server died stay open until their time is up: it is up now."""
        connection = await self._postgres.connect()
        try:
            count = await connection.fetchval(
                "WITH open AS (UPDATE imports SET expires_at = now() WHERE state = 'staged' RETURNING id) "
                "SELECT count(*) FROM open"
            )
            self.record.counts["uploads left open, then expired"] = count
            left = "SELECT (SELECT count(*) FROM imports WHERE state = 'staged'), (SELECT count(*) FROM import_staging)"
            deadline = time.monotonic() + 30
            while tuple(await connection.fetchrow(left)) != (0, 0):
                if time.monotonic() > deadline:
                    self.record.violation(f"uploads that are over stay: {await connection.fetchrow(left)}")
                    return
                await asyncio.sleep(0.2)
        finally:
            await connection.close()
