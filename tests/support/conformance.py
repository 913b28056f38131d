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
    with _path(name).open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def documents(name: str) -> list[dict[str, Any]]:
    """The documents of a JSON Lines file, or a skip that says which file is missing."""
    with _path(name).open(encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def _path(name: str) -> Path:
    path = Path(os.environ.get("CONFORMANCE_DIR") or _DEFAULT) / name
    if not path.exists():
        pytest.skip(f"third-party figures are absent: {path}; set CONFORMANCE_DIR to the folder that holds {name}")
    return path
