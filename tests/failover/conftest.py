"""What tests with PostgreSQL servers of their own share."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture
def directory() -> Iterator[Path]:
    """Not below pytest's own, which other runs of pytest close to the user that PostgreSQL runs as."""
    with tempfile.TemporaryDirectory(prefix="pricebook-failover-") as directory:
        yield Path(directory)
