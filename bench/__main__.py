"""One command, one run, a table for each thing that is asked."""

import argparse
import asyncio
import contextlib
import secrets
import signal
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pydantic import SecretStr
from rich.console import Console
from rich.progress import track
from sqlalchemy.engine import URL, make_url

from app.embedded import EmbeddedPostgresError, embedded_postgres
from app.migrations import migrate
from app.settings import Settings
from bench import BenchFailed, data, documents, report, servers
from bench.load import CONNECTIONS, Run, Target, find_wrk, measure

_MOST_LINES = 4_000
"""Of all documents of one kind together."""
_DATA = Path(__file__).parent.parent / ".data" / "bench"
_BARE, _TUTORIAL, _FLOATS, _PRICEBOOK = "bare", "tutorial", "floats", "pricebook"
_POOL_SIZE: int = Settings.model_fields["database_pool_size"].default
_NOTES = """\
bare       a constant answer, no framework, no database
tutorial   FastAPI and an ORM session per request: one row of one table, read by id
floats     the tutorial with an endpoint that adds up a document in floats, at its table's prices in one SELECT
pricebook  GET /v1/items/{id}/price: past, present and scheduled price of each item, tax split, metrics on;
           POST /v1/quotes: the same ledger, exact, every price row named, digest
All of them: uvicorn, one process, no access log (Pricebook at LOG_LEVEL=warning, otherwise as it comes).
The load generator, the server and PostgreSQL share the cores: compare the ratios, not the requests/s."""


@dataclass(frozen=True, slots=True)
class _Comparison:
    """What several servers are asked for. ``beside`` names those that the others are compared with."""

    title: str
    beside: tuple[str, ...]
    targets: list[Target]
    note: str = ""


def main() -> None:
    """Measure and print, or say in one line why not."""
    parser = argparse.ArgumentParser(prog="python -m bench", description="Compare price reads and quotes with rivals.")
    parser.add_argument("--rounds", type=_positive, default=3, help="how often each is measured (default: 3)")
    parser.add_argument("--seconds", type=_positive, default=8, help="how long each time (default: 8)")
    parser.add_argument("--only", choices=["reads", "quotes"], help="measure half of it")
    options = parser.parse_args()
    # Ends like Ctrl-C does, so that the servers and PostgreSQL stop too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    console = Console()
    try:
        wrk = find_wrk()
        with embedded_postgres(_DATA) as url, tempfile.TemporaryDirectory() as directory:
            server = make_url(url)
            postgres = asyncio.run(data.recreate(server, [_TUTORIAL, _PRICEBOOK]))
            with _comparisons(server, Path(directory), console, options.only) as comparisons:
                targets = [target for comparison in comparisons for target in comparison.targets]
                runs = _measure(wrk, targets, console, rounds=options.rounds, seconds=options.seconds)
    except (BenchFailed, EmbeddedPostgresError) as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        sys.exit("Stopped.")
    for comparison in comparisons:
        of_targets = {target.name: runs[target] for target in comparison.targets}
        connections = comparison.targets[0].connections
        console.print(
            report.table(
                comparison.title, of_targets, comparison.beside, seconds=options.seconds, connections=connections
            )
        )
        console.print(f"{comparison.note}\n", highlight=False)
    console.print(f"{_NOTES}\n{report.facts(postgres)}", highlight=False, soft_wrap=True)
    if any(run.failed for of_target in runs.values() for run in of_target):
        sys.exit("Not every request was answered with success: the figures mean nothing.")


def _positive(text: str) -> int:
    if (number := int(text)) < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return number


@contextlib.contextmanager
def _comparisons(server: URL, directory: Path, console: Console, only: str | None) -> Iterator[list[_Comparison]]:
    """Start all servers and fill their databases."""
    tutorial = server.set(drivername="postgresql+asyncpg", database=_TUTORIAL)
    tutorial_environment = {
        "DATABASE_URL": tutorial.render_as_string(hide_password=False),
        "DATABASE_POOL_SIZE": str(_POOL_SIZE),
    }
    settings = Settings(
        database_url=SecretStr(server.set(database=_PRICEBOOK).render_as_string(hide_password=False)),
        secret_key=SecretStr(secrets.token_urlsafe(48)),
        database_pool_size=_POOL_SIZE,
        log_level="warning",
    )
    asyncio.run(migrate(settings))
    with (
        servers.rival(_BARE, {}, directory) as bare_url,
        servers.rival(_TUTORIAL, tutorial_environment, directory) as tutorial_url,
        servers.rival(_FLOATS, tutorial_environment, directory) as floats_url,
        servers.pricebook(settings, directory) as pricebook,
    ):
        pricebook_url = pricebook.url
        with console.status(f"Writing {data.ITEMS:,} items to each database"):
            tutorial_paths = asyncio.run(data.fill_tutorial(tutorial_url))
            pricebook_paths = asyncio.run(data.fill_pricebook(pricebook_url))
            asyncio.run(data.settle(tutorial))
            asyncio.run(data.settle(settings.sqlalchemy_url))
        comparisons = []
        if only != "quotes":
            paths = [(_BARE, bare_url, ["/"]), (_TUTORIAL, tutorial_url, tutorial_paths)]
            targets = [_target(*one, directory) for one in [*paths, (_PRICEBOOK, pricebook_url, pricebook_paths)]]
            comparisons.append(_Comparison("The price of an item", (_BARE, _TUTORIAL), targets))
        if only != "reads":
            of_book = documents.of_book(
                [path.split("/")[3] for path in pricebook_paths], [int(path.split("/")[2]) for path in tutorial_paths]
            )
            stated, book = {"currency": "EUR"}, {"book": "default"}
            for title, line, head, lines, connections in (
                ("A quote of 20 lines, prices stated", documents.stated, stated, 20, CONNECTIONS),
                ("A quote of 20 lines, prices looked up", of_book, book, 20, CONNECTIONS),
                ("A quote of 1000 lines, prices looked up", of_book, book, 1000, 1),
            ):
                with console.status(f"Adding up documents of {lines} lines"):
                    count = _MOST_LINES // lines
                    ours, floats = documents.write(line, lines=lines, documents=count, head=head)
                    different = documents.differing((pricebook_url, ours), (floats_url, floats))
                targets = [
                    _target(name, url, [f"{path}\t{document}" for document in asked], directory, connections)
                    for name, url, path, asked in (
                        (_FLOATS, floats_url, documents.FLOATS_PATH, floats),
                        (_PRICEBOOK, pricebook_url, documents.PRICEBOOK_PATH, ours),
                    )
                ]
                note = f"In {different} of these {count} documents the floats' gross total is not the exact one."
                comparisons.append(_Comparison(title, (_FLOATS,), targets, note))
        yield comparisons


def _target(name: str, url: str, requests: list[str], directory: Path, connections: int = CONNECTIONS) -> Target:
    descriptor, file = tempfile.mkstemp(prefix=name, dir=directory, text=True)
    with open(descriptor, "w") as lines:  # noqa: PTH123 - it is open already
        lines.write("\n".join(requests) + "\n")
    return Target(name, url, Path(file), connections)


def _measure(
    wrk: str, targets: list[Target], console: Console, *, rounds: int, seconds: int
) -> dict[Target, list[Run]]:
    """Measure in rounds over all targets, so that a slow minute of the machine hits each of them."""
    runs: dict[Target, list[Run]] = {target: [] for target in targets}
    for target in track(targets * rounds, "Measuring", console=console):
        runs[target].append(measure(wrk, target, seconds))
    return runs


if __name__ == "__main__":
    main()
