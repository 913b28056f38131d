"""The load generator wrk, one run at a time, and what the runs say together."""

import json
import shutil
import statistics
import subprocess
from dataclasses import dataclass
from pathlib import Path

from bench import BenchFailed

CONNECTIONS = 32
WARM_UP_SECONDS = 2
_SCRIPT = Path(__file__).with_name("spread.lua")


@dataclass(frozen=True, slots=True)
class Run:
    """One run of wrk. ``failed`` counts the requests that no success answered: another status, or no answer at all."""

    requests_per_second: float
    p50_milliseconds: float
    p99_milliseconds: float
    failed: int


@dataclass(frozen=True, slots=True)
class Target:
    """What a run asks for: the lines of a file, in turn, as ``spread.lua`` reads them."""

    name: str
    url: str
    requests: Path
    connections: int = CONNECTIONS


def find_wrk() -> str:
    """Where wrk is.

    :raises BenchFailed: if it is not installed.
    """
    if (wrk := shutil.which("wrk")) is None:
        raise BenchFailed(
            "wrk is not on the PATH. On Debian and Ubuntu: apt-get install wrk; on macOS: brew install wrk."
        )
    return wrk


def measure(wrk: str, target: Target, seconds: int) -> Run:
    """Warm up, then measure.

    :raises BenchFailed: if wrk does.
    """
    _run(wrk, target, WARM_UP_SECONDS)
    return _run(wrk, target, seconds)


def _run(wrk: str, target: Target, seconds: int) -> Run:
    command = [wrk, "--threads=1", f"--connections={target.connections}", f"--duration={seconds}s", "--timeout=10s"]
    command += [f"--script={_SCRIPT}", target.url, "--", str(target.requests)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=seconds + 30)
        summary = json.loads(done.stdout.splitlines()[-1])
    except (subprocess.SubprocessError, IndexError, ValueError) as error:
        raise BenchFailed(f"wrk failed: {getattr(error, 'stderr', None) or error}") from None
    return Run(
        requests_per_second=summary["requests"] / summary["microseconds"] * 1e6,
        p50_milliseconds=summary["p50"] / 1000,
        p99_milliseconds=summary["p99"] / 1000,
        failed=summary["failed"],
    )


def median(runs: list[Run]) -> Run:
    """The median of each figure, and the sum of what went wrong."""
    return Run(
        requests_per_second=statistics.median(run.requests_per_second for run in runs),
        p50_milliseconds=statistics.median(run.p50_milliseconds for run in runs),
        p99_milliseconds=statistics.median(run.p99_milliseconds for run in runs),
        failed=sum(run.failed for run in runs),
    )
