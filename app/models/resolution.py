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
from uuid import UUID

from sqlalchemy import ColumnElement, FromClause, and_, exists, func, or_, select, tuple_
from sqlalchemy.orm import aliased

from app.models.price import PriceRetirement, PriceRow


def known_rows(
    row: type[PriceRow],
    *,
    item_id: ColumnElement[UUID],
    book_id: ColumnElement[int],
    known_seq: ColumnElement[int],
    quantity: ColumnElement[Decimal],
) -> ColumnElement[bool]:
    """The condition for rows that may answer: right item, book and quantity, recorded and not retired."""
    retired = (
        exists()
        .where(PriceRetirement.price_id == row.id, PriceRetirement.seq <= known_seq)
        .correlate_except(PriceRetirement)
    )
    return and_(
        row.item_id == item_id,
        row.book_id == book_id,
        row.seq <= known_seq,
        row.min_quantity <= quantity,
        ~retired,
    )


def answering_row(
    *,
    item_id: ColumnElement[UUID],
    book_id: ColumnElement[int],
    at: ColumnElement[datetime],
    known_seq: ColumnElement[int],
    quantity: ColumnElement[Decimal],
) -> FromClause:
    """The row that answers, as a lateral subquery of at most one row with the columns of ``price_rows``."""
    row = aliased(PriceRow, name="candidate")
    return (
        select(row)
        .where(
            known_rows(row, item_id=item_id, book_id=book_id, known_seq=known_seq, quantity=quantity),
            row.valid_from <= at,
            or_(row.valid_to.is_(None), row.valid_to > at),
        )
        .order_by(row.valid_to.is_(None), row.min_quantity.desc(), row.valid_from.desc(), row.seq.desc())
        .limit(1)
        .correlate_except(row)
        .lateral("price")
    )


def effective_until(
    answer: FromClause,
    *,
    item_id: ColumnElement[UUID],
    book_id: ColumnElement[int],
    at: ColumnElement[datetime],
    known_seq: ColumnElement[int],
    quantity: ColumnElement[Decimal],
) -> ColumnElement[datetime | None]:
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
        .where(
            known_rows(row, item_id=item_id, book_id=book_id, known_seq=known_seq, quantity=quantity),
            row.valid_from > at,
            comes_first,
        )
        .correlate_except(row)
    )
    return func.least(answer.c.valid_to, next_start.scalar_subquery())
