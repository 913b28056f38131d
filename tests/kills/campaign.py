"""Rounds of kills under load, and what is looked at after each and after all."""

import asyncio
import random
import time
from collections.abc import Coroutine, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import asyncpg

from tests.kills import audit, feed_audit
from tests.kills.consumers import Consumer, Listener, PageReader, Poller
from tests.kills.copy_keeper import CopyKeeper
from tests.kills.fleet import Fleet, Server
from tests.kills.importers import Importer
from tests.kills.postgres import Postgres
from tests.kills.record import GRACE_SECONDS, Record
from tests.kills.writers import Writer
from tests.support import postgres as databases
from tests.support import processes

GUNICORN, UVICORN = "gunicorn", "uvicorn"
SERVER, WORKER, POSTGRES, BACKEND = "server", "worker of gunicorn", "PostgreSQL", "backend of PostgreSQL"
ANY_TIME, UPLOAD, COMPARE, APPLY = "any", "upload", "comparison", "apply"

_MOMENT_SECONDS = 30
_CALM_EVERY = 20
_CATCH_UP_SECONDS = 90

_COMPARING = ["%INSERT INTO import_rows%"]
_APPLYING = [
    "%FROM import_rows%FOR KEY SHARE%",
    "%moved AS MATERIALIZED%FROM import_rows%",
    "%INSERT INTO items%FROM import_rows%",
    "%INSERT INTO price_rows%FROM import_rows%",
    "%INSERT INTO price_retirements%FROM import_rows%",
    "%INSERT INTO changes%FROM import_rows%",
    "UPDATE imports SET%first_seq=%",
    "UPDATE imports SET%first_seq=%",  # Twice, because the commit comes next.
]
_BUSY_BACKENDS = """
    SELECT pid, usename FROM pg_stat_activity
    WHERE usename = ANY($1) AND query LIKE ANY($2) AND state IN ('active', 'idle in transaction')
"""
_BACKENDS = "SELECT pid, usename FROM pg_stat_activity WHERE usename = ANY($1)"


class Case(NamedTuple):
    """Whom to kill, and when."""

    victim: str
    moment: str = ANY_TIME


CASES = [
    *(Case(victim) for victim in (GUNICORN, UVICORN, WORKER, POSTGRES, BACKEND) for _ in range(2)),
    *(Case(victim, moment) for victim in (SERVER, POSTGRES, BACKEND) for moment in (UPLOAD, COMPARE)),
    *(Case(victim, APPLY) for victim in (SERVER, POSTGRES, BACKEND) for _ in range(2)),
]
"""Each of them comes up before any comes up again."""


class Target(NamedTuple):
    """What is at work at the moment of a kill."""

    server: Server
    backend: int | None


def cases(rounds: int, dice: random.Random) -> list[Case]:
    """So many, in a random order."""
    chosen: list[Case] = []
    while len(chosen) < rounds:
        chosen += dice.sample(CASES, len(CASES))
    return chosen[:rounds]


class Campaign:
    """Everything that runs: the database, the servers, the load, the consumers."""

    def __init__(self, directory: Path, seed: str, *, most_rows: int = 2_000, calm_seconds: float = 10) -> None:
        self.record = Record()
        self.head = 0
        self.dice = random.Random(seed)
        self._calm_seconds = calm_seconds
        self._postgres = Postgres(directory, [GUNICORN, UVICORN])
        settings: dict[str, object] = {
            "database_pool_size": 4,
            "housekeeping_seconds": 2,
            "ledger_watch_seconds": 0.5,  # A server is ready again no sooner than it has looked.
        }
        self._fleet = Fleet(
            [Server(name, self._postgres.as_role(name), directory, **settings) for name in (GUNICORN, UVICORN)]
        )
        self._directory = directory
        self._keeper = CopyKeeper(self._fleet, self.record, directory, f"{seed} copy")
        self._importers = [
            Importer(f"L{number}", self._fleet, self.record, f"{seed} L{number}", most_rows=most_rows)
            for number in range(2)
        ]
        self._writers = [Writer(f"w{number}", self._fleet, self.record, f"{seed} w{number}") for number in range(2)]
        self.consumers: list[Consumer] = [
            kind(self._fleet, self.record, f"{seed} {kind.name}") for kind in (PageReader, Poller, Listener)
        ]
        self._load: list[asyncio.Task[None]] = []
        self._following: list[asyncio.Task[None]] = []

    async def run(self, chosen: Sequence[Case]) -> None:
        """One round for each case, and the whole audit."""
        try:
            await self._begin()
            for number, case in enumerate(chosen, 1):
                await self._round(number, case)
                if number % _CALM_EVERY == 0:
                    await self._calm()
            await self._end()
        finally:
            await self._cancel(self._load + self._following)
            self._keeper.stop()
            self._fleet.stop()
            self._postgres.stop()

    async def _begin(self) -> None:
        await self._postgres.start()
        migrated = await asyncio.to_thread(
            processes.run,
            "migrate",
            directory=self._directory,
            database_url=databases.text(self._postgres.url),
            secret_key=processes.SECRET,
            serving_role=databases.SERVING_ROLE,
        )
        assert migrated.returncode == 0, migrated.stderr
        await self._fleet.start()
        self._keeper.start()
        self._load = [self._start(writer.run()) for writer in self._writers]
        self._load += [self._start(importer.run()) for importer in self._importers]
        self._following = [self._start(consumer.run()) for consumer in self.consumers]

    @staticmethod
    def _start(work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        return asyncio.create_task(work)

    async def _round(self, number: int, case: Case) -> None:
        await asyncio.sleep(self.dice.uniform(0.3, 1.5))
        if self.dice.random() < 0.4:
            self._keeper.kill()
            self._keeper.start()
            self.record.counts["kills of pricebook follow"] += 1
        target = await self._target(case)
        started = time.monotonic()
        self.record.kill_begins()
        self._kill(case, target)
        await self._recover(case)
        self.record.kill_is_over()
        self.record.counts[f"kills: {case.victim}, {case.moment}"] += 1
        self._look_at_tasks()
        connection = await self._postgres.connect()
        try:
            self.head = await audit.head(connection, self.record)
        finally:
            await connection.close()
        took = time.monotonic() - started
        print(f"{number:3}  {case.victim}, {case.moment}: ready after {took:.1f} s, seq {self.head}", flush=True)

    async def _target(self, case: Case) -> Target:
        """Wait for the moment."""
        deadline = time.monotonic() + _MOMENT_SECONDS
        if case.moment == UPLOAD:
            while (server := self._uploading()) is None:
                assert time.monotonic() < deadline, "nobody uploads"
                await asyncio.sleep(0.002)
            await asyncio.sleep(self.dice.uniform(0, 0.3))
            connection = await self._postgres.connect()
            try:
                return await self._any_backend(connection, server)
            finally:
                await connection.close()
        connection = await self._postgres.connect()
        try:
            if case.moment == ANY_TIME:
                return await self._any_backend(connection, self._fleet.any(self.dice))
            statements = _COMPARING if case.moment == COMPARE else _APPLYING
            wanted = [self.dice.choice(statements)]
            while not (found := await connection.fetch(_BUSY_BACKENDS, [GUNICORN, UVICORN], wanted)):
                assert time.monotonic() < deadline, f"nothing is at its {case.moment}"
                if time.monotonic() > deadline - _MOMENT_SECONDS * 0.8:
                    # Some are over in a millisecond, and may be missed for long.
                    wanted = statements
                await asyncio.sleep(0.001)
            await asyncio.sleep(self.dice.choice([0, 0.001, 0.003, 0.02]))
            return Target(self._fleet.named(found[0]["usename"]), found[0]["pid"])
        finally:
            # The kill may be close: no farewell.
            connection.terminate()

    def _uploading(self) -> Server | None:
        return next((importer.server for importer in self._importers if importer.phase == "upload"), None)

    async def _any_backend(self, connection: asyncpg.Connection, server: Server) -> Target:
        found = await connection.fetch(_BACKENDS, [server.name])
        return Target(server, self.dice.choice(found)["pid"] if found else None)

    def _kill(self, case: Case, target: Target) -> None:
        if case.moment == APPLY:
            self.record.counts["imports killed in their apply"] += 1
        if case.victim == POSTGRES:
            self._postgres.kill()
        elif case.victim == BACKEND:
            if target.backend is not None:
                self._postgres.kill_backend(target.backend)
        elif case.victim == WORKER:
            self._fleet.named(GUNICORN).kill_worker()
        elif case.victim == SERVER:
            target.server.kill()
        else:
            self._fleet.named(case.victim).kill()

    async def _recover(self, case: Case) -> None:
        if case.victim in (POSTGRES, BACKEND):
            await asyncio.sleep(self.dice.uniform(0, 1))
            await self._postgres.start()
            for server in self._fleet.servers:
                if not server.runs:
                    self.record.violation(f"{server.name} ended with PostgreSQL:\n{server.log.read_text()[-2000:]}")
        await self._fleet.start()

    async def _calm(self) -> None:
        """A while without kills, in which nothing may go wrong."""
        await asyncio.sleep(GRACE_SECONDS + self._calm_seconds)
        self.record.judge_trouble()
        self._look_at_tasks()

    def _look_at_tasks(self) -> None:
        for tasks in (self._load, self._following):
            for task in [task for task in tasks if task.done()]:
                tasks.remove(task)
                self.record.violation(f"a caller ended: {task.exception()!r}")

    async def _cancel(self, tasks: list[asyncio.Task[None]]) -> None:
        for task in tasks:
            task.cancel()
            with suppress(asyncio.CancelledError, Exception):
                await task
        tasks.clear()

    async def _end(self) -> None:
        await self._calm()
        await self._cancel(self._load)
        await self._close_uploads()
        connection = await self._postgres.connect()
        try:
            self.head = await audit.head(connection, self.record)
            await self._catch_up()
            await audit.everything(connection, self.record)
            await feed_audit.compare(connection, self._fleet, self.consumers, self.record)
        finally:
            await connection.close()
        self._keeper.kill()
        seq = await self._keeper.verify()
        if seq != self.head:
            self.record.violation(f"pricebook follow verified seq {seq}; the head is {self.head}")

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

    async def _catch_up(self) -> None:
        deadline = time.monotonic() + _CATCH_UP_SECONDS
        while any(consumer.seq < self.head for consumer in self.consumers) and time.monotonic() < deadline:
            self._look_at_tasks()
            await asyncio.sleep(0.1)
        await self._cancel(self._following)
        for consumer in self.consumers:
            if consumer.seq != self.head:
                self.record.violation(f"{consumer.name} has {consumer.seq} changes of {self.head}")
