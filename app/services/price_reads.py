"""What an item costs now, for many who ask at once: the statement of a lookup answers all of them."""

from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from typing import NamedTuple

from app.batches import Batches, NotSentError
from app.database import UNKNOWN, Database, ReplicaSession
from app.errors import Busy
from app.models import ItemKey
from app.replica import NotOnReplicaError
from app.schemas.base import Document
from app.services import answers, price_lines
from app.services.answers import AnswerRow

_MOST_UNDER_WAY = 2
"""While the database works on one batch, this process works on the answers of the other. More would be smaller, and
most of what a statement costs it costs for one question as for thirty."""

_MOST_QUESTIONS = 100


class Moment(NamedTuple):
    """What those have in common whom one statement can answer. ``at`` is now if it is ``None``."""

    book: str
    at: datetime | None


class _Row(NamedTuple):
    columns: AnswerRow
    is_of_replica: bool


class PriceReads:
    """The price reads of one process, as far as they are about what is known now."""

    def __init__(self, database: Database, most_seconds: float) -> None:
        """Make it.

        :param most_seconds: that one waits for those before it.
        """
        self._database = database
        self._batches: Batches[Moment, tuple[ItemKey, Decimal], _Row] = Batches(
            self._put, most_under_way=_MOST_UNDER_WAY, most_questions=_MOST_QUESTIONS, most_seconds=most_seconds
        )

    async def read(self, key: ItemKey, *, moment: Moment, quantity: Decimal) -> Document:
        """What :func:`app.services.answers.read` says, with everything that was committed before this call, or, if
        there is a replica in use, that this had a moment ago.

        :raises NotOnReplicaError: if the primary has to be asked.
        :raises Busy: if the reads before it took too long.
        """
        with answers.counted():
            try:
                row = await self._batches.ask(moment, (key, quantity))
            except NotSentError:
                raise Busy("The reads before this one took too long. Try again.", retry_after_seconds=1) from None
            try:
                return answers.found(row.columns, key, book=moment.book, quantity=quantity)
            except UNKNOWN as error:
                if row.is_of_replica:
                    raise NotOnReplicaError from error
                raise

    async def _put(self, moment: Moment, lines: Sequence[tuple[ItemKey, Decimal]]) -> Sequence[_Row]:
        values = {"book": moment.book, "at": moment.at, **price_lines.parameters_of(lines)}
        async with self._database.answering() as session:
            rows = await price_lines.answer_rows(session, values)
            return [_Row(row, isinstance(session, ReplicaSession)) for row in rows]
