"""Two servers on one database, each behind a proxy whose port stays the same when it is started again.

One of them reads from a standby.
"""

import asyncio
import os
import random
import signal
import subprocess
import time
from pathlib import Path

import httpx2
from sqlalchemy.engine import URL

from app.access import Scope
from tests.chaos.proxy import Proxy
from tests.chaos.record import Record
from tests.support import postgres
from tests.support.access import ADMIN_KEY, bearer
from tests.support.processes import PRICEBOOK, SECRET, environment, free_port

GUNICORN, UVICORN = "gunicorn", "uvicorn"

POOL_SIZE, IMPORT_POOL_SIZE = 4, 2
MOST_CONNECTIONS = 2 * POOL_SIZE + IMPORT_POOL_SIZE + 1
"""Of one server: readers, writers, importers, and the follower of the feed."""

_READY_SECONDS = 90
_STANDBY_SECONDS = 30


class Server:
    """`pricebook serve` under gunicorn or uvicorn. Its name is also its role in the database."""

    def __init__(self, name: str, url: URL, directory: Path, *, read_url: URL | None = None) -> None:
        self.name = name
        self.reads_from_standby = read_url is not None
        self.log = directory / f"{name}.log"
        self._directory = directory
        self._port, self._admin_port = free_port(), free_port()
        self.front = Proxy(lambda: asyncio.open_connection("127.0.0.1", self._port))
        self.address = f"http://127.0.0.1:{self.front.port}"
        self._environment = environment(
            server=name,
            database_url=postgres.text(url),
            database_read_url=postgres.text(read_url) if read_url else "",
            secret_key=SECRET,
            auth_required=True,
            admin_key=ADMIN_KEY,
            host="127.0.0.1",
            port=self._port,
            admin_host="127.0.0.1",
            admin_port=self._admin_port,
            drain_seconds=0,
            log_level="warning",
            database_pool_size=POOL_SIZE,
            database_import_pool_size=IMPORT_POOL_SIZE,
            housekeeping_seconds=2,
            ledger_watch_seconds=0.5,  # It is ready again no sooner than it has looked.
        )
        self._process: subprocess.Popen[bytes] | None = None
        self._workers: list[int] = []

    def start(self) -> None:
        """Start it, unless it was started and not killed."""
        if self._process is not None:
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

    async def ready(self) -> None:
        """Wait until it says that it is ready."""
        assert self._process is not None
        deadline = time.monotonic() + _READY_SECONDS
        async with httpx2.AsyncClient(timeout=10) as client:
            while True:
                assert self._process.poll() is None, f"{self.name} ended:\n{self.log.read_text()[-3000:]}"
                assert time.monotonic() < deadline, f"{self.name} is not ready:\n{self.log.read_text()[-3000:]}"
                try:
                    if (await client.get(f"http://127.0.0.1:{self._admin_port}/readyz")).status_code == 200:
                        break
                except httpx2.TransportError:
                    pass
                await asyncio.sleep(0.1)
        self._workers = self._workers or self._children()

    def look(self, record: Record) -> None:
        """It and its worker are still those that were started."""
        if self._process is None or self._process.poll() is not None or self._children() != self._workers:
            record.violation(f"{self.name} ended or has another worker:\n{self.log.read_text()[-2000:]}")

    async def look_at_standby(self, record: Record) -> None:
        """Reads go to the standby, if there is one, or will in a moment: under load it is behind now and then."""
        if not self.reads_from_standby:
            return
        deadline = time.monotonic() + _STANDBY_SECONDS
        async with httpx2.AsyncClient(timeout=10) as client:
            while time.monotonic() < deadline:
                metrics = (await client.get(f"http://127.0.0.1:{self._admin_port}/metrics")).text
                if "\npricebook_database_replica_in_use 1.0\n" in metrics:
                    return
                await asyncio.sleep(0.5)
        record.violation(f"{self.name} does not read from the standby:\n{self.log.read_text()[-2000:]}")

    @property
    def processes(self) -> list[int]:
        """Their ids."""
        assert self._process is not None
        return [self._process.pid, *self._workers]

    def _children(self) -> list[int]:
        assert self._process is not None
        pid = self._process.pid
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]

    def kill(self) -> None:
        """SIGKILL all of its processes at once, as a container's end does."""
        assert self._process is not None
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._process, self._workers = None, []

    async def kill_worker(self) -> None:
        """SIGKILL the process that serves, under gunicorn: the one that started it must end by itself."""
        assert self._process is not None
        for child in self._workers:
            os.kill(child, signal.SIGKILL)
        await asyncio.to_thread(self._process.wait, 30)
        self._process, self._workers = None, []

    async def stop(self) -> None:
        """Stop it in order."""
        self.front.stop()
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            await asyncio.to_thread(self._process.wait, 60)


class Fleet:
    """The servers, and the key for them."""

    def __init__(self, servers: list[Server]) -> None:
        self.servers = servers
        self.key = ""

    @property
    def headers(self) -> dict[str, str]:
        """What each request says."""
        return bearer(self.key)

    def any(self, dice: random.Random) -> Server:
        """One of them, whether it runs or not: callers do not know."""
        return dice.choice(self.servers)

    def named(self, name: str) -> Server:
        """The one with this name."""
        return next(server for server in self.servers if server.name == name)

    async def start(self) -> None:
        """Start all, and make the key."""
        for server in self.servers:
            await server.front.start()
            server.start()
        await self.ready()
        document = {"name": "chaos", "scopes": [scope for scope in Scope if scope != Scope.ADMIN]}
        async with httpx2.AsyncClient(timeout=30) as client:
            answer = await client.post(f"{self.servers[0].address}/v1/keys", json=document, headers=bearer(ADMIN_KEY))
        assert answer.status_code == 201, answer.text
        self.key = answer.json()["key"]

    async def ready(self) -> None:
        """Wait until all say that they are ready."""
        await asyncio.gather(*(server.ready() for server in self.servers))

    async def stop(self) -> None:
        """Stop all."""
        await asyncio.gather(*(server.stop() for server in self.servers))
