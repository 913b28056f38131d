"""A primary and a standby that streams from it: two PostgreSQL servers on this machine, of which one may be lost."""

import contextlib
import os
import shlex
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

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
        self.port = free_port()
        self.url = make_url(f"postgresql://postgres@127.0.0.1:{self.port}/{_DATABASE}")
        self._program = program
        self._data = data
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def log(self) -> Path:
        """What it says."""
        return self._data.with_suffix(".log")

    def start(self) -> None:
        """Start it, and wait until it takes connections."""
        command = [self._program, "-D", self._data, "-p", self.port, "-k", "", "-c", "listen_addresses=127.0.0.1"]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [str(part) for part in command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                start_new_session=True,
                **as_owner(self._data),
            )
        self.until("SELECT true")

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


class Pair:
    """The two servers. ``address`` names both."""

    def __init__(self, directory: Path) -> None:
        data = directory / "primary"
        with embedded_postgres(data) as text:
            url = make_url(text)
            postgres.create_serving_role(url)
            postgres.execute(url, f"CREATE DATABASE {_DATABASE}")
        program = Path(shlex.split((data / "postmaster.opts").read_text())[0])
        (data / "pg_hba.conf").write_text(_RULES)
        self.primary = Server(program, data)
        self.primary.start()
        copy = directory / "standby"
        copy.mkdir(mode=0o700)
        owner = data.stat()
        os.chown(copy, owner.st_uid, owner.st_gid)
        subprocess.run(
            [
                program.with_name("pg_basebackup"),
                *("-h", "127.0.0.1", "-p", str(self.primary.port), "-U", "postgres"),
                *("-D", copy, "--write-recovery-conf", "--checkpoint=fast"),
            ],
            cwd="/",
            check=True,
            timeout=60,
            **as_owner(data),
        )
        self.standby = Server(program, copy)
        self.standby.start()

    def address(self, role: str = "postgres") -> str:
        """The address of both, as libpq has it."""
        servers = f"127.0.0.1:{self.primary.port},127.0.0.1:{self.standby.port}"
        return f"postgresql://{role}@{servers}/{_DATABASE}?target_session_attrs=read-write"

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


def as_owner(data: Path) -> dict[str, Any]:
    """Options of a process that is to belong to the data's owner: PostgreSQL refuses to be root."""
    owner = data.stat()
    return {"user": owner.st_uid, "group": owner.st_gid, "extra_groups": []} if os.geteuid() == 0 else {}


@contextlib.contextmanager
def running(directory: Path) -> Iterator[Pair]:
    """A pair during the block."""
    pair = Pair(directory)
    try:
        yield pair
    finally:
        pair.primary.end()
        pair.standby.end()
