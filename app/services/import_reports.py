"""What the rows of an import do: page by page for machines, and as the file to correct for people."""

import json
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any, Literal
from uuid import UUID

from sqlalchemy import RowMapping, func, or_, select

from app import exact_json, money, price_list
from app.database import Database, ReadSession
from app.import_columns import ERRORS_COLUMN
from app.import_files import DELIMITERS
from app.models import PlannedRow, PriceRow
from app.pagination import Cursors
from app.schemas.import_run import ImportRowReport, ImportRows, RowError, RowStatus, Terms
from app.services import import_missing, imports
from app.services.import_missing import BEFORE_ALL, Place

_TERMS = ("amount", "per", "min_quantity", "tax_rate", "tax", "tax_included", "valid_from", "valid_to")
_SIZE = func.coalesce(func.abs(PlannedRow.percent), -1)
"""How large a change is; what cannot be compared comes last."""

_SELECT = select(*PlannedRow.__table__.c, _SIZE.label("size"))
_BATCH = 1000


async def page(
    session: ReadSession,
    import_id: UUID,
    *,
    status: RowStatus | None,
    order: Literal["line", "change"],
    limit: int,
    cursor: str | None,
    cursors: Cursors,
) -> ImportRows:
    """A page of the report, in the order of the file or with the greatest changes first.

    :raises UnknownImport: if there is no such import.
    :raises InvalidRequest: if the cursor belongs to another list.
    """
    record = await imports.find(session, import_id)
    digits = money.minor_units(record["currency"])
    filters = {"import": str(import_id), "status": status, "order": order}
    after = {} if cursor is None else cursors.decode(cursor, filters)
    entries: list[tuple[dict[str, Any], ImportRowReport]] = []
    if "item" not in after:
        for row in await _planned(session, import_id, status, order, limit + 1, after):
            place = {"number": row["number"], "size": str(row["size"])}
            entries.append((place, _report(row, digits, record["applied_at"])))
    if len(entries) <= limit and status in (None, RowStatus.MISSING) and _leaves_missing(record):
        begin = BEFORE_ALL if "item" not in after else Place(UUID(after["item"]), Decimal(after["quantity"]))
        for row in await import_missing.left(session, record, after=begin, most=limit + 1 - len(entries)):
            place = {"item": str(row["item_id"]), "quantity": str(row["min_quantity"])}
            entries.append((place, _left(row, digits)))
    following = None
    if len(entries) > limit:
        entries = entries[:limit]
        following = cursors.encode(entries[-1][0], filters)
    return ImportRows(rows=[report for _, report in entries], next=following)


async def _planned(
    session: ReadSession,
    import_id: UUID,
    status: RowStatus | None,
    order: Literal["line", "change"],
    most: int,
    after: Mapping[str, Any],
) -> Sequence[RowMapping]:
    """Rows of the plan with the prices that stand before them."""
    statement = _SELECT.where(PlannedRow.import_id == import_id).limit(most)
    statement = statement.order_by(*([_SIZE.desc()] if order == "change" else []), PlannedRow.number)
    if status is not None:
        statement = statement.where(PlannedRow.status == status)
    if after:
        later = PlannedRow.number > after["number"]
        if order == "change":
            size = Decimal(after["size"])
            later = or_(size > _SIZE, (size == _SIZE) & later)
        statement = statement.where(later)
    found = statement.subquery("found")
    # Joined only now, so that no row is looked up that is not shown.
    shown = (
        select(*found.c, *(getattr(PriceRow, name).label(f"old_{name}") for name in _TERMS))
        .outerjoin(PriceRow, PriceRow.id == found.c.old_price_id)
        .order_by(*([found.c.size.desc()] if order == "change" else []), found.c.number)
    )
    return (await session.execute(shown)).mappings().all()


def _leaves_missing(record: RowMapping) -> bool:
    """Whether the import leaves what its file does not name, so that its plan does not have it."""
    return record["counts"] is not None and record["counts"]["missing"] is None


def _left(row: RowMapping, digits: int) -> ImportRowReport:
    return ImportRowReport(
        line=None,
        sku=row["sku"],
        gtin=row["gtin"],
        status=RowStatus.MISSING,
        old=_terms(row, "", digits),
        new=None,
        percent=None,
        errors=[],
    )


def _report(row: RowMapping, digits: int, applied_at: datetime | None) -> ImportRowReport:
    states_price = row["status"] != RowStatus.ERROR and (
        row["status"] != RowStatus.MISSING or row["price_id"] is not None
    )
    return ImportRowReport(
        line=row["line"],
        sku=row["sku"],
        gtin=row["gtin"],
        status=RowStatus(row["status"]),
        old=_terms(row, "old_", digits) if row["old_price_id"] else None,
        new=_terms(row, "", digits, applied_at) if states_price else None,
        percent=None if row["percent"] is None else money.plain(row["percent"], 2),
        errors=[RowError(**error) for error in row["errors"] or ()],
    )


def _terms(row: RowMapping, prefix: str, digits: int, applied_at: datetime | None = None) -> Terms:
    def written(name: str, least: int = 0) -> str | None:
        value = row[prefix + name]
        return None if value is None else money.plain(value, least)

    return Terms(
        amount=written("amount", digits),
        per=money.plain(row[f"{prefix}per"]),
        min_quantity=money.plain(row[f"{prefix}min_quantity"]),
        tax_rate=written("tax_rate"),
        tax=written("tax", digits),
        tax_included=row[f"{prefix}tax_included"],
        valid_from=row[f"{prefix}valid_from"] or applied_at,
        valid_to=row[f"{prefix}valid_to"],
    )


async def error_file(database: Database, record: RowMapping) -> AsyncIterator[bytes]:
    """The rows with errors as they were sent, in the columns of their file, and in one more what is wrong with each.

    That column is passed over when the file is sent again.
    """
    write = _csv_line(record) if record["options"]["format"] == "csv" else _json_line
    if record["options"]["format"] == "csv":
        if record["delimiter"] not in DELIMITERS:
            yield f"sep={record['delimiter']}\r\n".encode()
        yield write(json.dumps(record["header"]), ERRORS_COLUMN)
    number = 0
    while True:
        async with database.reading() as session:
            rows = (
                await session.execute(
                    select(PlannedRow.number, PlannedRow.cells, PlannedRow.errors)
                    .where(PlannedRow.import_id == record["id"], PlannedRow.status == RowStatus.ERROR)
                    .where(PlannedRow.number > number)
                    .order_by(PlannedRow.number)
                    .limit(_BATCH)
                )
            ).all()
        if not rows:
            return
        yield b"".join(write(row.cells, _in_words(row.errors)) for row in rows)
        number = rows[-1].number


def _in_words(errors: list[dict[str, Any]]) -> str:
    return "; ".join(" ".join(filter(None, (error["column"], error["message"]))) for error in errors)


def _csv_line(record: RowMapping) -> Any:
    header = [name.strip().lower() for name in record["header"]]
    place = header.index(ERRORS_COLUMN) if ERRORS_COLUMN in header else None
    width = len(header)

    def write(cells: str, errors: str) -> bytes:
        # A spreadsheet must not run what somebody wrote into a list.
        line = [price_list.guard(price_list.unguard(cell)) if cell else cell for cell in json.loads(cells)]
        wrong = len(line) != width
        line += [""] * (width - len(line))
        if place is None:
            line.append(errors)
        else:
            line[place] = errors
        # A row of the wrong width must not become one of the right width by what is added here.
        return price_list.csv_text([*line, ""] if wrong else line, record["delimiter"]).encode()

    return write


def _json_line(line: str, errors: str) -> bytes:
    try:
        return exact_json.dumps({**exact_json.loads(line.encode()), ERRORS_COLUMN: errors}) + b"\n"
    except (ValueError, TypeError):  # Not an object, or with something that is no number of JSON: as it was sent.
        return line.encode() + b"\n"
