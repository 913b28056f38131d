"""PocketBase: one Go process with SQLite in it. Built here from its Go module, which the ordinary `go` fetches."""

import asyncio
import contextlib
import os
import secrets
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import httpx2
from sqlalchemy.engine import URL

from bench import RIVALS, BenchFailed, data, servers
from bench.servers import Server

NAME = "pocketbase"
_MODULE = Path(__file__).parent
_BINARY = RIVALS / NAME
_RECORDS = "/api/collections/items/records"
_SUPERUSER = "bench@example.com"
_COLLECTION = {
    "name": "items",
    "type": "base",
    "fields": [
        {"name": "name", "type": "text"},
        {"name": "description", "type": "text"},
        {"name": "price", "type": "number"},
        {"name": "tax", "type": "number"},
    ],
    # Everybody may: it looks at no key and runs no rule, which is the fastest that it has.
    **dict.fromkeys(("listRule", "viewRule", "createRule"), ""),
}


def missing() -> str | None:
    """What it needs and is not there."""
    return None if shutil.which("go") else "go is not on the PATH"


def build() -> None:
    """Build it, if that was not done before.

    :raises BenchFailed: if the build does.
    """
    RIVALS.mkdir(parents=True, exist_ok=True)
    command = ["go", "build", "-trimpath", "-o", str(_BINARY), "."]
    done = subprocess.run(
        command, cwd=_MODULE, env={**os.environ, "CGO_ENABLED": "0"}, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise BenchFailed(f"PocketBase was not built: {done.stderr[-2000:]}")


@contextlib.contextmanager
def running(directory: Path, _database: URL) -> Iterator[Server]:
    """Serve it from an empty directory, with a collection of items that everybody may read and add to.

    It has a database of its own in it.
    """
    (port,) = servers.free_ports(1)
    url = f"http://{servers.HOST}:{port}"
    password = secrets.token_hex(16)
    with tempfile.TemporaryDirectory(dir=directory) as database:
        where = f"--dir={database}"
        made = subprocess.run(
            [_BINARY, "superuser", "upsert", _SUPERUSER, password, where], capture_output=True, text=True, check=False
        )
        if made.returncode:
            raise BenchFailed(f"PocketBase made no superuser: {made.stderr[-2000:]}")
        command = [str(_BINARY), "serve", f"--http={servers.HOST}:{port}", where]
        with servers.running(NAME, command, {}, directory, f"{url}/api/health") as pid:
            asyncio.run(_prepare(url, password))
            yield Server(url, pid)


async def _prepare(url: str, password: str) -> None:
    async with httpx2.AsyncClient(base_url=url, timeout=30) as client:
        login = {"identity": _SUPERUSER, "password": password}
        token = (await data.ask(client, "POST", "/api/collections/_superusers/auth-with-password", login))["token"]
        client.headers["Authorization"] = token
        # Nothing else here keeps a log of requests either.
        await data.ask(client, "PATCH", "/api/settings", {"logs": {"maxDays": 0}})
        await data.ask(client, "POST", "/api/collections", _COLLECTION)


async def fill(server: Server) -> data.Catalogue:
    """Create the items."""
    return await data.fill_rows(
        server,
        _RECORDS,
        data.row,
        read=f"{_RECORDS}/{{}}",
        # Without the total, which Pricebook does not count either.
        page=lambda number: f"{_RECORDS}?page={number + 1}&perPage={data.PAGE}&skipTotal=1",
    )
