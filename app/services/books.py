"""Books: price lists, each in one currency."""

from datetime import date, datetime

from sqlalchemy import bindparam, select

from app import instants
from app.database import ReadSession, WriteSession
from app.errors import FieldError, InvalidRequest, UnknownBook
from app.models import Book

_TIME_ZONE = select(Book.time_zone).where(Book.key == bindparam("book"))


def unknown(key: str, pointer: str = "query/book") -> UnknownBook:
    """The problem of a book that does not exist."""
    return UnknownBook(f"There is no book {key}.", [FieldError(pointer, "unknown-book", "names no book")])


async def instant(
    session: ReadSession | WriteSession,
    book: str,
    moment: datetime | date | None,
    *,
    pointer: str = "query/at",
) -> datetime | None:
    """A moment of a request as an instant. A bare date starts in the book's time zone, which costs a statement.

    :raises UnknownBook: if the date needs a book and there is none.
    :raises InvalidRequest: if the day is at the edge of the calendar.
    """
    if moment is None or isinstance(moment, datetime):
        return moment
    time_zone = await session.scalar(_TIME_ZONE, {"book": book})
    if time_zone is None:
        raise unknown(book)
    return start_of_day(moment, time_zone, pointer)


def start_of_day(day: date, time_zone: str, pointer: str) -> datetime:
    """The first instant of the day in the zone.

    :raises InvalidRequest: if the day is at the edge of the calendar.
    """
    try:
        return instants.start_of_day(day, instants.zone(time_zone))
    except instants.NotAnInstant as error:
        raise InvalidRequest.at(pointer, "not-an-instant", str(error)) from None
