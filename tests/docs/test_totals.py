"""The examples of docs/totals.md, run in their order by one shell as a reader would, answer what it says."""

import re
from decimal import Decimal
from pathlib import Path

from sqlalchemy.engine import URL

from app.money import RoundingMode, round_to
from tests.support import console_examples

PAGE = Path(__file__).parents[2] / "docs" / "totals.md"


def test_every_example_answers_what_the_page_says(own_url: URL, tmp_path: Path) -> None:
    assert console_examples.check(PAGE, own_url, tmp_path) == 15


def test_the_table_of_rounding_modes_is_right() -> None:
    numbers, *rows = re.findall(
        r"^\| `?(\w+)`? \| (-?[\d.]+) \| (-?[\d.]+) \| (-?[\d.]+) \|", PAGE.read_text(), re.MULTILINE
    )
    assert [row[0] for row in rows] == [*RoundingMode]
    for mode, *results in rows:
        expected = [str(round_to(Decimal(number), 2, RoundingMode(mode))) for number in numbers[1:]]
        assert results == expected, mode
