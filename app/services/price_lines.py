"""Many items priced at one moment, each for a quantity of its own, by one statement."""

from collections.abc import Mapping, Sequence
from decimal import Decimal
from functools import cache
from typing import Any

from sqlalchemy import Numeric, Select, Text, Uuid, bindparam, func, select, true
from sqlalchemy.dialects.postgresql import ARRAY

from app.database import ReadSession
from app.models import Item, ItemKey
from app.services import answers, questions
from app.services.answers import AnswerRow
from app.services.questions import Knowledge


@cache
def statement() -> Select[Any]:
    """One row for each line, in order: the columns of an :class:`app.services.answers.AnswerRow`, known now.

    What a line lacks is null. Its parameters are those of :func:`parameters` and of the question.
    """
    return _statement(Knowledge.LATEST, for_quote=False)


@cache
def quote_statement(knowledge: Knowledge) -> Select[Any]:
    """The same without the end of each answer, but with what a quote needs to know of items and book."""
    return _statement(knowledge, for_quote=True)


def _statement(knowledge: Knowledge, *, for_quote: bool) -> Select[Any]:
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
    found = select(Item.id, Item.sku, Item.tax_category)
    # Each branch uses its own index; an OR of both would use none.
    item = (
        found.where(Item.id == line_id.cast(Uuid()))
        .union_all(found.where(line_id.is_(None), Item.sku == line_sku.cast(Text())))
        .lateral("item")
    )
    subject = questions.subject_of(item, knowledge)
    row, selected = answers.columns(subject, line_quantity, until=not for_quote)
    if for_quote:
        book = subject.book.c
        selected += [item.c.tax_category, book.tax_included.label("book_tax_included"), book.rounding]
    return (
        select(*selected)
        .select_from(subject.question)
        .outerjoin(subject.book, true())
        .join(line, true())
        .outerjoin(item, true())
        .outerjoin(row, true())
        .order_by(line.c.place)
    )


async def answer_rows(session: ReadSession, values: Mapping[str, Any]) -> list[AnswerRow]:
    """The rows of :func:`statement` about what is known now."""
    return [AnswerRow._make(row) for row in await session.columns(statement(), values)]


def parameters(lines: Sequence[tuple[str | None, Decimal]]) -> dict[str, Any]:
    """The lines as parameters: each an item, by id or sku, and a quantity. Text that names no item finds none."""
    return parameters_of([(_key(item), quantity) for item, quantity in lines])


def parameters_of(lines: Sequence[tuple[ItemKey | None, Decimal]]) -> dict[str, Any]:
    """The same, for items that are named already; ``None`` finds none."""
    return {
        "quantity": Decimal(1),
        "ids": [key.id if key else None for key, _ in lines],
        "skus": [key.sku if key else None for key, _ in lines],
        "quantities": [quantity for _, quantity in lines],
    }


def _key(text: str | None) -> ItemKey | None:
    try:
        return ItemKey.parse(text) if text is not None else None
    except ValueError:
        return None
