import re
from decimal import Decimal, DivisionByZero, Inexact, InvalidOperation
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app import money
from app.money import NotAnAmount, RoundingMode

amounts = st.decimals(
    min_value=Decimal("-999999999999.999999999999"),
    max_value=Decimal("999999999999.999999999999"),
    places=12,
    allow_nan=False,
    allow_infinity=False,
)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("19.99", "19.99"),
        ("0", "0"),
        ("-0.5", "-0.5"),
        ("0.061232374", "0.061232374"),
        ("999999999999.999999999999", "999999999999.999999999999"),
        (7, "7"),
        (Decimal("35.4"), "35.4"),
    ],
)
def test_reads_plain_numbers_exactly(value: object, expected: str) -> None:
    assert str(money.parse(value)) == expected


@pytest.mark.parametrize(
    ("value", "code"),
    [
        ("1e3", "not-a-number"),
        ("NaN", "not-a-number"),
        ("Infinity", "not-a-number"),
        (Decimal("NaN"), "not-a-number"),
        ("", "not-a-number"),
        (" 1", "not-a-number"),
        ("1.", "not-a-number"),
        (".5", "not-a-number"),
        ("+1", "not-a-number"),
        ("007", "not-a-number"),
        ("1,5", "not-a-number"),
        ("\u0661", "not-a-number"),  # a digit, but not of ours
        (True, "not-a-number"),
        (1.5, "not-a-number"),
        (None, "not-a-number"),
        ("1000000000000", "too-many-digits"),
        ("0.1234567890123", "too-many-digits"),
        (10**4000, "too-many-digits"),
    ],
)
def test_refuses_everything_else(value: object, code: str) -> None:
    with pytest.raises(NotAnAmount) as refusal:
        money.parse(value)
    assert refusal.value.code == code


@given(amounts, st.integers(0, 4))
def test_plain_notation_keeps_the_value_and_pads(amount: Decimal, digits: int) -> None:
    text = money.plain(amount, digits)
    assert Fraction(text) == Fraction(amount)
    assert "e" not in text.lower()
    assert len(text.partition(".")[2]) >= digits
    assert money.plain(money.parse(text), digits) == text


_digits = st.text("0123456789", max_size=14)


@given(
    st.tuples(st.sampled_from(["", "-", "+", " "]), _digits, st.sampled_from(["", ".", ",", "e"]), _digits).map("".join)
)
def test_reads_what_is_plain_and_short_enough(text: str) -> None:
    integer, _, fraction = text.lstrip("-").partition(".")
    if not re.fullmatch(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?", text):
        expected: object = "not-a-number"
    elif len(integer) > 12 or len(fraction) > 12:
        expected = "too-many-digits"
    else:
        expected = Decimal(text)
    assert _read(text) == expected


def _read(text: str) -> object:
    try:
        return money.parse(text)
    except NotAnAmount as error:
        return error.code


@pytest.mark.parametrize(
    ("amount", "digits", "text"),
    [
        ("45.2", 2, "45.20"),
        ("0.061232374", 2, "0.061232374"),
        ("100", 0, "100"),
        ("-0.00", 2, "0.00"),
        ("1E+2", 2, "100.00"),
    ],
)
def test_plain_notation(amount: str, digits: int, text: str) -> None:
    assert money.plain(Decimal(amount), digits) == text


@pytest.mark.parametrize(
    ("mode", "results"),
    [
        # -0.125  0.125  0.135  0.131  -0.139
        (RoundingMode.HALF_UP, ["-0.13", "0.13", "0.14", "0.13", "-0.14"]),
        (RoundingMode.HALF_EVEN, ["-0.12", "0.12", "0.14", "0.13", "-0.14"]),
        (RoundingMode.HALF_DOWN, ["-0.12", "0.12", "0.13", "0.13", "-0.14"]),
        (RoundingMode.UP, ["-0.13", "0.13", "0.14", "0.14", "-0.14"]),
        (RoundingMode.DOWN, ["-0.12", "0.12", "0.13", "0.13", "-0.13"]),
    ],
)
def test_rounding_modes(mode: RoundingMode, results: list[str]) -> None:
    values = ["-0.125", "0.125", "0.135", "0.131", "-0.139"]
    assert [str(money.round_to(Decimal(value), 2, mode)) for value in values] == results


def _half_up(value: Fraction, digits: int) -> Fraction:
    """Half away from zero, in exact fractions."""
    scaled = abs(value) * 10**digits
    whole = scaled.numerator // scaled.denominator
    rounded = whole + (scaled - whole >= Fraction(1, 2))
    return Fraction(rounded if value >= 0 else -rounded, 10**digits)


@given(
    amounts,
    st.decimals(min_value=0, max_value=100, places=4, allow_nan=False),
    st.booleans(),
    st.integers(0, 4),
)
def test_split_tax_agrees_with_fractions(amount: Decimal, rate: Decimal, included: bool, digits: int) -> None:
    split = money.split_tax(amount, rate=rate, tax=None, included=included, digits=digits)
    base = _half_up(Fraction(amount), digits)
    tax = _half_up(base * Fraction(rate) / (100 + Fraction(rate) if included else 100), digits)
    assert Fraction(split.tax) == tax
    assert Fraction(split.net) == (base - tax if included else base)
    assert split.net + split.tax == split.gross


def test_tax_amounts_and_no_tax() -> None:
    given_tax = money.split_tax(Decimal("35.4"), rate=None, tax=Decimal("3.2"), included=False, digits=2)
    assert (str(given_tax.net), str(given_tax.tax), str(given_tax.gross)) == ("35.40", "3.20", "38.60")
    none = money.split_tax(Decimal(5), rate=None, tax=None, included=True, digits=0)
    assert [int(none.net), int(none.tax), int(none.gross)] == [5, 0, 5]


def test_minor_units() -> None:
    assert [money.minor_units(code) for code in ("EUR", "JPY", "KWD", "CLF")] == [2, 0, 3, 4]
    for code in ("XAU", "XXX", "EURO", ""):
        with pytest.raises(KeyError):
            money.minor_units(code)


def _rounded(value: Fraction, digits: int, mode: RoundingMode) -> Fraction:
    """Every mode, in whole numbers of the last digit."""
    scaled = value * 10**digits
    away = 1 if scaled > 0 else -1
    size = abs(scaled)
    whole = size.numerator // size.denominator
    rest = 2 * (size - whole)  # of 2
    up = {
        RoundingMode.HALF_UP: rest >= 1,
        RoundingMode.HALF_EVEN: rest > 1 or (rest == 1 and whole % 2 == 1),
        RoundingMode.HALF_DOWN: rest > 1,
        RoundingMode.UP: rest > 0,
        RoundingMode.DOWN: False,
    }[mode]
    return Fraction(away * (whole + up), 10**digits)


divisors = st.sampled_from(["1", "2", "3", "7", "8", "100", "119", "128", "0.000000000001"]).map(
    Decimal
) | amounts.filter(lambda number: number > 0)
tie_or_not = st.integers(-1000, 1000).map(lambda halves: Decimal(halves).scaleb(-1) / 2) | amounts


@given(tie_or_not, divisors, st.integers(0, 12), st.sampled_from(RoundingMode))
def test_quotients_are_rounded_as_fractions_are(
    numerator: Decimal, denominator: Decimal, digits: int, mode: RoundingMode
) -> None:
    rounded = money.round_quotient(numerator, denominator, digits, mode)
    assert Fraction(rounded) == _rounded(Fraction(numerator) / Fraction(denominator), digits, mode)
    assert rounded or not rounded.is_signed(), "zero has no sign"
    assert money.round_to(rounded, digits) == rounded


@given(amounts, amounts, st.integers(0, 12), st.sampled_from(RoundingMode))
def test_quotients_of_the_longest_products(one: Decimal, other: Decimal, digits: int, mode: RoundingMode) -> None:
    """Products of four inputs, as a percentage of quantity x price is; 12 + 12 digits each."""
    product = money.EXACT.multiply(money.EXACT.multiply(one, other), money.EXACT.multiply(other, one))
    divisor = Decimal("100.000000000003")
    expected = _rounded(Fraction(product) / Fraction(divisor), digits, mode)
    assert Fraction(money.round_quotient(product, divisor, digits, mode)) == expected


@pytest.mark.parametrize("mode", RoundingMode)
@pytest.mark.parametrize(
    "numerator",
    ["0.125", "-0.125", "0.135", "0.1250000000000000000001", "-0.1249999999999999999999"]
    # More digits than any quotient is computed to: what is behind them decides all the same.
    + [f"{whole}{'0' * 130}1" for whole in ("0.125", "-0.125", "0.12", "0.13")],
)
def test_a_quotient_by_one_is_rounded_like_a_number(mode: RoundingMode, numerator: str) -> None:
    value = Decimal(numerator)
    assert money.round_quotient(value, Decimal(1), 2, mode) == money.round_to(value, 2, mode)


def test_exact_arithmetic_refuses_what_it_cannot_hold() -> None:
    assert money.EXACT.divide(Decimal(1), Decimal(8)) == Decimal("0.125")
    with pytest.raises(Inexact):
        money.EXACT.divide(Decimal(1), Decimal(3))
    digits_121 = Decimal(10**120 + 1)
    with pytest.raises(Inexact):
        money.EXACT.multiply(digits_121, Decimal(1))
    with pytest.raises(Inexact):
        money.EXACT.add(Decimal(10**120), Decimal(1))
    with pytest.raises(DivisionByZero):
        money.EXACT.divide(Decimal(1), Decimal(0))
    # Nor does a quotient become wrong in silence that has more whole digits than that.
    with pytest.raises(InvalidOperation):
        money.round_quotient(Decimal(10**119), Decimal("0.1"), 12)
