"""What befalls the database and the connections: each fault begins, lasts for some seconds, and is over.

Those that end a process without a warning are in :mod:`tests.chaos.kills`.
"""

import asyncio
import random
import signal
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import dataclass

import asyncpg

from tests.chaos.fleet import POOL_SIZE, Fleet
from tests.chaos.importers import Importer
from tests.chaos.postgres import HOG, Postgres, Standby
from tests.chaos.record import Record
from tests.chaos.writers import Writer

_TERMINATE = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE usename = ANY($1)"


@dataclass
class Scene:
    """What faults can reach."""

    postgres: Postgres
    standby: Standby
    fleet: Fleet
    record: Record
    dice: random.Random
    importers: Sequence[Importer] = ()


@dataclass(frozen=True)
class Fault:
    """One kind of fault.

    :ivar during: begins, is there during the block, and is over with it.
    :ivar seconds: how long it lasts, at the least and at the most.
    :ivar noticed: whether callers may hear of it, by a 503 or a lost connection.
    """

    name: str
    during: Callable[[Scene], AbstractAsyncContextManager[None]]
    seconds: tuple[float, float] = (0, 0)
    noticed: bool = True

    def __str__(self) -> str:
        return self.name


def _shut_down(how: signal.Signals) -> Callable[[Scene], AbstractAsyncContextManager[None]]:
    @asynccontextmanager
    async def during(scene: Scene) -> AsyncIterator[None]:
        await scene.postgres.shut_down(how)
        yield
        await scene.postgres.start()

    return during


def _paused(whom: Callable[[Scene], Postgres]) -> Callable[[Scene], AbstractAsyncContextManager[None]]:
    @asynccontextmanager
    async def during(scene: Scene) -> AsyncIterator[None]:
        whom(scene).signal_all(signal.SIGSTOP)
        try:
            yield
        finally:
            whom(scene).signal_all(signal.SIGCONT)

    return during


@asynccontextmanager
async def _exhausted(scene: Scene) -> AsyncIterator[None]:
    """Another role takes every connection that is free, and those of the services, which are ended."""
    hogs: list[asyncpg.Connection] = []

    async def take() -> None:
        while True:
            try:
                hogs.append(await scene.postgres.connect(HOG))
            except asyncpg.TooManyConnectionsError:
                await asyncio.sleep(0.01)

    taking = asyncio.create_task(take())
    try:
        await asyncio.sleep(0.3)
        await _terminate(scene)
        yield
    finally:
        taking.cancel()
        with suppress(asyncio.CancelledError):
            await taking
        for hog in hogs:
            hog.terminate()


def _locked(statement: str) -> Callable[[Scene], AbstractAsyncContextManager[None]]:
    """Writes wait for a transaction of somebody else, each with a connection of the pool."""

    @asynccontextmanager
    async def during(scene: Scene) -> AsyncIterator[None]:
        connection = await scene.postgres.connect()
        try:
            async with connection.transaction():
                await connection.execute(statement)
                yield
        finally:
            await connection.close()

    return during


@asynccontextmanager
async def _full(scene: Scene) -> AsyncIterator[None]:
    """Writes wait for the ledger, and there are more of them than any server has connections to write by."""
    crowd = [
        Writer(f"crowd-{time.monotonic_ns()}-{number}", scene.fleet, scene.record, f"{number}")
        for number in range(_CROWD * len(scene.fleet.servers))
    ]
    async with _locked(_LEDGER)(scene):
        writing = [asyncio.create_task(writer.run()) for writer in crowd]
        yield
    for writer in crowd:
        writer.stopping = True
    await asyncio.gather(*writing)


_CROWD = 4 * POOL_SIZE
_LEDGER = "SELECT FROM ledger FOR UPDATE"
_ITEMS = """
    SELECT FROM items WHERE id IN (SELECT id FROM items ORDER BY random() LIMIT 500) FOR UPDATE SKIP LOCKED
"""


async def _terminate(scene: Scene) -> None:
    connection = await scene.postgres.connect()
    try:
        await connection.fetchval(_TERMINATE, [server.name for server in scene.fleet.servers])
    finally:
        await connection.close()


def _again(cut: Callable[[Scene], None] | None = None) -> Callable[[Scene], AbstractAsyncContextManager[None]]:
    """Connections are ended, and some moments later those that were opened meanwhile."""

    @asynccontextmanager
    async def during(scene: Scene) -> AsyncIterator[None]:
        async def end() -> None:
            while True:
                if cut:
                    cut(scene)
                else:
                    await _terminate(scene)
                await asyncio.sleep(scene.dice.uniform(0.05, 0.7))

        ending = asyncio.create_task(end())
        try:
            yield
        finally:
            ending.cancel()
            with suppress(asyncio.CancelledError):
                await ending

    return during


def _silent(whom: Callable[[Scene], Postgres]) -> Callable[[Scene], AbstractAsyncContextManager[None]]:
    @asynccontextmanager
    async def during(scene: Scene) -> AsyncIterator[None]:
        whom(scene).proxy.silence()
        try:
            yield
        finally:
            whom(scene).proxy.resume()

    return during


def _slow(whom: Callable[[Scene], Postgres]) -> Callable[[Scene], AbstractAsyncContextManager[None]]:
    @asynccontextmanager
    async def during(scene: Scene) -> AsyncIterator[None]:
        whom(scene).proxy.delay_seconds = scene.dice.uniform(0.01, 0.05)
        try:
            yield
        finally:
            whom(scene).proxy.delay_seconds = 0

    return during


@asynccontextmanager
async def _standby_killed(scene: Scene) -> AsyncIterator[None]:
    scene.standby.kill()
    yield
    await scene.standby.start()


@asynccontextmanager
async def _standby_behind(scene: Scene) -> AsyncIterator[None]:
    await scene.standby.behind(True)
    try:
        yield
    finally:
        await scene.standby.behind(False)


def _cut_clients(scene: Scene) -> None:
    for server in scene.fleet.servers:
        server.front.cut()


def _primary(scene: Scene) -> Postgres:
    return scene.postgres


def _standby(scene: Scene) -> Postgres:
    return scene.standby


STOPPED = Fault("PostgreSQL stopped, fast", _shut_down(signal.SIGINT), (0, 3))
STOPPED_AT_ONCE = Fault("PostgreSQL stopped, immediately", _shut_down(signal.SIGQUIT), (0, 3))
PAUSED = Fault("PostgreSQL paused", _paused(_primary), (2, 6))
EXHAUSTED = Fault("connections of PostgreSQL exhausted", _exhausted, (1, 4))
WAIT_FOR_THE_LEDGER = Fault("ledger locked, less than the limit", _locked(_LEDGER), (0.5, 2.5), noticed=False)
POOLS_FULL = Fault("more writes than connections, which wait", _full, (6, 8))
LEDGER_LOCKED = Fault("ledger locked, beyond the limit", _locked(_LEDGER), (6, 8))
ITEMS_LOCKED = Fault("500 items locked", _locked(_ITEMS), (1, 7))
TERMINATED = Fault("backends terminated, again and again", _again(), (0.1, 3))
DATABASE_CUT = Fault("connections to PostgreSQL cut", _again(lambda scene: scene.postgres.proxy.cut()), (0.1, 3))
DATABASE_SILENT = Fault("connections to PostgreSQL silent", _silent(_primary), (1, 6))
DATABASE_SLOW = Fault("connections to PostgreSQL slow", _slow(_primary), (2, 5))
STANDBY_KILLED = Fault("kill -9: standby, at any time", _standby_killed, (0, 3), noticed=False)
STANDBY_PAUSED = Fault("standby paused", _paused(_standby), (2, 6), noticed=False)
STANDBY_BEHIND = Fault("standby behind", _standby_behind, (2, 8), noticed=False)
STANDBY_CUT = Fault(
    "connections to the standby cut", _again(lambda scene: scene.standby.proxy.cut()), (0.1, 3), noticed=False
)
STANDBY_SILENT = Fault("connections to the standby silent", _silent(_standby), (1, 6), noticed=False)
STANDBY_SLOW = Fault("connections to the standby slow", _slow(_standby), (2, 5), noticed=False)
CLIENTS_CUT = Fault("connections of clients cut", _again(_cut_clients), (0.1, 3))

ALL = [
    STOPPED,
    STOPPED_AT_ONCE,
    PAUSED,
    EXHAUSTED,
    WAIT_FOR_THE_LEDGER,
    LEDGER_LOCKED,
    POOLS_FULL,
    ITEMS_LOCKED,
    TERMINATED,
    DATABASE_CUT,
    DATABASE_SILENT,
    DATABASE_SLOW,
    STANDBY_KILLED,
    STANDBY_PAUSED,
    STANDBY_BEHIND,
    STANDBY_CUT,
    STANDBY_SILENT,
    STANDBY_SLOW,
    CLIENTS_CUT,
]
