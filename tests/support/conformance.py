"""Third-party figures, read where they are: ``CONFORMANCE_DIR``, by default ``../shared/conformance``."""

import csv
import os
from pathlib import Path

import pytest

_DEFAULT = Path(__file__).parents[3] / "shared" / "conformance"


def rows(name: str) -> list[dict[str, str]]:
    """The rows of a CSV file, or a skip that says which file is missing."""
    path = Path(os.environ.get("CONFORMANCE_DIR") or _DEFAULT) / name
    if not path.exists():
        pytest.skip(f"third-party figures are absent: {path}; set CONFORMANCE_DIR to the folder that holds {name}")
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))
