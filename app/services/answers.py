"""What an item costs: the price row that answers, for one item or as columns of a larger statement."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from decimal import Decimal
from functools import cache
from typing import Any

from sqlalchemy import ColumnElement, FromClause, Select, true

from app import instants, money
from app.database import ReadSession, WriteSession
from app.errors import NoPrice, NotForSale, UnknownItem
from app.models import ItemKey
from app.models.resolution import Where, answering_row, effective_until
from app.observability import metrics
from app.observability.metrics import PriceRead
from app.schemas.price import Display, PriceAnswer
from app.services import questions
from app.services.questions import Knowledge, Moment, Subject

_TERMS = (
    "amount",
    "per",
    "min_quantity",
    "tax_rate",
    "tax",
    "tax_included",
    "valid_from",
    "valid_to",
    "seq",
    "recorded_at",
    "reason",
)


_READS = {outcome: metrics.PRICE_READS.labels(outcome) for outcome in PriceRead}


def columns(
    subject: Subject, quantity: ColumnElement[Decimal] | None = None, *, until: bool = True
) -> tuple[FromClause, list[ColumnElement[Any]]]:
    """The answering row, to be joined laterally, and the columns that :func:`to_answer` reads.

    :param quantity: the quantity asked about, if it is not the question's.
    :param until: whether to look for the end of the answer, which :func:`to_answer` needs.
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
        book.c.rounding,
        row.c.id.label("price_id"),
        *(row.c[name] for name in _TERMS),
        *([effective_until(row, where).label("effective_until")] if until else []),
    ]


@cache
def _one_item(knowledge: Knowledge, *, by_sku: bool) -> Select[Any]:
    subject = questions.subject(knowledge, by_sku=by_sku)
    row, selected = columns(subject)
    return subject.select(*selected).outerjoin(row, true())


async def read(session: ReadSession, key: ItemKey, *, book: str, moment: Moment, quantity: Decimal) -> PriceAnswer:
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


def count(outcome: PriceRead) -> None:
    """Count the outcome of asking for one item's price."""
    _READS[outcome].inc()


async def find(
    session: ReadSession | WriteSession, key: ItemKey, *, book: str, moment: Moment, quantity: Decimal
) -> PriceAnswer:
    """What the item costs in the book at a moment, now and as known now by default.

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
    row = (await session.execute(statement, values)).mappings().one()
    return found(row, key, book=book, quantity=quantity)


def found(row: Mapping[str, Any], key: ItemKey, *, book: str, quantity: Decimal) -> PriceAnswer:
    """The answer in a row of :func:`columns` to somebody who asked for this item. Raises as :func:`find`."""
    questions.check(
        key=key,
        book=book,
        known_seq=row["known_seq"],
        head=row["head"],
        found_item=row["item_id"],
        found_book=row["book"],
    )
    if (answer := to_answer(row)) is not None:
        return answer
    where = f"in book {book} at {instants.text(row['at'])}"
    if row["price_id"] is None:
        raise NoPrice(f"Item {key} has no price {where} for quantity {money.plain(quantity)}.")
    raise NotForSale(f"Item {key} is not for sale {where}.")


def to_answer(row: Mapping[str, Any]) -> PriceAnswer | None:
    """The answer in a row of :func:`columns`, or ``None`` if there is no price or the item is not for sale."""
    if row["amount"] is None:
        return None
    return PriceAnswer(
        item_id=row["item_id"],
        sku=row["sku"],
        book=row["book"],
        currency=row["currency"],
        at=row["at"],
        known_seq=row["known_seq"],
        quantity=money.plain(row["quantity"]),
        effective_until=row["effective_until"],
        price_id=row["price_id"],
        display=display(row, row["currency"], row["rounding"]),
        explain=None,
        **terms(row, money.minor_units(row["currency"])),
    )


def display(row: Mapping[str, Any], currency: str, rounding: Mapping[str, Any]) -> Display:
    """The row's price for people, rounded by the book's policy. Its amount must not be null."""
    digits = money.minor_units(currency)
    split = money.split_tax(
        row["amount"],
        rate=row["tax_rate"],
        tax=row["tax"],
        included=row["tax_included"],
        digits=digits,
        mode=money.RoundingMode(rounding["mode"]),
    )
    return Display(
        net=money.plain(split.net, digits),
        tax=money.plain(split.tax, digits),
        gross=money.plain(split.gross, digits),
    )


def terms(row: Mapping[str, Any], digits: int) -> dict[str, Any]:
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
