"""One command, one run: a table of all that is asked, and what comes of the goals."""

import argparse
import asyncio
import contextlib
import json
import signal
import statistics
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import track
from sqlalchemy.engine import URL, make_url

from app.embedded import EmbeddedPostgresError, embedded_postgres
from app.migrations import migrate
from bench import POSTGRES, RESULTS, BenchFailed, data, imports, report, servers, starts, works
from bench.goals import Goal, Start, goals
from bench.load import WARM_UP_SECONDS, Run, find_wrk, measure, median
from bench.report import Rows
from bench.rivals import directus, pocketbase
from bench.works import Works

_GROUPS = {"reads": works.READS, "writes": (works.WRITE,), "quotes": works.QUOTES}
_NOTES = """\
bare               a constant answer, no framework, no database
tutorial           FastAPI and an ORM session per request, one row of one table: read by id, 50 of them, insert
floats             the tutorial with an endpoint that adds up a document in floats, at its table's prices in one SELECT
pgbench            the statements with which Pricebook records a price, 32 connections, no service
pocketbase         one Go process on all cores with SQLite in it: a record by id, 50 of them, create; no key asked for
directus           one Node.js process on the same PostgreSQL: the same, for its administrator, who needs no rights
pricebook          key checked, metrics on; past, present and scheduled price of each item, all from the database
pricebook, cached  the same as it comes, with its response cache
Applications in Python run in one uvicorn process each, without access log. The load generator, the server and
PostgreSQL share the cores: compare the ratios, not the requests/s."""


@dataclass(frozen=True, slots=True)
class _Outcome:
    """All that one run measured."""

    facts: str
    runs: dict[str, dict[str, list[Run]]]
    notes: list[str]
    imported: imports.Times | None
    started: dict[str, list[Start]]


def main() -> None:
    """Measure and print, or say in one line why not."""
    parser = argparse.ArgumentParser(prog="python -m bench", description="Compare Pricebook with others, in one run.")
    parser.add_argument("--rounds", type=_positive, default=3, help="how often each is measured (default: 3)")
    parser.add_argument("--seconds", type=_positive, default=8, help="how long each time (default: 8)")
    parser.add_argument("--only", choices=[*_GROUPS, "imports", "starts"], help="measure a part of it")
    parser.add_argument("--rivals", action="store_true", help="PocketBase and Directus as well; built at first")
    parser.add_argument("--rows", type=_positive, default=100_000, help="rows of the import (default: 100000)")
    parser.add_argument("--page", type=Path, help="a page to write the tables into, between its markers")
    options = parser.parse_args()
    # Ends like Ctrl-C does, so that the servers and PostgreSQL stop too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    console = Console(width=max(Console().width, 130))
    try:
        rivals = _built(console) if options.rivals else {}
        with embedded_postgres(POSTGRES) as url, tempfile.TemporaryDirectory() as directory:
            outcome = _measured(make_url(url), Path(directory), console, options, rivals)
    except (BenchFailed, EmbeddedPostgresError) as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        sys.exit("Stopped.")
    sections = _sections(outcome, options)
    for title, rows in sections:
        report.show(console, title, rows)
    console.print("\n".join([*outcome.notes, "", _NOTES, outcome.facts]), highlight=False, soft_wrap=True)
    _keep(outcome)
    if options.page:
        text = "\n\n".join(f"{title}:\n\n{rows.markdown}" for title, rows in sections)
        report.write(options.page, "bench", f"{outcome.facts}\n\n{text}\n")
    if any(run.failed for of_work in outcome.runs.values() for of_one in of_work.values() for run in of_one):
        sys.exit("Not every request was answered with success: the figures mean nothing.")


def _positive(text: str) -> int:
    if (number := int(text)) < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return number


def _built(console: Console) -> dict[str, bool]:
    """Build the rivals in other languages, as far as what they need is there."""
    found: dict[str, bool] = {}
    for rival in (pocketbase, directus):
        if missing := rival.missing():
            console.print(f"Without {rival.NAME}: {missing}.")
            continue
        with console.status(f"Building {rival.NAME}, which takes minutes the first time"):
            rival.build()
        found[rival.NAME] = True
    return found


def _measured(
    server: URL, directory: Path, console: Console, options: argparse.Namespace, rivals: Mapping[str, bool]
) -> _Outcome:
    postgres = asyncio.run(data.recreate(server, works.DATABASES))
    outcome = _Outcome(report.facts(postgres), {}, [], None, {})
    if options.only in (None, *_GROUPS):
        find_wrk()
        with contextlib.ExitStack() as stack:
            with console.status("Starting") as status:
                only = _GROUPS.get(options.only, ())
                prepared = works.prepared(server, directory, status.update, rivals=rivals, only=only)
                all_works = stack.enter_context(prepared)
            outcome.runs.update(_rounds(all_works, console, rounds=options.rounds, seconds=options.seconds))
            outcome.notes.extend(work.note for work in all_works.by_name.values() if work.note)
    if options.only in (None, "starts"):
        settings = servers.settings_of(server.set(database="pricebook"))
        asyncio.run(migrate(settings))
        for name in track(starts.SERVERS * options.rounds, "Starting Pricebook", console=console):
            outcome.started.setdefault(name, []).append(starts.measure(settings, directory, name))
    if options.only in (None, "imports"):
        times = imports.Times()
        for _ in track(range(options.rounds), "Importing", console=console):
            imports.measure(server, directory, options.rows, times)
        return _Outcome(outcome.facts, outcome.runs, outcome.notes, times, outcome.started)
    return outcome


def _rounds(all_works: Works, console: Console, *, rounds: int, seconds: int) -> dict[str, dict[str, list[Run]]]:
    """Measure in rounds over all of them, so that a slow minute of the machine hits each."""
    found: dict[str, dict[str, list[Run]]] = {
        work.name: {name: [] for name in work.subjects} for work in all_works.by_name.values()
    }
    each = [
        (work.name, name, subject) for work in all_works.by_name.values() for name, subject in work.subjects.items()
    ]
    postgres = data.postmaster()
    for work_name, name, subject in track(each * rounds, "Measuring", console=console):
        found[work_name][name].append(measure(subject, seconds, postgres))
    return found


def _sections(outcome: _Outcome, options: argparse.Namespace) -> list[tuple[str, Rows]]:
    how = f"Medians of {options.rounds} rounds"
    found: list[tuple[str, Rows]] = []
    if outcome.runs:
        each = f"{options.seconds} s each after {WARM_UP_SECONDS} s of warm-up"
        found.append((f"{how}, {each}, 32 connections (quotes of 1000 lines: one)", report.figures(outcome.runs)))
    if outcome.started:
        found.append((f"{how}, on a migrated database", starts.table(outcome.started, _starts(outcome))))
    if outcome.imported:
        title = f"{how}; the server grew by {outcome.imported.grown:.0f} MiB at the most"
        found.append((title, imports.table(options.rows, outcome.imported)))
    if reached := _goals(outcome):
        rows = Rows(("goal", "", "measured", "reached"), [goal.texts for goal in reached])
        found.append(("Ratios of this run", rows))
    return found


def _starts(outcome: _Outcome) -> dict[str, Start]:
    return {
        server: Start(*(statistics.median(getattr(one, each.name) for one in of_server) for each in fields(Start)))
        for server, of_server in outcome.started.items()
    }


def _goals(outcome: _Outcome) -> list[Goal]:
    figures = {
        work: {name: median(of_one) for name, of_one in of_work.items()} for work, of_work in outcome.runs.items()
    }
    share = None
    if outcome.imported:
        share = outcome.imported.medians["COPY and indexes"] / outcome.imported.medians["new: both"]
    return list(goals(figures, share, _starts(outcome).get(starts.SERVERS[0])))


def _keep(outcome: _Outcome) -> None:
    """Write the figures down for :mod:`bench.capacity`; parts of a run replace the same parts of the one before."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    file = RESULTS / "bench.json"
    kept: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {"works": {}}
    kept["facts"] = outcome.facts
    kept["works"] |= report.as_json(outcome.runs)
    if outcome.started:
        kept["starts"] = {server: asdict(start) for server, start in _starts(outcome).items()}
    if outcome.imported:
        kept["import_grown_mib"] = outcome.imported.grown
    file.write_text(json.dumps(kept, indent=2))


if __name__ == "__main__":
    main()
