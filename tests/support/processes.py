"""The service as a process of its own, on ports of its own."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx2
import pytest

from tests.support.access import KEYS

PRICEBOOK = Path(sys.executable).with_name("pricebook")
SECRET = "of no use outside of the tests, but long enough"  # noqa: S105 - as it says


def free_port() -> int:
    with socket.socket() as candidate:
        candidate.bind(("127.0.0.1", 0))
        port: int = candidate.getsockname()[1]
        return port


def environment(**settings: object) -> dict[str, str]:
    """A clean environment with these settings. Keys are asked for only if they say so."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    return kept | {"AUTH_REQUIRED": "false"} | {name.upper(): str(value) for name, value in settings.items()}


@dataclass
class Service:
    """A running service."""

    process: subprocess.Popen[bytes]
    log: Path
    port: int
    admin_port: int

    @property
    def api(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def admin(self) -> str:
        return f"http://127.0.0.1:{self.admin_port}"

    def stop(self, how: signal.Signals) -> tuple[int, str]:
        """Signal it; returns the exit code and everything that it printed."""
        self.process.send_signal(how)
        return self.process.wait(timeout=20), self.log.read_text()

    def signal_all(self, how: signal.Signals) -> None:
        """Signal its process, and the one that gunicorn starts."""
        pid = self.process.pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        for one in (pid, *map(int, children)):
            os.kill(one, how)


def start(command: str, directory: Path, **settings: object) -> Service:
    """Start a service, on a port of its own unless one is given, and do not wait for it."""
    port, admin_port = int(str(settings.pop("port", free_port()))), free_port()
    log = directory / f"log-{port}-{admin_port}"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [PRICEBOOK, command],
            cwd=directory,
            env=environment(host="127.0.0.1", admin_host="127.0.0.1", port=port, admin_port=admin_port, **settings),
            stdout=output,
            stderr=output,
        )
    return Service(process, log, port, admin_port)


@contextmanager
def started(command: str, directory: Path, **settings: object) -> Iterator[Service]:
    """A service that may not get ready; it ends with the block."""
    service = start(command, directory, **settings)
    try:
        yield service
    finally:
        if service.process.poll() is None:
            service.process.terminate()
            service.process.wait(timeout=20)
    # Where the log is in pytest's own directory, it is searched again with all the others.
    assert not KEYS.search(service.log.read_bytes()), f"keys are in {service.log}"


@contextmanager
def running(command: str, directory: Path, **settings: object) -> Iterator[Service]:
    """A service that is ready; it ends with the block."""
    with started(command, directory, **settings) as service:
        wait_until_ready(service)
        yield service


def wait_until_ready(service: Service) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            if httpx2.get(f"{service.admin}/readyz", timeout=2).status_code == 200:
                return
        except httpx2.TransportError:
            pass
        if service.process.poll() is not None:
            break
        time.sleep(0.05)
    pytest.fail(f"the service did not get ready:\n{service.log.read_text()}")


def run(
    *arguments: object, directory: Path, stdin: object = None, **settings: object
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    return subprocess.run(
        [PRICEBOOK, *map(str, arguments)],
        cwd=directory,
        env=environment(**settings),
        input=None if stdin is None else str(stdin),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
