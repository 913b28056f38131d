"""Many items priced at one instant by one statement."""

from collections.abc import Mapping
from typing import Any

from app.database import ReadSession
from app.observability.metrics import PriceRead
from app.schemas.price import Lookup, LookupAnswer, LookupFailure, LookupMiss, PriceAnswer
from app.services import answers, books, price_lines


async def look_up(session: ReadSession, lookup: Lookup) -> LookupAnswer:
    """The prices of all lines at one instant, in their order; a line without one says why.

    One SQL statement; a bare date costs another, for the book's time zone.

    :raises UnknownBook: if there is no such book.
    :raises InvalidRequest: if the day is at the edge of the calendar.
    """
    values = {
        "book": lookup.book,
        "at": await books.instant(session, lookup.book, lookup.at, pointer="/at", book_pointer="/book"),
        **price_lines.parameters([(line.item, line.quantity) for line in lookup.lines]),
    }
    rows = (await session.execute(price_lines.statement(), values)).mappings().all()
    if rows[0]["book"] is None:
        raise books.unknown(lookup.book, "/book")
    return LookupAnswer(
        **{name: rows[0][name] for name in ("book", "currency", "at", "known_seq")},
        prices=[_outcome(line.item, row) for line, row in zip(lookup.lines, rows, strict=True)],
    )


def _outcome(item: str, row: Mapping[str, Any]) -> PriceAnswer | LookupMiss:
    answer = answers.to_answer(row)
    if answer is not None:
        answers.count(PriceRead.ANSWERED)
        return answer
    if row["item_id"] is None:
        answers.count(PriceRead.UNKNOWN_ITEM)
        return LookupMiss(item=item, error=LookupFailure.UNKNOWN_ITEM)
    answers.count(PriceRead.NO_PRICE)
    if row["price_id"] is None:
        return LookupMiss(item=item, error=LookupFailure.NO_PRICE)
    return LookupMiss(item=item, error=LookupFailure.NOT_FOR_SALE)
