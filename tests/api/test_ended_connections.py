"""Connections that PostgreSQL is just ending when they are used: it has said so, and has not closed them yet."""

import asyncio
import gc
import itertools
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest
from fastapi import FastAPI
from sqlalchemy.ext.asyncio import AsyncEngine

_GOOD_BYE = b"SFATAL\0VFATAL\0C57P02\0Mterminating connection because of crash of another server process\0\0"

ITEM = {"name": "Tent", "price": {"amount": "200"}}


async def _ending(engine: AsyncEngine) -> Any:
    """Tell the pool's next connection what the server says to it in a crash. Returns the driver's connection."""
    async with engine.connect() as connection:
        driver: Any = (await connection.get_raw_connection()).driver_connection
    driver._protocol.data_received(b"E" + (len(_GOOD_BYE) + 4).to_bytes(4) + _GOOD_BYE)
    assert not driver.is_closed()
    return driver


@pytest.mark.parametrize("pool", ["reader", "writer", "importer"])
async def test_the_next_connection_is_another(app: FastAPI, client: httpx2.AsyncClient, pool: str) -> None:
    limits = itertools.count(1)

    async def ask() -> httpx2.Response:
        if pool == "reader":
            # Another list each time, lest it be answered from memory.
            return await client.get(f"/v1/items?limit={next(limits)}")
        if pool == "writer":
            return await client.post("/v1/items", json=ITEM)
        return await client.post(
            "/v1/imports", content="sku,name,amount\nA,A,1\n", headers={"content-type": "text/csv"}
        )

    # The pool may have given up its connections before; this one is of now.
    assert (await ask()).is_success
    driver = await _ending(getattr(app.state.database, pool))
    answer = await ask()
    if pool == "importer":
        # A file is read once, so nobody here can try it again.
        assert (answer.status_code, answer.json()["type"]) == (503, "/problems/database-unavailable"), answer.text
    else:
        assert answer.is_success, answer.text
    assert driver.is_closed()
    assert (await ask()).is_success


async def test_a_batch_of_a_file_meets_one(app: FastAPI, client: httpx2.AsyncClient) -> None:
    drivers = []
    loop = asyncio.get_running_loop()
    handler = loop.get_exception_handler()

    async def file() -> AsyncIterator[bytes]:
        yield b"sku,name,amount\n"
        drivers.append(await _ending(app.state.database.importer))
        yield b"A,A,1\n"

    # asyncpg forgets a future, which asyncio mentions in the log.
    loop.set_exception_handler(lambda *_: None)
    answer = await client.post("/v1/imports", content=file(), headers={"content-type": "text/csv"})
    gc.collect()
    loop.set_exception_handler(handler)
    assert (answer.status_code, answer.json()["type"]) == (503, "/problems/database-unavailable"), answer.text
    assert drivers[0].is_closed()
    (run,) = (await client.get("/v1/imports")).json()["items"]
    assert run["state"] == "failed"
