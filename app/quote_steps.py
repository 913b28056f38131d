"""The arithmetic of a quote's line in words, as a person would check it with pencil and paper. Pure."""

from collections.abc import Iterator
from decimal import Decimal, Inexact

from app import money
from app.money import EXACT, RoundingLevel
from app.quoting import Adjustment, Entry, Line, Policy, Tax, tax_of_one


def of_line(line: Line, entry: Entry, policy: Policy) -> list[str]:
    """The steps from quantity and price to the line's tax. ``->`` is where a result is rounded."""
    return list(_steps(line, entry, policy))


def _steps(line: Line, entry: Entry, policy: Policy) -> Iterator[str]:
    worth = EXACT.multiply(line.quantity, line.unit_price)
    yield f"{_times(line.quantity, line.unit_price, line.per)}{_result(worth, line.per, _shown(entry.value, policy))}"
    for adjustment, amount in zip(line.adjustments, entry.adjustments, strict=True):
        yield _adjustment(adjustment, amount, worth, line.per, policy)
    if entry.adjustments:
        yield f"amount: {_shown(entry.amount, policy)}"
    if entry.key.category is None:
        yield "no tax stated"
    elif policy.level is RoundingLevel.UNIT:
        yield from _tax_by_unit(line, entry, policy)
    elif line.unit_tax is not None:
        product = EXACT.multiply(line.quantity, line.unit_tax)
        tax = _result(product, line.per, _shown(entry.tax, policy))
        yield f"tax: {_times(line.quantity, line.unit_tax, line.per)}{tax}"
    else:
        share = " (this line's part of its group's tax)" if policy.level is RoundingLevel.GROUP else ""
        yield f"tax: {_rated(entry.amount, Decimal(1), entry.key, entry.tax, policy)}{share}"


def _tax_by_unit(line: Line, entry: Entry, policy: Policy) -> Iterator[str]:
    one = tax_of_one(line, policy)
    if line.unit_tax is None:
        yield f"tax of one: {_rated(line.unit_price, line.per, entry.key, one, policy)}"
    else:
        stated = _over(money.plain(line.unit_tax), line.per)
        yield f"tax of one: {stated}{_result(line.unit_tax, line.per, _shown(one, policy), stated)}"
    units = EXACT.multiply(line.quantity, one)
    all_units = _shown(policy.quotient(units, Decimal(1)), policy)
    adjusted = () if line.unit_tax is not None else entry.adjustments
    of = f"tax of {money.plain(line.quantity)}" if adjusted else "tax"
    yield f"{of}: {money.plain(line.quantity)} x {_shown(one, policy)}{_result(units, Decimal(1), all_units)}"
    for amount in adjusted:
        tax = policy.quotient(*_tax_quotient(amount, Decimal(1), entry.key))
        yield f"tax of {_shown(amount, policy)}: {_rated(amount, Decimal(1), entry.key, tax, policy)}"
    if adjusted:
        yield f"tax: {_shown(entry.tax, policy)}"


def _shown(amount: Decimal, policy: Policy) -> str:
    return money.plain(amount, policy.digits)


def _over(text: str, per: Decimal) -> str:
    return text if per == 1 else f"{text} / {money.plain(per)}"


def _times(quantity: Decimal, price: Decimal, per: Decimal) -> str:
    return _over(f"{money.plain(quantity)} x {money.plain(price)}", per)


def _tax_quotient(amount: Decimal, per: Decimal, key: Tax) -> tuple[Decimal, Decimal]:
    rate = key.rate or Decimal(0)
    return EXACT.multiply(amount, rate), EXACT.multiply(money.tax_divisor(rate, included=key.included), per)


def _rated(amount: Decimal, per: Decimal, key: Tax, tax: Decimal, policy: Policy) -> str:
    rate = key.rate or Decimal(0)
    divisor = money.plain(money.tax_divisor(rate, included=key.included))
    shown = money.plain(amount, policy.digits) if per == 1 else _over(money.plain(amount), per)
    return f"{shown} x {money.plain(rate)} / {divisor}{_result(*_tax_quotient(amount, per, key), _shown(tax, policy))}"


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
