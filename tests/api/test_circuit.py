"""A database that is away or silent: nobody waits for it in vain, and it is found again without a restart.

Every other time limit is an hour here, so what ends before that was ended by the circuit.
"""

import asyncio
import gc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg
import httpx2
import pytest
from sqlalchemy.engine import URL

from app.main import create_app
from app.settings import Settings
from tests.api.test_trouble import client_of, slug
from tests.conftest import make_settings
from tests.support.tcp_proxy import TcpProxy

_HOUR = 3600
PATIENT = {
    "database_silence_seconds": 0.5,
    "database_pool_timeout_seconds": _HOUR,
    "database_connect_timeout_seconds": _HOUR,
    "database_statement_timeout_milliseconds": _HOUR * 1000,
    "database_lock_timeout_milliseconds": _HOUR * 1000,
    "database_pool_size": 2,
    "ledger_watch_seconds": _HOUR,
    "feed_poll_seconds": 60,
}


@asynccontextmanager
async def behind(proxy: TcpProxy) -> AsyncIterator[tuple[httpx2.AsyncClient, httpx2.AsyncClient]]:
    """The API and the admin port of a service whose database is behind the proxy."""
    app = create_app(make_settings(proxy.url).model_copy(update=PATIENT))
    transport = httpx2.ASGITransport(app=app.state.operations)
    async with client_of(app) as client, httpx2.AsyncClient(transport=transport, base_url="http://admin.test") as admin:
        yield client, admin


async def circuit_is_open(admin: httpx2.AsyncClient) -> bool:
    page = (await admin.get("/metrics")).text
    return "pricebook_database_circuit_open 1.0" in page.splitlines()


async def until_served(client: httpx2.AsyncClient) -> None:
    async with asyncio.timeout(60):
        while (answer := await client.get("/v1/items")).status_code != 200:
            assert slug(answer) == (503, "database-unavailable")
            assert answer.headers["retry-after"] == "1"
            await asyncio.sleep(0.05)


async def test_requests_to_a_silent_database_end_and_it_is_found_again(own_url: URL) -> None:
    with TcpProxy(own_url).open() as proxy:
        async with behind(proxy) as (client, admin):
            assert (await client.get("/v1/items")).status_code == 200
            for _ in range(2):
                assert not await circuit_is_open(admin)
                proxy.silence()
                async with asyncio.timeout(60):
                    # Some wait for an answer, the others for a connection.
                    answers = await asyncio.gather(
                        *(client.get("/v1/items") for _ in range(8)),
                        *(client.post("/v1/items", json={"name": "x"}) for _ in range(8)),
                    )
                    assert {slug(answer) for answer in answers} == {(503, "database-unavailable")}
                    assert all(answer.headers["retry-after"] for answer in answers)
                    assert await circuit_is_open(admin)
                    assert slug(await client.get("/v1/items")) == (503, "database-unavailable")
                proxy.resume()
                await until_served(client)
                async with asyncio.timeout(60):
                    # As many at once as the pools have room for, and more.
                    answers = await asyncio.gather(
                        *(client.get("/v1/items") for _ in range(8)),
                        *(client.post("/v1/items", json={"name": "x"}) for _ in range(8)),
                    )
                assert sorted(answer.status_code for answer in answers) == [200] * 8 + [201] * 8


async def test_a_service_that_starts_before_its_database_finds_it(own_url: URL) -> None:
    proxy = TcpProxy(own_url)
    proxy.silence()
    with proxy.open():
        async with asyncio.timeout(60), behind(proxy) as (client, admin):
            assert await circuit_is_open(admin)
            assert slug(await client.get("/v1/items")) == (503, "database-unavailable")
            assert (await admin.get("/readyz")).status_code == 503
            proxy.resume()
            await until_served(client)
            assert (await admin.get("/readyz")).status_code == 200


async def test_a_statement_that_takes_long_is_no_silence(
    client: httpx2.AsyncClient, owner: asyncpg.Connection, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    async with client_of(create_app(settings.model_copy(update=PATIENT))) as patient:
        async with owner.transaction():
            await owner.execute("UPDATE ledger SET seq = seq")
            writing = asyncio.create_task(patient.post("/v1/items", json={"name": "x"}))
            # Several looks, of which each finds the server there.
            await asyncio.sleep(PATIENT["database_silence_seconds"] * 5)
        assert (await writing).status_code == 201
    assert "database away" not in caplog.text


async def test_futures_that_nobody_waits_for_are_no_error_if_they_tell_the_end_of_a_connection(
    client: httpx2.AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    for error in (asyncpg.ConnectionDoesNotExistError("ended"), RuntimeError("a defect")):
        # As asyncpg leaves one behind when the connection of a COPY ends.
        asyncio.get_running_loop().create_future().set_exception(error)
        gc.collect()
    assert [record.exc_info[0] for record in caplog.records if record.name == "asyncio" and record.exc_info] == [
        RuntimeError
    ]
