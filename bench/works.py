"""What is compared: each work with those who do it, their databases filled and their answers checked."""

import asyncio
import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqlalchemy.engine import URL

from app.migrations import migrate
from app.settings import Settings
from bench import data, documents, ledgers, pgbench, servers
from bench.load import CONNECTIONS, Subject, Wrk, write_requests
from bench.rivals import directus, pocketbase
from bench.servers import Server

READ, LIST, LOOKUP, WRITE = "price of an item", "list of 50 priced", "lookup of 100", "write of one price"
READS = (READ, LIST, LOOKUP)
QUOTES = ("quote of 20 lines, prices stated", "quote of 20 lines, looked up", "quote of 1000 lines, looked up")
ALL = (*READS, WRITE, *QUOTES)
BARE, TUTORIAL, FLOATS, PGBENCH, COLD, HOT = "bare", "tutorial", "floats", "pgbench", "pricebook", "pricebook, cached"
POCKETBASE, DIRECTUS = pocketbase.NAME, directus.NAME
DATABASES = [TUTORIAL, "pricebook", PGBENCH, DIRECTUS]

_HAS_CACHE = "response_cache_bytes" in Settings.model_fields
_WITHOUT_CACHE = {"RESPONSE_CACHE_BYTES": "0"}
_PGBENCH_ROWS = 10_000
_MOST_LINES = 4_000
"""Of all documents of one kind together."""


@dataclass(slots=True)
class Work:
    """Something that several are asked to do."""

    name: str
    subjects: dict[str, Subject] = field(default_factory=dict)
    note: str = ""


@dataclass(slots=True)
class Works:
    """All of them, by name, in the order of the table."""

    directory: Path
    by_name: dict[str, Work] = field(default_factory=dict)

    def add(
        self, work: str, name: str, server: Server, requests: Sequence[str], connections: int = CONNECTIONS
    ) -> None:
        """Let a server do a work."""
        file = write_requests(requests, self.directory)
        self.of(work).subjects[name] = Subject(Wrk(server.url, file, server.headers, connections), server.pid)

    def of(self, work: str) -> Work:
        """The work of that name."""
        return self.by_name.setdefault(work, Work(work))


@contextlib.contextmanager
def prepared(
    postgres: URL, directory: Path, status: Callable[[str], Any], *, rivals: Mapping[str, bool], only: Sequence[str]
) -> Iterator[Works]:
    """Start all servers, fill their databases, and say who does what.

    :param status: told what is being done.
    :param rivals: the names of those in other languages, and whether they take part.
    :param only: names of works; all of them if empty.
    """
    works = Works(directory)
    wanted = set(only or ALL)
    with contextlib.ExitStack() as stack:
        status("Starting the servers")
        tutorial_url = postgres.set(drivername="postgresql+asyncpg", database=TUTORIAL)
        variables = {
            "DATABASE_URL": tutorial_url.render_as_string(hide_password=False),
            "DATABASE_POOL_SIZE": str(servers.POOL_SIZE),
        }
        bare = stack.enter_context(servers.rival(BARE, {}, directory))
        tutorial = stack.enter_context(servers.rival(TUTORIAL, variables, directory))
        settings = servers.settings_of(postgres.set(database="pricebook"))
        asyncio.run(migrate(settings))
        pricebook = stack.enter_context(servers.pricebook(settings, directory, _WITHOUT_CACHE))
        works.add(READ, BARE, bare, ["/"])
        status("Filling the tutorial")
        of_tutorial = asyncio.run(
            data.fill_rows(
                tutorial,
                "/items/",
                data.row,
                read="/items/{}",
                page=lambda number: f"/items/?offset={number * data.PAGE}&limit={data.PAGE}",
            )
        )
        _add_catalogue(works, TUTORIAL, tutorial, of_tutorial)
        for name, rival in ((POCKETBASE, pocketbase), (DIRECTUS, directus)):
            if rivals.get(name):
                status(f"Starting and filling {name}")
                server = stack.enter_context(rival.running(directory, postgres.set(database=name)))
                _add_catalogue(works, name, server, asyncio.run(rival.fill(server)))
        status("Filling Pricebook")
        catalogue = asyncio.run(data.fill_pricebook(pricebook))
        _add_catalogue(works, COLD, pricebook, catalogue)
        works.add(LOOKUP, COLD, pricebook, data.lookups(catalogue.ids))
        if _HAS_CACHE:
            cached = stack.enter_context(servers.pricebook(settings, directory))
            works.add(READ, HOT, cached, catalogue.reads)
            works.add(LIST, HOT, cached, catalogue.pages)
            works.add(LOOKUP, HOT, cached, data.lookups(catalogue.ids))
        if WRITE in wanted:
            works.of(WRITE).subjects[PGBENCH] = _pgbench(postgres.set(database=PGBENCH), directory)
        if wanted & {*QUOTES}:
            status("Adding up the documents")
            floats = stack.enter_context(servers.rival(FLOATS, variables, directory))
            _add_quotes(works, (pricebook, catalogue), (floats, of_tutorial))
        for database in (tutorial_url, settings.sqlalchemy_url):
            asyncio.run(data.settle(database))
        works.by_name = {name: works.of(name) for name in ALL if name in wanted}
        yield works


def _add_catalogue(works: Works, name: str, server: Server, catalogue: data.Catalogue) -> None:
    for work, requests in ((READ, catalogue.reads), (LIST, catalogue.pages), (WRITE, catalogue.writes)):
        works.add(work, name, server, requests)


def _pgbench(database: URL, directory: Path) -> Subject:
    settings = servers.settings_of(database)
    asyncio.run(migrate(settings))
    asyncio.run(ledgers.fill(settings.sqlalchemy_url, _PGBENCH_ROWS))
    script = directory / "write.sql"
    script.write_text(asyncio.run(pgbench.script(settings, _PGBENCH_ROWS // ledgers.ROWS_PER_ITEM)))
    return Subject(pgbench.Pgbench(database, script))


def _add_quotes(works: Works, ours: tuple[Server, data.Catalogue], theirs: tuple[Server, data.Catalogue]) -> None:
    (pricebook, catalogue), (floats, of_tutorial) = ours, theirs
    of_book = documents.of_book(catalogue.ids, [int(key) for key in of_tutorial.ids])
    stated, book = {"currency": "EUR"}, {"book": "default"}
    kinds = ((documents.stated, stated, 20, CONNECTIONS), (of_book, book, 20, CONNECTIONS), (of_book, book, 1000, 1))
    for name, (line, head, lines, connections) in zip(QUOTES, kinds, strict=True):
        count = _MOST_LINES // lines
        exact, rounded = documents.write(line, lines=lines, documents=count, head=head)
        different = documents.differing((pricebook, exact), (floats, rounded))
        for who, server, path, asked in (
            (FLOATS, floats, documents.FLOATS_PATH, rounded),
            (COLD, pricebook, documents.PRICEBOOK_PATH, exact),
        ):
            works.add(name, who, server, [f"{path}\t{document}" for document in asked], connections)
        over = " over one connection" if connections == 1 else ""
        works.of(name).note = f"{name}{over}: in {different} of {count} documents the floats' gross total is wrong."
