"""The processes under test: each serves on a free port of the loopback and is stopped by its process id."""

import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import httpx2

from app.settings import Settings
from bench import BenchFailed

_HOST = "127.0.0.1"
_ROOT = Path(__file__).parent.parent
_START_SECONDS = 30.0
_STOP_SECONDS = 15.0


@contextlib.contextmanager
def rival(name: str, environment: Mapping[str, str], directory: Path) -> Iterator[str]:
    """Serve one of :mod:`bench.rivals` with the options that Pricebook gives uvicorn. Gives its URL."""
    (port,) = _free_ports(1)
    command = [sys.executable, "-m", "uvicorn", f"bench.rivals.{name}:app", "--app-dir", str(_ROOT)]
    command += ["--host", _HOST, "--port", str(port), "--log-level", "warning", "--no-access-log", "--no-server-header"]
    with _running(name, command, environment, directory, port) as server:
        yield server.url


@dataclass(frozen=True, slots=True)
class Server:
    """A server that runs."""

    url: str
    pid: int


@contextlib.contextmanager
def pricebook(settings: Settings, directory: Path) -> Iterator[Server]:
    """Serve Pricebook with its own command, under uvicorn and with the admin port."""
    port, admin_port = _free_ports(2)
    command = [str(Path(sys.executable).with_name("pricebook")), "serve"]
    environment = {
        "DATABASE_URL": settings.database_url.get_secret_value(),
        "DATABASE_POOL_SIZE": str(settings.database_pool_size),
        "AUTH_REQUIRED": "false",
        "SECRET_KEY": settings.secret_key.get_secret_value(),
        "LOG_LEVEL": settings.log_level,
        "SERVER": "uvicorn",
        "HOST": _HOST,
        "PORT": str(port),
        "ADMIN_HOST": _HOST,
        "ADMIN_PORT": str(admin_port),
    }
    with _running("pricebook", command, environment, directory, port) as server:
        yield server


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        listeners = [stack.enter_context(socket.create_server((_HOST, 0))) for _ in range(count)]
        return [listener.getsockname()[1] for listener in listeners]


@contextlib.contextmanager
def _running(
    name: str, command: list[str], environment: Mapping[str, str], directory: Path, port: int
) -> Iterator[Server]:
    log = directory / f"{name}.log"
    url = f"http://{_HOST}:{port}"
    with log.open("wb") as output:
        # Neither the caller's environment nor a .env beside the project may change what is measured.
        process = subprocess.Popen(
            command, cwd=directory, env={"PATH": os.environ["PATH"], **environment}, stdout=output, stderr=output
        )
    try:
        _wait(process, url, name, log)
        yield Server(url, process.pid)
    finally:
        process.terminate()
        try:
            process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait(process: subprocess.Popen[bytes], url: str, name: str, log: Path) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        try:
            httpx2.get(url, timeout=_START_SECONDS)  # Any answer will do, 404 as well.
        except httpx2.ConnectError:
            time.sleep(0.1)
        except httpx2.TransportError:
            break
        else:
            return
    said = log.read_text(errors="replace").strip() or "It said nothing."
    raise BenchFailed(f"The server {name} did not start. {said}")
