"""A database that is away or silent: nobody waits for it in vain, and it is found again without a restart.

Every other time limit is an hour here, so what ends before that was ended by the circuit.
"""

import asyncio
import errno
import gc
import logging
import socket
import struct
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from typing import Any

import asyncpg
import httpx2
import pytest
from sqlalchemy import text
from sqlalchemy.engine import URL

from app import primary
from app.database import Database
from app.errors import DatabaseUnavailable
from app.main import create_app
from app.settings import Settings
from tests.api.test_trouble import client_of, slug
from tests.conftest import make_settings
from tests.support import postgres
from tests.support.tcp_proxy import TcpProxy

pytestmark = pytest.mark.long

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
async def behind(proxy: TcpProxy, **settings: object) -> AsyncIterator[tuple[httpx2.AsyncClient, httpx2.AsyncClient]]:
    """The API and the admin port of a service whose database is behind the proxy."""
    app = create_app(make_settings(proxy.url).model_copy(update={**PATIENT, **settings}))
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


async def test_whoever_misses_the_database_says_so_once(own_url: URL, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)

    def said(*loggers: str) -> list[str]:
        records: list[Any] = [record for record in caplog.records if record.name in loggers]
        assert all(record.exc_info is None and "exception" not in record.msg for record in records)
        return [record.msg["event"] for record in records]

    often = {"ledger_watch_seconds": 0.05, "feed_poll_seconds": 0.05, "housekeeping_seconds": 0.05}
    watch, follower, housekeeping = "app.observability.ledger_watch", "app.follower", "app.housekeeping"
    with TcpProxy(own_url).open() as proxy:
        async with behind(proxy, **often) as (client, _):
            assert (await client.get("/v1/items")).status_code == 200
            proxy.silence()
            await until(lambda: bool(said(watch) and said(follower) and said("app.circuit")))
            await asyncio.sleep(1)  # Time for many a repetition.
            assert said("app.circuit") == ["database away"]
            assert said(watch) == ["ledger not read"]
            assert said(follower) == ["follower cut off"]
            assert said(housekeeping) in ([], ["housekeeping failed"]), "what it was at when it happened"
            proxy.resume()
            await until(lambda: len(said("app.circuit", watch, follower)) == 6)
            await asyncio.sleep(0.5)
    assert said("app.circuit") == ["database away", "database back"]
    assert said(watch) == ["ledger not read", "ledger read again"]
    assert said(follower) == ["follower cut off", "follower back"]
    assert said(housekeeping) in ([], ["housekeeping failed"])
    assert said("app.retries") == []


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


@pytest.fixture
async def database(settings: Settings) -> AsyncIterator[Database]:
    database = Database(settings.model_copy(update=PATIENT))
    async with database.circuit.running():
        yield database
    await database.close()


@asynccontextmanager
async def long_statement(database: Database, seconds: float) -> AsyncIterator[None]:
    """One that an import waits for during the block, and that has to come to its end."""

    async def work() -> None:
        async with database.importing() as session:
            await session.execute(text(f"SELECT pg_sleep({seconds})"))

    working = asyncio.create_task(work())
    await until(lambda: any(pool.checkedout() for name, pool in database.pools() if name == "importer"))
    await asyncio.sleep(0.3)
    yield
    async with asyncio.timeout(30):
        await working


async def until(done: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not done():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)


async def one(database: Database) -> int:
    async with database.reading() as session:
        return int(await session.scalar(text("SELECT 1")) or 0)


@pytest.fixture
async def full_pooler() -> AsyncIterator[int]:
    """A port at which PgBouncer says that it has as many clients as it takes."""

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(struct.unpack("!I", await reader.readexactly(4))[0] - 4)
        body = b"SFATAL\0VFATAL\0C08P01\0Mno more connections allowed (max_client_conn)\0\0"
        writer.write(b"E" + struct.pack("!I", len(body) + 4) + body)
        writer.close()

    server = await asyncio.start_server(refuse, "127.0.0.1", 0)
    with closing(server):
        yield int(server.sockets[0].getsockname()[1])


@pytest.mark.parametrize(
    "failure",
    [
        socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution"),
        OSError(errno.EMFILE, "Too many open files"),
        ConnectionResetError(errno.ECONNRESET, "Connection reset by peer"),
        None,
    ],
    ids=["name", "files", "reset", "pooler"],
)
async def test_one_connection_that_cannot_be_made_ends_no_other(
    database: Database,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    failure: OSError | None,
    full_pooler: int,
) -> None:
    find = primary.find
    failing = True

    async def once(**options: Any) -> Any:
        nonlocal failing
        if not failing:
            return await find(**options)
        failing = False
        if failure is not None:
            raise failure
        return await find(host="127.0.0.1", port=full_pooler, user="u", database="d", ssl=False)

    # Nothing is answered for as long as the import waits, so nothing tells that the database is there.
    async with long_statement(database, 1.5):
        monkeypatch.setattr(primary, "find", once)
        with pytest.raises(DatabaseUnavailable):
            await one(database)
        assert await one(database) == 1
    assert "database away" not in caplog.text


async def test_as_long_as_none_can_be_made_requests_are_refused_and_what_was_asked_goes_on(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    find = primary.find

    async def refuse(**_: Any) -> Any:
        raise ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused")

    async with long_statement(database, 3):
        monkeypatch.setattr(primary, "find", refuse)
        with pytest.raises(DatabaseUnavailable):
            await one(database)
        await until(lambda: database.circuit.open)
        with pytest.raises(DatabaseUnavailable, match="is looked for"):
            await one(database)
        # Longer than a silence: what a refused connection tells does not change by that.
        await asyncio.sleep(PATIENT["database_silence_seconds"] * 2.5)
        monkeypatch.setattr(primary, "find", find)
    await until(lambda: not database.circuit.open)
    assert await one(database) == 1


@pytest.mark.parametrize("refusal", ["CONNECTION LIMIT 1", "NOLOGIN"])
async def test_a_look_that_the_server_refuses_ends_nothing(
    server: URL, owner_url: URL, worker_id: str, refusal: str, caplog: pytest.LogCaptureFixture
) -> None:
    # A role of its own: other tests use the server at the same time.
    role, password = f"refused_{worker_id}", "only-for-tests"
    superuser = await asyncpg.connect(postgres.text(server))
    settings = make_settings(owner_url.set(username=role, password=password))
    database = Database(settings.model_copy(update=PATIENT))
    try:
        await superuser.execute(f"DROP ROLE IF EXISTS {role}")
        await superuser.execute(f"CREATE ROLE {role} LOGIN PASSWORD '{password}' IN ROLE {postgres.SERVING_ROLE}")
        async with database.circuit.running(), long_statement(database, 2.5):
            await superuser.execute(f"ALTER ROLE {role} {refusal}")
    finally:
        await database.close()
        await superuser.execute(f"DROP ROLE {role}")
        await superuser.close()
    assert "database away" not in caplog.text


async def test_where_connecting_takes_longer_than_a_silence_the_database_is_found(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    find, takes_seconds = primary.find, PATIENT["database_silence_seconds"] * 1.8

    async def slow(**options: Any) -> Any:
        await asyncio.sleep(takes_seconds)
        return await find(**options)

    monkeypatch.setattr(primary, "find", slow)
    database = Database(settings.model_copy(update=PATIENT))
    async with database.circuit.running():
        async with asyncio.timeout(60):
            while True:
                try:
                    assert await one(database) == 1
                    break
                except DatabaseUnavailable:
                    await asyncio.sleep(0.05)
        caplog.clear()
        async with long_statement(database, 3):
            pass
    await database.close()
    assert "database away" not in caplog.text


async def test_a_listener_that_cannot_listen_leaves_no_connection_behind(
    own_url: URL, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[asyncpg.Connection] = []

    async def fail(connection: asyncpg.Connection, *_: object) -> None:
        opened.append(connection)
        # Whoever takes leave of this server in order waits for it.
        proxy.silence()
        raise asyncpg.InterfaceError("not now")

    monkeypatch.setattr(asyncpg.Connection, "add_listener", fail)
    with TcpProxy(own_url).open() as proxy:
        database = Database(make_settings(proxy.url).model_copy(update=PATIENT))

        async def listen() -> None:
            async with database.listening("changes", notified=lambda: None, lost=lambda: None):
                pass

        listening = asyncio.create_task(listen())
        ended, _ = await asyncio.wait([listening], timeout=10)
        proxy.resume()
        with pytest.raises(asyncpg.InterfaceError):
            await listening
        assert ended, "it waited for the server"
        assert [connection.is_closed() for connection in opened] == [True]
        await database.close()


async def test_a_look_that_is_under_way_at_the_end_leaves_no_connection_behind(
    own_url: URL, monkeypatch: pytest.MonkeyPatch
) -> None:
    find = primary.find
    opened: list[asyncpg.Connection] = []

    async def then_silent(**options: Any) -> Any:
        connection, server = await find(**options)
        if database.circuit._connections:
            opened.append(connection)
            proxy.silence()
        return connection, server

    monkeypatch.setattr(primary, "find", then_silent)
    with TcpProxy(own_url).open() as proxy:
        database = Database(make_settings(proxy.url).model_copy(update=PATIENT | {"database_silence_seconds": _HOUR}))
        assert await one(database) == 1
        database.circuit.look()
        await until(lambda: bool(opened))
        await asyncio.sleep(0.1)
        assert not opened[0].is_closed()
        await database.close()
        assert opened[0].is_closed()


@pytest.mark.skipif(sys.platform != "linux", reason="the proxy loses connections by a filter of Linux")
async def test_a_server_that_is_lost_behind_an_address_that_leads_to_another_is_left(own_url: URL) -> None:
    with TcpProxy(own_url).open() as proxy:
        async with behind(proxy) as (client, _):
            assert (await client.get("/v1/items")).status_code == 200
            assert (await client.post("/v1/items", json={"name": "x"})).status_code == 201
            proxy.lose()
            async with asyncio.timeout(60):
                # These are on their way when it happens; the limits to statements are an hour.
                await asyncio.gather(client.get("/v1/items"), client.post("/v1/items", json={"name": "x"}))
                assert (await client.get("/v1/items")).status_code == 200
                assert (await client.post("/v1/items", json={"name": "x"})).status_code == 201


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
