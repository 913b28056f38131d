"""The examples of docs/price-lists.md answer what it says, and its table has the columns."""

import re
from pathlib import Path

from sqlalchemy.engine import URL

from app import price_list
from tests.support import console_examples

PAGE = Path(__file__).parents[2] / "docs" / "price-lists.md"


def test_every_example_answers_what_the_page_says(own_url: URL, tmp_path: Path) -> None:
    assert console_examples.check(PAGE, own_url, tmp_path) >= 4


def test_the_table_has_every_column_in_its_order() -> None:
    assert tuple(re.findall(r"^\| `(\w+)` \| the", PAGE.read_text(), re.MULTILINE)) == price_list.COLUMNS
