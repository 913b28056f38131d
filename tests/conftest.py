"""Fixtures: one server and one migrated database for each test process, an application over it, a client for it."""

import asyncio
import inspect
import logging
import os
import time
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import asyncpg
import httpx2
import pytest
from fastapi import FastAPI
from sqlalchemy.engine import URL

from app.main import create_app
from app.migrations import migrate
from app.observability import logs
from app.settings import Settings
from tests.support import postgres
from tests.support.access import ADMIN_KEY, KEYS

CLEAR = """
    SET session_replication_role = replica;  -- keeps the triggers quiet that guard the history
    DELETE FROM api_keys; DELETE FROM stored_answers;
    DELETE FROM import_rows; DELETE FROM import_staging; DELETE FROM imports;
    DELETE FROM price_retirements; DELETE FROM price_rows; DELETE FROM items; DELETE FROM changes WHERE seq > 1;
    DELETE FROM books WHERE key <> 'default';
    UPDATE books SET (name, currency, time_zone, tax_included, rounding, version, updated_at) = (
        'Default', 'EUR', 'UTC', false, '{"mode": "half_up", "level": "group", "cash_increment": null}', 1, created_at
    ) WHERE version > 1;
    UPDATE ledger SET seq = 1, feed_floor = 0;
    SET session_replication_role = DEFAULT; NOTIFY pricebook_changes;
"""


for name in [name for name in os.environ if name.startswith("OTEL_")]:
    del os.environ[name]

# So that pytest shows the log of a failing test, and only that.
logs.route_to_standard_library()


@pytest.fixture(scope="session", autouse=True)
def _log_of_the_run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Whatever this test process and the services that it starts log is searched for keys at the end."""
    file = tmp_path_factory.getbasetemp() / "log-of-the-tests"
    handler = logging.FileHandler(file)
    handler.setFormatter(logs.formatter("json", [ADMIN_KEY]))
    # The client's own lines name addresses, whatever a test puts there.
    handler.addFilter(lambda record: not record.name.startswith("httpx2"))
    logging.getLogger().addHandler(handler)
    yield
    logging.getLogger().removeHandler(handler)
    handler.close()
    logged = [path for path in tmp_path_factory.getbasetemp().rglob("*log*") if path.is_file()]
    shown = [path for path in logged if KEYS.search(path.read_bytes())]
    assert file in logged
    assert not shown, f"keys are in {shown}"


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """One event loop for the whole run, so that the application's connections can be shared."""
    return "asyncio"


@pytest.fixture(scope="session")
def server() -> Iterator[URL]:
    """A PostgreSQL server, as its superuser."""
    with postgres.test_server() as url:
        postgres.create_serving_role(url)
        yield url


@pytest.fixture(scope="session")
def database_name(worker_id: str) -> str:
    """A name of this test process's own."""
    return f"pricebook_test_{worker_id}"


@pytest.fixture(scope="session")
def migrated(server: URL, worker_id: str) -> Iterator[URL]:
    """A migrated database that nobody uses: others are copies of it, which takes a fraction of migrating them."""
    with postgres.database(server, f"pricebook_migrated_{worker_id}") as url:
        settings = make_settings(url, serving_role=postgres.SERVING_ROLE)
        # On a thread, because the loop of the tests may run in this one.
        with ThreadPoolExecutor(1) as thread:
            thread.submit(asyncio.run, migrate(settings)).result()
        yield url


@pytest.fixture(scope="session")
def owner_url(server: URL, migrated: URL, database_name: str) -> Iterator[URL]:
    """The database of the application in this process, as its owner; for coroutines only."""
    with postgres.database(server, database_name, like=migrated) as url:
        yield url


@pytest.fixture(scope="session")
def service_url(server: URL, migrated: URL, worker_id: str) -> Iterator[URL]:
    """A migrated database, as its owner, for services in other processes and threads."""
    with postgres.database(server, f"pricebook_services_{worker_id}", like=migrated) as url:
        yield url


@pytest.fixture
def fresh_url(server: URL, worker_id: str) -> Iterator[URL]:
    """An empty database for one test."""
    with postgres.database(server, f"pricebook_fresh_{worker_id}") as url:
        yield url


@pytest.fixture
def own_url(server: URL, migrated: URL, worker_id: str) -> Iterator[URL]:
    """A migrated database for one test, as its owner."""
    with postgres.database(server, f"pricebook_own_{worker_id}", like=migrated) as url:
        yield url


@pytest.fixture
async def own_owner(own_url: URL) -> AsyncIterator[asyncpg.Connection]:
    """A connection as the owner of :func:`own_url`."""
    connection = await asyncpg.connect(postgres.text(own_url))
    yield connection
    await connection.close()


@pytest.fixture(scope="session")
def settings(owner_url: URL) -> Settings:
    """Settings of the application under test, which serves as the role without DDL rights."""
    return make_settings(postgres.as_serving_role(owner_url))


def make_settings(url: URL, **changes: Any) -> Settings:
    """Settings for tests; nothing comes from the environment of whoever runs them."""
    values: dict[str, Any] = {
        "database_url": postgres.text(url),
        "secret_key": "of no use outside of the tests, but long enough",
        "auth_required": False,
        "database_pool_size": 20,
        "migration_wait_seconds": 10,
        # One look at the start, and nothing in between: tests count statements.
        "ledger_watch_seconds": 3600,
        "housekeeping_seconds": 3600,
        **changes,
    }
    return Settings(_env_file=None, **values)


@pytest.fixture(scope="session")
async def app(settings: Settings, anyio_backend: str) -> AsyncIterator[FastAPI]:
    """The application, started."""
    app = create_app(settings)
    async with app.router.lifespan_context(app):
        deadline = time.monotonic() + 20
        while app.state.watch.up is None:
            assert time.monotonic() < deadline, "the ledger watch does not look"
            await asyncio.sleep(0.01)
        yield app


@pytest.fixture(scope="session")
async def owner(owner_url: URL, anyio_backend: str) -> AsyncIterator[asyncpg.Connection]:
    """A connection as the database's owner, to look behind the API."""
    connection = await asyncpg.connect(postgres.text(owner_url))
    yield connection
    await connection.close()


@pytest.fixture(scope="session")
async def _client(app: FastAPI) -> AsyncIterator[httpx2.AsyncClient]:
    transport = httpx2.ASGITransport(app=app)
    async with httpx2.AsyncClient(transport=transport, base_url="http://pricebook.test") as client:
        yield client


@pytest.fixture
async def client(app: FastAPI, _client: httpx2.AsyncClient, owner: asyncpg.Connection) -> httpx2.AsyncClient:
    """A client of an application whose ledger holds nothing but the default book."""
    await owner.execute(CLEAR)
    # The follower keeps changes in memory: let it see that these are gone.
    deadline = time.monotonic() + 20
    while app.state.follower.seq > 1:
        assert time.monotonic() < deadline, "the follower does not follow"
        await asyncio.sleep(0.001)
    return _client


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Refuse what would write where nobody reads.

    The event loop of the application in this process stands still while a test runs that is no coroutine. The
    notifications of some hundred writes would fill its socket then, and PostgreSQL wait for it, with everybody who
    drops a database.
    """
    for item in items:
        function = getattr(item, "function", None)
        still = not inspect.iscoroutinefunction(function)
        if function and still and "owner_url" in inspect.signature(function).parameters:
            raise pytest.UsageError(f"{item.nodeid} is no coroutine: let it ask for service_url, not owner_url")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what tests want said of what they found, from whichever process they ran in."""
    for report in terminalreporter.getreports("passed"):
        for name, text in report.user_properties:
            if name == "summary":
                terminalreporter.write_line(text)
