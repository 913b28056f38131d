"""Lookups answered from what lookups before were told of each line.

A till asks for another basket each time, but mostly for items that it asked for before. So what is kept is not the
answer but its lines, each until something touches its item or its book, and a lookup all of whose lines are there is
put together from them, about one instant and one state of knowledge that hold for all:

- as known at the change that the follower has come to. Nothing up to there has touched any of the lines since they
  were made, or they would be gone; a line that was made at a later change is not used;
- at the latest of the instants that they were made at. Each is right from its own until its boundary, and that is in
  between.

So the same question pinned to that instant and change has the same answer for ever, as always. If one line is missing,
the database is asked for all of them. Lines of items that there are not are not kept.
"""

from collections import Counter
from collections.abc import Hashable
from dataclasses import dataclass
from datetime import datetime

from app import documents, instants
from app.follower import Follower
from app.observability.metrics import CACHE_READS, CacheRead, PriceRead
from app.response_cache import Clocks, Fill, Kept, Offer, ResponseCache, life
from app.schemas.price import Lookup
from app.services import answers
from app.services.lookups import LookedUp

_HIT, _MISS = CACHE_READS.labels(CacheRead.HIT), CACHE_READS.labels(CacheRead.MISS)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Line(Kept):
    before: bytes
    """The JSON of a line; of a price, what comes before ``at`` and ``known_seq``."""
    after: bytes | None
    """What comes behind them; ``None`` if the line says nothing of them."""
    currency: str
    outcome: PriceRead

    @property
    def _body_size(self) -> int:
        return len(self.before) + len(self.after or b"")


class LookupMemory:
    """The lines that one process keeps, in the room of all answers."""

    def __init__(self, cache: ResponseCache, follower: Follower, clocks: Clocks, lag_seconds: float) -> None:
        """Make it.

        :param lag_seconds: how long ago the follower may last have had everything.
        """
        self._cache = cache
        self._follower = follower
        self._clocks = clocks
        self._lag_seconds = lag_seconds

    def begin(self) -> Fill:
        """Before the database is asked."""
        return Fill(self._cache.generation, self._clocks.wall(), self._clocks.monotonic())

    def find(self, lookup: Lookup, min_seq: int | None) -> bytes | None:
        """The ``LookupAnswer`` about now, or ``None`` if the database has to be asked.

        :param min_seq: a change that it must know of.
        """
        if lookup.at is not None or not self._cache.max_bytes:
            return None
        if (min_seq or 0) > self._follower.seq or (found := self._lines(lookup)) is None:
            _MISS.inc()
            return None
        _HIT.inc()
        lines, at = found
        for outcome, times in Counter([line.outcome for line in lines]).items():
            answers.count(outcome, times)
        stamp = _stamp(at, self._follower.seq)
        prices = b",".join([line.before if line.after is None else line.before + stamp + line.after for line in lines])
        named = documents.encode({"book": lookup.book, "currency": lines[0].currency})
        return b'%b,%b,"prices":[%b]}' % (named[:-1], stamp, prices)

    def _lines(self, lookup: Lookup) -> tuple[list[_Line], datetime] | None:
        """All of them, and the instant that they are about together."""
        wall, now, seq = self._clocks.wall(), self._clocks.monotonic(), self._follower.seq
        if now - self._follower.caught_up_at > self._lag_seconds:
            return None
        lines: list[_Line] = []
        for key in _keys(lookup):
            line = self._cache.get(key)
            # A clock that was set back may be at a time before the one that the line is about.
            if (
                not isinstance(line, _Line)
                or line.offer.known_seq > seq
                or not (line.wall <= wall < line.wall_until and now < line.monotonic_until)
            ):
                return None
            lines.append(line)
        at = max([line.offer.at for line in lines if line.offer.at is not None])
        ends = [line.offer.until for line in lines if line.offer.until is not None]
        # Servers may have made them whose clocks differ, or one whose clock was set.
        return None if ends and min(ends) <= at else (lines, at)

    def keep(self, fill: Fill, lookup: Lookup, answer: LookedUp) -> None:
        """Keep what the database was asked for, unless something may have touched it since."""
        if lookup.at is not None or not self._cache.max_bytes:
            return
        for key, row, price, outcome in zip(
            _keys(lookup), answer.rows, answer.document["prices"], answer.outcomes, strict=True
        ):
            if row.item_id is None:
                # Of what there is not, there is no end: it would take the room of what there is.
                continue
            before, stamp, after = documents.encode(price).partition(_stamp(row.at, row.known_seq))
            offer = Offer(row.known_seq, (row.item_id, lookup.book), at=row.at, until=row.effective_until)
            line = _Line(
                before=before,
                after=after if stamp else None,
                currency=row.currency,
                outcome=outcome,
                offer=offer,
                **life(fill, offer),
            )
            self._cache.store(key, fill, line)


def _keys(lookup: Lookup) -> list[Hashable]:
    return [("line", lookup.book, line.item, line.quantity) for line in lookup.lines]


def _stamp(at: datetime, known_seq: int) -> bytes:
    # No text of a document can hold it: there, quotation marks are escaped.
    return b'"at":"%b","known_seq":%d' % (instants.text(at).encode(), known_seq)
