"""The table, and the facts without which its figures mean nothing."""

import os
import platform
from collections.abc import Sequence
from importlib.metadata import version

from rich import box
from rich.table import Table

from bench.load import WARM_UP_SECONDS, Run, median

_PACKAGES = ("uvicorn", "uvloop", "httptools", "fastapi", "sqlalchemy", "asyncpg")
_SMALL = 0.1
_MANY = 100


def table(title: str, runs: dict[str, list[Run]], beside: Sequence[str], *, seconds: int, connections: int) -> Table:
    """Compare the medians over the rounds. ``beside`` names the rows that the ratios are taken to."""
    medians = {name: median(of_target) for name, of_target in runs.items()}
    rounds = len(runs[beside[0]])
    result = Table(
        title=f"{title}: median of {rounds} rounds, {seconds} s each after {WARM_UP_SECONDS} s of warm-up, "
        f"{connections} connection{'s' if connections > 1 else ''}",
        box=box.SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
        collapse_padding=True,
    )
    result.add_column("", no_wrap=True)
    headings = ("req/s", "range", "p50 ms", "p99 ms", *(f"x {name}" for name in beside), "non-2xx")
    for heading in headings:
        result.add_column(heading, justify="right", no_wrap=True)
    for name, run in medians.items():
        rates = [one.requests_per_second for one in runs[name]]
        ratios = (run.requests_per_second / medians[other].requests_per_second for other in beside)
        result.add_row(
            name,
            _rate(run.requests_per_second),
            f"{_rate(min(rates))}-{_rate(max(rates))}",
            f"{run.p50_milliseconds:.1f}",
            f"{run.p99_milliseconds:.1f}",
            *(f"{ratio:.3f}" if ratio < _SMALL else f"{ratio:.2f}" for ratio in ratios),
            str(run.failed),
        )
    return result


def _rate(per_second: float) -> str:
    return f"{per_second:,.0f}" if per_second >= _MANY else f"{per_second:.1f}"


def facts(postgres: str) -> str:
    """What machine and which versions were measured."""
    packages = ", ".join(f"{package} {version(package)}" for package in _PACKAGES)
    return (
        f"{os.cpu_count()} cores, {platform.system()} {platform.machine()}, "
        f"{platform.python_implementation()} {platform.python_version()}, PostgreSQL {postgres}\n{packages}"
    )
