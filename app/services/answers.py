"""What an item costs: reading the price row that answers, for one item or as columns of a larger statement."""

from collections.abc import Mapping
from datetime import date, datetime
from decimal import Decimal
from functools import cache
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, DateTime, FromClause, Numeric, Select, bindparam, func, select, true

from app import money
from app.database import ReadSession, WriteSession
from app.errors import NoPrice, NotForSale, UnknownItem
from app.models import Book, Item, ItemKey, Ledger
from app.models.resolution import answering_row, effective_until
from app.schemas.price import Display, PriceAnswer
from app.services import books

_at: ColumnElement[datetime] = func.coalesce(
    bindparam("at", type_=DateTime(timezone=True)),
    # Now, but never before the newest change: a price just written answers, whatever the clocks do.
    func.greatest(func.statement_timestamp(), Ledger.recorded_at),
)
_quantity: ColumnElement[Decimal] = bindparam("quantity", type_=Numeric(24, 12))

question = select(_at.label("at"), Ledger.seq.label("known_seq"), _quantity.label("quantity")).subquery("question")
"""One row: the instant, the state of knowledge and the quantity asked about (parameters ``at``, ``quantity``)."""

book = Book.__table__.alias("book")
"""The book asked about (parameter ``book``)."""


def joined(items: FromClause, on: ColumnElement[bool]) -> Select[Any]:
    """Select the answers for some items: at least one row, with nulls where there is no book, item or price.

    :param items: ``items`` or a page of it. :param on: which of its rows.
    """
    asked: dict[str, ColumnElement[Any]] = {
        "item_id": items.c.id,
        "book_id": book.c.id,
        "at": question.c.at,
        "known_seq": question.c.known_seq,
        "quantity": question.c.quantity,
    }
    row = answering_row(**asked)
    return (
        select(
            question,
            items.c.id.label("item_id"),
            items.c.sku,
            book.c.key.label("book"),
            book.c.currency,
            book.c.rounding,
            row.c.id.label("price_id"),
            row.c.amount,
            row.c.per,
            row.c.min_quantity,
            row.c.tax_rate,
            row.c.tax,
            row.c.tax_included,
            row.c.valid_from,
            row.c.valid_to,
            row.c.seq,
            row.c.recorded_at,
            row.c.reason,
            effective_until(row, **asked).label("effective_until"),
        )
        .select_from(question)
        .outerjoin(book, book.c.key == bindparam("book"))
        .outerjoin(items, on)
        .outerjoin(row, true())
    )


@cache
def _one_item(*, by_sku: bool) -> Select[Any]:
    key = ItemKey(None, "any") if by_sku else ItemKey(UUID(int=1), None)
    return joined(Item.__table__, key.condition)


async def read(
    session: ReadSession | WriteSession,
    key: ItemKey,
    *,
    book: str,
    at: datetime | date | None,
    quantity: Decimal,
) -> PriceAnswer:
    """What the item costs in the book at the instant, now by default.

    One SQL statement; a bare date costs another, for the book's time zone.

    :raises UnknownItem: if there is no such item.
    :raises UnknownBook: if there is no such book.
    :raises NoPrice: if no row answers.
    :raises NotForSale: if the row that answers has no amount.
    """
    parameters = {
        "item": key.parameter,
        "book": book,
        "at": await books.instant(session, book, at),
        "quantity": quantity,
    }
    row = (await session.execute(_one_item(by_sku=key.sku is not None), parameters)).mappings().one()
    if row["item_id"] is None:
        raise UnknownItem(f"There is no item {key}.")
    if row["book"] is None:
        raise books.unknown(book)
    where = f"in book {row['book']} at {row['at'].isoformat().replace('+00:00', 'Z')}"
    if row["price_id"] is None:
        raise NoPrice(f"Item {key} has no price {where} for quantity {money.plain(row['quantity'])}.")
    answer = to_answer(row)
    if answer is None:
        raise NotForSale(f"Item {key} is not for sale {where}.")
    return answer


def to_answer(row: Mapping[str, Any]) -> PriceAnswer | None:
    """The answer in a row of :func:`joined`, or ``None`` if there is no price or the item is not for sale."""
    if row["amount"] is None:
        return None
    digits = money.minor_units(row["currency"])
    split = money.split_tax(
        row["amount"],
        rate=row["tax_rate"],
        tax=row["tax"],
        included=row["tax_included"],
        digits=digits,
        mode=money.RoundingMode(row["rounding"]["mode"]),
    )
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
        display=Display(
            net=money.plain(split.net, digits),
            tax=money.plain(split.tax, digits),
            gross=money.plain(split.gross, digits),
        ),
        **terms(row, digits),
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
