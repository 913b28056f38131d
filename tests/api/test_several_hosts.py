"""An address with several hosts: the primary is found wherever it stands, and it is said why none was."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager

import asyncpg
import httpx2
import pytest
from fastapi import FastAPI
from sqlalchemy import text
from sqlalchemy.engine import URL
from sqlalchemy.exc import DBAPIError

from app.database import Database
from app.database_errors import explain, sqlstate
from app.errors import DatabaseUnavailable
from app.main import create_app
from app.migrations import migrate
from app.observability import metrics
from app.observability.metrics import DatabaseError
from app.settings import Settings
from tests.api.test_trouble import client_of, slug
from tests.conftest import make_settings
from tests.support.tcp_proxy import TcpProxy


@contextmanager
def silent_server() -> Iterator[int]:
    """A port at which connections are made, and nobody ever says anything."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield int(listener.getsockname()[1])


def beside(url: URL, *ports: int) -> URL:
    """The address of a server reached by TCP, with others on this machine before it."""
    return URL.create(
        url.drivername,
        url.username,
        url.password,
        database=url.database,
        query={"host": ",".join(["127.0.0.1"] * (len(ports) + 1)), "port": ",".join(map(str, (*ports, url.port)))},
    )


async def test_migrations_reads_and_writes_pass_by_servers_that_refuse_or_are_silent(fresh_url: URL) -> None:
    with silent_server() as silent, TcpProxy(fresh_url).open() as proxy:
        settings = make_settings(beside(proxy.url, 1, silent))
        await migrate(settings)
        async with client_of(create_app(settings)) as client:
            assert (await client.post("/v1/items", json={"name": "x", "sku": "x"})).status_code == 201
            assert [item["sku"] for item in (await client.get("/v1/items")).json()["items"]] == ["x"]


async def test_connections_for_reads_forbid_writes_also_with_several_hosts(fresh_url: URL) -> None:
    with TcpProxy(fresh_url).open() as proxy:
        settings = make_settings(beside(proxy.url, 1))
        await migrate(settings)
        database = Database(settings)
        try:
            with pytest.raises(DBAPIError, match="read-only"):
                async with database.reading() as session:
                    await session.execute(text("UPDATE ledger SET seq = seq"))
            async with database.writing() as session:
                await session.execute(text("UPDATE ledger SET seq = seq"))
        finally:
            await database.close()


async def test_when_there_is_no_primary_each_server_is_named_with_its_reason(settings: Settings) -> None:
    with silent_server() as silent:
        nowhere = make_settings(beside(settings.sqlalchemy_url.set(port=1, query={}), silent))
        nowhere = nowhere.model_copy(update={"database_connect_timeout_seconds": 0.3})
        database = Database(nowhere)
        try:
            with pytest.raises(DatabaseUnavailable) as refusal:
                async with database.reading() as session:
                    await session.execute(text("SELECT 1"))
            said = explain(refusal.value, database.url)
        finally:
            await database.close()
        async with client_of(create_app(nowhere)) as client:
            assert slug(await client.get("/v1/items")) == (503, "database-unavailable")
    assert f"127.0.0.1:{silent},127.0.0.1:1/" in said
    assert f"127.0.0.1:{silent} does not answer, 127.0.0.1:1 refuses connections" in said
    assert "Check the address in DATABASE_URL" in said


async def test_a_server_that_refuses_the_login_is_what_is_said(fresh_url: URL) -> None:
    with TcpProxy(fresh_url).open() as proxy:
        port = int(proxy.url.port or 0)
        database = Database(make_settings(beside(proxy.url.set(database="nobody-made-it"), port)))
        try:
            with pytest.raises(DatabaseUnavailable) as refusal:
                async with database.reading() as session:
                    await session.execute(text("SELECT 1"))
        finally:
            await database.close()
    assert sqlstate(refusal.value.__cause__) == "3D000"


async def test_a_server_that_is_away_is_named_beside_one_that_refuses_the_login(fresh_url: URL) -> None:
    with TcpProxy(fresh_url).open() as proxy:
        port = proxy.url.port
        database = Database(make_settings(beside(proxy.url.set(database="nobody-made-it"), 1)))
        try:
            with pytest.raises(DatabaseUnavailable) as refusal:
                async with database.reading() as session:
                    await session.execute(text("SELECT 1"))
            said = explain(refusal.value, database.url)
        finally:
            await database.close()
    # A standby refuses as well as a primary does, so nobody knows whether it is not the primary that is away.
    assert "127.0.0.1:1 refuses connections" in said
    assert f'127.0.0.1:{port} cannot be used (database "nobody-made-it" does not exist)' in said


async def test_a_primary_that_refuses_writes_is_left_for_another(app: FastAPI) -> None:
    database: Database = app.state.database

    async def backend() -> int:
        async with database.writing() as session:
            return int(await session.scalar(text("SELECT pg_backend_pid()")) or 0)

    before = {await backend() for _ in range(3)}

    async def be_refused() -> None:
        async with database.writing() as session:
            await session.execute(text("SET TRANSACTION READ ONLY"))
            await session.execute(text("UPDATE ledger SET seq = seq"))

    with pytest.raises(DatabaseUnavailable):
        await be_refused()
    assert await backend() not in before


async def test_a_connection_that_the_server_ended_fails_no_request(
    client: httpx2.AsyncClient, owner: asyncpg.Connection
) -> None:
    assert (await client.post("/v1/items", json={"name": "x"})).status_code == 201
    assert (await client.get("/v1/items")).status_code == 200
    await owner.execute(
        "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity "
        "WHERE datname = current_database() AND application_name = 'pricebook'"
    )
    errors = metrics.DATABASE_ERRORS.labels(DatabaseError.UNAVAILABLE)._value.get()
    for _ in range(3):
        assert (await client.get("/v1/items")).status_code == 200
        assert (await client.post("/v1/items", json={"name": "y"})).status_code == 201
    assert metrics.DATABASE_ERRORS.labels(DatabaseError.UNAVAILABLE)._value.get() == errors, "not even once, unseen"
