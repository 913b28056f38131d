"""Third-party figures, read where they are: ``CONFORMANCE_DIR``, by default ``../shared/conformance``."""

import csv
import json
import os
from pathlib import Path
from typing import Any

import pytest

_DEFAULT = Path(__file__).parents[3] / "shared" / "conformance"


def rows(name: str) -> list[dict[str, str]]:
    """The rows of a CSV file, or a skip that says which file is missing."""
    with path(name).open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def documents(name: str) -> list[dict[str, Any]]:
    """The documents of a JSON Lines file, or a skip that says which file is missing."""
    with path(name).open(encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def path(name: str) -> Path:
    """Where a file is, or a skip that says that it is missing."""
    found = Path(os.environ.get("CONFORMANCE_DIR") or _DEFAULT) / name
    if not found.exists():
        pytest.skip(f"third-party figures are absent: {found}; set CONFORMANCE_DIR to the folder that holds {name}")
    return found
