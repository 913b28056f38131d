"""Which price row answers, as SQL over sets of items.

The rule: among the rows known at ``known_seq`` (recorded by then, not retired by then) with ``min_quantity`` at most
the quantity asked for and the instant inside their half-open interval, take the first by

1. bounded before open-ended: a sale beats the list price;
2. greatest ``min_quantity``;
3. latest ``valid_from``;
4. greatest ``seq``.
"""

from datetime import datetime
from decimal import Decimal
from typing import NamedTuple
from uuid import UUID

from sqlalchemy import ColumnElement, FromClause, and_, exists, func, or_, select, tuple_
from sqlalchemy.orm import aliased

from app.models.price import PriceRetirement, PriceRow


class Where(NamedTuple):
    """What is asked about, as columns: of parameters, or of tables when asking for many items at once."""

    item_id: ColumnElement[UUID]
    book_id: ColumnElement[int]
    at: ColumnElement[datetime]
    known_seq: ColumnElement[int]
    quantity: ColumnElement[Decimal]


def in_play(row: type[PriceRow], where: Where) -> ColumnElement[bool]:
    """The condition for rows that may answer at some instant: of the item and book, known, for the quantity."""
    retired = (
        exists()
        .where(PriceRetirement.price_id == row.id, PriceRetirement.seq <= where.known_seq)
        .correlate_except(PriceRetirement)
    )
    return and_(
        row.item_id == where.item_id,
        row.book_id == where.book_id,
        row.seq <= where.known_seq,
        row.min_quantity <= where.quantity,
        ~retired,
    )


def answering_row(where: Where, *, just_before: bool = False, name: str = "price") -> FromClause:
    """The row that answers, as a lateral subquery of at most one row with the columns of ``price_rows``.

    :param just_before: ask for the last instant before ``where.at`` instead of that instant itself.
    """
    row = aliased(PriceRow, name="candidate")
    begun = row.valid_from < where.at if just_before else row.valid_from <= where.at
    going_on = row.valid_to >= where.at if just_before else row.valid_to > where.at
    return (
        select(row)
        .where(in_play(row, where), begun, or_(row.valid_to.is_(None), going_on))
        .order_by(row.valid_to.is_(None), row.min_quantity.desc(), row.valid_from.desc(), row.seq.desc())
        .limit(1)
        .correlate_except(row)
        .lateral(name)
    )


def effective_until(answer: FromClause, where: Where) -> ColumnElement[datetime | None]:
    """The next instant at which the answer changes by itself, or null if none is known.

    Either the answering row ends, or a row starts that comes before it in the order of the rule. A row that starts
    later has the later ``valid_from``, so only the first two places of the order decide.
    """
    row = aliased(PriceRow, name="successor")
    comes_first = or_(
        answer.c.id.is_(None),
        tuple_(row.valid_to.is_not(None), row.min_quantity)
        >= tuple_(answer.c.valid_to.is_not(None), answer.c.min_quantity),
    )
    next_start = (
        select(func.min(row.valid_from))
        .where(in_play(row, where), row.valid_from > where.at, comes_first)
        .correlate_except(row)
    )
    return func.least(answer.c.valid_to, next_start.scalar_subquery())
