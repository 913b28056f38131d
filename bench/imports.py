"""`python -m bench.imports`: a price list of many rows, beside a bare COPY of the same rows, in one run."""

import argparse
import asyncio
import contextlib
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import asyncpg
import httpx2
from rich.console import Console
from sqlalchemy.engine import URL, make_url

from app.embedded import EmbeddedPostgresError, embedded_postgres
from app.migrations import migrate
from app.settings import Settings
from bench import POSTGRES, BenchFailed, data, processes, report, servers
from bench.report import Rows

_DATABASE = "imports"
_CHUNK_BYTES = 65_536

# What the same rows cost without any question asked: into a table like that of the prices, by COPY, then its indexes.
_BARE_TABLE = "CREATE TABLE bare (LIKE price_rows INCLUDING DEFAULTS)"
_BARE_INDEXES = """
CREATE UNIQUE INDEX ON bare (id);
CREATE INDEX ON bare (item_id, book_id, valid_from);
CREATE INDEX ON bare (book_id, valid_from, item_id) WHERE min_quantity <= 1;
CREATE INDEX ON bare (book_id, valid_to, item_id) WHERE valid_to IS NOT NULL AND min_quantity <= 1;
"""
_BARE_COLUMNS = ("item_id", "book_id", "amount", "per", "min_quantity", "tax_rate", "tax_included", "valid_from", "seq")
NOTES = """\
COPY               the rows as text, ready made, into an empty table like that of the prices
COPY and indexes   and its four indexes, built afterwards: no foreign key, nothing compared, no log of changes
new: preview       POST /v1/imports of a CSV file; each row read, checked and compared with the ledger, the plan stored
new: apply         :apply; each row makes an item and a price row, each of them with its change, at one instant
changed            the same list with other prices, a month later
unchanged          that list again: nothing to apply
Every file goes by HTTP to one uvicorn process as it comes; the server and PostgreSQL share the cores."""


@dataclass(slots=True)
class Times:
    """Seconds of each step, one entry for each round; and what the server's memory grew by, in MiB, at the most."""

    seconds: dict[str, list[float]] = field(default_factory=dict)
    grown: float = 0.0

    @property
    def medians(self) -> dict[str, float]:
        """Seconds of each step; and of preview and apply together, with the word "both"."""
        medians = {name: statistics.median(seconds) for name, seconds in self.seconds.items()}
        for kind in ("new", "changed"):
            medians[f"{kind}: both"] = medians[f"{kind}: preview"] + medians[f"{kind}: apply"]
        return medians

    @contextlib.contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Time the block."""
        started = time.perf_counter()
        yield
        self.seconds.setdefault(name, []).append(time.perf_counter() - started)


def main() -> None:
    """Measure and print, or say in one line why not."""
    parser = argparse.ArgumentParser(prog="python -m bench.imports", description="Import a large price list.")
    parser.add_argument("--rows", type=int, default=100_000, help="rows of the list (default: 100000)")
    parser.add_argument("--rounds", type=int, default=3, help="how often (default: 3)")
    options = parser.parse_args()
    # Ends like Ctrl-C does, so that the servers and PostgreSQL stop too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    console = Console()
    times = Times()
    try:
        with embedded_postgres(POSTGRES) as url, tempfile.TemporaryDirectory() as directory:
            for number in range(options.rounds):
                with console.status(f"Round {number + 1} of {options.rounds}"):
                    postgres = measure(make_url(url), Path(directory), options.rows, times)
    except (BenchFailed, EmbeddedPostgresError) as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        sys.exit("Stopped.")
    grown = f"The server process grew by {times.grown:.0f} MiB at the most."
    report.show(
        console,
        f"{options.rows:,} rows: median of {options.rounds} rounds",
        table(options.rows, times),
        [grown, NOTES, report.facts(postgres)],
    )


def measure(server: URL, directory: Path, rows: int, times: Times) -> str:
    """One round: a new database, all steps. Gives PostgreSQL's version."""
    postgres = asyncio.run(data.recreate(server, [_DATABASE]))
    settings = servers.settings_of(server.set(database=_DATABASE), max_import_bytes=2**34, max_import_rows=10_000_000)
    asyncio.run(migrate(settings))
    asyncio.run(_bare(settings, rows, times))
    first, second = _file(directory / "first.csv", rows, cents=0), _file(directory / "second.csv", rows, cents=100)
    with (
        servers.pricebook(settings, directory) as pricebook,
        httpx2.Client(base_url=pricebook.url, headers=dict(pricebook.headers), timeout=None) as api,
    ):
        api.get("/v1/books").raise_for_status()
        before = processes.memory(pricebook.pid).resident
        _import(api, first, "2026-01-01", "new", rows, times)
        _import(api, second, "2026-02-01", "changed", rows, times)
        with times.step("unchanged: preview"):
            preview(api, second, "2026-03-01", "unchanged", rows)
        times.grown = max(times.grown, _most_memory(pricebook.pid) - before)
    return postgres


async def _bare(settings: Settings, rows: int, times: Times) -> None:
    terms = "1\t1\t19\tf\t2026-01-01"
    lines = "".join(
        f"01900000-0000-7000-8000-{number:012x}\t1\t{number % 90_000 + 1000}.00\t{terms}\t{number}\n"
        for number in range(rows)
    ).encode()

    async def chunks() -> Any:
        for start in range(0, len(lines), _CHUNK_BYTES):
            yield lines[start : start + _CHUNK_BYTES]

    url = settings.sqlalchemy_url.set(drivername="postgresql").render_as_string(hide_password=False)
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(_BARE_TABLE)
        await connection.execute(
            "ALTER TABLE bare ALTER id SET DEFAULT uuidv7(), ALTER recorded_at SET DEFAULT now(), "
            "ALTER recorded_by SET DEFAULT 'bench'"
        )
        with times.step("COPY and indexes"):
            with times.step("COPY"):
                await connection.copy_to_table("bare", columns=_BARE_COLUMNS, source=chunks())
            await connection.execute(_BARE_INDEXES)
        await connection.execute("DROP TABLE bare")
    finally:
        await connection.close()


def _file(path: Path, rows: int, *, cents: int) -> Path:
    with path.open("w") as file:
        file.write("sku,name,amount,tax_rate\r\n")
        for number in range(rows):
            amount = number * 7919 % 900_000 + 10_000 + cents
            file.write(f"SKU-{number:08d},Item number {number},{amount / 100:.2f},19\r\n")
    return path


def _import(api: httpx2.Client, file: Path, effective_at: str, kind: str, rows: int, times: Times) -> None:
    with times.step(f"{kind}: preview"):
        address = preview(api, file, effective_at, {"new": "create", "changed": "change"}[kind], rows)
    with times.step(f"{kind}: apply"):
        apply(api, address)


def apply(api: httpx2.Client, address: str) -> None:
    """Apply an import.

    :raises BenchFailed: if it is not applied.
    """
    answer = api.post(f"{address}:apply")
    if answer.json().get("state") != "applied":
        raise BenchFailed(f"The import was not applied: {answer.text[:500]}")


def preview(api: httpx2.Client, file: Path, effective_at: str, status: str, rows: int) -> str:
    """Upload a CSV file. Gives the import's address.

    :param status: what each of its rows is to come to.
    :raises BenchFailed: if one does not.
    """

    def chunks() -> Iterator[bytes]:
        with file.open("rb") as opened:
            while chunk := opened.read(_CHUNK_BYTES):
                yield chunk

    answer = api.post(
        "/v1/imports", params={"effective_at": effective_at}, content=chunks(), headers={"Content-Type": "text/csv"}
    )
    if answer.status_code != 201 or answer.json()["counts"][status] != rows:
        raise BenchFailed(f"The preview is not as expected: {answer.text[:500]}")
    return str(answer.headers["Location"])


def _most_memory(pid: int) -> float:
    """MiB that a process had at the most."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1]) / 1024


def table(rows: int, times: Times) -> Rows:
    """Seconds of each step, and its speed beside COPY and indexes."""
    medians = times.medians
    bare = medians["COPY and indexes"]
    order = ["COPY", "COPY and indexes"]
    order += [f"{kind}: {step}" for kind in ("new", "changed") for step in ("preview", "apply", "both")]
    lines = []
    for name in [*order, "unchanged: preview"]:
        seconds = times.seconds.get(name)
        spread = f"{min(seconds):.2f}-{max(seconds):.2f}" if seconds else ""
        speed = f"{rows / medians[name]:,.0f}"
        lines.append([name, f"{medians[name]:.2f}", spread, speed, f"{bare / medians[name]:.2f}"])
    return Rows((f"{rows:,} rows", "seconds", "range", "rows/s", "x COPY and indexes"), lines)


if __name__ == "__main__":
    main()
