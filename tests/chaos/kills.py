"""SIGKILL for servers, workers, PostgreSQL and its backends: at any time, or at a chosen statement of an import."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import NamedTuple

import asyncpg

from tests.chaos.faults import Fault, Scene
from tests.chaos.fleet import GUNICORN, UVICORN, Server

_MOMENT_SECONDS = 60

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


class Target(NamedTuple):
    """What is at work at the moment of a kill."""

    server: Server
    backend: int | None


type Moment = Callable[[Scene], Awaitable[Target]]
"""Waits for it."""


async def _any_time(scene: Scene) -> Target:
    return await _any_backend(scene, scene.fleet.any(scene.dice))


async def _upload(scene: Scene) -> Target:
    deadline = time.monotonic() + _MOMENT_SECONDS
    while (server := next((i.server for i in scene.importers if i.phase == "upload"), None)) is None:
        assert time.monotonic() < deadline, "nobody uploads"
        await asyncio.sleep(0.002)
    await asyncio.sleep(scene.dice.uniform(0, 0.3))
    return await _any_backend(scene, server)


async def _any_backend(scene: Scene, server: Server) -> Target:
    connection = await scene.postgres.connect()
    try:
        found = await connection.fetch(_BACKENDS, [server.name])
    finally:
        await connection.close()
    return Target(server, scene.dice.choice(found)["pid"] if found else None)


def _statement(statements: list[str]) -> Moment:
    async def moment(scene: Scene) -> Target:
        deadline = time.monotonic() + _MOMENT_SECONDS
        names = [server.name for server in scene.fleet.servers]
        wanted = [scene.dice.choice(statements)]
        connection: asyncpg.Connection = await scene.postgres.connect()
        try:
            while not (found := await connection.fetch(_BUSY_BACKENDS, names, wanted)):
                assert time.monotonic() < deadline, f"nobody is at {wanted}"
                if time.monotonic() > deadline - _MOMENT_SECONDS * 0.8:
                    # Some are over in a millisecond, and may be missed for long.
                    wanted = statements
                await asyncio.sleep(0.001)
            await asyncio.sleep(scene.dice.choice([0, 0.001, 0.003, 0.02]))
            return Target(scene.fleet.named(found[0]["usename"]), found[0]["pid"])
        finally:
            # The kill may be close: no farewell.
            connection.terminate()

    return moment


_apply = _statement(_APPLYING)
_comparison = _statement(_COMPARING)


@asynccontextmanager
async def _postgres(scene: Scene, _: Target) -> AsyncIterator[None]:
    scene.postgres.kill()
    yield
    await scene.postgres.start()


@asynccontextmanager
async def _backend(scene: Scene, target: Target) -> AsyncIterator[None]:
    if target.backend is not None:
        scene.postgres.kill_backend(target.backend)
    yield
    await scene.postgres.start()


@asynccontextmanager
async def _server(_: Scene, target: Target) -> AsyncIterator[None]:
    target.server.kill()
    yield
    target.server.start()


@asynccontextmanager
async def _worker(scene: Scene, _: Target) -> AsyncIterator[None]:
    server = scene.fleet.named(GUNICORN)
    await server.kill_worker()
    yield
    server.start()


def _named(name: str) -> Callable[[Scene, Target], AbstractAsyncContextManager[None]]:
    return lambda scene, _: _server(scene, Target(scene.fleet.named(name), None))


def _kill(
    whom: str,
    when: str,
    moment: Moment,
    kill: Callable[[Scene, Target], AbstractAsyncContextManager[None]],
    seconds: tuple[float, float] = (0, 0),
) -> Fault:
    @asynccontextmanager
    async def during(scene: Scene) -> AsyncIterator[None]:
        async with kill(scene, await moment(scene)):
            yield

    return Fault(f"kill -9: {whom}, {when}", during, seconds)


SERVER_IN_APPLY = _kill("server", "apply", _apply, _server)
POSTGRES_IN_UPLOAD = _kill("PostgreSQL", "upload", _upload, _postgres, (0, 1))
BACKEND = _kill("backend of PostgreSQL", "at any time", _any_time, _backend, (0, 1))

ALL = [
    *[_kill(GUNICORN, "at any time", _any_time, _named(GUNICORN))] * 2,
    *[_kill(UVICORN, "at any time", _any_time, _named(UVICORN))] * 2,
    *[_kill("worker of gunicorn", "at any time", _any_time, _worker)] * 2,
    *[_kill("PostgreSQL", "at any time", _any_time, _postgres, (0, 1))] * 2,
    *[BACKEND] * 2,
    _kill("server", "upload", _upload, _server),
    _kill("server", "comparison", _comparison, _server),
    POSTGRES_IN_UPLOAD,
    _kill("PostgreSQL", "comparison", _comparison, _postgres, (0, 1)),
    _kill("backend of PostgreSQL", "upload", _upload, _backend, (0, 1)),
    _kill("backend of PostgreSQL", "comparison", _comparison, _backend, (0, 1)),
    *[SERVER_IN_APPLY] * 2,
    *[_kill("PostgreSQL", "apply", _apply, _postgres, (0, 1))] * 2,
    *[_kill("backend of PostgreSQL", "apply", _apply, _backend, (0, 1))] * 2,
]
