"""What a price read asks about, as SQL: the instant, the state of knowledge, the book and the item as known then."""

from datetime import date, datetime
from decimal import Decimal
from enum import Enum, auto
from functools import cache
from typing import Any, NamedTuple

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    DateTime,
    FromClause,
    Numeric,
    Select,
    Subquery,
    Uuid,
    bindparam,
    exists,
    func,
    select,
    true,
)
from sqlalchemy.orm import aliased

from app.database import ReadSession, WriteSession
from app.errors import FieldError, InvalidRequest, UnknownBook, UnknownItem, UnknownSeq
from app.models import Book, Change, Item, ItemKey, Ledger
from app.services import books
from app.services.books import Known


class Moment(NamedTuple):
    """When, on both axes: the instant asked about, and the state of knowledge. ``None`` stands for now and latest."""

    at: datetime | date | None = None
    known_at: datetime | date | None = None
    known_seq: int | None = None


class Knowledge(Enum):
    """Which state of knowledge a question is about."""

    LATEST = auto()
    AT_SEQ = auto()
    AT_INSTANT = auto()

    @classmethod
    def of(cls, moment: Moment) -> "Knowledge":
        """The kind of question.

        :raises InvalidRequest: if both kinds of pin are given.
        """
        if moment.known_at is not None and moment.known_seq is not None:
            raise InvalidRequest.at("query/known_seq", "two-pins", "must not come together with known_at")
        if moment.known_seq is not None:
            return cls.AT_SEQ
        return cls.LATEST if moment.known_at is None else cls.AT_INSTANT


NOW: ColumnElement[datetime] = func.greatest(func.statement_timestamp(), Ledger.recorded_at)
"""Now, but never before the newest change: a price just written answers, whatever the clocks do."""

_KNOWN_SEQ: dict[Knowledge, ColumnElement[int]] = {
    Knowledge.LATEST: Ledger.__table__.c.seq,
    Knowledge.AT_SEQ: bindparam("known_seq", type_=BigInteger),
    Knowledge.AT_INSTANT: func.coalesce(
        select(Change.seq)
        .where(Change.at <= bindparam("known_at", type_=DateTime(timezone=True)))
        .order_by(Change.at.desc(), Change.seq.desc())
        .limit(1)
        .scalar_subquery(),
        0,
    ),
}


@cache
def question(knowledge: Knowledge) -> Subquery:
    """One row: ``at``, ``known_seq``, ``quantity`` and the newest seq as ``head``.

    Its parameters are ``at`` and ``quantity``, and ``known_seq`` or ``known_at`` for a pinned state of knowledge.
    """
    at = func.coalesce(bindparam("at", type_=DateTime(timezone=True)), NOW)
    quantity: ColumnElement[Decimal] = bindparam("quantity", type_=Numeric(24, 12))
    return select(
        at.label("at"),
        _KNOWN_SEQ[knowledge].label("known_seq"),
        quantity.label("quantity"),
        Ledger.seq.label("head"),
    ).subquery("question")


class Subject(NamedTuple):
    """The question joined to its book and item, each with nulls if there is none: one row."""

    question: Subquery
    book: FromClause
    item: FromClause

    def select(self, *columns: ColumnElement[Any]) -> Select[Any]:
        """Select columns from the three."""
        return select(*columns).select_from(self.question).outerjoin(self.book, true()).outerjoin(self.item, true())


@cache
def subject(knowledge: Knowledge, *, by_sku: bool) -> Subject:
    """The subject of a read of one item, with the parameters ``item`` and ``book`` besides the question's.

    What changes in place (the item's sku, the book's rounding) is read from the log for an earlier state of knowledge,
    so that an answer pinned to a seq never changes; a sku then names the item that had it at that seq.
    """
    asked = question(knowledge)
    if knowledge is Knowledge.LATEST:
        item = select(Item.id, Item.sku).where(ItemKey.any(by_sku=by_sku).condition).lateral("item")
        return Subject(asked, _current_book(), item)
    return Subject(asked, known_book(asked), _known_item(asked, by_sku=by_sku))


def subject_of(items: FromClause, knowledge: Knowledge = Knowledge.LATEST) -> Subject:
    """The subject of a read of several items as they are now: ``items`` has the columns ``id`` and ``sku``."""
    asked = question(knowledge)
    return Subject(asked, _current_book() if knowledge is Knowledge.LATEST else known_book(asked), items)


def _current_book() -> FromClause:
    columns = (Book.id, Book.key, Book.currency, Book.rounding, Book.tax_included)
    return select(*columns).where(Book.key == bindparam("book")).lateral("book")


def known_book(asked: Subquery) -> FromClause:
    """The book as it was at the ``known_seq`` of ``asked``, with the parameter ``book``: at most one row."""
    version = aliased(Change, name="book_version")
    return (
        select(
            Book.id,
            Book.key,
            version.after["currency"].astext.label("currency"),
            version.after["rounding"].label("rounding"),
            version.after["tax_included"].as_boolean().label("tax_included"),
        )
        .join(version, version.book_id == Book.id)
        .where(Book.key == bindparam("book"), version.item_id.is_(None), version.seq <= asked.c.known_seq)
        .order_by(version.seq.desc())
        .limit(1)
        .correlate(asked)
        .lateral("book")
    )


def _known_item(asked: Subquery, *, by_sku: bool) -> FromClause:
    version = aliased(Change, name="item_version")
    newer = aliased(Change, name="newer_version")
    sku = version.after["sku"].astext
    named = sku == bindparam("item") if by_sku else version.item_id == bindparam("item", type_=Uuid())
    outdated = (
        exists()
        .where(
            newer.item_id == version.item_id,
            newer.price_id.is_(None),
            newer.seq > version.seq,
            newer.seq <= asked.c.known_seq,
        )
        .correlate(version, asked)
    )
    return (
        select(version.item_id.label("id"), sku.label("sku"))
        .where(version.item_id.is_not(None), version.price_id.is_(None), version.seq <= asked.c.known_seq)
        .where(named, ~outdated)
        .correlate(asked)
        .lateral("item")
    )


async def parameters(
    session: ReadSession | WriteSession, moment: Moment, *, book: str, quantity: Decimal
) -> dict[str, Any]:
    """The values of the question's parameters and of ``book``. Bare dates cost a statement, for the time zone.

    :raises UnknownBook: if a bare date names no instant, for want of the book.
    :raises InvalidRequest: if a day is at the edge of the calendar.
    """
    known = await known_of(session, moment, book=book)
    values: dict[str, Any] = {
        "at": await books.instant(session, book, moment.at, pointer="query/at", known=known),
        "book": book,
        "quantity": quantity,
    }
    if known.seq is not None:
        values["known_seq"] = known.seq
    if known.at is not None:
        values["known_at"] = known.at
    return values


async def known_of(session: ReadSession | WriteSession, moment: Moment, *, book: str) -> Known:
    """The state of knowledge that the moment is pinned to. Raises as :func:`parameters`."""
    known_at = await books.instant(session, book, moment.known_at, pointer="query/known_at")
    return Known(moment.known_seq, known_at)


def check(*, key: ItemKey, book: str, known_seq: int, head: int, found_item: object, found_book: object) -> None:
    """Refuse a question about something that does not exist.

    :raises UnknownSeq: if the state of knowledge is still to come.
    :raises UnknownItem: if there is, or was then, no such item.
    :raises UnknownBook: if there is, or was then, no such book.
    """
    check_known_seq(known_seq, head)
    if found_item is None:
        then = "" if known_seq == head else f" as known at seq {known_seq}"
        raise UnknownItem(f"There is no item {key}{then}.")
    check_book(book, found_book, known_seq=known_seq, head=head)


def check_known_seq(known_seq: int, head: int) -> None:
    """Refuse a state of knowledge that is still to come.

    :raises UnknownSeq: if it is.
    """
    if known_seq > head:
        raise UnknownSeq(
            f"The newest change is {head}; known_seq {known_seq} does not exist yet.",
            [FieldError("query/known_seq", "unknown-seq", f"must not be greater than {head}")],
        )


def check_book(book: str, found_book: object, *, known_seq: int, head: int) -> None:
    """Refuse a book that does not exist, or did not then.

    :raises UnknownBook: if so.
    """
    if found_book is None:
        raise (
            books.unknown(book)
            if known_seq == head
            else UnknownBook(f"There is no book {book} as known at seq {known_seq}.")
        )
