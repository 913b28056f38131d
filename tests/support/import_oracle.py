"""What an import does, a second time: from the words of its documentation, row by row, in plain Python.

Nothing here is shared with the application. A ledger is a list of items and a list of price rows; a file is a list of
rows, each a dictionary of the text of its cells. :func:`plan` says what each row does, and what applying records.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, time, timedelta
from decimal import ROUND_HALF_UP, Decimal, localcontext
from fractions import Fraction
from typing import Any
from zoneinfo import ZoneInfo

NOW = None
"""The beginning of a price that begins when the import is applied."""

_PLAIN = re.compile(r"-?(0|[1-9][0-9]{0,11})(\.[0-9]{1,12})?")
_STAMP = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")
_DAY = re.compile(r"\d{4}-\d\d-\d\d")

type Fault = tuple[str | None, str]
"""Column (none: the row as a whole) and code."""


@dataclass(frozen=True)
class Item:
    """An item; items are listed in the order in which they were created."""

    sku: str | None
    gtin: str | None
    archived: bool = False


@dataclass(frozen=True)
class Terms:
    """A price. ``starts`` is :data:`NOW` for one that begins when it is applied."""

    amount: Decimal | None
    per: Decimal
    units: Decimal
    tax_rate: Decimal | None
    tax: Decimal | None
    included: bool
    starts: datetime | None
    ends: datetime | None

    @property
    def stated(self) -> tuple[object, ...]:
        return (self.amount, self.per, self.tax_rate, self.tax, self.included)


@dataclass(frozen=True)
class Price:
    """A price row in force (neither superseded nor voided), in the one book that the import is for."""

    item: int
    terms: Terms
    seq: int

    @property
    def starts(self) -> datetime:
        assert self.terms.starts is not None
        return self.terms.starts


@dataclass(frozen=True)
class Options:
    """What the caller of an import says, and the terms of the book."""

    format: str = "csv"
    decimal: str = "."
    create: bool = True
    end_missing: bool = False
    most_percent: Decimal = Decimal(50)
    effective_at: datetime | None = None
    time_zone: str = "UTC"
    included: bool = False


@dataclass
class Verdict:
    """What a row does. A row of status ``missing`` has no line."""

    line: int | None
    sku: str | None
    gtin: str | None
    status: str = "error"
    old: Price | None = None
    new: Terms | None = None
    percent: Decimal | None = None
    faults: list[Fault] = field(default_factory=list)


@dataclass(frozen=True)
class NewItem:
    """An item that applying creates; ``row`` is the row of the file that it is made of."""

    item: int
    sku: str | None
    gtin: str | None
    cells: dict[str, str | None]


@dataclass(frozen=True)
class NewPrice:
    """A price row that applying records."""

    item: int
    terms: Terms
    supersedes: int | None
    """The seq of the row that it corrects."""
    reason: str | None


@dataclass
class Plan:
    """The report, and what applying records, in its order."""

    verdicts: list[Verdict]
    steps: list[NewItem | NewPrice]

    def counts(self) -> dict[str, int]:
        found = Counter(verdict.status for verdict in self.verdicts)
        names = ("create", "change", "unchanged", "error", "missing")
        return {"rows": len(self.verdicts) - found["missing"], **{name: found[name] for name in names}}


@dataclass
class _Row:
    """A row while it is looked at. ``subject`` is the item's place, or the key of one that does not exist."""

    verdict: Verdict
    cells: dict[str, str | None]
    amount: Decimal | None
    per: Decimal | None
    units: Decimal
    tax_rate: Decimal | None
    tax: Decimal | None
    included: bool | None
    stated_start: datetime | None
    starts: datetime
    ends: datetime | None
    readable: bool = True
    subject: int | tuple[str, str] | None = None

    @property
    def interval(self) -> tuple[object, ...]:
        return (self.subject, self.units, self.starts, self.ends)


def percent_of(old: Price, amount: Decimal | None, per: Decimal) -> Decimal | None:
    """The change of the price of one unit, in percent with two decimals."""
    if not old.terms.amount or amount is None:
        return None
    before, after = Fraction(old.terms.amount) / Fraction(old.terms.per), Fraction(amount) / Fraction(per)
    exact = 100 * (after - before) / before
    cents = (abs(exact) * 200 + 1) // 2  # hundredths, half away from zero
    return Decimal(cents if exact >= 0 else -cents).scaleb(-2)


def plan(
    items: list[Item],
    prices: list[Price],
    rows: Iterable[tuple[int, dict[str, str | None]]],
    options: Options,
    now: datetime,
) -> Plan:
    """What a file does to a ledger.

    :param rows: line and cells of each row. A cell that is not there (of a column, of a key) is not in the dictionary;
        an empty one (a null) is ``None``.
    :param now: an instant after everything that the ledger has recorded.
    """
    start = options.effective_at or now
    found = [_read(line, cells, options, start) for line, cells in rows]
    for row in found:
        row.subject = _subject(items, row)
        row.readable = not row.verdict.faults
    _check_before_prices(items, found, options)
    open_starts = defaultdict(set)
    for row in found:
        if not row.verdict.faults and row.ends is None:
            open_starts[row.subject, row.units].add(row.starts)
    for row in found:
        if not row.verdict.faults:
            _compare(prices, row, options, open_starts[row.subject, row.units])
    result = Plan([row.verdict for row in found], [])
    _record(items, found, result)
    _end(items, prices, found, options, start, result)
    return result


class _Reader:
    """Reads the cells of one row, and collects what is wrong with them."""

    def __init__(self, cells: dict[str, str | None], options: Options) -> None:
        self.cells = cells
        self.options = options
        self.faults: list[Fault] = []

    def number(self, column: str, *, positive: bool = False) -> Decimal | None:
        text = self.cells.get(column)
        if text is None:
            return None
        if self.options.decimal == "," and self.options.format == "csv":
            text = "no number" if "." in text else text.replace(",", ".")
        if not _PLAIN.fullmatch(text):
            digits = re.fullmatch(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?", text)
            self.faults.append((column, "too-many-digits" if digits else "not-a-number"))
            return None
        value = Decimal(text)
        if value < 0 or (positive and value == 0):
            self.faults.append((column, "not-positive" if positive else "negative"))
        return value

    def amount(self) -> Decimal | None:
        is_csv = self.options.format == "csv"
        if is_csv and self.cells["amount"] == "not-for-sale":
            return None
        if "amount" not in self.cells or (is_csv and self.cells["amount"] is None):
            self.faults.append(("amount", "missing"))
            return None
        return self.number("amount")

    def instant(self, column: str) -> datetime | None:
        text = self.cells.get(column)
        if text is None:
            return None
        try:
            if _DAY.fullmatch(text):
                day = date.fromisoformat(text) + timedelta(days=column == "valid_through")
                return datetime.combine(day, time(), ZoneInfo(self.options.time_zone)).astimezone(UTC)
            if _STAMP.fullmatch(text) and column != "valid_through":
                return datetime.fromisoformat(text)
        except ValueError:
            pass
        self.faults.append((column, "not-a-date" if column == "valid_through" else "not-an-instant"))
        return None


def _read(line: int, cells: dict[str, str | None], options: Options, start: datetime) -> _Row:
    reader = _Reader(cells, options)
    stated_start, last, end = map(reader.instant, ("valid_from", "valid_through", "valid_to"))
    row = _Row(
        Verdict(line, cells.get("sku"), cells.get("gtin"), faults=reader.faults),
        cells,
        amount=reader.amount(),
        per=reader.number("per", positive=True),
        units=reader.number("min_quantity", positive=True) or Decimal(1),
        tax_rate=reader.number("tax_rate"),
        tax=reader.number("tax"),
        included={None: None, "true": True, "false": False}[cells.get("tax_included")],
        stated_start=stated_start,
        starts=stated_start or start,
        ends=last or end,
    )
    gtin = cells.get("gtin")
    if gtin is not None and not _is_gtin(gtin):
        reader.faults.append(("gtin", "not-a-gtin"))
    if not reader.faults:
        reader.faults.extend(_contradictions(row, last, end))
    return row


def _contradictions(row: _Row, last: datetime | None, end: datetime | None) -> list[Fault]:
    """The first thing that the cells of a row, each of them right, cannot mean together."""
    if not row.verdict.sku and not row.verdict.gtin:
        return [(None, "no-key")]
    if row.tax is not None and row.tax_rate is not None:
        return [(None, "two-taxes")]
    if last is not None and end is not None:
        return [(None, "two-ends")]
    if row.stated_start and row.ends and row.ends <= row.stated_start:
        return [("valid_through" if last else "valid_to", "empty-interval")]
    return []


def _is_gtin(text: str) -> bool:
    digits = [int(digit) for digit in text] if re.fullmatch(r"\d{8}|\d{12,14}", text) else [1]
    return (sum(digits[-1::-2]) + 3 * sum(digits[-2::-2])) % 10 == 0


def _place(items: list[Item], condition: Callable[[Item], bool]) -> int | None:
    return next((place for place, item in enumerate(items) if condition(item)), None)


def _subject(items: list[Item], row: _Row) -> int | tuple[str, str] | None:
    sku, gtin = row.verdict.sku, row.verdict.gtin
    if sku is not None:
        place = _place(items, lambda item: item.sku == sku)
        return ("sku", sku) if place is None else place
    if gtin is not None:
        place = _place(items, lambda item: item.gtin == gtin)
        return ("gtin", gtin) if place is None else place
    return None


def _check_before_prices(items: list[Item], found: list[_Row], options: Options) -> None:
    readable = [row for row in found if not row.verdict.faults]
    twins = Counter(row.interval for row in readable)
    named = {row.subject for row in readable if row.cells.get("name")}
    claims, gtins = defaultdict(set), defaultdict(set)
    for row in readable:
        if isinstance(row.subject, tuple) and row.verdict.gtin:
            claims[row.verdict.gtin].add(row.subject)
            gtins[row.subject].add(row.verdict.gtin)
    for row in readable:
        sku, gtin, subject = row.verdict.sku, row.verdict.gtin, row.subject
        key = "gtin" if sku is None else "sku"
        holder = None if gtin is None else _place(items, lambda item, gtin=gtin: item.gtin == gtin)  # type: ignore[misc]
        conditions: list[tuple[bool, Fault]] = [
            (isinstance(subject, tuple) and not options.create, (key, "unknown-item")),
            (isinstance(subject, tuple) and options.create and subject not in named, ("name", "missing")),
            (isinstance(subject, int) and items[subject].archived, (key, "item-archived")),
            (holder is not None and holder != subject, ("gtin", "gtin-of-another-item")),
            (isinstance(subject, tuple) and gtin is not None and len(claims[gtin]) > 1, ("gtin", "duplicate-gtin")),
            (isinstance(subject, tuple) and len(gtins[subject]) > 1, ("gtin", "conflicting-gtin")),
            (twins[row.interval] > 1, (key, "duplicate-row")),
            (row.ends is not None and row.ends <= row.starts, ("valid_to", "empty-interval")),
        ]
        row.verdict.faults.extend(fault for holds, fault in conditions if holds)


def _before(prices: list[Price], row: _Row) -> tuple[Price | None, bool]:
    """The price that stands before a row, and whether it has the same interval."""
    there = [price for price in prices if price.item == row.subject and price.terms.units == row.units]
    same = [price for price in there if (price.starts, price.terms.ends) == (row.starts, row.ends)]
    if same:
        return max(same, key=lambda price: price.seq), True
    begun = [price for price in there if price.starts <= row.starts]
    unbounded = [price for price in begun if price.terms.ends is None]
    offers = [price for price in begun if price.terms.ends is not None and price.terms.ends > row.starts]
    candidates = (offers or unbounded) if row.ends is not None else unbounded
    return max(candidates, key=lambda price: (price.starts, price.seq), default=None), False


def _compare(prices: list[Price], row: _Row, options: Options, open_starts: set[datetime]) -> None:
    verdict = row.verdict
    old, same = _before(prices, row)
    stood = None if old is None else old.terms
    stated = "tax" in row.cells or "tax_rate" in row.cells
    per = row.per or (stood.per if stood else Decimal(1))
    included = row.included
    if included is None:
        included = stood.included if stood else options.included
    tax_rate, tax = row.tax_rate, row.tax
    if not stated and stood:
        # An item that is not for sale has no amount of tax.
        tax_rate, tax = stood.tax_rate, None if row.amount is None else stood.tax
    new = Terms(row.amount, per, row.units, tax_rate, tax, included, row.stated_start or options.effective_at, row.ends)
    verdict.old = old
    verdict.percent = percent_of(old, row.amount, per) if old else None
    if stood and tax is not None and not stated and (row.amount, per) != (stood.amount, stood.per):
        verdict.faults.append(("tax", "tax-missing"))
    if included and tax is not None and row.amount is not None and tax > row.amount:
        verdict.faults.append(("tax", "tax-exceeds-amount"))
    if verdict.percent is not None and abs(verdict.percent) > options.most_percent:
        verdict.faults.append(("amount", "change-too-large"))
    if verdict.faults:
        return
    verdict.new = new
    if old is None:
        verdict.status = "create"
        return
    between = any(old.starts < other < row.starts for other in open_starts)
    keeps = new.stated == old.terms.stated and (same or (row.ends is None and not between))
    verdict.status = "unchanged" if keeps else "change"


def _record(items: list[Item], found: list[_Row], result: Plan) -> None:
    created: dict[tuple[str, str], int] = {}
    for row in found:
        verdict = row.verdict
        if verdict.status not in ("create", "change"):
            continue
        assert verdict.new is not None
        subject = row.subject
        if isinstance(subject, tuple):
            if subject not in created:
                created[subject] = len(items) + len(created)
                # Another row of the item may be where its name stands, even one that is an error for its price.
                source = next(
                    other for other in found if other.subject == subject and other.readable and other.cells.get("name")
                )
                gtins = {other.verdict.gtin for other in found if other.subject == subject and other.readable}
                gtin = next((gtin for gtin in gtins if gtin is not None), None)
                result.steps.append(NewItem(created[subject], verdict.sku, gtin, source.cells))
            subject = created[subject]
        assert isinstance(subject, int)
        same = verdict.old and (verdict.old.starts, verdict.old.terms.ends) == (row.starts, row.ends)
        supersedes = verdict.old.seq if verdict.old and same else None
        result.steps.append(NewPrice(subject, verdict.new, supersedes, row.cells.get("reason")))


def _end(
    items: list[Item], prices: list[Price], found: list[_Row], options: Options, start: datetime, result: Plan
) -> None:
    named = {row.subject for row in found}
    for place, item in enumerate(items):
        if item.archived or place in named:
            continue
        standing: dict[Decimal, Price] = {}
        for price in sorted(prices, key=lambda price: (price.starts, price.seq)):
            if price.item == place and price.terms.ends is None and price.starts <= start:
                standing[price.terms.units] = price
        for units, old in sorted(standing.items()):
            if old.terms.amount is None:
                continue
            verdict = Verdict(None, item.sku, item.gtin, "missing", old)
            if options.end_missing:
                verdict.new = replace(
                    old.terms, amount=None, tax=None, starts=options.effective_at, ends=None, units=units
                )
                supersedes = old.seq if old.starts == start else None
                result.steps.append(NewPrice(place, verdict.new, supersedes, None))
            result.verdicts.append(verdict)


def written(value: Decimal | None, least: int = 0) -> str | None:
    """A decimal as answers have it: no trailing zeros beyond ``least`` digits."""
    if value is None:
        return None
    with localcontext(prec=60):
        whole = value.quantize(Decimal(1).scaleb(-12), ROUND_HALF_UP)
    text = format(whole, "f").rstrip("0")
    integer, _, fraction = text.partition(".")
    fraction = fraction.ljust(least, "0")
    return f"{integer}.{fraction}" if fraction else integer


def report(verdict: Verdict, digits: int) -> dict[str, Any]:
    """The row as the service reports it; of errors, only columns and codes."""

    def terms(value: Terms | None) -> dict[str, Any] | None:
        return None if value is None else document(value, digits)

    return {
        "line": verdict.line,
        "sku": verdict.sku,
        "gtin": verdict.gtin,
        "status": verdict.status,
        "old": terms(verdict.old.terms if verdict.old else None),
        "new": terms(verdict.new),
        "percent": written(verdict.percent, 2),
        "errors": sorted(verdict.faults, key=str),
    }


def document(terms: Terms, digits: int) -> dict[str, Any]:
    """A price as answers have it."""

    def stamp(value: datetime | None) -> str | None:
        return None if value is None else value.isoformat().replace("+00:00", "Z")

    return {
        "amount": written(terms.amount, digits),
        "per": written(terms.per),
        "min_quantity": written(terms.units),
        "tax_rate": written(terms.tax_rate),
        "tax": written(terms.tax, digits),
        "tax_included": terms.included,
        "valid_from": stamp(terms.starts),
        "valid_to": stamp(terms.ends),
    }
