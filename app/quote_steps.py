"""The arithmetic of a quote's line in words, as a person would check it with pencil and paper. Pure."""

from collections.abc import Iterator
from decimal import Decimal, Inexact

from app import money
from app.money import EXACT, RoundingLevel
from app.quoting import Adjustment, Entry, Line, Policy


def of_line(line: Line, entry: Entry, policy: Policy) -> list[str]:
    """The steps from quantity and price to the line's tax. ``->`` is where a result is rounded."""
    return list(_steps(line, entry, policy))


def _steps(line: Line, entry: Entry, policy: Policy) -> Iterator[str]:
    def rounded(amount: Decimal) -> str:
        return money.plain(amount, policy.digits)

    price = f"{money.plain(line.unit_price)}"
    if line.per != 1:
        price += f" / {money.plain(line.per)}"
    unit, per = line.unit_price, line.per
    if policy.level is RoundingLevel.UNIT:
        unit, per = policy.quotient(unit, per), Decimal(1)
        yield f"unit price: {price}{_result(line.unit_price, line.per, rounded(unit), price)}"
        price = rounded(unit)
    worth = EXACT.multiply(line.quantity, unit)
    yield f"{money.plain(line.quantity)} x {price}{_result(worth, per, rounded(entry.value))}"
    for adjustment, amount in zip(line.adjustments, entry.adjustments, strict=True):
        yield _adjustment(adjustment, amount, worth, per, policy)
    if entry.adjustments:
        yield f"amount: {rounded(entry.amount)}"
    yield _tax(line, entry, policy)


def _result(numerator: Decimal, denominator: Decimal, rounded: str, said: str = "") -> str:
    """``= exact``, and ``-> rounded`` if that is another number; the exact one only if it has an end.

    :param said: what was said before, which is not said again.
    """
    exact = _exact(numerator, denominator)
    if exact is not None and Decimal(exact) == Decimal(rounded):
        return f" = {rounded}"
    return f" -> {rounded}" if exact in {None, said} else f" = {exact} -> {rounded}"


def _exact(numerator: Decimal, denominator: Decimal, digits: int = 0) -> str | None:
    """A quotient, if it has an end."""
    try:
        return money.plain(EXACT.divide(numerator, denominator), digits)
    except Inexact:
        return None


def _adjustment(adjustment: Adjustment, amount: Decimal, worth: Decimal, per: Decimal, policy: Policy) -> str:
    kind = "charge" if amount >= 0 else "allowance"
    shown = money.plain(amount, policy.digits)
    if adjustment.percent is None:
        return f"{kind}: {shown}"
    if adjustment.base is not None:
        worth, per = adjustment.base, Decimal(1)
    base = _exact(worth, per, policy.digits) or f"{money.plain(worth)} / {money.plain(per)}"
    product = EXACT.multiply(adjustment.percent, worth)
    percent = money.plain(adjustment.percent)
    return f"{kind}: {percent} % of {base}{_result(product, EXACT.multiply(Decimal(100), per), shown)}"


def _tax(line: Line, entry: Entry, policy: Policy) -> str:
    shown = money.plain(entry.tax, policy.digits)
    if entry.key.category is None:
        return "no tax stated"
    if line.unit_tax is not None:
        per = f" / {money.plain(line.per)}" if line.per != 1 else ""
        return f"tax: {money.plain(line.quantity)} x {money.plain(line.unit_tax)}{per} -> {shown}"
    rate = entry.key.rate or Decimal(0)
    divisor = money.tax_divisor(rate, included=entry.key.included)
    amount = money.plain(entry.amount, policy.digits)
    formula = f"{amount} x {money.plain(rate)} / {money.plain(divisor)}"
    where = {
        RoundingLevel.GROUP: " (this line's part of its group's tax)",
        RoundingLevel.LINE: "",
        RoundingLevel.UNIT: " (rounded for each unit)",
    }[policy.level]
    return f"tax: {formula}{_result(EXACT.multiply(entry.amount, rate), divisor, shown)}{where}"
