"""`python -m bench.plans`: what the reads cost as the ledger grows, and by which indexes PostgreSQL answers them.

The statements are those of the services, caught on their way to the database.
"""

import argparse
import asyncio
import math
import signal
import statistics
import sys
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from rich import box
from rich.console import Console
from rich.table import Table
from sqlalchemy import event
from sqlalchemy.engine import URL, make_url

from app.database import Database, ReadSession
from app.embedded import EmbeddedPostgresError, embedded_postgres
from app.migrations import migrate
from app.models import ItemKey
from app.pagination import Cursors
from app.schemas.price import Lookup, LookupLine
from app.schemas.quote import QuoteLine, QuoteRequest
from app.services import answers, exports, lookups, priced_items, quotes, schedules
from app.services.questions import Moment
from bench import POSTGRES, BenchFailed, data, ledgers, pgbench, servers

_DATABASE = "plans"
_SIZES = (10_000, 100_000, 1_000_000)
_EXECUTIONS = 20
_MOST_SECONDS = 10.0
_TABLE_WIDTH = 110
_LARGE_TABLE_ROWS = 1_000

_Read = Callable[[ReadSession], Awaitable[object]]
_Plan = dict[str, Any]


@dataclass(frozen=True, slots=True)
class _Cost:
    """What one statement cost on one database: time, pages looked at, and large tables read from end to end."""

    milliseconds: float
    pages: int
    scanned: list[str] = field(default_factory=list)


def main() -> None:
    """Measure, print, and exit with 1 if a read gets dearer as the ledger grows."""
    parser = argparse.ArgumentParser(prog="python -m bench.plans", description="What reads cost as the ledger grows.")
    parser.add_argument("--show", action="store_true", help="print the plans")
    parser.add_argument("--sizes", type=int, nargs="+", default=_SIZES, help="numbers of price rows")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    console = Console(soft_wrap=True, highlight=False, width=max(Console().width, _TABLE_WIDTH))
    try:
        with embedded_postgres(POSTGRES) as url:
            costs = {
                size: asyncio.run(_measure(make_url(url), size, console, show=options.show)) for size in options.sizes
            }
    except (BenchFailed, EmbeddedPostgresError) as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        sys.exit("Stopped.")
    console.print(_table(costs))
    if complaints := list(_complaints(costs)):
        sys.exit("\n".join(complaints))


async def _measure(server: URL, size: int, console: Console, *, show: bool) -> dict[str, _Cost]:
    """The cost of each read on a ledger of ``size`` price rows."""
    await data.recreate(server, [_DATABASE])
    settings = servers.settings_of(server.set(database=_DATABASE), database_statement_timeout_milliseconds=60_000)
    await migrate(settings)
    with console.status(f"Writing {size:,} price rows"):
        await ledgers.fill(settings.sqlalchemy_url, size)
    database = Database(settings)
    try:
        async with database.reader.connect() as connection:
            driver: Any = (await connection.get_raw_connection()).driver_connection
            large = await driver.fetch(
                "SELECT oid::regclass::text FROM pg_class WHERE relkind = 'r' AND reltuples > $1", _LARGE_TABLE_ROWS
            )
            costs = {}
            for name, read in (await _reads(database, size)).items():
                statement, arguments = await _caught(database, read)
                cost, plan = await _cost(driver, statement, arguments, {row[0] for row in large})
                costs[name] = cost
                if show:
                    console.rule(f"{name}, {size:,} rows", align="left")
                    console.print("\n".join(_outline(plan)), markup=False)
            return costs
    finally:
        await database.close()


async def _reads(database: Database, size: int) -> dict[str, _Read]:
    """The reads to measure, by name."""
    number = size // ledgers.ROWS_PER_ITEM
    some = [UUID(ledgers.item_id(place * number // 1000)) for place in range(1000)]
    middle = ItemKey(some[500], None)
    sku = ledgers.sku(number // 2)
    cursors = Cursors("of this run")
    one = Decimal(1)
    lookup = Lookup(lines=[LookupLine(item=str(item)) for item in some])
    document = QuoteRequest(lines=[QuoteLine(item=str(item)) for item in some])
    stated = QuoteRequest(lines=[QuoteLine(unit_price=one, tax_rate=one) for _ in some])
    after_list_prices = Moment(known_seq=number + 2 + size * ledgers.LIST_PRICES // ledgers.ROWS_PER_ITEM)
    exported = exports.Asked(1, "default", "EUR", after_list_prices.known_seq or 0, datetime.now(UTC), None)
    just_now = datetime.now(UTC)

    def price(key: ItemKey, moment: Moment) -> _Read:
        return lambda session: answers.read(session, key, book="default", moment=moment, quantity=one)

    def listing(**filters: Any) -> _Read:
        return lambda session: priced_items.read_page(session, priced_items.Listing(limit=50, **filters), cursors)

    def schedule(cursor: str | None = None) -> _Read:
        return lambda session: schedules.read(
            session, cursors, book="default", window=(None, None), cursor=cursor, limit=100
        )

    async with database.reading() as session:
        first = await schedules.read(session, cursors, book="default", window=(None, None), cursor=None, limit=100)
    return {
        "price by id": price(middle, Moment()),
        "price by sku": price(ItemKey(None, sku), Moment()),
        "price by id, known_seq": price(middle, after_list_prices),
        "price by sku, known_seq": price(ItemKey(None, sku), after_list_prices),
        "price by id, known_at": price(middle, Moment(known_at=just_now)),
        "lookup of 1000": lambda session: lookups.look_up(session, lookup),
        "quote of 1000": lambda session: quotes.quote(session, document),
        "quote of 1000, prices stated": lambda session: quotes.quote(session, stated),
        "list of 50": listing(),
        "schedule, first 100": schedule(),
        "schedule, next 100": schedule(first.next),
        "export, a batch": lambda session: exports.read_batch(session, exported, some[500]),
        "search, one match": listing(q=sku),
        "search, a fifth matches": listing(q="wheel"),
        "search, no match": listing(q="nothing like it"),
        "search, 2 letters, none": listing(q="zq"),
    }


async def _caught(database: Database, read: _Read) -> tuple[str, Sequence[Any]]:
    """The one statement that a read runs, and its arguments."""
    seen: list[tuple[str, Sequence[Any]]] = []

    def catch(_connection: object, _cursor: object, statement: str, arguments: Sequence[Any], *_: object) -> None:
        seen.append((statement, arguments))

    engine = database.reader.sync_engine
    event.listen(engine, "before_cursor_execute", catch)
    try:
        async with database.reading() as session:
            await read(session)
    finally:
        event.remove(engine, "before_cursor_execute", catch)
    if len(seen) != 1:
        raise BenchFailed(f"A read ran {len(seen)} statements instead of one.")
    return seen[0]


async def _cost(driver: Any, statement: str, arguments: Sequence[Any], large: set[str]) -> tuple[_Cost, _Plan]:
    """Execute a statement prepared, as the service does, and look at the plan that PostgreSQL settles on."""
    prepared = await driver.prepare(statement)
    explain = f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) EXECUTE {prepared.get_name()}"
    if arguments:
        explain += f"({', '.join(pgbench.literal(argument) for argument in arguments)})"
    seconds: list[float] = []
    # The bad need no patience.
    while len(seconds) < _EXECUTIONS and sum(seconds) < _MOST_SECONDS:
        start = time.perf_counter()
        await prepared.fetch(*arguments)
        seconds.append(time.perf_counter() - start)
    plan: _Plan = (await driver.fetchval(explain))[0]["Plan"]
    return _Cost(
        milliseconds=statistics.median(seconds) * 1000,
        pages=plan["Shared Hit Blocks"] + plan["Shared Read Blocks"],
        scanned=sorted(
            {
                node["Relation Name"]
                for _, node in _nodes(plan)
                if node["Node Type"] == "Seq Scan" and node["Relation Name"] in large
            }
        ),
    ), plan


def _nodes(plan: _Plan, depth: int = 0) -> Iterator[tuple[int, _Plan]]:
    yield depth, plan
    for child in plan.get("Plans", []):
        yield from _nodes(child, depth + 1)


def _outline(plan: _Plan) -> Iterator[str]:
    """The plan, a line for each node: what it reads, how often, how many rows come of it and which pages it takes."""
    for depth, node in _nodes(plan):
        name = " ".join(
            [node["Node Type"], *(node[key] for key in ("Index Name", "Relation Name", "Alias") if key in node)]
        )
        removed = sum(value for key, value in node.items() if key.startswith("Rows Removed by"))
        pages = node["Shared Hit Blocks"] + node["Shared Read Blocks"]
        yield (
            f"{'  ' * depth}{name}: {node['Actual Loops']:,} x {node['Actual Rows']:,} rows"
            f"{f', {removed:,} removed' if removed else ''}, {pages:,} pages, {node['Actual Total Time']:.3f} ms"
        )


def _table(costs: dict[int, dict[str, _Cost]]) -> Table:
    """Milliseconds and pages of each read by size."""
    result = Table(
        title=f"Median of up to {_EXECUTIONS} executions in ms, and pages read, by number of price rows",
        box=box.SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
        collapse_padding=True,
    )
    result.add_column("", no_wrap=True)
    for size in costs:
        result.add_column(f"{size:,}", justify="right", no_wrap=True)
        result.add_column("pages", justify="right", no_wrap=True)
    result.add_column("plan", no_wrap=True)
    for name in next(iter(costs.values())):
        cells: list[str] = []
        for of_size in costs.values():
            cells += [f"{of_size[name].milliseconds:.2f}", f"{of_size[name].pages:,}"]
        scanned = sorted({table for of_size in costs.values() for table in of_size[name].scanned})
        result.add_row(name, *cells, f"scans {', '.join(scanned)}" if scanned else "indexes")
    return result


def _complaints(costs: dict[int, dict[str, _Cost]]) -> Iterator[str]:
    """What is wrong: a large table read from end to end, or a cost that grows with the ledger."""
    smallest = costs[min(costs)]
    for size, of_size in costs.items():
        # Indexes get deeper and lists of matches longer, so some growth is right; more than by the square root is not.
        most_growth = math.sqrt(size / min(costs))
        for name, cost in of_size.items():
            if cost.scanned:
                yield f"{name}: scans {', '.join(cost.scanned)} from end to end at {size:,} rows."
            if cost.pages > most_growth * smallest[name].pages:
                yield f"{name}: {cost.pages:,} pages at {size:,} rows, {smallest[name].pages:,} at {min(costs):,}."


if __name__ == "__main__":
    main()
