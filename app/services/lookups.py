"""Many items priced at one instant by one statement."""

from collections.abc import Mapping
from decimal import Decimal
from functools import cache
from typing import Any

from sqlalchemy import BigInteger, Numeric, Select, Text, Uuid, bindparam, func, literal_column, select, true
from sqlalchemy.dialects.postgresql import ARRAY

from app.database import ReadSession
from app.models import Item, ItemKey
from app.observability.metrics import PriceRead
from app.schemas.price import Lookup, LookupAnswer, LookupFailure, LookupMiss, PriceAnswer
from app.services import answers, books, questions


@cache
def _statement() -> Select[Any]:
    line = (
        func.unnest(
            bindparam("ids", type_=ARRAY(Uuid())),
            bindparam("skus", type_=ARRAY(Text())),
            bindparam("quantities", type_=ARRAY(Numeric(24, 12))),
        )
        .table_valued("id", "sku", "quantity", with_ordinality="place", name="line")
        .render_derived()
    )
    line_id, line_sku = line.c.id, line.c.sku
    line_quantity = line.c.quantity.cast(Numeric(24, 12))
    # Each branch uses its own index; an OR of both would use none.
    item = (
        select(Item.id, Item.sku)
        .where(Item.id == line_id.cast(Uuid()))
        .union_all(select(Item.id, Item.sku).where(line_id.is_(None), Item.sku == line_sku.cast(Text())))
        .lateral("item")
    )
    subject = questions.subject_of(item)
    row, selected = answers.columns(subject, line_quantity)
    return (
        select(line.c.place.cast(BigInteger).label("place"), *selected)
        .select_from(subject.question)
        .outerjoin(subject.book, true())
        .join(line, true())
        .outerjoin(item, true())
        .outerjoin(row, true())
        .order_by(literal_column("place"))
    )


async def look_up(session: ReadSession, lookup: Lookup) -> LookupAnswer:
    """The prices of all lines at one instant, in their order; a line without one says why.

    One SQL statement; a bare date costs another, for the book's time zone.

    :raises UnknownBook: if there is no such book.
    :raises InvalidRequest: if the day is at the edge of the calendar.
    """
    keys = [_key(line.item) for line in lookup.lines]
    values = {
        "book": lookup.book,
        "at": await books.instant(session, lookup.book, lookup.at, pointer="/at", book_pointer="/book"),
        "quantity": Decimal(1),
        "ids": [key.id if key else None for key in keys],
        "skus": [key.sku if key else None for key in keys],
        "quantities": [line.quantity for line in lookup.lines],
    }
    rows = (await session.execute(_statement(), values)).mappings().all()
    if rows[0]["book"] is None:
        raise books.unknown(lookup.book, "/book")
    return LookupAnswer(
        **{name: rows[0][name] for name in ("book", "currency", "at", "known_seq")},
        prices=[_outcome(line.item, row) for line, row in zip(lookup.lines, rows, strict=True)],
    )


def _key(text: str) -> ItemKey | None:
    try:
        return ItemKey.parse(text)
    except ValueError:
        return None


def _outcome(item: str, row: Mapping[str, Any]) -> PriceAnswer | LookupMiss:
    answer = answers.to_answer(row)
    if answer is not None:
        answers.count(PriceRead.ANSWERED)
        return answer
    if row["item_id"] is None:
        answers.count(PriceRead.UNKNOWN_ITEM)
        return LookupMiss(item=item, error=LookupFailure.UNKNOWN_ITEM)
    answers.count(PriceRead.NO_PRICE)
    if row["price_id"] is None:
        return LookupMiss(item=item, error=LookupFailure.NO_PRICE)
    return LookupMiss(item=item, error=LookupFailure.NOT_FOR_SALE)
