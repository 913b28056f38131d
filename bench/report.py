"""The table, and the facts without which its figures mean nothing."""

import os
import platform
from importlib.metadata import version

from rich import box
from rich.table import Table

from bench.load import CONNECTIONS, WARM_UP_SECONDS, Run, median

_PACKAGES = ("uvicorn", "uvloop", "httptools", "fastapi", "sqlalchemy", "asyncpg")


def table(runs: dict[str, list[Run]], *, bare: str, tutorial: str, seconds: int) -> Table:
    """Compare the medians over the rounds. ``bare`` and ``tutorial`` name the rows that the ratios are taken to."""
    medians = {name: median(of_target) for name, of_target in runs.items()}
    rounds = len(runs[bare])
    result = Table(
        title=f"Median of {rounds} rounds, {seconds} s each after {WARM_UP_SECONDS} s of warm-up, "
        f"{CONNECTIONS} connections",
        box=box.SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
        collapse_padding=True,
    )
    result.add_column("", no_wrap=True)
    headings = ("req/s", "range", "p50 ms", "p99 ms", f"x {bare}", f"x {tutorial}", "non-2xx")
    for heading in headings:
        result.add_column(heading, justify="right", no_wrap=True)
    for name, run in medians.items():
        rates = [one.requests_per_second for one in runs[name]]
        result.add_row(
            name,
            f"{run.requests_per_second:,.0f}",
            f"{min(rates):,.0f}-{max(rates):,.0f}",
            f"{run.p50_milliseconds:.1f}",
            f"{run.p99_milliseconds:.1f}",
            f"{run.requests_per_second / medians[bare].requests_per_second:.3f}",
            f"{run.requests_per_second / medians[tutorial].requests_per_second:.2f}",
            str(run.failed),
        )
    return result


def facts(postgres: str) -> str:
    """What machine and which versions were measured."""
    packages = ", ".join(f"{package} {version(package)}" for package in _PACKAGES)
    return (
        f"{os.cpu_count()} cores, {platform.system()} {platform.machine()}, "
        f"{platform.python_implementation()} {platform.python_version()}, PostgreSQL {postgres}\n{packages}"
    )
