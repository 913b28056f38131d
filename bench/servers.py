"""The processes under test: each serves on a free port of the loopback and is stopped by its process id."""

import contextlib
import os
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
from pydantic import SecretStr
from sqlalchemy.engine import URL

from app.access import Scope
from app.settings import Settings
from bench import BenchFailed

HOST = "127.0.0.1"
POOL_SIZE: int = Settings.model_fields["database_pool_size"].default
_ROOT = Path(__file__).parent.parent
_START_SECONDS = 120.0
_STOP_SECONDS = 15.0
_SCOPES = sorted(set(Scope) - {Scope.ADMIN})


@dataclass(frozen=True, slots=True)
class Server:
    """A server that runs, and the headers that it wants to see."""

    url: str
    pid: int
    headers: Mapping[str, str] = field(default_factory=dict)


def settings_of(database: URL, **others: Any) -> Settings:
    """Settings of a Pricebook on this database, as they come, but for the log, which has warnings only."""
    return Settings(
        database_url=SecretStr(database.render_as_string(hide_password=False)),
        secret_key=SecretStr(secrets.token_urlsafe(48)),
        database_pool_size=POOL_SIZE,
        log_level="warning",
        **others,
    )


@contextlib.contextmanager
def rival(name: str, environment: Mapping[str, str], directory: Path) -> Iterator[Server]:
    """Serve one of the applications in :mod:`bench.rivals` with the options that Pricebook gives uvicorn."""
    (port,) = free_ports(1)
    command = [sys.executable, "-m", "uvicorn", f"bench.rivals.{name}:app", "--app-dir", str(_ROOT)]
    command += ["--host", HOST, "--port", str(port), "--log-level", "warning", "--no-access-log", "--no-server-header"]
    with running(name, command, environment, directory, f"http://{HOST}:{port}/") as pid:
        yield Server(f"http://{HOST}:{port}", pid)


@contextlib.contextmanager
def pricebook(settings: Settings, directory: Path, environment: Mapping[str, str] | None = None) -> Iterator[Server]:
    """Serve Pricebook under uvicorn. It asks for keys, and the headers carry a real one.

    :param environment: further variables; those that this version does not know do nothing.
    """
    with serving(settings, directory, environment or {}, server="uvicorn") as (server, admin_key):
        made = httpx2.post(
            f"{server.url}/v1/keys",
            json={"name": f"bench-{secrets.token_hex(4)}", "scopes": _SCOPES},
            headers={"Authorization": f"Bearer {admin_key}"},
        )
        if not made.is_success:
            raise BenchFailed(f"Pricebook made no key: {made.text}")
        yield Server(server.url, server.pid, {"Authorization": f"Bearer {made.json()['key']}"})


@contextlib.contextmanager
def serving(
    settings: Settings, directory: Path, environment: Mapping[str, str], *, server: str
) -> Iterator[tuple[Server, str]]:
    """Serve Pricebook with its own command and with the admin port. Gives it with its ``ADMIN_KEY``, once it is ready.

    :param server: what runs the application.
    """
    port, admin_port = free_ports(2)
    admin_key = secrets.token_hex(32)
    command = [str(Path(sys.executable).with_name("pricebook")), "serve"]
    variables = {
        "DATABASE_URL": settings.database_url.get_secret_value(),
        "DATABASE_POOL_SIZE": str(settings.database_pool_size),
        "SECRET_KEY": settings.secret_key.get_secret_value(),
        "ADMIN_KEY": admin_key,
        "MAX_IMPORT_BYTES": str(settings.max_import_bytes),
        "MAX_IMPORT_ROWS": str(settings.max_import_rows),
        "LOG_LEVEL": settings.log_level,
        "SERVER": server,
        "HOST": HOST,
        "PORT": str(port),
        "ADMIN_HOST": HOST,
        "ADMIN_PORT": str(admin_port),
        **environment,
    }
    with running("pricebook", command, variables, directory, f"http://{HOST}:{admin_port}/readyz") as pid:
        yield Server(f"http://{HOST}:{port}", pid), admin_key


def free_ports(count: int) -> list[int]:
    """Ports of the loopback on which nothing listens."""
    with contextlib.ExitStack() as stack:
        listeners = [stack.enter_context(socket.create_server((HOST, 0))) for _ in range(count)]
        return [listener.getsockname()[1] for listener in listeners]


@contextlib.contextmanager
def running(
    name: str, command: Sequence[str], environment: Mapping[str, str], directory: Path, ready: str
) -> Iterator[int]:
    """Run a server until the end of the block, which begins once the address ``ready`` answers anything below 500.

    Gives its process id.

    :raises BenchFailed: if it does not; the message has what it said.
    """
    log = directory / f"{name}-{secrets.token_hex(4)}.log"
    with log.open("wb") as output:
        # Neither the caller's environment nor a .env beside the project may change what is measured.
        process = subprocess.Popen(
            command, cwd=directory, env={"PATH": os.environ["PATH"], **environment}, stdout=output, stderr=output
        )
    try:
        _wait(process, ready, name, log)
        yield process.pid
    finally:
        process.terminate()
        try:
            process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait(process: subprocess.Popen[bytes], ready: str, name: str, log: Path) -> None:
    deadline = time.monotonic() + _START_SECONDS
    with httpx2.Client(timeout=_START_SECONDS) as client:
        while process.poll() is None and time.monotonic() < deadline:
            with contextlib.suppress(httpx2.TransportError):
                if not client.get(ready).is_server_error:  # 404 as well: bare servers know no such address.
                    return
            time.sleep(0.02)
    said = log.read_text(errors="replace").strip() or "It said nothing."
    raise BenchFailed(f"The server {name} did not start. {said[-2000:]}")
