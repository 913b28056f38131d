"""Prices that arrive together, recorded by one transaction: it costs about as much for thirty as for one."""

from collections.abc import Sequence

from app.batches import Batches, NotSentError
from app.database import Database
from app.errors import Busy, ProblemError
from app.schemas.base import Document
from app.services import price_recording
from app.services.price_recording import NotTogetherError, Recording

_MOST_UNDER_WAY = 2
"""While the database commits one batch, this process prepares the other. More would wait for each other's numbers."""

_MOST_RECORDINGS = 100
"""Other writers wait as long as one batch is written, and one that fails is done again one by one."""


class PriceWrites:
    """The single prices that one process records."""

    def __init__(self, database: Database, most_seconds: float) -> None:
        """Make it.

        :param most_seconds: that one waits for those before it.
        """
        self._database = database
        self._batches: Batches[bool, Recording, Document | ProblemError | None] = Batches(
            self._put, most_under_way=_MOST_UNDER_WAY, most_questions=_MOST_RECORDINGS, most_seconds=most_seconds
        )

    async def record(self, recording: Recording) -> Document:
        """Record a price row, and commit it: a ``PriceRow``. Raises as :func:`app.services.price_recording.record`.

        :raises Busy: if the prices before it took too long.
        """
        try:
            outcome = await self._batches.ask(recording.key.sku is not None, recording)
        except NotSentError:
            raise Busy("The prices before this one took too long. Try again.", retry_after_seconds=1) from None
        if isinstance(outcome, ProblemError):
            raise outcome
        if outcome is not None:
            return outcome
        async with self._database.writing() as session:
            return await price_recording.record(session, recording)

    async def _put(self, _: bool, recordings: Sequence[Recording]) -> Sequence[Document | ProblemError | None]:
        try:
            async with self._database.writing() as session:
                return await price_recording.record_together(session, recordings)
        except NotTogetherError:
            return [None] * len(recordings)
