import json
from decimal import Decimal

import pytest

from app import exact_json
from app.exact_json import UnusableNumber


def test_numbers_arrive_digit_for_digit() -> None:
    document = exact_json.loads(b'{"a": 12345678901234567.89, "b": 0.1, "c": 10, "d": "0.30"}')
    assert document == {"a": Decimal("12345678901234567.89"), "b": Decimal("0.1"), "c": 10, "d": "0.30"}
    assert document["b"] + Decimal("0.2") == Decimal("0.3")


def test_numbers_leave_digit_for_digit() -> None:
    document = [{"a": Decimal("12345678901234567.89"), "b": Decimal("0.000000000001"), "c": None}]
    assert exact_json.dumps(document) == b'[{"a":12345678901234567.89,"b":0.000000000001,"c":null}]'


@pytest.mark.parametrize("literal", ["NaN", "Infinity", "-Infinity", "1e400", "1E2", "1.5e-3"])
def test_numbers_that_are_no_amounts_stay_recognisable(literal: str) -> None:
    (number,) = exact_json.loads(f"[{literal}]".encode())
    assert isinstance(number, UnusableNumber)
    assert number.literal == literal


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b'{"a": 1, "a": 2}', '"a" appears twice'),
        (b'{"x": [{"\\ud800": 1, "\\ud800": 2}]}', "appears twice"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"a":' * 100_000, "nested too deeply"),
        (b'"\xff"', "not UTF-8"),
        ('{"a": 1}'.encode("utf-16"), "not UTF-8"),
        (b"{", "Expecting property name"),
        (b"", "Expecting value"),
    ],
)
def test_faulty_documents_are_refused_with_the_reason(body: bytes, reason: str) -> None:
    with pytest.raises(json.JSONDecodeError, match=reason):
        exact_json.loads(body)


def test_a_huge_integer_is_read() -> None:
    assert exact_json.loads(b"1" * 10_000) == Decimal("1" * 10_000)
