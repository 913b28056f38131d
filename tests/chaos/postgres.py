"""PostgreSQL servers of the campaign's own, with fsync, whose first process and children can be killed and paused."""

import asyncio
import os
import shlex
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from typing import Self

import asyncpg
from sqlalchemy.engine import URL, make_url

from app.embedded import embedded_postgres
from tests.chaos.proxy import Proxy, Streams
from tests.support import postgres

HOG = "hog"
"""A role that takes connections away from others. It has no right to the last ones, which are for superusers."""

_MOST_CONNECTIONS = 40
_STREAMING = ("--write-recovery-conf", "--create-slot", "--slot=standby")
"""With the slot the primary keeps what the standby has yet to get, however long that was killed or paused."""
_START_SECONDS = 60
_DATABASE = "pricebook"


class Postgres:
    """A server with one database, which others reach by way of ``proxy``."""

    def __init__(self, program: Path, data: Path, owner: URL) -> None:
        """Make one that is not started.

        :param program: ``postgres``.
        :param data: its directory, in which its socket is, too.
        :param owner: a superuser's address of the database, on any server.
        """
        self.url = owner.set(database=_DATABASE).update_query_dict({"host": str(data)})
        self.proxy = Proxy(self._open)
        self._program = program
        self._data = data
        self._log = data.with_suffix(".log")
        options = ["-D", str(data), "-k", str(data), "-h", "", "-c", f"max_connections={_MOST_CONNECTIONS}"]
        self._command = [str(program), *options]
        self._process: subprocess.Popen[bytes] | None = None

    @classmethod
    def new(cls, data: Path, roles: list[str]) -> Self:
        """A server with a database that each of ``roles`` may serve."""
        with embedded_postgres(data) as text:
            url = make_url(text)
            postgres.create_serving_role(url)
            postgres.execute(
                url,
                *(f"CREATE ROLE {role} LOGIN IN ROLE {postgres.SERVING_ROLE}" for role in roles),
                f"CREATE ROLE {HOG} LOGIN",
                f"CREATE DATABASE {_DATABASE}",
            )
        return cls(Path(shlex.split((data / "postmaster.opts").read_text())[0]), data, url)

    def standby(self, data: Path) -> "Standby":
        """A server that follows this one once it is copied and started."""
        return Standby(self._program, data, self.url)

    async def copy(self, standby: "Standby") -> None:
        """Give a standby what this server has, which runs."""
        await asyncio.to_thread(postgres.back_up, self._program, self.url, self._data, standby._data, *_STREAMING)
        # The copy is in nobody's use.
        (standby._data / ".s.PGSQL.5432.lock").unlink()

    def as_role(self, role: str) -> URL:
        """The database for a role that serves, through the proxy."""
        return make_url(f"postgresql://{role}@127.0.0.1:{self.proxy.port}/{_DATABASE}")

    async def connect(self, role: str | None = None) -> asyncpg.Connection:
        """A connection that does not go through the proxy, as superuser unless a role is named."""
        url = self.url.set(username=role) if role else self.url
        return await asyncpg.connect(postgres.text(url), timeout=10)

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
        with self._log.open("ab") as log:
            return subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                start_new_session=True,
                **postgres.as_owner(self._data),
            )

    async def _takes_connections(self) -> bool:
        if self._process is None or self._process.poll() is not None:
            return False
        try:
            await (await self.connect()).close()
        except (OSError, asyncpg.PostgresError):
            return False
        return True

    async def _open(self) -> Streams:
        return await asyncio.open_unix_connection(f"{self._data}/.s.PGSQL.5432")

    def kill(self) -> None:
        """SIGKILL the postmaster. Its children notice and end by themselves."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def kill_backend(self, pid: int) -> None:
        """SIGKILL a process that serves a connection: PostgreSQL then ends all the others and recovers."""
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)

    def signal_all(self, how: signal.Signals) -> None:
        """Signal the postmaster, so that it starts no more, and then all of its children."""
        assert self._process is not None
        self._process.send_signal(how)
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text()
        for pid in map(int, children.split()):
            with suppress(ProcessLookupError):
                os.kill(pid, how)

    async def shut_down(self, how: signal.Signals) -> None:
        """SIGINT: fast, with a checkpoint; SIGQUIT: immediate, and the next start has to recover."""
        assert self._process is not None
        self._process.send_signal(how)
        await asyncio.to_thread(self._process.wait, 60)

    def stop(self) -> None:
        """Stop in order."""
        if self._process is not None and self._process.poll() is None:
            self.signal_all(signal.SIGCONT)
            self._process.send_signal(signal.SIGINT)
            self._process.wait(timeout=60)


class Standby(Postgres):
    """A server that streams from another one, and can be read."""

    async def behind(self, stay: bool) -> None:
        """Let it stay as it is now, whatever comes; or go on."""
        connection = await self.connect()
        try:
            await connection.execute(f"SELECT pg_wal_replay_{'pause' if stay else 'resume'}()")
        finally:
            await connection.close()
