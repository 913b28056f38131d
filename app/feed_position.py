"""Places in the feed: a seq, and the instant that its change was recorded at.

A seq alone names another change once the ledger was set back to a backup and has grown again. The pair does not:
instants grow with seq, and two ledgers that part do not come to the same one by chance.
"""

import re
from datetime import datetime
from typing import NamedTuple, Self

from app import instants

_EVENT_ID = re.compile(r"([0-9]{1,19})(?:@(.{1,40}))?", re.ASCII)
_GREATEST_SEQ = 2**63 - 1


class NotAPosition(ValueError):
    """A text that is no id of an event; the message says what one looks like."""


class Position(NamedTuple):
    """The last change that a consumer has. ``at`` is ``None`` if only the seq is known, and before the first change."""

    seq: int
    at: datetime | None

    @property
    def event_id(self) -> str:
        """As the id of an event: ``42@2026-11-22T09:30:00.123456Z``."""
        return str(self.seq) if self.at is None else f"{self.seq}@{instants.text(self.at)}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read the id of an event; a seq alone is one, too.

        :raises NotAPosition: if it is none.
        """
        found = _EVENT_ID.fullmatch(text)
        if found is None or int(found[1]) > _GREATEST_SEQ:
            raise NotAPosition("must be the id of an event: a seq, or a seq, @ and its instant")
        if found[2] is None:
            return cls(int(found[1]), None)
        try:
            at = instants.parse(found[2])
        except instants.NotAnInstant as error:
            raise NotAPosition(f"{error}, after the @") from None
        if not isinstance(at, datetime) or int(found[1]) == 0:
            raise NotAPosition("must have an instant after the @, of a change that there is")
        return cls(int(found[1]), at)
