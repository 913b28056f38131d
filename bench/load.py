"""The load generator wrk, one run at a time, what the servers used meanwhile, and what the runs say together."""

import json
import shutil
import statistics
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Protocol

from bench import BenchFailed, processes

CONNECTIONS = 32
WARM_UP_SECONDS = 2
_SCRIPT = Path(__file__).with_name("spread.lua")


@dataclass(frozen=True, slots=True)
class Answered:
    """What a load generator saw. ``failed`` counts requests without success: another status, or no answer at all."""

    requests: int
    seconds: float
    p50_milliseconds: float
    p99_milliseconds: float
    failed: int


class Load(Protocol):
    """Something that asks a server, or a database, for a while."""

    def run(self, seconds: int) -> Answered:
        """Ask for so long.

        :raises BenchFailed: if the load generator fails.
        """
        ...


@dataclass(frozen=True, slots=True)
class Subject:
    """What is measured: who is asked what, and the process that answers. Without one, the database answers alone."""

    load: Load
    pid: int | None = None


@dataclass(frozen=True, slots=True)
class Run:
    """One run, or the median of several.

    Processor seconds are for each 1000 requests: of the server's processes, and of PostgreSQL's. Memory is that of the
    server's processes afterwards, in MiB.
    """

    requests_per_second: float
    p50_milliseconds: float
    p99_milliseconds: float
    server_cpu: float
    database_cpu: float
    resident: float
    shared_out: float
    failed: int

    @property
    def cpu(self) -> float:
        """Processor seconds for each 1000 requests, of the server and PostgreSQL together."""
        return self.server_cpu + self.database_cpu


@dataclass(frozen=True, slots=True)
class Wrk:
    """Asks for the lines of a file, in turn, as ``spread.lua`` reads them."""

    url: str
    requests: Path
    headers: Mapping[str, str] = field(default_factory=dict)
    connections: int = CONNECTIONS

    def run(self, seconds: int) -> Answered:
        """Ask for so long."""
        command = [find_wrk(), "--threads=1", f"--connections={self.connections}", f"--duration={seconds}s"]
        command += ["--timeout=10s", f"--script={_SCRIPT}", self.url, "--", str(self.requests)]
        command += [f"{name}: {value}" for name, value in self.headers.items()]
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=seconds + 30)
            summary = json.loads(done.stdout.splitlines()[-1])
        except (subprocess.SubprocessError, IndexError, ValueError) as error:
            # Not the command itself, in which the key is.
            raise BenchFailed(f"wrk failed: {getattr(error, 'stderr', None) or type(error).__name__}") from None
        return Answered(
            requests=summary["requests"],
            seconds=summary["microseconds"] / 1e6,
            p50_milliseconds=summary["p50"] / 1000,
            p99_milliseconds=summary["p99"] / 1000,
            failed=summary["failed"],
        )


def write_requests(requests: Sequence[str], directory: Path) -> Path:
    """A new file for :class:`Wrk`: each line a path, or a path, a tab and the JSON document to post there."""
    with tempfile.NamedTemporaryFile("w", dir=directory, suffix=".requests", delete=False) as file:
        file.write("\n".join(requests) + "\n")
    return Path(file.name)


def find_wrk() -> str:
    """Where wrk is.

    :raises BenchFailed: if it is not installed.
    """
    if (wrk := shutil.which("wrk")) is None:
        raise BenchFailed(
            "wrk is not on the PATH. On Debian and Ubuntu: apt-get install wrk; on macOS: brew install wrk."
        )
    return wrk


def measure(subject: Subject, seconds: int, postgres: int) -> Run:
    """Warm up, then measure.

    :param postgres: the process of the PostgreSQL server.
    :raises BenchFailed: if the load generator fails, or nothing was answered.
    """
    subject.load.run(WARM_UP_SECONDS)
    measured = [pid for pid in (subject.pid, postgres) if pid is not None]
    before = {pid: processes.cpu_seconds(pid) for pid in measured}
    answered = subject.load.run(seconds)
    used = {pid: processes.cpu_seconds(pid) - before[pid] for pid in measured}
    if not answered.requests:
        raise BenchFailed("A server gave no answer at all.")
    held = processes.Memory(0, 0) if subject.pid is None else processes.memory(subject.pid)
    return Run(
        requests_per_second=answered.requests / answered.seconds,
        p50_milliseconds=answered.p50_milliseconds,
        p99_milliseconds=answered.p99_milliseconds,
        server_cpu=0 if subject.pid is None else used[subject.pid] * 1000 / answered.requests,
        database_cpu=used[postgres] * 1000 / answered.requests,
        resident=held.resident,
        shared_out=held.shared_out,
        failed=answered.failed,
    )


def median(runs: Sequence[Run]) -> Run:
    """The median of each figure, and the sum of what went wrong."""
    medians = {
        one.name: statistics.median(getattr(run, one.name) for run in runs)
        for one in fields(Run)
        if one.name != "failed"
    }
    return Run(**medians, failed=sum(run.failed for run in runs))
