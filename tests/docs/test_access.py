"""The examples of docs/access.md, run in their order by one shell as a reader would, answer what it says."""

from pathlib import Path

from sqlalchemy.engine import URL

from tests.support import console_examples
from tests.support.access import ADMIN_KEY

PAGE = Path(__file__).parents[2] / "docs" / "access.md"


def test_every_example_answers_what_the_page_says(own_url: URL, tmp_path: Path) -> None:
    assert console_examples.check(PAGE, own_url, tmp_path, admin_key=ADMIN_KEY, auth_required="true") == 3
