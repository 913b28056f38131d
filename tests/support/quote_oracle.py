"""What a quote comes to, a second time: in fractions and whole numbers, from the specification alone.

Nothing here is shared with the arithmetic of the application, not even its types: a document holds numbers as text,
and every figure is a whole number of minor units. :func:`compare` looks at another calculator's totals from outside.
"""

import math
import random
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from typing import Any

MODES = ("half_up", "half_even", "half_down", "up", "down")
LEVELS = ("group", "line", "unit")
RATED = ("S", "L", "M")
UNRATED = ("Z", "E", "AE", "K", "G", "O", "B")


@dataclass(frozen=True)
class OracleTax:
    """Category (none: no tax is stated), percent (none with a category: the tax is an amount), and tax in or on top."""

    category: str | None
    rate: str | None
    included: bool


@dataclass(frozen=True)
class OracleAdjustment:
    """Either an amount, or a percentage of a base, which may be left open."""

    amount: str | None = None
    percent: str | None = None
    base: str | None = None


@dataclass(frozen=True)
class OracleLine:
    """A line. ``stated_tax`` is an amount for ``per`` units."""

    quantity: str
    price: str
    per: str
    tax: OracleTax
    stated_tax: str | None = None
    adjustments: tuple[OracleAdjustment, ...] = ()


@dataclass(frozen=True)
class OracleDocument:
    """A document and how it is to be rounded."""

    lines: tuple[OracleLine, ...]
    adjustments: tuple[tuple[OracleAdjustment, OracleTax], ...] = ()
    mode: str = "half_up"
    level: str = "group"
    digits: int = 2
    increment: str | None = None
    prepaid: str = "0"


class NothingToTakeItOf(Exception):
    """A percentage of the document has no base. ``args[0]`` is its place."""


def whole(value: Fraction, mode: str) -> int:
    """The nearest whole number as the mode has it."""
    if mode == "half_even":
        return round(value)
    size = abs(value)
    rounded = {
        "half_up": math.floor(size + Fraction(1, 2)),
        "half_down": math.ceil(size - Fraction(1, 2)),
        "up": math.ceil(size),
        "down": math.floor(size),
    }[mode]
    return rounded if value > 0 else -rounded


def exact_tax(amount: Fraction, tax: OracleTax) -> Fraction:
    """The tax on an amount, or in it, to the last digit."""
    rate = Fraction(tax.rate or 0)
    return amount * rate / (100 + rate if tax.included else 100)


Key = tuple[str | None, Fraction | None, bool]


def key(tax: OracleTax) -> Key:
    """What has to be equal within a group: 19 and 19.0 percent are."""
    return tax.category, None if tax.rate is None else Fraction(tax.rate), tax.included


@dataclass
class Part:
    """A line or a document adjustment: its amount, and its tax if that does not hang on its group."""

    place: str
    tax: OracleTax
    amount: int
    own: int | None


def figures(document: OracleDocument) -> dict[str, Any]:
    """Every figure of the answer in minor units, by its place.

    :raises NothingToTakeItOf: if a percentage of the document has no base.
    """
    found: dict[str, Any] = {}
    lines = [_line(document, number, found) for number in range(len(document.lines))]
    parts = lines + [_document_adjustment(document, number, lines) for number in range(len(document.adjustments))]
    groups = list(dict.fromkeys(key(part.tax) for part in parts if part.tax.category is not None))
    taxes: dict[str, int] = {}
    for group in groups:
        taxes |= _taxes([part for part in parts if key(part.tax) == group], document.mode)
    for part in parts:
        taxed = taxes.get(part.place, 0)
        with_tax = part.amount if part.tax.included else part.amount + taxed
        for figure, value in (("amount", part.amount), ("tax", taxed), ("net", with_tax - taxed), ("gross", with_tax)):
            found[f"{part.place}/{figure}"] = value

    def total(figure: str, group: Key | None = None) -> int:
        return sum(int(found[f"{part.place}/{figure}"]) for part in parts if group is None or key(part.tax) == group)

    found["groups"] = [(*group, total("net", group), total("tax", group)) for group in groups]
    found |= {"net": total("net"), "tax": sum(taxes.values()), "gross": total("gross")}
    prepaid = _minor(document, document.prepaid)
    due = payable = found["gross"] - prepaid
    if document.increment is not None:
        step = _minor(document, document.increment)
        payable = step * whole(Fraction(due, step), document.mode)
    return found | {"prepaid": prepaid, "payable": payable, "cash_rounding": payable - due}


def _units(digits: int) -> int:
    return int(10**digits)


def _minor(document: OracleDocument, text: str) -> int:
    value = Fraction(text) * _units(document.digits)
    assert value.denominator == 1, "amounts have no more digits than results"
    return value.numerator


def _adjusted(document: OracleDocument, adjustment: OracleAdjustment, default_base: Fraction) -> int:
    """What an adjustment comes to; the base is in minor units."""
    if adjustment.amount is not None:
        return _minor(document, adjustment.amount)
    base = default_base if adjustment.base is None else Fraction(adjustment.base) * _units(document.digits)
    return whole(base * Fraction(adjustment.percent or "") / 100, document.mode)


def _line(document: OracleDocument, number: int, found: dict[str, Any]) -> Part:
    def cut(value: Fraction) -> int:
        return whole(value, document.mode)

    line, place = document.lines[number], f"lines/{number}"
    count, unit = Fraction(line.quantity), _units(document.digits)
    each = Fraction(line.price) / Fraction(line.per) * unit
    each_tax = None if line.stated_tax is None else Fraction(line.stated_tax) / Fraction(line.per) * unit
    if document.level == "unit":
        each_tax = Fraction(cut(exact_tax(each, line.tax) if each_tax is None else each_tax))
    extras = [_adjusted(document, adjustment, count * each) for adjustment in line.adjustments]
    found |= {f"{place}/adjustments/{index}": extra for index, extra in enumerate(extras)}
    amount = cut(count * each) + sum(extras)
    own: int | None = None
    if each_tax is not None:
        own = cut(count * each_tax)
        if line.stated_tax is None:
            own += sum(cut(exact_tax(Fraction(extra), line.tax)) for extra in extras)
    elif document.level == "line":
        own = cut(exact_tax(Fraction(amount), line.tax))
    return Part(place, line.tax, amount, own)


def _document_adjustment(document: OracleDocument, number: int, lines: list[Part]) -> Part:
    adjustment, tax = document.adjustments[number]
    same = [line.amount for line in lines if key(line.tax) == key(tax)]
    if adjustment.percent is not None and adjustment.base is None and not same:
        raise NothingToTakeItOf(number)
    amount = _adjusted(document, adjustment, Fraction(sum(same)))
    own = None if document.level == "group" else whole(exact_tax(Fraction(amount), tax), document.mode)
    return Part(f"adjustments/{number}", tax, amount, own)


def _taxes(members: list[Part], mode: str) -> dict[str, int]:
    """The tax of each part of a group: its own, or its share."""
    exact = [(part.place, exact_tax(Fraction(part.amount), part.tax)) for part in members if part.own is None]
    taxes = {place: math.trunc(share) for place, share in exact}
    left = whole(sum((share for _, share in exact), Fraction(0)), mode) - sum(taxes.values())
    up = left > 0
    # Python keeps the order of what is equal: of two that lost as much, the first is first.
    by_loss = sorted(exact, key=lambda one: one[1] - math.trunc(one[1]), reverse=up)
    assert abs(left) <= len(by_loss)
    for place, _ in by_loss[: abs(left)]:
        taxes[place] += 1 if up else -1
    return taxes | {part.place: part.own for part in members if part.own is not None}


def figures_of(totals: Any, digits: int) -> dict[str, Any]:
    """The same figures, read from totals that have the shape of the application's."""

    def minor(amount: Decimal) -> Fraction:
        return Fraction(amount) * _units(digits)

    found: dict[str, Any] = {}
    for name in ("lines", "adjustments"):
        for number, entry in enumerate(getattr(totals, name)):
            for index, amount in enumerate(entry.adjustments):
                found[f"{name}/{number}/adjustments/{index}"] = minor(amount)
            for figure in ("amount", "net", "tax", "gross"):
                found[f"{name}/{number}/{figure}"] = minor(getattr(entry, figure))
    found["groups"] = [
        (
            group.key.category,
            None if group.key.rate is None else Fraction(group.key.rate),
            group.key.included,
            minor(group.base),
            minor(group.tax),
        )
        for group in totals.groups
    ]
    names = ("net", "tax", "gross", "prepaid", "payable", "cash_rounding")
    return found | {name: minor(getattr(totals, name)) for name in names}


def compare(document: OracleDocument, totals: Any) -> str | None:
    """The first place at which another calculator's totals differ, in words."""
    expected, computed = figures(document), figures_of(totals, document.digits)
    if expected.keys() != computed.keys():
        return f"figures of {sorted(expected.keys() ^ computed.keys())} are on one side only"
    for place, value in expected.items():
        if computed[place] != value:
            return f"{place} is {computed[place]}, expected {value}, in {document}"
    return None


def documents(seed: int, count: int) -> Iterator[OracleDocument]:
    """So many random documents: of every kind, with many ties and signs, and now and then with very long numbers."""
    source = random.Random(seed)  # noqa: S311 - not a secret
    for _ in range(count):
        yield _document(source)


def _number(source: random.Random, places: int, *, largest: int = 3, signed: bool = False) -> str:
    """A number with at most so many decimals, short ones more often than long ones."""
    integer = source.choice(("0", str(source.randint(1, 9)), str(source.randint(1, 10**largest - 1))))
    places = source.choice((0, min(1, places), min(2, places), places))
    # Fives make ties.
    fraction = source.choice(
        (f"{source.randint(0, 10**places - 1):0{places}}", "5".zfill(places), "5".ljust(places, "0"))
    )
    text = f"{integer}.{fraction}" if places else integer
    return f"-{text}" if signed and source.random() < 0.4 else text


def _positive(source: random.Random, places: int, largest: int = 3) -> str:
    text = _number(source, places, largest=largest)
    return text if Fraction(text) else "1"


def _tax(source: random.Random) -> OracleTax:
    included = source.random() < 0.4
    kind = source.random()
    if kind < 0.1:
        return OracleTax(None, None, included)
    if kind < 0.25:
        return OracleTax(source.choice(UNRATED), "0", included)
    rate = source.choice(("0", "5", "7", "19", "19.0", "20", "25", "100", "8.1", "33.333333", _number(source, 4)))
    return OracleTax(source.choice(RATED), rate, included)


def _adjustment(source: random.Random, digits: int) -> OracleAdjustment:
    if source.random() < 0.4:
        return OracleAdjustment(amount=_number(source, digits, signed=True))
    percent = _number(source, 3, largest=2, signed=True)
    base = _number(source, 4) if source.random() < 0.3 else None
    return OracleAdjustment(percent=percent, base=base)


def _document(source: random.Random) -> OracleDocument:
    digits = source.randint(0, 4)
    taxes = [_tax(source) for _ in range(source.randint(1, 3))]
    lines = []
    for _ in range(source.choice((0, 1, 1, 2, 3, 4, 6, 9))):
        long = source.random() < 0.02
        tax, stated = source.choice(taxes), None
        if source.random() < 0.1:
            tax = OracleTax(source.choice(RATED), None, tax.included)
            stated = _number(source, 6)
        lines.append(
            OracleLine(
                _number(source, 12 if long else 3, largest=12 if long else 2, signed=True),
                _number(source, 12 if long else 5, largest=12 if long else 3),
                source.choice(("1", "1", "1", "1000", _positive(source, 12 if long else 2))),
                tax,
                stated,
                tuple(_adjustment(source, digits) for _ in range(source.choice((0, 0, 0, 1, 2)))),
            )
        )
    adjustments = tuple(
        (_adjustment(source, digits), source.choice([*taxes, _tax(source)]))
        for _ in range(source.choice((0, 0, 1, 2)) if lines else 1)
    )
    return OracleDocument(
        tuple(lines),
        adjustments,
        source.choice(MODES),
        source.choice(LEVELS),
        digits,
        _positive(source, digits, largest=1) if source.random() < 0.3 else None,
        _number(source, digits, signed=True) if source.random() < 0.3 else "0",
    )
