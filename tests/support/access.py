"""An application that asks for keys, and keys for it."""

import re
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import httpx2
from fastapi import FastAPI

from app.access import Scope
from app.main import create_app
from app.settings import Settings

ADMIN_KEY = "an-admin-key-of-no-use-outside-of-the-tests"

KEYS = re.compile(rb"pb_[0-9a-f]{16}_[A-Za-z0-9_-]{43}|of no use outside of the tests|%b" % ADMIN_KEY.encode())
"""Keys and secrets of tests, which no log may show."""


def bearer(key: str) -> dict[str, str]:
    """The header with a key."""
    return {"Authorization": f"Bearer {key}"}


class Guarded(httpx2.AsyncClient):
    """A client that sends no key by itself, and the application that it asks, for tests that look inside."""

    def __init__(self, app: FastAPI) -> None:
        super().__init__(transport=httpx2.ASGITransport(app=app), base_url="http://pricebook.test")
        self.app = app


@asynccontextmanager
async def guarded(settings: Settings, **changes: Any) -> AsyncIterator[Guarded]:
    """A client, with no key yet, of an application of its own that asks for one."""
    values: dict[str, Any] = {"auth_required": True, "admin_key": ADMIN_KEY, "database_pool_size": 3, **changes}
    app = create_app(Settings(_env_file=None, **(settings.model_dump() | values)))
    async with app.router.lifespan_context(app), Guarded(app) as client:
        yield client


async def make_key(client: httpx2.AsyncClient, name: str, scopes: Sequence[Scope | str], **more: Any) -> dict[str, Any]:
    """A new key, as the service answers it."""
    document = {"name": name, "scopes": list(scopes), **more}
    done = await client.post("/v1/keys", json=document, headers=bearer(ADMIN_KEY))
    assert done.status_code == 201, done.text
    answer: dict[str, Any] = done.json()
    return answer
