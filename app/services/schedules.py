"""What changes by itself: the boundaries of a book in a window of time."""

from collections.abc import Mapping
from datetime import date, datetime
from decimal import Decimal
from functools import cache
from typing import Any
from uuid import UUID

from sqlalchemy import (
    ColumnElement,
    DateTime,
    Integer,
    Select,
    Uuid,
    bindparam,
    func,
    literal_column,
    select,
    true,
    tuple_,
)
from sqlalchemy.orm import aliased

from app.database import ReadSession
from app.errors import InvalidRequest
from app.models import Book, Item, PriceRow
from app.models.resolution import Where, answering_row
from app.pagination import Cursors
from app.schemas.price import Boundary, PriceInForce, Schedule
from app.services import books, histories, questions
from app.services.questions import Knowledge

_FIRST: ColumnElement[UUID] = literal_column("'00000000-0000-0000-0000-000000000000'::uuid")
"""Less than every item's id."""

_ROW = PriceRow.__table__.columns.keys()


@cache
def _statement() -> Select[Any]:
    asked = questions.question(Knowledge.LATEST)
    book = select(Book.id, Book.key, Book.currency, Book.rounding).where(Book.key == bindparam("book")).lateral("book")
    start = func.coalesce(bindparam("from", type_=DateTime(timezone=True)), asked.c.at)
    end = bindparam("to", type_=DateTime(timezone=True))
    after_at = bindparam("after_at", type_=DateTime(timezone=True))
    after_item = bindparam("after_item", type_=Uuid())

    def instants(which: str) -> Select[Any]:
        """Starts, or ends, of rows in play within the window."""
        row = aliased(PriceRow, name=f"row_{which}")
        instant = getattr(row, which)
        return (
            select(instant.label("at"), row.item_id.label("item_id"))
            .where(
                row.book_id == book.c.id,
                # Literally, as the indexes have it.
                row.min_quantity <= literal_column("1"),
                tuple_(instant, row.item_id)
                > tuple_(func.coalesce(after_at, start), func.coalesce(after_item, _FIRST)),
                instant < func.coalesce(end, literal_column("'infinity'::timestamptz")),
            )
            .correlate(asked, book)
        )

    event = instants("valid_from").union(instants("valid_to")).lateral("event")
    where = Where(event.c.item_id, book.c.id, event.c.at, asked.c.known_seq, asked.c.quantity)
    before = answering_row(where, just_before=True, name="before")
    after = answering_row(where, name="after")
    changes = before.c.id.is_distinct_from(after.c.id)
    # Whole pages are made in the order of the index, so that the cost does not depend on the window's length.
    page = (
        select(
            event.c.at,
            event.c.item_id,
            *(column.label(f"before_{column.key}") for column in before.c),
            *(column.label(f"after_{column.key}") for column in after.c),
        )
        .select_from(event)
        .outerjoin(before, true())
        .outerjoin(after, true())
        .where(changes)
        .order_by(event.c.at, event.c.item_id)
        .limit(bindparam("limit", type_=Integer))
        .correlate(asked, book)
        .lateral("page")
    )
    return (
        select(book.c.key.label("book"), book.c.currency, book.c.rounding, Item.sku, *page.c)
        .select_from(asked)
        .outerjoin(book, true())
        .outerjoin(page, true())
        .outerjoin(Item, Item.id == page.c.item_id)
        .order_by(page.c.at, page.c.item_id)
    )


async def read(
    session: ReadSession,
    cursors: Cursors,
    *,
    book: str,
    window: tuple[datetime | date | None, datetime | date | None],
    cursor: str | None,
    limit: int,
) -> Schedule:
    """The instants in the window (by default from now on) at which an item's price for one unit changes by itself.

    One SQL statement; bare dates cost another, for the book's time zone.

    :raises UnknownBook: if there is no such book.
    :raises InvalidRequest: if the window is empty, or the cursor belongs to another one.
    """
    start = await books.instant(session, book, window[0], pointer="query/from")
    end = await books.instant(session, book, window[1], pointer="query/to")
    if start is not None and end is not None and end <= start:
        raise InvalidRequest.at("query/to", "empty-interval", "must be later than from")
    filters = {"list": "schedule", "book": book, "from": str(window[0]), "to": str(window[1])}
    position = cursors.decode(cursor, filters) if cursor is not None else None
    values = {
        "book": book,
        "at": None,
        "quantity": Decimal(1),
        "from": start,
        "to": end,
        "after_at": datetime.fromisoformat(position["at"]) if position else None,
        "after_item": UUID(position["item"]) if position else None,
        "limit": limit + 1,
    }
    rows = (await session.execute(_statement(), values)).mappings().all()
    if rows and rows[0]["book"] is None:
        raise books.unknown(book)
    boundaries = [_boundary(row) for row in rows if row["at"] is not None]
    following = None
    if len(boundaries) > limit:
        boundaries.pop()
        last = boundaries[-1]
        following = cursors.encode({"at": last.at.isoformat(), "item": str(last.item_id)}, filters)
    return Schedule(boundaries=boundaries, next=following)


def _boundary(row: Mapping[str, Any]) -> Boundary:
    def side(name: str) -> PriceInForce | None:
        if row[f"{name}_id"] is None:
            return None
        record = {column: row[f"{name}_{column}"] for column in _ROW}
        return histories.in_force(record, row["currency"], row["rounding"])

    return Boundary(
        at=row["at"],
        item_id=row["item_id"],
        sku=row["sku"],
        book=row["book"],
        before=side("before"),
        after=side("after"),
    )
