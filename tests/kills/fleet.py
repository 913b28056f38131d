"""Two servers on one database, each on ports that stay the same when it is started again."""

import asyncio
import os
import random
import signal
import subprocess
import time
from pathlib import Path

import httpx2
from sqlalchemy.engine import URL

from tests.support import postgres
from tests.support.processes import PRICEBOOK, SECRET, environment, free_port

_READY_SECONDS = 90


class Server:
    """`pricebook serve` under gunicorn or uvicorn. Its name is also its role in the database."""

    def __init__(self, name: str, url: URL, directory: Path, **settings: object) -> None:
        self.name = name
        self.log = directory / f"{name}.log"
        self._directory = directory
        port, self._admin_port = free_port(), free_port()
        self.address = f"http://127.0.0.1:{port}"
        self._environment = environment(
            server=name,
            database_url=postgres.text(url),
            secret_key=SECRET,
            host="127.0.0.1",
            port=port,
            admin_host="127.0.0.1",
            admin_port=self._admin_port,
            drain_seconds=0,
            log_level="warning",
            **settings,
        )
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, unless it runs."""
        if self.runs:
            return
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [PRICEBOOK, "serve"],
                cwd=self._directory,
                env=self._environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    @property
    def runs(self) -> bool:
        """Whether the process that was started has not ended."""
        return self._process is not None and self._process.poll() is None

    async def ready(self) -> None:
        """Wait until it says that it is ready."""
        deadline = time.monotonic() + _READY_SECONDS
        async with httpx2.AsyncClient(timeout=10) as client:
            while True:
                assert self.runs, f"{self.name} ended:\n{self.log.read_text()[-3000:]}"
                assert time.monotonic() < deadline, f"{self.name} is not ready:\n{self.log.read_text()[-3000:]}"
                try:
                    if (await client.get(f"http://127.0.0.1:{self._admin_port}/readyz")).status_code == 200:
                        return
                except httpx2.TransportError:
                    pass
                await asyncio.sleep(0.1)

    def kill(self) -> None:
        """SIGKILL all of its processes at once, as a container's end does."""
        assert self._process is not None
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def kill_worker(self) -> None:
        """SIGKILL the process that serves, under gunicorn: the one that started it must end by itself."""
        assert self._process is not None
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text().split()
        for child in children:
            os.kill(int(child), signal.SIGKILL)
        self._process.wait(timeout=30)

    def stop(self) -> None:
        """Stop it in order."""
        if self.runs:
            assert self._process is not None
            self._process.terminate()
            self._process.wait(timeout=60)


class Fleet:
    """The servers."""

    def __init__(self, servers: list[Server]) -> None:
        self.servers = servers

    def any(self, dice: random.Random) -> Server:
        """One of them, whether it runs or not: callers do not know."""
        return dice.choice(self.servers)

    def named(self, name: str) -> Server:
        """The one with this name."""
        return next(server for server in self.servers if server.name == name)

    async def start(self) -> None:
        """Start those that do not run, and wait for all."""
        for server in self.servers:
            server.start()
        await asyncio.gather(*(server.ready() for server in self.servers))

    def stop(self) -> None:
        """Stop all."""
        for server in self.servers:
            server.stop()
