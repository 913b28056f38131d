"""Totals of a quote, to the cent: lines and adjustments, then tax groups, then totals. Pure and exact.

The arithmetic is that of European invoices (EN 16931-1, calculation of totals), with prices that may contain their tax:

1. A line is worth ``quantity x unit price / per``, rounded, and its adjustments, each rounded by itself.
2. Lines and document adjustments are added up by tax: category, rate, and whether amounts contain it.
3. Each group's tax is rounded once, and shared among its entries by largest remainder.
4. ``gross = net + tax`` and ``payable = gross + cash_rounding - prepaid`` hold exactly.

That is the rounding level ``group``. At the level ``line`` the tax of each line is rounded, at the level ``unit`` that
of one unit, which is then multiplied by the quantity; a group's tax is the sum of its lines'.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from decimal import Decimal, localcontext
from typing import NamedTuple

from app import money
from app.money import RoundingLevel, RoundingMode

ALGORITHM = "pricebook-1"
"""Names the arithmetic of this module. Whoever changes a result changes the name, and keeps the old arithmetic."""

RATED_CATEGORIES = frozenset({"S", "L", "M"})
"""The codes of UNTDID 5305 with a rate, of those that EN 16931 uses; in the others it is zero."""

_ZERO = Decimal(0)


class Tax(NamedTuple):
    """What decides in which group something is taxed.

    ``category`` is ``None`` where no tax is stated. ``rate`` is in percent; with a category it is ``None`` where the
    tax is stated as an amount. ``included`` says whether amounts contain the tax.
    """

    category: str | None
    rate: Decimal | None
    included: bool


@dataclass(frozen=True, slots=True)
class Policy:
    """How results are rounded, to ``digits`` decimals; what is paid in cash, to multiples of ``cash_increment``."""

    mode: RoundingMode
    level: RoundingLevel
    digits: int
    cash_increment: Decimal | None = None

    def quotient(self, numerator: Decimal, denominator: Decimal) -> Decimal:
        """A rounded quotient."""
        return money.round_quotient(numerator, denominator, self.digits, self.mode)


@dataclass(frozen=True, slots=True)
class Adjustment:
    """A charge, or an allowance if negative: an ``amount``, or else a ``percent`` of ``base``.

    The base of a line's adjustment is by default what its quantity costs, that of the document's is the sum of the
    lines in the same tax group.
    """

    amount: Decimal | None = None
    percent: Decimal | None = None
    base: Decimal | None = None


@dataclass(frozen=True, slots=True)
class Line:
    """So many units at a price for ``per`` of them. ``unit_tax`` is a tax stated as an amount, for as many."""

    quantity: Decimal
    unit_price: Decimal
    per: Decimal
    tax: Tax
    unit_tax: Decimal | None = None
    adjustments: Sequence[Adjustment] = ()


@dataclass(frozen=True, slots=True)
class DocumentAdjustment:
    """An adjustment of the whole document, and how it is taxed."""

    adjustment: Adjustment
    tax: Tax


class NoBase(ValueError):
    """A percentage of the document is taken of nothing: no line is in its tax group. ``index`` is the adjustment's."""

    def __init__(self, index: int) -> None:
        super().__init__(f"adjustment {index} has no base")
        self.index = index


@dataclass(slots=True)
class Entry:
    """What a line or a document adjustment adds to its group. ``net + tax == gross``; ``amount`` is one of them."""

    key: Tax
    amount: Decimal
    own_tax: Decimal | None
    """Its tax, if it does not depend on the group's."""
    value: Decimal = _ZERO
    """A line's amount before its adjustments."""
    adjustments: tuple[Decimal, ...] = ()
    tax: Decimal = _ZERO

    @property
    def net(self) -> Decimal:
        """Without tax."""
        return money.EXACT.subtract(self.amount, self.tax) if self.key.included else self.amount

    @property
    def gross(self) -> Decimal:
        """With tax."""
        return self.amount if self.key.included else money.EXACT.add(self.amount, self.tax)


@dataclass(slots=True)
class Group:
    """A tax group: ``amount`` is the sum of its entries', ``base`` the part of it without tax."""

    key: Tax
    entries: list[Entry] = field(default_factory=list)
    amount: Decimal = _ZERO
    tax: Decimal = _ZERO

    @property
    def base(self) -> Decimal:
        """What is taxed."""
        return money.EXACT.subtract(self.amount, self.tax) if self.key.included else self.amount


@dataclass(frozen=True, slots=True)
class Totals:
    """The whole document. ``lines`` and ``adjustments`` are in the order in which they were given."""

    lines: list[Entry]
    adjustments: list[Entry]
    groups: list[Group]
    net: Decimal
    tax: Decimal
    gross: Decimal
    cash_rounding: Decimal
    prepaid: Decimal
    payable: Decimal


def total(
    lines: Sequence[Line], adjustments: Sequence[DocumentAdjustment], policy: Policy, prepaid: Decimal = _ZERO
) -> Totals:
    """Add up a document.

    :param prepaid: and every ``amount`` of an adjustment: with at most ``policy.digits`` decimals.
    :raises NoBase: if a document adjustment is a percentage of nothing.
    """
    with localcontext(money.EXACT):
        line_entries = [_line(line, policy) for line in lines]
        document_entries = [
            _document_adjustment(index, adjustment, line_entries, policy)
            for index, adjustment in enumerate(adjustments)
        ]
        entries = line_entries + document_entries
        groups = _groups(entries, policy)
        tax = sum((group.tax for group in groups), _ZERO)
        net = sum((entry.net for entry in entries), _ZERO)
        gross = net + tax
        due = gross - prepaid
        payable = due
        if policy.cash_increment is not None:
            payable = money.round_quotient(due, policy.cash_increment, 0, policy.mode) * policy.cash_increment
        return Totals(line_entries, document_entries, groups, net, tax, gross, payable - due, prepaid, payable)


def _line(line: Line, policy: Policy) -> Entry:
    worth = line.quantity * line.unit_price
    value = policy.quotient(worth, line.per)
    adjustments = tuple(_adjusted(adjustment, worth, line.per, policy) for adjustment in line.adjustments)
    amount = value + sum(adjustments)
    return Entry(line.tax, amount, _own_tax(line, amount, adjustments, policy), value, adjustments)


def _adjusted(adjustment: Adjustment, worth: Decimal, per: Decimal, policy: Policy) -> Decimal:
    """What an adjustment comes to; ``worth / per`` is its base if it states none."""
    if adjustment.percent is None:
        return adjustment.amount or _ZERO
    if adjustment.base is not None:
        worth, per = adjustment.base, Decimal(1)
    return policy.quotient(adjustment.percent * worth, 100 * per)


def _own_tax(line: Line, amount: Decimal, adjustments: Sequence[Decimal], policy: Policy) -> Decimal | None:
    if policy.level is RoundingLevel.UNIT:
        units = policy.quotient(line.quantity * tax_of_one(line, policy), Decimal(1))
        if line.unit_tax is not None:
            return units
        return units + sum(_rated(each, line.tax, policy) for each in adjustments)
    if line.unit_tax is not None:
        return policy.quotient(line.quantity * line.unit_tax, line.per)
    return _rated(amount, line.tax, policy) if policy.level is RoundingLevel.LINE else None


def tax_of_one(line: Line, policy: Policy) -> Decimal:
    """The rounded tax of one unit of a line, without its adjustments."""
    if line.unit_tax is not None:
        return policy.quotient(line.unit_tax, line.per)
    return _rated(line.unit_price, line.tax, policy, per=line.per)


def _rated(amount: Decimal, tax: Tax, policy: Policy, *, per: Decimal = Decimal(1)) -> Decimal:
    rate = tax.rate or _ZERO
    return policy.quotient(amount * rate, money.tax_divisor(rate, included=tax.included) * per)


def _document_adjustment(index: int, given: DocumentAdjustment, lines: Sequence[Entry], policy: Policy) -> Entry:
    adjustment = given.adjustment
    base = _ZERO
    if adjustment.percent is not None and adjustment.base is None:
        of_group = [line.amount for line in lines if line.key == given.tax]
        if not of_group:
            raise NoBase(index)
        base = sum(of_group, _ZERO)
    amount = _adjusted(adjustment, base, Decimal(1), policy)
    own_tax = None if policy.level is RoundingLevel.GROUP else _rated(amount, given.tax, policy)
    return Entry(given.tax, amount, own_tax)


def _groups(entries: Sequence[Entry], policy: Policy) -> list[Group]:
    """The tax groups, in the order in which they first appear; each entry gets its part of the tax."""
    groups: dict[Tax, Group] = {}
    for entry in entries:
        if entry.key.category is not None:
            groups.setdefault(entry.key, Group(entry.key)).entries.append(entry)
    for group in groups.values():
        group.amount = sum((entry.amount for entry in group.entries), _ZERO)
        shared = [entry for entry in group.entries if entry.own_tax is None]
        for entry, tax in zip(shared, _shares([entry.amount for entry in shared], group.key, policy), strict=True):
            entry.own_tax = tax
        for entry in group.entries:
            entry.tax = entry.own_tax or _ZERO
        group.tax = sum((entry.tax for entry in group.entries), _ZERO)
    return list(groups.values())


def _shares(amounts: Sequence[Decimal], key: Tax, policy: Policy) -> list[Decimal]:
    """The rounded tax of a sum, as whole minor units for each of its parts: by largest remainder, the first part first.

    Each part is cut off towards zero; what is then missing goes, unit by unit, to the parts that lost most of it. So
    what is returned is the mirror image of what was sold.
    """
    rate = key.rate or _ZERO
    step = money.tax_divisor(rate, included=key.included).scaleb(-policy.digits)
    units, lost = [], []
    for amount in amounts:
        whole, rest = divmod(amount * rate, step)
        units.append(whole)
        lost.append(rest)
    missing = int(_rated(sum(amounts, _ZERO), key, policy).scaleb(policy.digits) - sum(units))
    one = 1 if missing > 0 else -1
    for place in sorted(range(len(units)), key=lambda place: (-one * lost[place], place))[: abs(missing)]:
        units[place] += one
    return [whole.scaleb(-policy.digits) for whole in units]
