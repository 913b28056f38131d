"""Exact money: reading, writing and rounding decimal amounts.

Everything here is pure and works on :class:`decimal.Decimal`; a float never holds money. Arithmetic runs in
:data:`EXACT`, which raises instead of rounding, whatever context the caller's thread has.
"""

import re
from dataclasses import dataclass
from decimal import (
    ROUND_05UP,
    ROUND_DOWN,
    ROUND_HALF_DOWN,
    ROUND_HALF_EVEN,
    ROUND_HALF_UP,
    ROUND_UP,
    Context,
    Decimal,
    DivisionByZero,
    Inexact,
    InvalidOperation,
    Overflow,
)
from enum import StrEnum
from functools import cache

import iso4217

INTEGER_DIGITS = 12
"""The most digits an amount may have before the decimal point."""

DECIMAL_DIGITS = 12
"""The most digits an amount may have after the decimal point: published lists hold 0.061232374 EUR per unit."""

_DEFECTS = [InvalidOperation, DivisionByZero, Overflow]

EXACT = Context(prec=120, traps=[*_DEFECTS, Inexact])
"""Wide enough for the product of four of the largest inputs (12+12 digits each). It refuses what it cannot hold, so
only :func:`round_to` and :func:`round_quotient` round."""

_ROUNDING = Context(prec=120, traps=_DEFECTS)

_QUOTIENT = Context(prec=122, rounding=ROUND_05UP, traps=_DEFECTS)
"""Cuts a quotient off so that rounding it once more, to fewer digits, gives what rounding the whole of it would: a last
digit of 0 or 5, which could be taken for an exact value or a tie, becomes 1 or 6 if there was more behind it."""

_PLAIN = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?", re.ASCII)
_AMOUNT = re.compile(rf"-?(0|[1-9][0-9]{{0,{INTEGER_DIGITS - 1}}})(\.[0-9]{{1,{DECIMAL_DIGITS}}})?", re.ASCII)


class NotAnAmount(ValueError):
    """A value that is not a decimal number in plain notation within the digit limits.

    ``code`` is ``not-a-number`` or ``too-many-digits``; the message tells a person what to send instead.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class RoundingMode(StrEnum):
    """How a result between two representable values is rounded. ``half_*`` differ only in exact ties."""

    HALF_UP = "half_up"
    """Ties away from zero: -0.125 becomes -0.13. The usual commercial rounding."""
    HALF_EVEN = "half_even"
    HALF_DOWN = "half_down"
    UP = "up"
    """Away from zero."""
    DOWN = "down"
    """Towards zero."""


class RoundingLevel(StrEnum):
    """Where a quote rounds tax: once for each tax group, for each line, or for each unit."""

    GROUP = "group"
    LINE = "line"
    UNIT = "unit"


_DECIMAL_ROUNDING = {
    RoundingMode.HALF_UP: ROUND_HALF_UP,
    RoundingMode.HALF_EVEN: ROUND_HALF_EVEN,
    RoundingMode.HALF_DOWN: ROUND_HALF_DOWN,
    RoundingMode.UP: ROUND_UP,
    RoundingMode.DOWN: ROUND_DOWN,
}


def parse(value: object) -> Decimal:
    """Read a decimal number exactly as it was sent.

    :param value: a string, or a number of a JSON document that was parsed without floats (``int``, ``Decimal``).
    :raises NotAnAmount: for anything else: exponents, NaN, blanks, floats, booleans, too many digits.
    """
    if isinstance(value, str):
        text = value
    elif isinstance(value, Decimal):
        text = format(value, "f") if value.is_finite() else "NaN"
    elif isinstance(value, int) and not isinstance(value, bool):
        text = format(Decimal(value), "f")
    else:
        raise NotAnAmount("not-a-number", 'must be a decimal number, as a string ("19.99") or a JSON number')
    if _AMOUNT.fullmatch(text):
        return Decimal(text)
    if not _PLAIN.fullmatch(text):
        raise NotAnAmount("not-a-number", 'must be a number in plain notation such as "19.99", without exponent')
    raise NotAnAmount(
        "too-many-digits",
        f"may have at most {INTEGER_DIGITS} digits before and {DECIMAL_DIGITS} after the decimal point",
    )


def plain(value: Decimal, digits: int = 0) -> str:
    """Write a number in plain notation with at least ``digits`` decimals and no trailing zeros beyond them."""
    text = format(value, "f")
    integer, _, fraction = text.partition(".")
    fraction = fraction.rstrip("0").ljust(digits, "0")
    sign_only = integer == "-0" and not fraction.strip("0")
    integer = "0" if sign_only else integer
    return f"{integer}.{fraction}" if fraction else integer


def round_to(value: Decimal, digits: int, mode: RoundingMode = RoundingMode.HALF_UP) -> Decimal:
    """Round to ``digits`` decimals. Zero never keeps a minus sign."""
    rounded = value.quantize(_step(digits), rounding=_DECIMAL_ROUNDING[mode], context=_ROUNDING)
    return rounded or abs(rounded)


@cache
def _step(digits: int) -> Decimal:
    return Decimal(1).scaleb(-digits)


def round_quotient(
    numerator: Decimal, denominator: Decimal, digits: int, mode: RoundingMode = RoundingMode.HALF_UP
) -> Decimal:
    """Round a quotient to ``digits`` decimals as if all of its decimals were known, of which there may be no end.

    :param denominator: greater than zero.
    """
    rounded = _QUOTIENT.divide(numerator, denominator).quantize(
        _step(digits), rounding=_DECIMAL_ROUNDING[mode], context=_ROUNDING
    )
    return rounded or abs(rounded)


_WITHDRAWN = {"ANG": 2, "BGN": 2, "CUC": 2, "HRK": 2, "SLL": 2, "ZWL": 2}
"""Currencies that ISO 4217 has withdrawn in the last years. Prices and quotes in them stay what they were, so a code is
never taken away here."""


@cache
def minor_units(currency: str) -> int:
    """The number of decimals of a currency, from ISO 4217 (2 for EUR, 0 for JPY, 3 for KWD).

    :raises KeyError: if the code is unknown, or has no minor units (gold, test codes).
    """
    if currency in _WITHDRAWN:
        return _WITHDRAWN[currency]
    try:
        exponent = iso4217.Currency(currency).exponent
    except ValueError:
        raise KeyError(currency) from None
    if exponent is None:
        raise KeyError(currency)
    return int(exponent)


@dataclass(frozen=True, slots=True)
class Taxed:
    """An amount split by tax; ``net + tax == gross`` always holds."""

    net: Decimal
    tax: Decimal
    gross: Decimal


def split_tax(
    amount: Decimal,
    *,
    rate: Decimal | None,
    tax: Decimal | None,
    included: bool,
    digits: int,
    mode: RoundingMode = RoundingMode.HALF_UP,
) -> Taxed:
    """Split an amount into net, tax and gross, each rounded to ``digits``.

    The amount is rounded, the tax of the rounded amount is rounded, and the third is their sum or difference.

    :param rate: tax in percent, or ``None``.
    :param tax: tax as an amount instead, or ``None``. With neither, no tax is stated and it counts as zero.
    :param included: whether ``amount`` contains the tax.
    """
    base = round_to(amount, digits, mode)
    if rate is None:
        stated = round_to(tax or Decimal(0), digits, mode)
    else:
        stated = round_quotient(EXACT.multiply(base, rate), tax_divisor(rate, included=included), digits, mode)
    if included:
        return Taxed(net=EXACT.subtract(base, stated), tax=stated, gross=base)
    return Taxed(net=base, tax=stated, gross=EXACT.add(base, stated))


def tax_divisor(rate: Decimal, *, included: bool) -> Decimal:
    """What amount x rate is divided by to give the tax, whether the amount contains it or not."""
    return EXACT.add(Decimal(100), rate) if included else Decimal(100)
