"""Totals as they are written at first: floats and ``round()``, on the tutorial's stack, with prices from its table."""

from collections import defaultdict
from collections.abc import Mapping

from pydantic import BaseModel
from sqlalchemy import select

from bench.rivals.tutorial import Item, Session, app

__all__ = ["app"]


class Adjustment(BaseModel):
    """A charge, or an allowance if negative."""

    percent: float


class LineIn(BaseModel):
    """A line, at the item's price or at its own."""

    item: int | None = None
    quantity: float
    unit_price: float | None = None
    tax_rate: float
    adjustments: list[Adjustment] = []


class QuoteIn(BaseModel):
    """What to add up."""

    lines: list[LineIn]


class AdjustmentOut(BaseModel):
    """What an adjustment comes to."""

    amount: float
    percent: float


class LineOut(BaseModel):
    """A line with its amounts."""

    item: int | None
    quantity: float
    unit_price: float
    tax_rate: float
    adjustments: list[AdjustmentOut]
    amount: float
    net: float
    tax: float
    gross: float


class TaxGroup(BaseModel):
    """What is taxed at one rate."""

    tax_rate: float
    base: float
    tax: float


class QuoteOut(BaseModel):
    """The totals."""

    lines: list[LineOut]
    tax_groups: list[TaxGroup]
    net: float
    tax: float
    gross: float


@app.post("/quotes", response_model=QuoteOut)
async def make_quote(data: QuoteIn, session: Session) -> QuoteOut:
    """Add up a document. Prices come with one statement, if any line needs one."""
    prices: Mapping[int, float] = {}
    if items := {line.item for line in data.lines if line.unit_price is None}:
        found = await session.execute(select(Item.id, Item.price).where(Item.id.in_(items)))
        prices = dict(found.tuples().all())
    return total(data, prices)


def total(data: QuoteIn, prices: Mapping[int, float]) -> QuoteOut:
    """Lines, then the tax of each rate, then the totals."""
    lines = []
    bases: dict[float, float] = defaultdict(float)
    for line in data.lines:
        price = prices[line.item or 0] if line.unit_price is None else line.unit_price
        worth = line.quantity * price
        adjustments = [
            AdjustmentOut(percent=each.percent, amount=round(worth * each.percent / 100, 2))
            for each in line.adjustments
        ]
        amount = round(round(worth, 2) + sum(each.amount for each in adjustments), 2)
        tax = round(amount * line.tax_rate / 100, 2)
        bases[line.tax_rate] += amount
        lines.append(
            LineOut(
                item=line.item,
                quantity=line.quantity,
                unit_price=price,
                tax_rate=line.tax_rate,
                adjustments=adjustments,
                amount=amount,
                net=amount,
                tax=tax,
                gross=round(amount + tax, 2),
            )
        )
    groups = [
        TaxGroup(tax_rate=rate, base=round(base, 2), tax=round(base * rate / 100, 2)) for rate, base in bases.items()
    ]
    net = round(sum(group.base for group in groups), 2)
    tax = round(sum(group.tax for group in groups), 2)
    return QuoteOut(lines=lines, tax_groups=groups, net=net, tax=tax, gross=round(net + tax, 2))
