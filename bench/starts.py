"""How long Pricebook takes to be ready, and what it holds when nobody asks."""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from app.settings import Settings
from bench import processes, servers
from bench.goals import Start
from bench.report import Rows

SERVERS = ("gunicorn", "uvicorn")
_IDLE_SECONDS = 3


def measure(settings: Settings, directory: Path, server: str) -> Start:
    """Start it on a migrated database, until `/readyz` says so, and leave it alone for a moment."""
    started = time.perf_counter()
    with servers.serving(settings, directory, {}, server=server) as (process, _):
        seconds = time.perf_counter() - started
        time.sleep(_IDLE_SECONDS)
        held = processes.memory(process.pid)
    return Start(seconds, held.resident, held.shared_out)


def table(starts: Mapping[str, Sequence[Start]], medians: Mapping[str, Start]) -> Rows:
    """One row for each server."""
    rows = []
    for server, start in medians.items():
        seconds = [one.seconds for one in starts[server]]
        span = f"{min(seconds):.2f}-{max(seconds):.2f}"
        rows.append([server, f"{start.seconds:.2f}", span, f"{start.resident:.0f}", f"{start.shared_out:.0f}"])
    return Rows(("Pricebook under", "s to ready", "range", "idle RSS MiB", "idle PSS"), rows)
