"""A few rounds of what `make chaos` does for hours."""

import asyncio
import random
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.chaos import campaign, faults, kills
from tests.chaos.campaign import Campaign

SEED = "make test"


@pytest.fixture
def directory() -> Iterator[Path]:
    """Not below pytest's own, which other runs of pytest close to the user that PostgreSQL runs as."""
    with tempfile.TemporaryDirectory(prefix="pricebook-chaos-") as directory:
        yield Path(directory)


@pytest.mark.long
def test_nothing_is_lost_or_done_by_half(directory: Path, record_property: Callable[[str, object], None]) -> None:
    run = Campaign(directory, SEED, most_rows=600, warm_seconds=1, calm_seconds=0.5)
    order = [
        kills.SERVER_IN_APPLY,
        replace(faults.DATABASE_CUT, seconds=(0.1, 0.5)),
        kills.POSTGRES_IN_UPLOAD,
        replace(faults.EXHAUSTED, seconds=(1, 1)),
        replace(faults.CLIENTS_CUT, seconds=(0.1, 0.5)),
        kills.BACKEND,
        replace(faults.WAIT_FOR_THE_LEDGER, seconds=(1, 1)),
        replace(faults.STANDBY_KILLED, seconds=(0, 0.5)),
        replace(faults.STANDBY_SILENT, seconds=(3, 3)),
    ]
    asyncio.run(run.run(order))
    assert run.record.violations == []
    for what in (
        "writes confirmed",
        "writes with a key, each there exactly once",
        "current prices read",
        "quotes",
        "pinned answers read",
        "imports applied",
    ):
        assert run.record.counts[what] > 0, what
    slowest = max(seconds for found in run.record.recoveries.values() for seconds in found)
    record_property(
        "summary", f"chaos: {len(order)} faults, recovered after {slowest:.1f} s at most, {run.head} changes, none lost"
    )


def test_every_fault_comes_up() -> None:
    assert set(campaign.chosen(len(campaign.FAULTS), random.Random(SEED))) == set(campaign.FAULTS)
