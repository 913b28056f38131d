"""What an item costs: the price row that answers, for one item or as columns of a larger statement."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from decimal import Decimal
from functools import cache, lru_cache
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import ColumnElement, FromClause, Select, true

from app import instants, money
from app.database import ReadSession, WriteSession
from app.errors import NoPrice, NotForSale, UnknownItem
from app.models import ItemKey
from app.models.resolution import Where, answering_row, effective_until
from app.observability import metrics
from app.observability.metrics import PriceRead
from app.schemas.base import Document
from app.services import questions
from app.services.questions import Knowledge, Moment, Subject


class AnswerRow(NamedTuple):
    """What :func:`columns` selects, in that order. What there is none of is null: all terms, if no row answers."""

    at: datetime
    known_seq: int
    head: int
    quantity: Decimal
    item_id: UUID | None
    sku: str | None
    book: str | None
    currency: str
    rounding_mode: str
    price_id: UUID | None
    amount: Decimal | None
    per: Decimal
    min_quantity: Decimal
    tax_rate: Decimal | None
    tax: Decimal | None
    tax_included: bool
    valid_from: datetime
    valid_to: datetime | None
    seq: int
    recorded_at: datetime
    reason: str | None
    effective_until: datetime | None


_TERMS = AnswerRow._fields[AnswerRow._fields.index("amount") : AnswerRow._fields.index("effective_until")]


_of_few = lru_cache(maxsize=1000)(money.plain)
"""For numbers of which there are a few, whatever the list: base quantities, tiers, rates."""

_READS = {outcome: metrics.PRICE_READS.labels(outcome) for outcome in PriceRead}


def columns(
    subject: Subject, quantity: ColumnElement[Decimal] | None = None, *, until: bool = True
) -> tuple[FromClause, list[ColumnElement[Any]]]:
    """The answering row, to be joined laterally, and the columns of an :class:`AnswerRow`.

    :param quantity: the quantity asked about, if it is not the question's.
    :param until: whether to look for the end of the answer, which is the last column.
    """
    asked, book, item = subject
    units = asked.c.quantity if quantity is None else quantity
    where = Where(item.c.id, book.c.id, asked.c.at, asked.c.known_seq, units)
    row = answering_row(where)
    return row, [
        asked.c.at,
        asked.c.known_seq,
        asked.c.head,
        units.label("quantity"),
        item.c.id.label("item_id"),
        item.c.sku,
        book.c.key.label("book"),
        book.c.currency,
        book.c.rounding["mode"].astext.label("rounding_mode"),
        row.c.id.label("price_id"),
        *(row.c[name] for name in _TERMS),
        *([effective_until(row, where).label("effective_until")] if until else []),
    ]


@cache
def _one_item(knowledge: Knowledge, *, by_sku: bool) -> Select[Any]:
    subject = questions.subject(knowledge, by_sku=by_sku)
    row, selected = columns(subject)
    return subject.select(*selected).outerjoin(row, true())


async def read(session: ReadSession, key: ItemKey, *, book: str, moment: Moment, quantity: Decimal) -> Document:
    """The answer to somebody who asks what the item costs: that of :func:`find`, counted in the metrics."""
    with counted():
        return await find(session, key, book=book, moment=moment, quantity=quantity)


@contextmanager
def counted() -> Iterator[None]:
    """Count what comes of a block that answers one such question."""
    try:
        yield
    except UnknownItem:
        count(PriceRead.UNKNOWN_ITEM)
        raise
    except (NoPrice, NotForSale):
        count(PriceRead.NO_PRICE)
        raise
    count(PriceRead.ANSWERED)


def count(outcome: PriceRead, times: int = 1) -> None:
    """Count the outcome of asking for one item's price."""
    _READS[outcome].inc(times)


async def find(
    session: ReadSession | WriteSession, key: ItemKey, *, book: str, moment: Moment, quantity: Decimal
) -> Document:
    """What the item costs in the book at a moment, now and as known now by default: a ``PriceAnswer``.

    One SQL statement; bare dates cost another, for the book's time zone.

    :raises UnknownItem: if there is no such item.
    :raises UnknownBook: if there is no such book.
    :raises UnknownSeq: if the state of knowledge does not exist yet.
    :raises InvalidRequest: if the state of knowledge is pinned twice.
    :raises NoPrice: if no row answers.
    :raises NotForSale: if the row that answers has no amount.
    """
    statement = _one_item(Knowledge.of(moment), by_sku=key.sku is not None)
    values = await questions.parameters(session, moment, book=book, quantity=quantity) | {"item": key.parameter}
    row = AnswerRow._make((await session.columns(statement, values)).one())
    return found(row, key, book=book, quantity=quantity)


def found(row: AnswerRow, key: ItemKey, *, book: str, quantity: Decimal) -> Document:
    """The answer in a row of :func:`columns` to somebody who asked for this item. Raises as :func:`find`."""
    questions.check(
        key=key, book=book, known_seq=row.known_seq, head=row.head, found_item=row.item_id, found_book=row.book
    )
    if (answer := document(row)) is not None:
        return answer
    where = f"in book {book} at {instants.text(row.at)}"
    if row.price_id is None:
        raise NoPrice(f"Item {key} has no price {where} for quantity {money.plain(quantity)}.")
    raise NotForSale(f"Item {key} is not for sale {where}.")


def document(row: AnswerRow) -> Document | None:
    """The ``PriceAnswer`` in a row, or ``None`` if there is no price or the item is not for sale."""
    if row.amount is None:
        return None
    digits = money.minor_units(row.currency)
    split = money.split_tax(
        row.amount,
        rate=row.tax_rate,
        tax=row.tax,
        included=row.tax_included,
        digits=digits,
        mode=money.RoundingMode(row.rounding_mode),
    )
    return {
        "item_id": row.item_id,
        "sku": row.sku,
        "book": row.book,
        "currency": row.currency,
        "at": row.at,
        "known_seq": row.known_seq,
        "quantity": _of_few(row.quantity),
        "amount": money.plain(row.amount, digits),
        "per": _of_few(row.per),
        "min_quantity": _of_few(row.min_quantity),
        "tax_rate": None if row.tax_rate is None else _of_few(row.tax_rate),
        "tax": None if row.tax is None else money.plain(row.tax, digits),
        "tax_included": row.tax_included,
        "valid_from": row.valid_from,
        "valid_to": row.valid_to,
        "effective_until": row.effective_until,
        "price_id": row.price_id,
        "seq": row.seq,
        "recorded_at": row.recorded_at,
        "reason": row.reason,
        "display": _shown(split, digits),
        "explain": None,
    }


def display(row: Mapping[str, Any], currency: str, rounding: Mapping[str, Any]) -> Document:
    """The row's price for people, rounded by the book's policy: a ``Display``. Its amount must not be null."""
    digits = money.minor_units(currency)
    mode = money.RoundingMode(rounding["mode"])
    rate, tax, included = row["tax_rate"], row["tax"], row["tax_included"]
    return _shown(
        money.split_tax(row["amount"], rate=rate, tax=tax, included=included, digits=digits, mode=mode), digits
    )


def _shown(split: money.Taxed, digits: int) -> Document:
    return {name: money.plain(getattr(split, name), digits) for name in ("net", "tax", "gross")}


def terms(row: Mapping[str, Any], digits: int) -> Document:
    """What price rows and price answers say in the same words. ``digits`` are the currency's minor units."""
    return {
        "amount": None if row["amount"] is None else money.plain(row["amount"], digits),
        "per": money.plain(row["per"]),
        "min_quantity": money.plain(row["min_quantity"]),
        "tax_rate": None if row["tax_rate"] is None else money.plain(row["tax_rate"]),
        "tax": None if row["tax"] is None else money.plain(row["tax"], digits),
        "tax_included": row["tax_included"],
        "valid_from": row["valid_from"],
        "valid_to": row["valid_to"],
        "seq": row["seq"],
        "recorded_at": row["recorded_at"],
        "reason": row["reason"],
    }
