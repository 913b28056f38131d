"""`python -m bench.growth`: what reads, lists, lookups, writes and imports cost as the ledger grows, in one run."""

import argparse
import asyncio
import contextlib
import json
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import httpx2
from rich.console import Console
from rich.progress import track
from sqlalchemy.engine import URL, make_url

from app.embedded import EmbeddedPostgresError, embedded_postgres
from app.migrations import migrate
from app.pagination import Cursors
from app.services.priced_items import Listing
from app.settings import Settings
from bench import POSTGRES, RESULTS, BenchFailed, curves, data, imports, ledgers, processes, report, servers
from bench.load import Run, Subject, Wrk, find_wrk, measure, median, write_requests
from bench.report import Rows
from bench.servers import Server

READ, LIST, LOOKUP, WRITE = "read", "list of 50", "lookup of 100", "write"
_SIZES = (10_000, 100_000, 1_000_000)
_MOST_ITEMS = 50_000
_IMPORTED = 10_000
_STRIDE = 7919
_WITHOUT_CACHE = {"RESPONSE_CACHE_BYTES": "0"}
_NOTES = """\
Every size has a database and a uvicorn process of its own, without response cache; all are on one PostgreSQL as it
comes, and the rounds go over all sizes. Each request is for another item or page, of up to 50,000 from all over the
ledger; writes add prices to other items than those that are read. The import is of 10,000 new items, preview and
apply, after all rounds."""


@dataclass(slots=True)
class Ledger:
    """One size: its server, what it is asked, what that cost, and what it held when all was done."""

    rows: int
    settings: Settings
    server: Server
    subjects: Mapping[str, Subject]
    runs: dict[str, list[Run]] = field(default_factory=dict)
    import_seconds: list[float] = field(default_factory=list)
    idle: float = 0
    held: float = 0
    after_import: float = 0


def main() -> None:
    """Measure, print, and draw."""
    parser = argparse.ArgumentParser(prog="python -m bench.growth", description="What operations cost by size.")
    parser.add_argument("--sizes", type=int, nargs="+", default=_SIZES, help="numbers of price rows")
    parser.add_argument("--rounds", type=int, default=3, help="how often each is measured (default: 3)")
    parser.add_argument("--seconds", type=int, default=8, help="how long each time (default: 8)")
    parser.add_argument("--page", type=Path, help="a page to write the table into, between its markers")
    parser.add_argument("--picture", type=Path, help="a file for the curves, .svg or .png; needs matplotlib")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    console = Console(width=max(Console().width, 130))
    try:
        find_wrk()
        with embedded_postgres(POSTGRES) as url, tempfile.TemporaryDirectory() as directory:
            facts, found = _measured(make_url(url), Path(directory), console, options)
    except (BenchFailed, EmbeddedPostgresError) as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        sys.exit("Stopped.")
    rows = table(found)
    title = f"By number of price rows: medians of {options.rounds} rounds, {options.seconds} s each, 32 connections"
    report.show(console, title, rows, [_NOTES, facts])
    RESULTS.mkdir(parents=True, exist_ok=True)
    kept = {ledger.rows: report.as_json({"growth": ledger.runs})["growth"] for ledger in found}
    (RESULTS / "growth.json").write_text(json.dumps({"facts": facts, "sizes": kept}, indent=2))
    if options.picture:
        curves.draw({ledger.rows: _medians(ledger) for ledger in found}, options.picture)
    if options.page:
        report.write(options.page, "growth", f"{facts}\n\n{title}:\n\n{rows.markdown}\n")
    if any(run.failed for ledger in found for runs in ledger.runs.values() for run in runs):
        sys.exit("Not every request was answered with success: the figures mean nothing.")


def _measured(
    postgres: URL, directory: Path, console: Console, options: argparse.Namespace
) -> tuple[str, list[Ledger]]:
    databases = {rows: f"growth_{rows}" for rows in options.sizes}
    facts = report.facts(asyncio.run(data.recreate(postgres, [*databases.values()])))
    try:
        with contextlib.ExitStack() as stack:
            found = []
            for rows, database in databases.items():
                settings = servers.settings_of(postgres.set(database=database))
                with console.status(f"Writing {rows:,} price rows"):
                    asyncio.run(migrate(settings))
                    asyncio.run(ledgers.fill(settings.sqlalchemy_url, rows))
                server = stack.enter_context(servers.pricebook(settings, directory, _WITHOUT_CACHE))
                subjects = asyncio.run(_subjects(rows, settings, server, directory))
                idle = processes.memory(server.pid).shared_out
                found.append(Ledger(rows, settings, server, subjects, idle=idle))
            each = [(ledger, name) for name in (READ, LIST, LOOKUP, WRITE) for ledger in found]
            for ledger, name in track(each * options.rounds, "Measuring", console=console):
                run = measure(ledger.subjects[name], options.seconds, data.postmaster())
                ledger.runs.setdefault(name, []).append(run)
            for ledger in found:
                ledger.held = processes.memory(ledger.server.pid).shared_out
            for number in track(range(options.rounds), "Importing", console=console):
                for ledger in found:
                    ledger.import_seconds.append(_import(ledger.server, directory, number))
            for ledger in found:
                ledger.after_import = processes.memory(ledger.server.pid).shared_out
            return facts, found
    finally:
        asyncio.run(data.drop(postgres, [*databases.values()]))


async def _subjects(rows: int, settings: Settings, server: Server, directory: Path) -> dict[str, Subject]:
    items = rows // ledgers.ROWS_PER_ITEM
    numbers = range(0, items, max(2, items // _MOST_ITEMS // 2 * 2))
    # In no order of the ledger's, but the same every time.
    read = [numbers[place * _STRIDE % len(numbers)] for place in range(len(numbers))]
    keys = [ledgers.item_id(number) for number in read]
    cursors = Cursors(settings.secret_key.get_secret_value())
    at = datetime.now(UTC).isoformat()
    pages = [
        f"/v1/items?limit={data.PAGE}&cursor="
        + cursors.encode({"after": ledgers.item_id(number), "at": at}, Listing(limit=data.PAGE).filters)
        for number in read
        if number + data.PAGE < items
    ]
    price = json.dumps({"amount": "12.34", "tax_rate": "19"})
    requests = {
        READ: [f"/v1/items/{key}/price" for key in keys],
        LIST: pages,
        LOOKUP: data.lookups(keys),
        WRITE: [f"/v1/items/{ledgers.item_id(number + 1)}/prices\t{price}" for number in read],
    }
    async with httpx2.AsyncClient(base_url=server.url, headers=dict(server.headers), timeout=60) as client:
        if len((await data.ask(client, "GET", pages[-1]))["items"]) != data.PAGE:
            raise BenchFailed("A page of the list is not full.")
    return {
        name: Subject(Wrk(server.url, write_requests(lines, directory), server.headers), server.pid)
        for name, lines in requests.items()
    }


def _import(server: Server, directory: Path, number: int) -> float:
    """Seconds from the first byte of the file to the applied list."""
    file = directory / f"import-{number}.csv"
    with file.open("w") as lines:
        lines.write("sku,name,amount,tax_rate\r\n")
        for line in range(_IMPORTED):
            lines.write(f"NEW-{number}-{line:06},New item {number}-{line},{1000 + line}.50,19\r\n")
    with httpx2.Client(base_url=server.url, headers=dict(server.headers), timeout=None) as api:
        started = time.perf_counter()
        imports.apply(api, imports.preview(api, file, datetime.now(UTC).date().isoformat(), "create", _IMPORTED))
        return time.perf_counter() - started


def _medians(ledger: Ledger) -> dict[str, Run]:
    return {name: median(runs) for name, runs in ledger.runs.items()}


def table(found: Sequence[Ledger]) -> Rows:
    """Rate, latency and processor time of each operation at each size, and what the largest is to the smallest."""
    smallest, largest = min(found, key=lambda one: one.rows), max(found, key=lambda one: one.rows)
    lines: list[list[str]] = []

    def add(name: str, texts: Sequence[str], ratio: float) -> None:
        lines.append([name, *texts, f"{ratio:.2f}"])

    for name in (READ, LIST, LOOKUP, WRITE):
        runs = [_medians(ledger)[name] for ledger in found]
        first, last = (_medians(ledger)[name] for ledger in (smallest, largest))
        add(
            f"{name}: requests/s",
            [report.rate(run.requests_per_second) for run in runs],
            last.requests_per_second / first.requests_per_second,
        )
        add(
            f"{name}: p50 ms",
            [f"{run.p50_milliseconds:.1f}" for run in runs],
            last.p50_milliseconds / first.p50_milliseconds,
        )
        add(
            f"{name}: p99 ms",
            [f"{run.p99_milliseconds:.1f}" for run in runs],
            last.p99_milliseconds / first.p99_milliseconds,
        )
        add(f"{name}: CPU s per 1000", [f"{run.cpu:.2f}" for run in runs], last.cpu / first.cpu)
    seconds = [statistics.median(ledger.import_seconds) for ledger in found]
    ends = [statistics.median(ledger.import_seconds) for ledger in (smallest, largest)]
    add(f"import of {_IMPORTED:,}: seconds", [f"{one:.2f}" for one in seconds], ends[1] / ends[0])
    for what, held in (
        ("idle", [ledger.idle for ledger in found]),
        ("after the rounds", [ledger.held for ledger in found]),
        ("after the imports", [ledger.after_import for ledger in found]),
    ):
        add(f"server's PSS, {what}: MiB", [f"{one:.0f}" for one in held], held[-1] / held[0])
    return Rows(("", *(f"{ledger.rows:,}" for ledger in found), "largest to smallest"), lines)


if __name__ == "__main__":
    main()
