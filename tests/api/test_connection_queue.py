"""Connections are given in the order in which they were asked for, and none is lost on the way."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.util import greenlet_spawn
from sqlalchemy.util.queue import Empty

from app.database import Database
from app.errors import Busy
from app.settings import Settings


@pytest.fixture
async def database(settings: Settings) -> AsyncIterator[Database]:
    """One whose pools have one connection, which is there already."""
    changes = {"database_pool_size": 1, "database_pool_timeout_seconds": 0.1}
    database = Database(settings.model_copy(update=changes))
    await ask(database)
    yield database
    await database.close()


async def ask(database: Database) -> None:
    async with database.reading() as session:
        assert (await session.execute(text("SELECT 1"))).scalar_one() == 1


def queue_of(database: Database) -> Any:
    (queue,) = (pool._pool for name, pool in database.pools() if name == "reader")
    return queue


async def test_nobody_who_comes_later_is_served_before(database: Database) -> None:
    queue = queue_of(database)
    connection = queue.get(block=False)
    waiting = [asyncio.create_task(greenlet_spawn(queue.get, True, 20)) for _ in range(2)]
    await asyncio.sleep(0.01)
    queue.put_nowait(connection)
    # It was given back, and none of those who wait has looked yet.
    with pytest.raises(Empty):
        queue.get(block=False)
    assert await waiting[0] is connection
    assert not waiting[1].done()
    queue.put_nowait(connection)
    assert await waiting[1] is connection
    queue.put_nowait(connection)
    await ask(database)


async def test_those_who_stop_waiting_take_no_connection_with_them(database: Database) -> None:
    queue = queue_of(database)
    ended: Counter[str] = Counter()

    async def work(number: int) -> None:
        try:
            # Some are cancelled, some give up by themselves, all about when it is their turn.
            async with asyncio.timeout(0.001 * number if number % 2 else 20):
                connection = await greenlet_spawn(queue.get, True, 0.001 * number)
        except (TimeoutError, Empty):
            ended["gave up"] += 1
        else:
            ended["served"] += 1
            await asyncio.sleep(0.002)
            queue.put_nowait(connection)

    for _ in range(10):
        await asyncio.gather(*map(work, range(1, 60)))
        await ask(database)
    assert min(ended["served"], ended["gave up"]) > 100


async def test_who_waits_too_long_is_told_so_and_the_next_is_served(database: Database) -> None:
    async with database.reading() as session:
        await session.execute(text("SELECT 1"))
        with pytest.raises(Busy):
            await ask(database)
    await ask(database)
