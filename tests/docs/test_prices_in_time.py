"""The examples of docs/prices-in-time.md, run in their order by one shell as a reader would, answer what it says."""

from pathlib import Path

from sqlalchemy.engine import URL

from tests.support import console_examples

PAGE = Path(__file__).parents[2] / "docs" / "prices-in-time.md"


def test_every_example_answers_what_the_page_says(own_url: URL, tmp_path: Path) -> None:
    assert console_examples.check(PAGE, own_url, tmp_path) > 30
