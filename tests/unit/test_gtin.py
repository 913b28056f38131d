import pytest

from app import gtin


@pytest.mark.parametrize("text", ["96385074", "036000291452", "4006381333931", "10614141000415"])
def test_valid(text: str) -> None:
    assert gtin.is_valid(text)


@pytest.mark.parametrize(
    "text", ["4006381333932", "400638133393", "", "4006381333931 ", "40063813339311", "٤006381333931"]
)
def test_invalid(text: str) -> None:
    assert not gtin.is_valid(text)


def test_every_wrong_check_digit_is_noticed() -> None:
    assert [digit for digit in range(10) if gtin.is_valid(f"400638133393{digit}")] == [1]
