"""Services in processes of their own have a database of their own."""

import asyncio
from collections.abc import AsyncIterator, Iterator

import asyncpg
import pytest
from sqlalchemy.engine import URL

from app.migrations import migrate
from tests.conftest import make_settings
from tests.support import postgres


@pytest.fixture(scope="session")
def owner_url(server: URL, worker_id: str) -> Iterator[URL]:
    """A migrated database, as its owner, that the application in this process does not follow.

    Its event loop stands still while other tests run. The notifications of some hundred writes would fill its socket
    then, and PostgreSQL wait for it, with everybody who creates or drops a database.
    """
    with postgres.database(server, f"pricebook_processes_{worker_id}") as url:
        asyncio.run(migrate(make_settings(url, serving_role=postgres.SERVING_ROLE)))
        yield url


@pytest.fixture(scope="session")
async def owner(owner_url: URL, anyio_backend: str) -> AsyncIterator[asyncpg.Connection]:
    """A connection as its owner, to look behind the API."""
    connection = await asyncpg.connect(postgres.text(owner_url))
    yield connection
    await connection.close()
