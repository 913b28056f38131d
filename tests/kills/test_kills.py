"""A few rounds of what `make kills` does for hours."""

import asyncio
import random
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.kills import campaign
from tests.kills.campaign import ANY_TIME, APPLY, BACKEND, POSTGRES, SERVER, UPLOAD, Campaign, Case

SEED = "make test"


@pytest.fixture
def directory() -> Iterator[Path]:
    """Not below pytest's own, which other runs of pytest close to the user that PostgreSQL runs as."""
    with tempfile.TemporaryDirectory(prefix="pricebook-kills-") as directory:
        yield Path(directory)


def test_nothing_is_lost_or_done_by_half(directory: Path, record_property: Callable[[str, object], None]) -> None:
    run = Campaign(directory, SEED, most_rows=600, calm_seconds=1)
    asyncio.run(run.run([Case(SERVER, APPLY), Case(POSTGRES, UPLOAD), Case(BACKEND, ANY_TIME)]))
    assert run.record.violations == []
    assert run.record.counts["writes confirmed"] > 0
    assert run.record.counts["imports applied"] > 0
    record_property("summary", f"kills: {run.head} changes, and all of them where they belong")


def test_every_case_comes_up() -> None:
    assert set(campaign.cases(len(campaign.CASES), random.Random(SEED))) == set(campaign.CASES)
