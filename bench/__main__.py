"""One command, one run, one table."""

import argparse
import asyncio
import contextlib
import secrets
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from pydantic import SecretStr
from rich.console import Console
from rich.progress import track
from sqlalchemy.engine import URL, make_url

from app.embedded import EmbeddedPostgresError, embedded_postgres
from app.migrations import migrate
from app.settings import Settings
from bench import BenchFailed, data, report, servers
from bench.load import Run, Target, find_wrk, measure

_DATA = Path(__file__).parent.parent / ".data" / "bench"
_BARE, _TUTORIAL, _PRICEBOOK = "bare", "tutorial", "pricebook"
_POOL_SIZE: int = Settings.model_fields["database_pool_size"].default
_NOTES = """\
bare       a constant answer, no framework, no database
tutorial   FastAPI and an ORM session per request: one row of one table, read by id
pricebook  GET /v1/items/{id}/price: past, present and scheduled price of each item, tax split, metrics on
All three: uvicorn, one process, no access log (Pricebook at LOG_LEVEL=warning, otherwise as it comes).
The load generator, the server and PostgreSQL share the cores: compare the ratios, not the requests/s."""


def main() -> None:
    """Measure and print, or say in one line why not."""
    parser = argparse.ArgumentParser(prog="python -m bench", description="Compare a price read with two rivals.")
    parser.add_argument("--rounds", type=_positive, default=3, help="how often each is measured (default: 3)")
    parser.add_argument("--seconds", type=_positive, default=8, help="how long each time (default: 8)")
    options = parser.parse_args()
    # Ends like Ctrl-C does, so that the servers and PostgreSQL stop too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    console = Console()
    try:
        wrk = find_wrk()
        with embedded_postgres(_DATA) as url, tempfile.TemporaryDirectory() as directory:
            server = make_url(url)
            postgres = asyncio.run(data.recreate(server, [_TUTORIAL, _PRICEBOOK]))
            with _targets(server, Path(directory), console) as targets:
                runs = _measure(wrk, targets, console, rounds=options.rounds, seconds=options.seconds)
    except (BenchFailed, EmbeddedPostgresError) as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        sys.exit("Stopped.")
    console.print(report.table(runs, bare=_BARE, tutorial=_TUTORIAL, seconds=options.seconds))
    console.print(f"{_NOTES}\n{report.facts(postgres)}", highlight=False, soft_wrap=True)
    if any(run.failed for of_target in runs.values() for run in of_target):
        sys.exit("Not every request was answered with success: the figures mean nothing.")


def _positive(text: str) -> int:
    if (number := int(text)) < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return number


@contextlib.contextmanager
def _targets(server: URL, directory: Path, console: Console) -> Iterator[list[Target]]:
    """Start all three servers and fill their databases."""
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
        servers.pricebook(settings, directory) as pricebook_url,
    ):
        with console.status(f"Writing {data.ITEMS:,} items to each database"):
            tutorial_paths = asyncio.run(data.fill_tutorial(tutorial_url))
            pricebook_paths = asyncio.run(data.fill_pricebook(pricebook_url))
            asyncio.run(data.settle(tutorial))
            asyncio.run(data.settle(settings.sqlalchemy_url))
        yield [
            _target(_BARE, bare_url, ["/"], directory),
            _target(_TUTORIAL, tutorial_url, tutorial_paths, directory),
            _target(_PRICEBOOK, pricebook_url, pricebook_paths, directory),
        ]


def _target(name: str, url: str, paths: list[str], directory: Path) -> Target:
    file = directory / f"{name}.paths"
    file.write_text("\n".join(paths) + "\n")
    return Target(name, url, file)


def _measure(wrk: str, targets: list[Target], console: Console, *, rounds: int, seconds: int) -> dict[str, list[Run]]:
    """Measure in rounds over all targets, so that a slow minute of the machine hits each of them."""
    runs: dict[str, list[Run]] = {target.name: [] for target in targets}
    for target in track(targets * rounds, "Measuring", console=console):
        runs[target.name].append(measure(wrk, target, seconds))
    return runs


if __name__ == "__main__":
    main()
