"""The tables, on a terminal and in a page, and the facts without which their figures mean nothing."""

import os
import platform
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from bench.load import Run, median

_PACKAGES = ("uvicorn", "uvloop", "httptools", "fastapi", "sqlalchemy", "asyncpg")
_MANY = 100
_FEW = 10
HEADINGS = (
    "",
    "req/s",
    "range",
    "p50 ms",
    "p99 ms",
    "CPU s per 1000: server",
    "PostgreSQL",
    "req per CPU s",
    "RSS MiB",
    "PSS",
    "failed",
)


@dataclass(frozen=True, slots=True)
class Rows:
    """A table before it is one: the first cell of a row is text, the others are figures."""

    headings: Sequence[str]
    rows: Sequence[Sequence[str]]

    def on_terminal(self, title: str) -> Table:
        """For rich. A row of one cell begins a section."""
        table = Table(title=title, box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, collapse_padding=True)
        for place, heading in enumerate(self.headings):
            table.add_column(heading, justify="right" if place else "left", no_wrap=place > 0)
        for row in self.rows:
            if len(row) == 1:
                table.add_section()
            table.add_row(*row, style="bold" if len(row) == 1 else None)
        return table

    @property
    def markdown(self) -> str:
        """For a page."""
        width = len(self.headings)
        lines = ["| " + " | ".join(self.headings) + " |", "| --- |" + " ---: |" * (width - 1)]
        for row in self.rows:
            cells = [f"**{row[0]}**"] if len(row) == 1 else list(row)
            lines.append("| " + " | ".join(cells + [""] * (width - len(row))) + " |")
        return "\n".join(lines)


def figures(runs: Mapping[str, Mapping[str, Sequence[Run]]]) -> Rows:
    """One section for each work, one row for each who did it: medians over the rounds, and the range of the rates."""
    rows: list[list[str]] = []
    for work, of_work in runs.items():
        rows.append([work])
        for name, of_one in of_work.items():
            run = median(of_one)
            rates = [one.requests_per_second for one in of_one]
            rows.append(
                [
                    name,
                    rate(run.requests_per_second),
                    f"{rate(min(rates))}-{rate(max(rates))}",
                    f"{run.p50_milliseconds:.1f}",
                    f"{run.p99_milliseconds:.1f}",
                    f"{run.server_cpu:.3f}" if run.resident else "",
                    f"{run.database_cpu:.3f}",
                    rate(1000 / run.cpu) if run.cpu else "",
                    f"{run.resident:.0f}" if run.resident else "",
                    f"{run.shared_out:.0f}" if run.resident else "",
                    str(run.failed),
                ]
            )
    return Rows(HEADINGS, rows)


def rate(per_second: float) -> str:
    """Requests per second, with as many places as mean something."""
    return (
        f"{per_second:,.0f}"
        if per_second >= _MANY
        else f"{per_second:.1f}"
        if per_second >= _FEW
        else f"{per_second:.2f}"
    )


def facts(postgres: str) -> str:
    """What machine and which versions were measured."""
    packages = ", ".join(f"{package} {version(package)}" for package in _PACKAGES)
    return (
        f"{os.cpu_count()} cores{_processor()}, {_memory()}{platform.system()} {platform.machine()}, "
        f"{platform.python_implementation()} {platform.python_version()}, PostgreSQL {postgres}; {packages}. "
        f"Load average when it began: {os.getloadavg()[0]:.1f}."
    )


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = {line.partition(":")[2].strip() for line in lines if line.startswith("model name")}
    return f" ({', '.join(sorted(names))})" if names else ""


def _memory() -> str:
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return f"{pages / 2**30:.0f} GiB, "


def write(page: Path, name: str, text: str) -> None:
    """Put a text into a page, between its markers of that name."""
    begin, end = f"<!-- {name}: begin -->\n", f"<!-- {name}: end -->"
    head, rest = page.read_text().split(begin)
    page.write_text(f"{head}{begin}{text}\n{end}{rest.split(end)[1]}")


def as_json(runs: Mapping[str, Mapping[str, Sequence[Run]]]) -> dict[str, dict[str, Any]]:
    """The medians, to be kept."""
    return {work: {name: asdict(median(of_one)) for name, of_one in of_work.items()} for work, of_work in runs.items()}


def show(console: Console, title: str, rows: Rows, notes: Iterable[str] = ()) -> None:
    """Print a table and what there is to say about it."""
    console.print(rows.on_terminal(title))
    for note in notes:
        console.print(note, highlight=False, soft_wrap=True)
    console.print()
