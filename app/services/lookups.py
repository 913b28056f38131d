"""Many items priced at one instant by one statement."""

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from app.database import ReadSession, ReplicaSession
from app.observability.metrics import PriceRead
from app.replica import NotOnReplicaError
from app.schemas.base import Document
from app.schemas.price import Lookup, LookupFailure
from app.services import answers, books, price_lines
from app.services.answers import AnswerRow


class LookedUp(NamedTuple):
    """What came of a lookup: the ``LookupAnswer``, and for each line the row that it is made of and what came of it."""

    document: Document
    rows: Sequence[AnswerRow]
    outcomes: Sequence[PriceRead]


async def look_up(session: ReadSession, lookup: Lookup) -> LookedUp:
    """The prices of all lines at one instant, in their order; a line without one says why.

    One SQL statement; a bare date costs another, for the book's time zone.

    :raises UnknownBook: if there is no such book.
    :raises InvalidRequest: if the day is at the edge of the calendar.
    :raises NotOnReplicaError: if the replica does not know an item.
    """
    values = {
        "book": lookup.book,
        "at": await books.instant(session, lookup.book, lookup.at, pointer="/at", book_pointer="/book"),
        **price_lines.parameters([(line.item, line.quantity) for line in lookup.lines]),
    }
    rows = await price_lines.answer_rows(session, values)
    first = rows[0]
    if first.book is None:
        raise books.unknown(lookup.book, "/book")
    if isinstance(session, ReplicaSession) and any(row.item_id is None for row in rows):
        raise NotOnReplicaError
    prices, outcomes = zip(
        *(_outcome(line.item, row) for line, row in zip(lookup.lines, rows, strict=True)), strict=True
    )
    for outcome, times in Counter(outcomes).items():
        answers.count(outcome, times)
    document = {
        "book": first.book,
        "currency": first.currency,
        "at": first.at,
        "known_seq": first.known_seq,
        "prices": prices,
    }
    return LookedUp(document, rows, outcomes)


def _outcome(item: str, row: AnswerRow) -> tuple[Document, PriceRead]:
    answer = answers.document(row)
    if answer is not None:
        return answer, PriceRead.ANSWERED
    if row.item_id is None:
        return {"item": item, "error": LookupFailure.UNKNOWN_ITEM}, PriceRead.UNKNOWN_ITEM
    error = LookupFailure.NO_PRICE if row.price_id is None else LookupFailure.NOT_FOR_SALE
    return {"item": item, "error": error}, PriceRead.NO_PRICE
