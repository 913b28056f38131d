"""Totals of quotes: against an oracle in fractions, by their identities, and by sums done by hand."""

import itertools
import re
from collections.abc import Sequence
from decimal import Decimal, localcontext
from fractions import Fraction

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from app import money, quote_steps, quoting
from app.money import RoundingLevel, RoundingMode
from app.quoting import Adjustment, DocumentAdjustment, Line, Policy, Tax, Totals
from tests.support import quote_fuzz, quote_oracle
from tests.support.quote_oracle import OracleDocument, OracleLine, OracleTax

GROUP, LINE, UNIT = RoundingLevel.GROUP, RoundingLevel.LINE, RoundingLevel.UNIT
UP, EVEN, HALF_DOWN = RoundingMode.HALF_UP, RoundingMode.HALF_EVEN, RoundingMode.HALF_DOWN


# Random documents

# Of every kind. A seed does not shrink well, but costs little.
documents = st.integers(0, 2**32).map(lambda seed: next(quote_oracle.documents(seed, 1)))

# Of few and small numbers, full of ties, which shrink to what matters.
small_lines = st.builds(
    OracleLine,
    st.integers(-3, 3).map(str),
    st.integers(0, 100).map(lambda cents: f"{cents // 100}.{cents % 100:02}"),
    st.sampled_from(["1", "2"]),
    st.builds(OracleTax, st.just("S"), st.sampled_from(["10", "28"]), st.booleans()),
)
small_documents = st.builds(
    OracleDocument,
    st.lists(small_lines, min_size=1, max_size=5).map(tuple),
    mode=st.sampled_from(quote_oracle.MODES),
    level=st.sampled_from(quote_oracle.LEVELS),
)


def totals(document: OracleDocument) -> Totals:
    """The application's totals; documents that it refuses are passed over."""
    try:
        return quote_fuzz.totals(document)
    except quoting.NoBase:
        assume(False)
        raise


@settings(max_examples=300, deadline=None)
@given(small_documents)
def test_every_figure_is_that_of_the_oracle(document: OracleDocument) -> None:
    assert quote_fuzz.difference(document) is None


def test_two_thousand_random_documents(capsys: pytest.CaptureFixture[str]) -> None:
    assert quote_fuzz.main(2000, seed=1) == 0
    assert "2000 documents of seed 1: no difference" in capsys.readouterr().out


def test_the_oracle_sees_a_wrong_figure() -> None:
    (document,) = quote_oracle.documents(3, 1)
    whole = quote_fuzz.totals(document)
    assert quote_oracle.compare(document, whole) is None
    for entry in whole.lines:
        entry.tax += Decimal(1)
    assert "expected" in str(quote_oracle.compare(document, whole))


@settings(max_examples=200, deadline=None)
@given(documents)
def test_identities_hold_exactly(document: OracleDocument) -> None:
    whole = totals(document)
    entries = [*whole.lines, *whole.adjustments]
    with localcontext(money.EXACT):
        check_identities(whole, entries, document)


def check_identities(whole: Totals, entries: list[quoting.Entry], document: OracleDocument) -> None:
    assert whole.gross == whole.net + whole.tax
    assert whole.payable == whole.gross + whole.cash_rounding - whole.prepaid
    assert whole.net == sum(entry.net for entry in entries)
    assert whole.gross == sum(entry.gross for entry in entries)
    assert whole.tax == sum(group.tax for group in whole.groups)
    assert all(entry.net + entry.tax == entry.gross for entry in entries)
    for entry in entries:
        assert entry.amount == (entry.gross if entry.key.included else entry.net)
    assert len({group.key for group in whole.groups}) == len(whole.groups)
    for group in whole.groups:
        members = [entry for entry in entries if entry.key == group.key]
        assert members == group.entries
        assert group.tax == sum(entry.tax for entry in members)
        assert group.base == sum(entry.net for entry in members)
        assert group.amount == sum(entry.amount for entry in members)
    assert all(entry.tax == 0 for entry in entries if entry.key.category is None)
    if document.increment is not None:
        assert Fraction(whole.payable) % Fraction(document.increment) == 0
        assert abs(Fraction(whole.cash_rounding)) < Fraction(document.increment)
    for figure in (whole.net, whole.tax, whole.gross, whole.cash_rounding, *(entry.tax for entry in entries)):
        assert money.round_to(figure, document.digits) == figure, "no figure is finer than the results"


@settings(max_examples=200, deadline=None)
@given(documents)
def test_shares_are_less_than_a_minor_unit_from_the_exact_tax(document: OracleDocument) -> None:
    whole = totals(document)
    assume(document.level == "group")
    given_taxes = [(line.tax, line.stated_tax) for line in document.lines] + [
        (tax, None) for _, tax in document.adjustments
    ]
    for entry, (tax, stated) in zip([*whole.lines, *whole.adjustments], given_taxes, strict=True):
        if tax.category is not None and stated is None:
            exact = quote_oracle.exact_tax(Fraction(entry.amount), tax)
            assert abs(Fraction(entry.tax) - exact) < Fraction(1, 10**document.digits)


@settings(max_examples=200, deadline=None)
@given(documents, st.randoms(use_true_random=False))
def test_the_order_of_lines_changes_no_total(document: OracleDocument, shuffler: object) -> None:
    assume(document.level == "group")
    whole = totals(document)
    lines = list(document.lines)
    shuffler.shuffle(lines)  # type: ignore[attr-defined]  # Hypothesis gives its own kind of random.Random
    other = quote_fuzz.totals(OracleDocument(**{**vars(document), "lines": tuple(lines)}))

    def figures(one: Totals) -> tuple[object, ...]:
        groups = {group.key: (group.base, group.tax) for group in one.groups}
        return one.net, one.tax, one.gross, one.cash_rounding, one.payable, groups

    assert figures(whole) == figures(other)


# By hand

S19, S7 = Tax("S", Decimal(19), included=False), Tax("S", Decimal(7), included=False)
NO_TAX = Tax(None, None, included=False)


def rated(rate: str, *, included: bool = False) -> Tax:
    return Tax("S", Decimal(rate), included)


def line(
    quantity: str, price: str, tax: Tax = S19, *, per: str = "1", unit_tax: str | None = None, **more: str
) -> Line:
    """A line. ``more`` is its only adjustment."""
    stated = None if unit_tax is None else Decimal(unit_tax)
    return Line(Decimal(quantity), Decimal(price), Decimal(per), tax, stated, [adjustment(**more)] if more else [])


def adjustment(**fields: str) -> Adjustment:
    return Adjustment(**{name: Decimal(value) for name, value in fields.items()})


def of_document(tax: Tax = S19, **fields: str) -> DocumentAdjustment:
    return DocumentAdjustment(adjustment(**fields), tax)


def policy(
    digits: int = 2, mode: RoundingMode = UP, level: RoundingLevel = GROUP, increment: str | None = None
) -> Policy:
    return Policy(mode, level, digits, None if increment is None else Decimal(increment))


def shown(lines: Sequence[Line], adjustments: Sequence[DocumentAdjustment] = (), rule: Policy | None = None) -> str:
    """Net + tax = gross."""
    rule = rule or policy()
    whole = quoting.total(lines, adjustments, rule)
    net, tax, gross = (money.plain(figure, rule.digits) for figure in (whole.net, whole.tax, whole.gross))
    return f"{net} + {tax} = {gross}"


def line_taxes(
    lines: Sequence[Line], adjustments: Sequence[DocumentAdjustment] = (), rule: Policy | None = None
) -> str:
    """The tax of each line, then of each adjustment."""
    rule = rule or policy()
    whole = quoting.total(lines, adjustments, rule)
    return " ".join(money.plain(entry.tax, rule.digits) for entry in [*whole.lines, *whole.adjustments])


@pytest.mark.parametrize(
    ("mode", "positive_total", "negative_total"),
    [
        # 5 % of 2.50 is exactly 0.125.
        (RoundingMode.HALF_UP, "2.50 + 0.13 = 2.63", "-2.50 + -0.13 = -2.63"),
        (RoundingMode.HALF_EVEN, "2.50 + 0.12 = 2.62", "-2.50 + -0.12 = -2.62"),
        (RoundingMode.HALF_DOWN, "2.50 + 0.12 = 2.62", "-2.50 + -0.12 = -2.62"),
        (RoundingMode.UP, "2.50 + 0.13 = 2.63", "-2.50 + -0.13 = -2.63"),
        (RoundingMode.DOWN, "2.50 + 0.12 = 2.62", "-2.50 + -0.12 = -2.62"),
    ],
)
def test_ties_of_tax_on_top(mode: RoundingMode, positive_total: str, negative_total: str) -> None:
    for level in RoundingLevel:
        rule = policy(mode=mode, level=level)
        assert shown([line("1", "2.50", rated("5"))], rule=rule) == positive_total
        assert shown([line("-1", "2.50", rated("5"))], rule=rule) == negative_total


@pytest.mark.parametrize(
    ("mode", "tax", "net"),
    [
        # 0.16 x 28 / 128 is exactly 0.035. Net first, 0.16 / 1.28 = 0.125 -> 0.13, would leave a tax of 0.03.
        (RoundingMode.HALF_UP, "0.04", "0.12"),
        (RoundingMode.HALF_EVEN, "0.04", "0.12"),
        (RoundingMode.HALF_DOWN, "0.03", "0.13"),
        (RoundingMode.UP, "0.04", "0.12"),
        (RoundingMode.DOWN, "0.03", "0.13"),
    ],
)
def test_ties_of_tax_in_the_price(mode: RoundingMode, tax: str, net: str) -> None:
    for level in RoundingLevel:
        rule = policy(mode=mode, level=level)
        assert shown([line("1", "0.16", rated("28", included=True))], rule=rule) == f"{net} + {tax} = 0.16"
        assert shown([line("-1", "0.16", rated("28", included=True))], rule=rule) == f"-{net} + -{tax} = -0.16"


@pytest.mark.parametrize(
    ("quantity", "price", "per", "mode", "amount"),
    [
        ("250", "4.99", "100", UP, "12.48"),  # 1247.5 / 100 = 12.475
        ("-250", "4.99", "100", UP, "-12.48"),
        ("250", "4.99", "100", HALF_DOWN, "12.47"),
        ("250", "5.01", "100", EVEN, "12.52"),  # 12.525
        ("250", "5.01", "100", UP, "12.53"),
        ("7", "10", "3", UP, "23.33"),  # 23.333...
        ("8", "10", "3", UP, "26.67"),
        ("1", "0.005", "1", UP, "0.01"),
        ("-1", "0.005", "1", UP, "-0.01"),
        ("-1", "0.005", "1", EVEN, "0"),
        ("1000000", "0.061232374", "1000", UP, "61.23"),
        ("0", "19.99", "1", UP, "0"),
        ("3", "0", "1", UP, "0"),
    ],
)
def test_base_quantities(quantity: str, price: str, per: str, mode: RoundingMode, amount: str) -> None:
    (entry,) = quoting.total([line(quantity, price, NO_TAX, per=per)], [], policy(mode=mode)).lines
    assert entry.amount == Decimal(amount)
    assert not entry.amount.is_signed() or entry.amount < 0, "zero has no sign"


@pytest.mark.parametrize(
    ("digits", "lines", "expected"),
    [
        # Yen: 10 % of 15 is 1.5.
        (0, [line("1", "15", rated("10"))], "15 + 2 = 17"),
        # 105 x 10 / 110 = 9.54...
        (0, [line("1", "105", rated("10", included=True))], "95 + 10 = 105"),
        # 2.5 x 333 = 832.5 -> 833; 10 % is 83.3.
        (0, [line("2.5", "333", rated("10"))], "833 + 83 = 916"),
        (0, [line("-2.5", "333", rated("10"))], "-833 + -83 = -916"),
        # Dinar: 5 % of 0.010 is 0.0005.
        (3, [line("1", "0.010", rated("5"))], "0.010 + 0.001 = 0.011"),
        # 1.25 x 0.333 = 0.41625 -> 0.416; 5 % is 0.0208.
        (3, [line("1.25", "0.333", rated("5"))], "0.416 + 0.021 = 0.437"),
        # 1.001 x 100 / 200 = 0.5005.
        (3, [line("1", "1.001", rated("100", included=True))], "0.500 + 0.501 = 1.001"),
        # Unidades de fomento: 19 % of 0.0250 is 0.00475.
        (4, [line("1", "0.0250", rated("19"))], "0.0250 + 0.0048 = 0.0298"),
        # 3 x 0.33335 = 1.00005 -> 1.0001; 19 % is 0.190019.
        (4, [line("3", "0.33335", rated("19"))], "1.0001 + 0.1900 = 1.1901"),
    ],
)
def test_currencies_of_other_than_two_digits(digits: int, lines: list[Line], expected: str) -> None:
    assert shown(lines, rule=policy(digits)) == expected


def test_lines_are_rounded_before_they_are_added() -> None:
    # 3 x 0.335 = 1.005 -> 1.01, twice.
    assert shown([line("3", "0.335"), line("3", "0.335")]) == "2.02 + 0.38 = 2.40"


def test_percentages_are_of_the_exact_price_not_chained_and_rounded_each() -> None:
    ten_off = adjustment(percent="-10")
    # Two times 10 % of 100, not 10 % of 90.
    assert shown([Line(Decimal(1), Decimal(100), Decimal(1), S19, None, [ten_off, ten_off])]) == "80.00 + 15.20 = 95.20"
    # 5 % of 10.05 is 0.5025 -> 0.50, twice; 10 % would be 1.005 -> 1.01.
    five_off = adjustment(percent="-5")
    lines = [Line(Decimal(1), Decimal("10.05"), Decimal(1), NO_TAX, None, [five_off, five_off])]
    assert shown(lines) == "9.05 + 0.00 = 9.05"
    # 3 x 0.335 = 1.005 -> 1.01, but 50 % of 1.005 is 0.5025 -> 0.50; of 1.01 it would be 0.505 -> 0.51.
    assert shown([line("3", "0.335", NO_TAX, percent="50")]) == "1.51 + 0.00 = 1.51"
    # Of a base of its own: 12.5 % of 33.33 is 4.16625.
    assert shown([line("1", "1", NO_TAX, percent="12.5", base="33.33")]) == "5.17 + 0.00 = 5.17"
    # More returned than the allowance: 10 % of -20 x 90 = -1800 off is +180.
    assert shown([line("-20", "90", NO_TAX, percent="-10")]) == "-1620.00 + 0.00 = -1620.00"


def test_percentages_of_the_document_are_of_their_own_group() -> None:
    lines = [line("1", "100", S19, amount="-10"), line("1", "50", S7), line("1", "11.90", rated("19", included=True))]
    whole = quoting.total(
        lines,
        [of_document(S19, percent="-10"), of_document(S7, percent="5"), of_document(S19, percent="-1", base="1000")],
        policy(),
    )
    # 10 % of 100 - 10; 5 % of 50; a stated base is taken as it is.
    assert [entry.amount for entry in whole.adjustments] == [Decimal("-9.00"), Decimal("2.50"), Decimal("-10.00")]
    # 90 - 9 - 10 = 71 x 19 % = 13.49; 52.50 x 7 % = 3.675; 11.90 x 19 / 119 = 1.90
    groups = [(group.key, group.base, group.tax) for group in whole.groups]
    assert groups == [
        (S19, Decimal("71.00"), Decimal("13.49")),
        (S7, Decimal("52.50"), Decimal("3.68")),
        (rated("19", included=True), Decimal("10.00"), Decimal("1.90")),
    ]


def test_a_percentage_of_nothing_is_refused() -> None:
    with pytest.raises(quoting.NoBase) as refusal:
        quoting.total([line("1", "1", S7)], [of_document(S7, amount="1"), of_document(S19, percent="5")], policy())
    assert refusal.value.index == 1
    # A line of the same rate whose price contains the tax is in another group.
    with pytest.raises(quoting.NoBase):
        quoting.total([line("1", "1", rated("19", included=True))], [of_document(S19, percent="5")], policy())
    # Other adjustments are no base either.
    with pytest.raises(quoting.NoBase):
        quoting.total([], [of_document(S19, amount="5"), of_document(S19, percent="5")], policy())


def test_groups_are_of_category_rate_and_whether_tax_is_included() -> None:
    lines = [
        line("1", "10", S19),
        line("1", "10", rated("19.00")),
        line("1", "10", rated("19", included=True)),
        line("1", "10", Tax("L", Decimal(19), included=False)),
        line("1", "10", Tax("Z", Decimal(0), included=False)),
        line("1", "10", Tax("E", Decimal(0), included=False)),
        line("1", "10", NO_TAX),
        line("1", "10", Tax("S", None, included=False), unit_tax="1.50"),
    ]
    whole = quoting.total(lines, [of_document(Tax("K", Decimal(0), included=False), amount="-3")], policy())
    assert [(group.key.category, group.key.included, group.base, group.tax) for group in whole.groups] == [
        ("S", False, 20, Decimal("3.80")),
        ("S", True, Decimal("8.40"), Decimal("1.60")),  # 190 / 119 = 1.596...
        ("L", False, 10, Decimal("1.90")),
        ("Z", False, 10, 0),
        ("E", False, 10, 0),
        ("S", False, 10, Decimal("1.50")),
        ("K", False, -3, 0),
    ]
    assert (whole.net, whole.tax, whole.gross) == (Decimal("75.40"), Decimal("8.80"), Decimal("84.20"))


def test_only_adjustments() -> None:
    whole = quoting.total([], [of_document(S19, amount="50"), of_document(NO_TAX, amount="3")], policy())
    assert (whole.net, whole.tax, whole.gross) == (Decimal(53), Decimal("9.50"), Decimal("62.50"))
    assert len(whole.groups) == 1


@pytest.mark.parametrize(
    ("lines", "adjustments", "expected"),
    [
        # 0.033 each, 0.099 -> 0.10 together: 0.03 each, and what is missing to the first.
        ([line("1", "0.33", rated("10"))] * 3, [], "0.04 0.03 0.03"),
        # The mirror image.
        ([line("-1", "0.33", rated("10"))] * 3, [], "-0.04 -0.03 -0.03"),
        # 0.021 0.027 0.024 make 0.072 -> 0.07: one is missing, and the second lost most.
        ([line("1", price, rated("10")) for price in ("0.21", "0.27", "0.24")], [], "0.02 0.03 0.02"),
        # 0.026 0.026 0.005 make 0.057 -> 0.06: two are missing; the first two lost as much, more than the third.
        ([line("1", price, rated("10")) for price in ("0.05", "0.26", "0.26")], [], "0.00 0.03 0.03"),
        # Lines come before adjustments: 0.005 each, 0.01 together.
        ([line("1", "0.05", rated("10"))], [of_document(rated("10"), amount="0.05")], "0.01 0.00"),
        # A charge and its opposite: 0.015 - 0.015 = 0; nothing is missing from 0.01 and -0.01.
        ([line("1", "0.15", rated("10"))], [of_document(rated("10"), amount="-0.15")], "0.01 -0.01"),
        # 0.018 -0.009 0.018 make 0.027 -> 0.03: 0.01, 0 and 0.01, and the one that is missing to the first.
        (
            [line("1", "0.18", rated("10")), line("-1", "0.09", rated("10")), line("1", "0.18", rated("10"))],
            [],
            "0.02 0.00 0.01",
        ),
        # In the price: 1.00 x 19 / 119 = 0.1596... each, 0.4789... -> 0.48 together.
        ([line("1", "1.00", rated("19", included=True))] * 3, [], "0.16 0.16 0.16"),
        # 0.10 x 25 / 125 = 0.02 exactly; nothing is missing.
        ([line("1", "0.10", rated("25", included=True))] * 3, [], "0.02 0.02 0.02"),
        # The remainders are those of rates, not of amounts: what is worth nothing gets nothing.
        ([line("0", "1"), line("1", "0.03"), line("1", "0.03")], [], "0.00 0.01 0.00"),
    ],
)
def test_shares_by_largest_remainder(lines: list[Line], adjustments: list[DocumentAdjustment], expected: str) -> None:
    assert line_taxes(lines, adjustments) == expected


def test_levels() -> None:
    three = [line("1", "0.33", rated("10"))] * 3
    assert shown(three) == "0.99 + 0.10 = 1.09"
    # 0.033 -> 0.03, three times.
    assert shown(three, rule=policy(level=LINE)) == "0.99 + 0.09 = 1.08"
    # An adjustment of the document is taxed by itself: 0.96 x 10 % = 0.096; lines 3 x 0.03, -0.03 x 10 % = -0.003 -> 0.
    off = [of_document(rated("10"), amount="-0.03")]
    assert shown(three, off) == "0.96 + 0.10 = 1.06"
    assert shown(three, off, policy(level=LINE)) == "0.96 + 0.09 = 1.05"
    # The amount is 3 x 0.125 = 0.375 -> 0.38 at every level. Its tax is 0.0722; that of one 0.02375 -> 0.02, times 3.
    some = [line("3", "0.125")]
    assert shown(some, rule=policy(level=LINE)) == "0.38 + 0.07 = 0.45"
    assert shown(some, rule=policy(level=UNIT)) == "0.38 + 0.06 = 0.44"
    # 2.5 x 0.125 = 0.3125; 2.5 x 0.02 = 0.05.
    assert shown([line("2.5", "0.125")], rule=policy(level=UNIT)) == "0.31 + 0.05 = 0.36"
    # Per 3: one is 1 / 3, its tax 0.0633... -> 0.06, times 6.
    assert shown([line("6", "1", per="3")], rule=policy(level=UNIT)) == "2.00 + 0.36 = 2.36"
    # What costs next to nothing apiece costs something by the thousand; its tax does not.
    assert shown([line("1000", "4.99", per="1000")], rule=policy(level=UNIT)) == "4.99 + 0.00 = 4.99"
    # In the price: 1.00 x 19 / 119 -> 0.16 for one, times 100; for the line 100 x 19 / 119 -> 15.97.
    hundred = [line("100", "1", rated("19", included=True))]
    assert shown(hundred, rule=policy(level=UNIT)) == "84.00 + 16.00 = 100.00"
    assert shown(hundred, rule=policy(level=LINE)) == "84.03 + 15.97 = 100.00"
    # A line's adjustments are taxed with it (0.99 x 10 % = 0.099), or each by itself (0.10 and -0.001 -> 0).
    less = [line("1", "1", rated("10"), amount="-0.01")]
    assert shown(less, rule=policy(level=LINE)) == "0.99 + 0.10 = 1.09"
    assert shown([line("1", "1", rated("10"), amount="-0.05")], rule=policy(level=UNIT)) == "0.95 + 0.09 = 1.04"
    assert shown([line("1", "1", rated("10"), amount="-0.04")], rule=policy(level=UNIT)) == "0.96 + 0.10 = 1.06"


def test_a_tax_stated_as_an_amount() -> None:
    by_amount = Tax("S", None, included=False)
    # 3 x 3.2 = 9.60; the allowance changes the amount alone.
    assert shown([line("3", "35.4", by_amount, unit_tax="3.2", amount="-6.20")]) == "100.00 + 9.60 = 109.60"
    # 250 x 1.33 / 100 = 3.325.
    per_hundred = [line("250", "10", by_amount, per="100", unit_tax="1.33")]
    assert shown(per_hundred) == "25.00 + 3.33 = 28.33"
    assert shown(per_hundred, rule=policy(mode=HALF_DOWN)) == "25.00 + 3.32 = 28.32"
    # One unit: 0.10, its tax 0.0133 -> 0.01, times 250.
    assert shown(per_hundred, rule=policy(level=UNIT)) == "25.00 + 2.50 = 27.50"
    included = [line("-3", "10", Tax("S", None, included=True), unit_tax="1.595")]
    # -4.785 -> -4.79
    assert shown(included) == "-25.21 + -4.79 = -30.00"
    # Each line rounds by itself, as there is no rate to share by.
    assert line_taxes([line("1", "1", by_amount, unit_tax="0.005")] * 3) == "0.01 0.01 0.01"


@pytest.mark.parametrize(
    ("price", "increment", "prepaid", "mode", "rounding", "payable"),
    [
        ("10.02", "0.05", "0", UP, "-0.02", "10.00"),
        ("10.03", "0.05", "0", UP, "0.02", "10.05"),
        ("10.05", "0.05", "0", UP, "0", "10.05"),
        ("10.05", "0.10", "0", UP, "0.05", "10.10"),
        ("10.05", "0.10", "0", HALF_DOWN, "-0.05", "10.00"),
        ("10.25", "0.50", "0", EVEN, "-0.25", "10.00"),
        # What is paid counts, not the total: 20.05 - 10.02 = 10.03.
        ("20.05", "0.05", "10.02", UP, "0.02", "10.05"),
        ("10.00", "0.05", "20.03", UP, "-0.02", "-10.05"),
        ("10", "3", "0", UP, "-1", "9"),
        ("10.02", None, "3", UP, "0", "7.02"),
    ],
)
def test_cash(price: str, increment: str | None, prepaid: str, mode: RoundingMode, rounding: str, payable: str) -> None:
    whole = quoting.total([line("1", price, NO_TAX)], [], policy(mode=mode, increment=increment), Decimal(prepaid))
    assert (whole.cash_rounding, whole.payable) == (Decimal(rounding), Decimal(payable))
    assert whole.payable == whole.gross + whole.cash_rounding - whole.prepaid
    back = quoting.total([line("-1", price, NO_TAX)], [], policy(mode=mode, increment=increment), -Decimal(prepaid))
    assert (back.cash_rounding, back.payable) == (-Decimal(rounding), -Decimal(payable))


def test_the_largest_numbers_are_exact() -> None:
    most = Decimal("999999999999.999999999999")
    least = Decimal("0.000000000001")
    tax = Tax("S", most, included=True)
    document = [Line(sign * most, most, least, tax, None, [Adjustment(percent=most)]) for sign in (1, -1, 1)] * 40
    for digits, level in itertools.product((0, 12), RoundingLevel):
        whole = quoting.total(
            document, [DocumentAdjustment(Adjustment(percent=most), tax)], policy(digits, level=level)
        )
        # Fractions, as Python's own context has 28 digits.
        assert Fraction(whole.net) + Fraction(whole.tax) == Fraction(whole.gross)
        parts = [Fraction(entry.tax) for entry in [*whole.lines, *whole.adjustments]]
        assert sum(parts) == Fraction(whole.tax)


# In words


def steps(given_line: Line, rule: Policy) -> list[str]:
    (entry,) = quoting.total([given_line], [], rule).lines
    return quote_steps.of_line(given_line, entry, rule)


@pytest.mark.parametrize(
    ("given_line", "rule", "expected"),
    [
        (
            line("3", "10"),
            policy(),
            ["3 x 10 = 30.00", "tax: 30.00 x 19 / 100 = 5.70 (this line's part of its group's tax)"],
        ),
        (
            line("250", "4.99", per="100"),
            policy(level=LINE),
            ["250 x 4.99 / 100 = 12.475 -> 12.48", "tax: 12.48 x 19 / 100 = 2.3712 -> 2.37"],
        ),
        (
            line("6", "1", rated("19", included=True), per="3"),
            policy(level=UNIT),
            ["6 x 1 / 3 = 2.00", "tax of one: 1 / 3 x 19 / 119 -> 0.05", "tax: 6 x 0.05 = 0.30"],
        ),
        (
            line("2.5", "0.22", amount="-0.05"),
            policy(level=UNIT),
            [
                "2.5 x 0.22 = 0.55",
                "allowance: -0.05",
                "amount: 0.50",
                "tax of one: 0.22 x 19 / 100 = 0.0418 -> 0.04",
                "tax of 2.5: 2.5 x 0.04 = 0.10",
                "tax of -0.05: -0.05 x 19 / 100 = -0.0095 -> -0.01",
                "tax: 0.09",
            ],
        ),
        (
            line("250", "10", Tax("S", None, included=False), per="100", unit_tax="1.33", amount="0"),
            policy(level=UNIT),
            [
                "250 x 10 / 100 = 25.00",
                "charge: 0.00",
                "amount: 25.00",
                "tax of one: 1.33 / 100 = 0.0133 -> 0.01",
                "tax: 250 x 0.01 = 2.50",
            ],
        ),
        (
            line("2", "0.125", NO_TAX),
            policy(level=UNIT),
            ["2 x 0.125 = 0.25", "no tax stated"],
        ),
        (
            line("-1", "0.335", NO_TAX, percent="-50"),
            policy(),
            [
                "-1 x 0.335 = -0.335 -> -0.34",
                "charge: -50 % of -0.335 = 0.1675 -> 0.17",
                "amount: -0.17",
                "no tax stated",
            ],
        ),
        (
            # Of the price before it was rounded; a third has no last digit.
            line("10", "1", NO_TAX, per="3", percent="50"),
            policy(),
            ["10 x 1 / 3 -> 3.33", "charge: 50 % of 10 / 3 -> 1.67", "amount: 5.00", "no tax stated"],
        ),
        (
            line("1", "100", S7, percent="-12.5", base="33.33"),
            policy(),
            [
                "1 x 100 = 100.00",
                "allowance: -12.5 % of 33.33 = -4.16625 -> -4.17",
                "amount: 95.83",
                "tax: 95.83 x 7 / 100 = 6.7081 -> 6.71 (this line's part of its group's tax)",
            ],
        ),
        (
            line("3", "35.4", Tax("S", None, included=False), unit_tax="3.2", amount="-6.20"),
            policy(),
            ["3 x 35.4 = 106.20", "allowance: -6.20", "amount: 100.00", "tax: 3 x 3.2 = 9.60"],
        ),
        (
            line("250", "10", Tax("S", None, included=False), per="100", unit_tax="1.33", amount="0"),
            policy(),
            ["250 x 10 / 100 = 25.00", "charge: 0.00", "amount: 25.00", "tax: 250 x 1.33 / 100 = 3.325 -> 3.33"],
        ),
        (
            line("2", "105", rated("10", included=True)),
            policy(0),
            ["2 x 105 = 210", "tax: 210 x 10 / 110 -> 19 (this line's part of its group's tax)"],
        ),
        (
            line("1", "5", Tax("Z", Decimal(0), included=True)),
            policy(),
            ["1 x 5 = 5.00", "tax: 5.00 x 0 / 100 = 0.00 (this line's part of its group's tax)"],
        ),
    ],
)
def test_steps(given_line: Line, rule: Policy, expected: list[str]) -> None:
    assert steps(given_line, rule) == expected


EQUATION = re.compile(
    r"(?:[^:]*: )?(?P<left>[^:=>]*?)(?: = (?P<equal>-?[0-9.]+))?(?: -> (?P<rounded>-?[0-9.]+))?(?: \(.*)?"
)


def worked_out(left: str) -> Fraction:
    """What the left side of a step comes to: its signs are worked from left to right, and ``% of`` is ``/ 100 x``."""
    first, *rest = left.replace("% of", "/ 100 x").split(" ")
    value = Fraction(first)
    for sign, number in itertools.batched(rest, 2):
        value = value / Fraction(number) if sign == "/" else value * Fraction(number)
    return value


@settings(max_examples=300, deadline=None)
@given(documents)
def test_every_step_is_right(document: OracleDocument) -> None:
    whole = totals(document)
    rule = Policy(RoundingMode(document.mode), RoundingLevel(document.level), document.digits)
    for given_line, entry in zip(quote_fuzz.lines(document), whole.lines, strict=True):
        words = quote_steps.of_line(given_line, entry, rule)
        assert all("E" not in word for word in words), "plain notation"
        for word in words:
            step = EQUATION.fullmatch(word)
            assert step, word
            if step["equal"] is None and step["rounded"] is None:
                continue  # A figure, or words.
            exact = worked_out(step["left"])
            if step["equal"] is not None:
                assert Fraction(step["equal"]) == exact, word
            if step["rounded"] is not None and "part of" not in word:
                assert Fraction(step["rounded"]) == Fraction(
                    quote_oracle.whole(exact * 10**document.digits, document.mode), 10**document.digits
                ), word
        if entry.key.category is not None:
            assert money.plain(entry.tax, rule.digits) in words[-1]
