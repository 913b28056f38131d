"""One item's prices over time, worked out from its rows: pure, and equal to the SQL of :mod:`app.models.resolution`.

The rule: among the rows known at a seq (recorded by then, not retired by then) with ``min_quantity`` at most the
quantity asked for and the instant inside their half-open interval, the first by

1. bounded before open-ended: a sale beats the list price;
2. greatest ``min_quantity``;
3. latest ``valid_from``;
4. greatest ``seq``.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from enum import StrEnum
from fractions import Fraction
from typing import NamedTuple
from uuid import UUID


@dataclass(frozen=True, slots=True)
class Row:
    """What decides about a price row. Amounts are per ``per`` units; a null ``amount`` means "not for sale"."""

    id: UUID
    amount: Decimal | None
    per: Decimal
    min_quantity: Decimal
    tax_rate: Decimal | None
    tax: Decimal | None
    tax_included: bool
    valid_from: datetime
    valid_to: datetime | None
    seq: int
    retired_seq: int | None
    successor_id: UUID | None

    def is_known(self, seq: int) -> bool:
        """Whether the row is recorded, and not retired, in the state of knowledge after change ``seq``."""
        return self.seq <= seq and (self.retired_seq is None or self.retired_seq > seq)

    def holds_at(self, at: datetime) -> bool:
        """Whether the instant is inside the row's interval."""
        return self.valid_from <= at and (self.valid_to is None or at < self.valid_to)

    @property
    def rank(self) -> tuple[bool, Decimal, datetime, int]:
        """The greatest of those that hold answers."""
        return (self.valid_to is not None, self.min_quantity, self.valid_from, self.seq)

    @property
    def gross_per_unit(self) -> Fraction | None:
        """What a consumer pays for one unit, exactly; ``None`` if the item is not for sale."""
        if self.amount is None:
            return None
        gross = Fraction(self.amount)
        if not self.tax_included:
            gross += Fraction(self.tax or 0) + gross * Fraction(self.tax_rate or 0) / 100
        return gross / Fraction(self.per)


class Step(NamedTuple):
    """A stretch of time with one answer. ``start`` is ``None`` at the beginning of time, ``end`` at its end."""

    start: datetime | None
    end: datetime | None
    row: Row | None


def in_play(rows: Iterable[Row], *, known_seq: int, quantity: Decimal) -> list[Row]:
    """The rows that may answer at some instant."""
    return [row for row in rows if row.is_known(known_seq) and row.min_quantity <= quantity]


def answer(rows: Iterable[Row], at: datetime) -> Row | None:
    """The row that answers at an instant, of those :func:`in_play`."""
    return max((row for row in rows if row.holds_at(at)), key=lambda row: row.rank, default=None)


def answering(rows: Iterable[Row], at: datetime) -> Iterator[Row]:
    """The rows that answer at an instant for some quantity, by ``min_quantity``. ``rows`` are known, for any quantity.

    The fewest rows compete with a row at its own ``min_quantity``: one that does not answer there never does.
    """
    best: Row | None = None
    by_rank = sorted((row for row in rows if row.holds_at(at)), key=lambda row: row.rank, reverse=True)
    for row in sorted(by_rank, key=lambda row: row.min_quantity):
        if best is None or row.rank > best.rank:
            best = row
            yield row


def steps(rows: Sequence[Row]) -> Iterator[Step]:
    """The whole of time, cut where the answer changes; neighbours always differ. ``rows`` are those in play."""
    instants = sorted({row.valid_from for row in rows} | {row.valid_to for row in rows if row.valid_to is not None})
    start: datetime | None = None
    current: Row | None = None
    for instant in instants:
        following = answer(rows, instant)
        if following is not current:
            yield Step(start, instant, current)
            start, current = instant, following
    yield Step(start, None, current)


def between(all_steps: Iterable[Step], start: datetime | None, end: datetime | None) -> Iterator[Step]:
    """The steps cut to the window from ``start`` (``None``: from the beginning) to ``end``."""
    for step in all_steps:
        begins = step.start if start is None else start if step.start is None else max(step.start, start)
        ends = step.end if end is None else end if step.end is None else min(step.end, end)
        if begins is None or ends is None or begins < ends:
            yield Step(begins, ends, step.row)


class Outcome(StrEnum):
    """Why a row answers or does not."""

    ANSWERS = "answers"
    SUPERSEDED = "superseded"
    VOIDED = "voided"
    QUANTITY_TOO_SMALL = "quantity-too-small"
    NOT_YET_VALID = "not-yet-valid"
    ENDED = "ended"
    OPEN_ENDED = "open-ended"
    """A row with an end comes first."""
    SMALLER_MIN_QUANTITY = "smaller-min-quantity"
    EARLIER_VALID_FROM = "earlier-valid-from"
    EARLIER_SEQ = "earlier-seq"


def explain(rows: Iterable[Row], *, at: datetime, known_seq: int, quantity: Decimal) -> list[tuple[Row, Outcome]]:
    """Every row recorded by then with its outcome: those that hold in the order of the rule, then the newest first."""
    recorded = [row for row in rows if row.seq <= known_seq]
    winner = answer(in_play(recorded, known_seq=known_seq, quantity=quantity), at)
    judged = [(row, _outcome(row, winner, at=at, known_seq=known_seq, quantity=quantity)) for row in recorded]
    lost_in_order = {Outcome.ANSWERS, *_BY_RANK}
    holding = sorted((pair for pair in judged if pair[1] in lost_in_order), key=lambda pair: pair[0].rank, reverse=True)
    others = sorted((pair for pair in judged if pair[1] not in lost_in_order), key=lambda pair: -pair[0].seq)
    return holding + others


_BY_RANK = (
    Outcome.OPEN_ENDED,
    Outcome.SMALLER_MIN_QUANTITY,
    Outcome.EARLIER_VALID_FROM,
    Outcome.EARLIER_SEQ,
)


def _outcome(row: Row, winner: Row | None, *, at: datetime, known_seq: int, quantity: Decimal) -> Outcome:
    if not row.is_known(known_seq):
        return Outcome.VOIDED if row.successor_id is None else Outcome.SUPERSEDED
    if row.min_quantity > quantity:
        return Outcome.QUANTITY_TOO_SMALL
    if at < row.valid_from:
        return Outcome.NOT_YET_VALID
    if not row.holds_at(at) or winner is None:
        return Outcome.ENDED
    if row is winner:
        return Outcome.ANSWERS
    return next(outcome for outcome, mine, best in zip(_BY_RANK, row.rank, winner.rank, strict=True) if mine != best)


class HistoryTooShort(Exception):
    """The rows do not reach back to the start of the window."""


class PriorPrice(NamedTuple):
    """A row that was in force from ``start`` until ``end``."""

    row: Row
    start: datetime
    end: datetime


def prior_price(rows: Sequence[Row], *, reduced_at: datetime, days: int) -> PriorPrice | None:
    """The lowest price in force during the ``days`` before a reduction began (Directive 98/6/EC, Article 6a).

    Prices are compared as a consumer pays them: gross, for one unit. Of equal ones the latest counts. Times without a
    price, or not for sale, do not count; ``None`` if nothing else is left. The answer is cut to the window.

    :param rows: those in play.
    :raises HistoryTooShort: if the first row starts only within the window.
    """
    start = reduced_at - timedelta(days=days)
    if not any(row.valid_from <= start for row in rows):
        raise HistoryTooShort
    lowest: tuple[Fraction, PriorPrice] | None = None
    for begun, ended, row in between(steps(rows), start, reduced_at):
        gross = row.gross_per_unit if row is not None else None
        if row is not None and gross is not None and (lowest is None or gross <= lowest[0]):
            lowest = gross, PriorPrice(row, begun or start, ended or reduced_at)
    return lowest[1] if lowest else None
