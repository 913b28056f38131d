"""Whole price lists out: for files that an import reads back, and for consumers that keep a copy.

Everything is read as known at one seq. So the batches of an export agree with each other, whatever is written in the
meantime, although each is a short read of its own: no snapshot or connection is held while the client takes its time.
"""

import asyncio
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date, datetime
from enum import StrEnum
from functools import cache
from itertools import batched, groupby
from typing import Any, NamedTuple
from uuid import UUID

import msgspec
from sqlalchemy import (
    BigInteger,
    DateTime,
    Select,
    Text,
    Uuid,
    bindparam,
    case,
    exists,
    func,
    literal_column,
    or_,
    select,
    true,
)
from sqlalchemy.orm import aliased

from app import instants, money, price_list, timeline
from app.database import Database, ReadSession
from app.errors import HistoryDiverged, InvalidRequest
from app.models import Change, Item, Ledger, PriceRetirement, PriceRow
from app.schemas.item import Item as ItemDocument
from app.schemas.price import PriceRow as PriceRowDocument
from app.services import answers, books, ledger, questions
from app.services.books import Known

_ITEMS, _ROWS = 500, 1_000
"""A batch has no more items, and no more price rows unless a single item has them."""

_LINES = 200
"""After so many, other requests have their turn."""

_FIRST = UUID(int=0)
_ITEM_FIELDS = tuple(ItemDocument.model_fields)
_ROW_FIELDS = tuple(PriceRowDocument.model_fields)
_NOT_RETIRED: dict[str, Any] = {"retired_seq": None, "successor_id": None}
_DECIDING = tuple(name for name in timeline.Row.__dataclass_fields__ if name not in _NOT_RETIRED)


class Format(StrEnum):
    """What an export looks like."""

    CSV = "csv"
    NDJSON = "ndjson"
    SNAPSHOT = "snapshot"


@dataclass(frozen=True, slots=True)
class Export:
    """An export that has begun: nothing can be wrong with the request any more."""

    known_seq: int
    recorded_at: datetime
    """When the last change taken into account was recorded."""
    chunks: AsyncIterator[bytes]


class Asked(NamedTuple):
    """What an export is about: a book as known at a seq, and the instant of a list, if it is for one."""

    id: int
    key: str
    currency: str
    known_seq: int
    recorded_at: datetime
    at: datetime | None

    @property
    def digits(self) -> int:
        return money.minor_units(self.currency)


class Priced(NamedTuple):
    """An item's document, and its price rows in force as the database holds them."""

    item: Mapping[str, Any]
    rows: list[Mapping[str, Any]]


_ASKED = select(
    func.coalesce(bindparam("known_seq", type_=BigInteger), Ledger.seq).label("known_seq"), Ledger.seq.label("head")
).subquery("asked")
_BOOK = questions.known_book(_ASKED)
_BEGIN = (
    select(
        _ASKED.c.known_seq,
        _ASKED.c.head,
        ledger.instant_of(_ASKED.c.known_seq).label("recorded_at"),
        _BOOK.c.id,
        _BOOK.c.currency,
    )
    .select_from(_ASKED)
    .outerjoin(_BOOK, true())
)


@cache
def _batch(items: int, rows: int | None, *, at: bool) -> Select[Any]:
    """The items after ``after`` as known at ``known_seq``, one row for each price row in force in the book ``book_id``.

    An item's document comes with one of its rows only; with none if the item did not exist yet. The limits are
    written into the statement, so that plans which do not know the parameters know them.
    """
    known_seq: Any = bindparam("known_seq", type_=BigInteger)
    page = (
        select(Item.id)
        .where(Item.id > bindparam("after", type_=Uuid()))
        .order_by(Item.id)
        .limit(literal_column(str(items)))
        .subquery("page")
    )
    version = (
        select(Change.after.cast(Text).label("document"))
        .where(Change.item_id == page.c.id, Change.price_id.is_(None), Change.seq <= known_seq)
        .order_by(Change.seq.desc())
        .limit(literal_column("1"))
        .lateral("version")
    )
    row = aliased(PriceRow, name="price")
    retired = exists().where(PriceRetirement.price_id == row.id, PriceRetirement.seq <= known_seq)
    in_force = (
        (row.item_id == page.c.id)
        & (row.book_id == bindparam("book_id", type_=BigInteger))
        & (row.seq <= known_seq)
        & ~retired
    )
    if at:
        instant: Any = bindparam("at", type_=DateTime(timezone=True))
        in_force &= (row.valid_from <= instant) & or_(row.valid_to.is_(None), row.valid_to > instant)
    is_first = func.lag(page.c.id).over(order_by=page.c.id).is_distinct_from(page.c.id)
    statement = (
        select(
            page.c.id.label("page_id"),
            ledger.instant_of(known_seq).label("pinned_at"),
            case((is_first, version.c.document)).label("document"),
            *(getattr(row, column.key) for column in PriceRow.__table__.columns),
        )
        .select_from(page)
        .outerjoin(version, true())
        .outerjoin(row, in_force)
        .order_by(page.c.id)
    )
    return statement if rows is None else statement.limit(literal_column(str(rows)))


async def begin(
    database: Database, form: Format, *, book: str, at: datetime | date | None, known_seq: int | None
) -> Export:
    """Begin an export: check what is asked for and read the first batch.

    The chunks that follow raise what the database does to them; the answer is not whole then.

    :raises UnknownSeq: if the state of knowledge does not exist yet.
    :raises UnknownBook: if there is, or was then, no such book.
    :raises InvalidRequest: if a snapshot is asked for at an instant.
    """
    if form is Format.SNAPSHOT and at is not None:
        raise InvalidRequest.at("query/at", "not-a-list", "is for lists: a snapshot has the prices of all times")
    async with database.reading() as session:
        found = (await session.execute(_BEGIN, {"book": book, "known_seq": known_seq})).one()
        questions.check_known_seq(found.known_seq, found.head)
        questions.check_book(book, found.id, known_seq=found.known_seq, head=found.head)
        instant = await books.instant(session, book, at, pointer="query/at", known=Known(found.known_seq))
        asked = Asked(found.id, book, found.currency, found.known_seq, found.recorded_at, instant)
        first, after = await read_batch(session, asked, _FIRST)
    return Export(asked.known_seq, found.recorded_at, _chunks(database, form, asked, first, after))


async def _chunks(
    database: Database, form: Format, asked: Asked, batch: list[Priced], after: UUID | None
) -> AsyncIterator[bytes]:
    if form is Format.CSV:
        yield price_list.HEADER.encode()
    while True:
        for lines in batched(_lines(form, asked, batch), _LINES):
            yield b"".join(lines)
            await asyncio.sleep(0)
        if after is None:
            return
        async with database.reading() as session:
            batch, after = await read_batch(session, asked, after)


async def read_batch(session: ReadSession, asked: Asked, after: UUID) -> tuple[list[Priced], UUID | None]:
    """The next batch, and the last item looked at unless it was the last of all.

    :raises HistoryDiverged: if the ledger is not the one that the export began with.
    """
    values = {"after": after, "known_seq": asked.known_seq, "book_id": asked.id, "at": asked.at}
    if asked.at is None:
        del values["at"]
    found = (await session.execute(_batch(_ITEMS, _ROWS, at=asked.at is not None), values)).mappings().all()
    if not found:
        return [], None
    if found[0]["pinned_at"] != asked.recorded_at:
        raise HistoryDiverged(
            "The ledger was replaced while it was exported: a backup was restored, or a standby that lacked changes "
            "took over. Begin again."
        )
    last = found[-1]["page_id"]
    if len(found) == _ROWS:
        # The last item may have more rows than came.
        found = [row for row in found if row["page_id"] != last]
        if not found:
            found = (await session.execute(_batch(1, None, at=asked.at is not None), values)).mappings().all()
        last = found[-1]["page_id"]
    return list(_grouped(found)), last


def _grouped(found: Iterable[Mapping[str, Any]]) -> Iterator[Priced]:
    """The rows of a batch by item, without items that did not exist yet."""
    for _, group in groupby(found, key=lambda row: row["page_id"]):
        rows = list(group)
        # Which of an item's rows comes first is not said: one of them has the document.
        document = next((row["document"] for row in rows if row["document"] is not None), None)
        if document is not None:
            yield Priced(msgspec.json.decode(document), [row for row in rows if row["id"] is not None])


def _lines(form: Format, asked: Asked, batch: Iterable[Priced]) -> Iterator[bytes]:
    if form is Format.SNAPSHOT:
        return (_snapshot_line(asked, priced) for priced in batch)
    line = price_list.csv_line if form is Format.CSV else price_list.ndjson_line
    return (
        line(_list_entry(priced.item, row, asked.digits)).encode()
        for priced in batch
        if priced.item["archived_at"] is None
        for row in _listed(priced.rows, asked.at)
    )


def _listed(rows: Iterable[Mapping[str, Any]], at: datetime | None) -> list[Mapping[str, Any]]:
    """The rows that belong into the list, in its order: those that answer at the instant, or can at any.

    Of rows for the same quantity and time only the newest can ever answer.
    """
    if at is None:
        newest = {
            (row["min_quantity"], row["valid_from"], row["valid_to"]): row
            for row in sorted(rows, key=lambda row: int(row["seq"]))
        }
        rows = newest.values()
    else:
        by_id = {row["id"]: row for row in rows}
        known = [timeline.Row(**_NOT_RETIRED, **{name: row[name] for name in _DECIDING}) for row in rows]
        rows = [by_id[row.id] for row in timeline.answering(known, at)]
    return sorted(rows, key=_list_order)


def _list_order(row: Mapping[str, Any]) -> tuple[Any, ...]:
    # Of rows that are alike up to their ends the one with the greatest seq answers, and an import numbers by line.
    return (row["min_quantity"], row["valid_from"], row["valid_to"] is None, row["seq"])


def _list_entry(item: Mapping[str, Any], row: Mapping[str, Any], digits: int) -> dict[str, Any]:
    end = row["valid_to"]
    return {
        **item,
        **answers.terms(row, digits),
        "valid_from": instants.text(row["valid_from"]),
        "valid_to": None if end is None else instants.text(end),
    }


def _snapshot_line(asked: Asked, priced: Priced) -> bytes:
    """The documents that the feed has, byte for byte: the fields of the schemas in their order.

    Built here, because by way of the schemas an export takes twice as long.
    """
    rows = sorted(priced.rows, key=lambda row: row["id"])
    document = {
        "item": {name: priced.item[name] for name in _ITEM_FIELDS},
        "prices": [_row_document(asked, row) for row in rows],
    }
    return msgspec.json.encode(document) + b"\n"


def _row_document(asked: Asked, row: Mapping[str, Any]) -> dict[str, Any]:
    values = {
        **row,
        **answers.terms(row, asked.digits),
        "book": asked.key,
        "currency": asked.currency,
        "void": False,
    }
    return {name: values[name] for name in _ROW_FIELDS}
