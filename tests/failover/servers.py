"""A primary and a standby that streams from it: two PostgreSQL servers on this machine, of which one may be lost."""

import contextlib
import os
import shlex
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import asyncpg
from sqlalchemy.engine import make_url

from app.embedded import embedded_postgres
from tests.support import postgres
from tests.support.processes import free_port

_START_SECONDS = 60
_DATABASE = "pricebook"
_RULES = """
local all all trust
host all all 127.0.0.1/32 trust
host replication all 127.0.0.1/32 trust
"""


class Server:
    """One PostgreSQL server with a data directory, reached by TCP."""

    def __init__(self, program: Path, data: Path) -> None:
        (data / "pg_hba.conf").write_text(_RULES)
        self.port = free_port()
        self.url = make_url(f"postgresql://postgres@127.0.0.1:{self.port}/{_DATABASE}")
        self._program = program
        self._data = data
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def log(self) -> Path:
        """What it says."""
        return self._data.with_suffix(".log")

    def start(self, **settings: str) -> None:
        """Start it with these settings beside its own, and wait until it takes connections."""
        command = [self._program, "-D", self._data, "-p", self.port, "-k", "", "-c", "listen_addresses=127.0.0.1"]
        for name, value in settings.items():
            command += ["-c", f"{name}={value}"]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [str(part) for part in command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                start_new_session=True,
                **postgres.as_owner(self._data),
            )
        self.until("SELECT true")

    def copied(self, data: Path, *options: str) -> "Server":
        """A server on a base backup of this one, which is not started."""
        postgres.back_up(self._program, self.url, self._data, data, *options)
        return Server(self._program, data)

    def signal_recovery(self) -> None:
        """Let the next start recover from an archive."""
        signal_file = self._data / "recovery.signal"
        signal_file.touch()
        os.chown(signal_file, self._data.stat().st_uid, self._data.stat().st_gid)

    def until(self, question: str) -> None:
        """Ask until the answer is true."""
        deadline = time.monotonic() + _START_SECONDS
        while True:
            with contextlib.suppress(OSError, asyncpg.PostgresError):
                if postgres.answer(self.url, question):
                    return
            assert time.monotonic() < deadline, f"no {question}:\n{self.log.read_text()[-3000:]}"
            time.sleep(0.05)

    def signal(self, how: signal.Signals) -> None:
        """Signal all of its processes: those that serve connections are not in the group of the first."""
        assert self._process is not None
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text()
        for pid in [self._process.pid, *map(int, children.split())]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, how)

    def end(self) -> None:
        """End it at once, if it runs."""
        if self._process is not None and self._process.poll() is None:
            self.signal(signal.SIGKILL)
            self._process.wait()


def new_server(data: Path) -> Server:
    """A server with an empty database and a serving role, which is not started."""
    with embedded_postgres(data) as text:
        url = make_url(text)
        postgres.create_serving_role(url)
        postgres.execute(url, f"CREATE DATABASE {_DATABASE}")
    return Server(Path(shlex.split((data / "postmaster.opts").read_text())[0]), data)


def address(*servers: Server, role: str = postgres.SERVING_ROLE) -> str:
    """The address of servers of one cluster, as libpq has it."""
    hosts = ",".join(f"127.0.0.1:{server.port}" for server in servers)
    return f"postgresql://{role}@{hosts}/{_DATABASE}"


class Pair:
    """The two servers. ``address`` names both."""

    def __init__(self, directory: Path) -> None:
        self.primary = new_server(directory / "primary")
        self.primary.start()
        self.standby = self.primary.copied(directory / "standby", "--write-recovery-conf")
        self.standby.start()

    def address(self, role: str = "postgres") -> str:
        """The address of both, as libpq has it."""
        return f"{address(self.primary, self.standby, role=role)}?target_session_attrs=read-write"

    def commit_on_both(self) -> None:
        """Let a commit on the primary wait for the standby. Set after the copy, so the standby will wait for nobody."""
        postgres.execute(
            self.primary.url, "ALTER SYSTEM SET synchronous_standby_names = 'ANY 1 (*)'", "SELECT pg_reload_conf()"
        )
        self.primary.until("SELECT count(*) = 1 FROM pg_stat_replication WHERE sync_state = 'quorum'")

    def cut_standby_off(self) -> None:
        """Let the standby hear no more of the primary."""
        postgres.execute(self.standby.url, "ALTER SYSTEM SET primary_conninfo = ''", "SELECT pg_reload_conf()")
        self.standby.until("SELECT count(*) = 0 FROM pg_stat_wal_receiver")

    def promote(self) -> None:
        """Make the standby the primary."""
        postgres.execute(self.standby.url, "SELECT pg_promote()")


@contextlib.contextmanager
def running(directory: Path) -> Iterator[Pair]:
    """A pair during the block."""
    pair = Pair(directory)
    try:
        yield pair
    finally:
        pair.primary.end()
        pair.standby.end()
