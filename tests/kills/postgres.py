"""A PostgreSQL that may be killed: on a data directory of its own, with fsync, as a child of this process."""

import asyncio
import os
import shlex
import signal
import subprocess
import time
from pathlib import Path

import asyncpg
from sqlalchemy.engine import URL, make_url

from app.embedded import embedded_postgres
from tests.support import postgres

_START_SECONDS = 60
_DATABASE = "pricebook"


class Postgres:
    """The server and one database in it, which each of ``roles`` may serve."""

    def __init__(self, directory: Path, roles: list[str]) -> None:
        self._data = directory / "postgres"
        self._log = directory / "postgres.log"
        with embedded_postgres(self._data) as text:
            self.url = make_url(text)
            postgres.create_serving_role(self.url)
            postgres.execute(
                self.url,
                *(f"CREATE ROLE {role} LOGIN IN ROLE {postgres.SERVING_ROLE}" for role in roles),
                f"CREATE DATABASE {_DATABASE}",
            )
        self.url = self.url.set(database=_DATABASE)
        self._process: subprocess.Popen[bytes] | None = None

    def as_role(self, role: str) -> URL:
        """The database for a role that serves."""
        return self.url.set(username=role, password=None)

    async def connect(self) -> asyncpg.Connection:
        """A connection as superuser."""
        return await asyncpg.connect(postgres.text(self.url), timeout=10)

    async def start(self) -> None:
        """Start, and wait until it takes connections; after a kill, when it has recovered."""
        deadline = time.monotonic() + _START_SECONDS
        while not await self._takes_connections():
            assert time.monotonic() < deadline, f"PostgreSQL does not start:\n{self._log.read_text()[-3000:]}"
            if self._process is None or self._process.poll() is not None:
                # It refuses to start as long as children of the one that was killed have not ended.
                self._process = self._spawn()
            await asyncio.sleep(0.05)

    def _spawn(self) -> subprocess.Popen[bytes]:
        # As pg_ctl starts it again: with the options of its last start, as the owner of its data.
        command = shlex.split((self._data / "postmaster.opts").read_text())
        owner = self._data.stat()
        other = {"user": owner.st_uid, "group": owner.st_gid, "extra_groups": []} if os.geteuid() == 0 else {}
        with self._log.open("ab") as log:
            return subprocess.Popen(  # type: ignore[call-overload,no-any-return]  # the options of another user
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd="/", start_new_session=True, **other
            )

    async def _takes_connections(self) -> bool:
        if self._process is None or self._process.poll() is not None:
            return False
        try:
            await (await self.connect()).close()
        except (OSError, asyncpg.PostgresError):
            return False
        return True

    def kill(self) -> None:
        """SIGKILL the postmaster. Its children notice and end by themselves."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def kill_backend(self, pid: int) -> bool:
        """SIGKILL a process that serves a connection: PostgreSQL then ends all the others and recovers."""
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            return False
        return True

    def stop(self) -> None:
        """Stop in order."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)
            self._process.wait(timeout=60)
