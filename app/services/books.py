"""Books: price lists, each in one currency."""

from datetime import date, datetime
from typing import Any, NamedTuple

from sqlalchemy import BigInteger, DateTime, RowMapping, bindparam, exists, insert, select, update
from sqlalchemy.exc import IntegrityError

from app import http_cache, instants, money
from app.access import Scope
from app.database import ReadSession, WriteSession
from app.database_errors import violated_constraint
from app.errors import CurrencyFixed, DuplicateBook, FieldError, Forbidden, InvalidRequest, UnknownBook
from app.models import Book, Change, ChangeType, PriceRow
from app.schemas import book as schemas
from app.services import ledger
from app.services.ledger import Written

_TIME_ZONE = select(Book.time_zone).where(Book.key == bindparam("book"))
_TIME_ZONE_AS_KNOWN = (
    select(Change.after["time_zone"].astext)
    .join(Book, Book.id == Change.book_id)
    .where(Book.key == bindparam("book"), Change.item_id.is_(None))
    .order_by(Change.seq.desc())
    .limit(1)
)
_TIME_ZONE_AS_OF_SEQ = _TIME_ZONE_AS_KNOWN.where(Change.seq <= bindparam("known", type_=BigInteger))
_TIME_ZONE_AS_OF_INSTANT = _TIME_ZONE_AS_KNOWN.where(Change.at <= bindparam("known", type_=DateTime(timezone=True)))
_SELECT = select(*Book.__table__.c)
_OF_THE_PAST = {"time_zone", "rounding"}
"""What answers about the past depend on, too."""

_HAS_PRICES = select(exists().where(PriceRow.book_id == bindparam("book_id")))


def unknown(key: str, pointer: str = "query/book") -> UnknownBook:
    """The problem of a book that does not exist."""
    return UnknownBook(f"There is no book {key}.", [FieldError(pointer, "unknown-book", "names no book")])


class Known(NamedTuple):
    """A pinned state of knowledge, by seq or by instant; with neither, the latest."""

    seq: int | None = None
    at: datetime | None = None


LATEST = Known()


async def instant(
    session: ReadSession | WriteSession,
    book: str,
    moment: datetime | date | None,
    *,
    pointer: str,
    known: Known = LATEST,
    book_pointer: str = "query/book",
) -> datetime | None:
    """A moment of a request as an instant. A bare date starts in the book's time zone, which costs a statement.

    :param known: the state of knowledge whose time zone counts, so that pinned answers stay when it is changed.
    :raises UnknownBook: if the date needs a book and there is none.
    :raises InvalidRequest: if the day is at the edge of the calendar.
    """
    if moment is None or isinstance(moment, datetime):
        return moment
    if known.seq is not None:
        time_zone = await session.scalar(_TIME_ZONE_AS_OF_SEQ, {"book": book, "known": known.seq})
    elif known.at is not None:
        time_zone = await session.scalar(_TIME_ZONE_AS_OF_INSTANT, {"book": book, "known": known.at})
    else:
        time_zone = await session.scalar(_TIME_ZONE, {"book": book})
    if time_zone is None:
        raise unknown(book, book_pointer)
    return start_of_day(moment, time_zone, pointer)


def start_of_day(day: date, time_zone: str, pointer: str) -> datetime:
    """The first instant of the day in the zone.

    :raises InvalidRequest: if the day is at the edge of the calendar.
    """
    try:
        return instants.start_of_day(day, instants.zone(time_zone))
    except instants.NotAnInstant as error:
        raise InvalidRequest.at(pointer, "not-an-instant", str(error)) from None


async def create(session: WriteSession, data: schemas.BookCreate, *, actor: str) -> Written[schemas.Book]:
    """Create a book.

    :raises DuplicateBook: if the key is taken.
    :raises InvalidRequest: if the cash increment does not fit the currency.
    """
    values = data.model_dump()
    values["rounding"] = _rounding(values["rounding"], data.currency)
    (stamp,) = await ledger.advance(session)
    values |= {"version": 1, "created_at": stamp.recorded_at, "updated_at": stamp.recorded_at}
    statement = insert(Book).values(values).returning(*Book.__table__.c)
    try:
        row = (await session.execute(statement)).mappings().one()
    except IntegrityError as error:
        if violated_constraint(error) == "uq_books_key":
            raise DuplicateBook(
                f"There is a book {data.key} already.", [FieldError("/key", "duplicate", "is the key of another book")]
            ) from None
        raise
    book = _book(row)
    after = book.model_dump(mode="json")
    await ledger.log(session, stamp, ChangeType.BOOK_CREATED, actor, book_id=row["id"], after=after)
    return Written(book, stamp.seq)


async def list_all(session: ReadSession) -> schemas.BookList:
    """Every book."""
    rows = (await session.execute(_SELECT.order_by(Book.key))).mappings()
    return schemas.BookList(items=[_book(row) for row in rows], next=None)


async def read(session: ReadSession, key: str) -> schemas.Book:
    """The book.

    :raises UnknownBook: if there is none.
    """
    row = (await session.execute(_SELECT.where(Book.key == key))).mappings().one_or_none()
    if row is None:
        raise unknown(key, "path/key")
    return _book(row)


async def change(
    session: WriteSession, key: str, patch: schemas.BookPatch, *, if_match: str | None, actor: str, may_correct: bool
) -> Written[schemas.Book]:
    """Apply a merge patch. One that changes nothing writes nothing and takes no seq.

    :param may_correct: whether it may change what was answered in the past.
    :raises UnknownBook: if there is no such book.
    :raises PreconditionRequired: without ``if_match``.
    :raises PreconditionFailed: if the book is at another version.
    :raises CurrencyFixed: if the currency would change and the book has prices.
    :raises InvalidRequest: if the cash increment does not fit the currency.
    :raises Forbidden: if the book has prices, and they would be rounded otherwise, or have other days.
    """
    # Writers of prices hold a share of this lock from the moment in which they read the currency.
    row = (await session.execute(_SELECT.where(Book.key == key).with_for_update())).mappings().one_or_none()
    if row is None:
        raise unknown(key, "path/key")
    http_cache.require_match(if_match, row["version"])
    before = _book(row)
    values = patch.model_dump(exclude_unset=True)
    currency = values.get("currency", before.currency)
    policy = {**row["rounding"], **values.get("rounding", {})}
    if isinstance(policy["cash_increment"], str):
        policy["cash_increment"] = money.parse(policy["cash_increment"])
    has_prices = await session.scalar(_HAS_PRICES, {"book_id": row["id"]})
    if currency != before.currency and has_prices:
        raise CurrencyFixed(
            f"Book {key} has prices in {before.currency}. Create another book for {currency}.",
            [FieldError("/currency", "currency-fixed", "stays as it is, because the book has prices")],
        )
    values["rounding"] = _rounding(policy, currency)
    changed = {name: value for name, value in values.items() if row[name] != value}
    if not changed:
        return Written(before, None)
    if has_prices and not may_correct and (past := sorted(changed.keys() & _OF_THE_PAST)):
        raise Forbidden(
            f"The book has prices, and {' and '.join(past)} of a book hold for the past as well. That needs the scope "
            f"{Scope.PRICES_CORRECT}.",
            [FieldError(f"/{name}", "needs-prices-correct", "changes answers about the past") for name in past],
        )
    (stamp,) = await ledger.advance(session)
    statement = update(Book).where(Book.id == row["id"]).returning(*Book.__table__.c)
    values = {**changed, "version": before.version + 1, "updated_at": stamp.recorded_at}
    after = _book((await session.execute(statement.values(values))).mappings().one())
    documents = [document.model_dump(mode="json") for document in (before, after)]
    await ledger.log(
        session, stamp, ChangeType.BOOK_UPDATED, actor, book_id=row["id"], before=documents[0], after=documents[1]
    )
    return Written(after, stamp.seq)


def _rounding(policy: dict[str, Any], currency: str) -> dict[str, Any]:
    try:
        return schemas.rounding_document(policy, money.minor_units(currency))
    except ValueError as error:
        raise InvalidRequest.at("/rounding/cash_increment", "not-in-currency", str(error)) from None


def _book(row: RowMapping) -> schemas.Book:
    return schemas.Book(**{name: row[name] for name in schemas.Book.model_fields})
