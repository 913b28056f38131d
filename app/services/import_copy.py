"""Values of the staging table in the text format of COPY."""

import re
from collections.abc import Callable
from datetime import datetime
from decimal import Decimal
from typing import Any

import msgspec

from app.models import STAGING

COLUMNS = tuple(column.name for column in STAGING.columns)
"""Of the staging table, in the order of the lines."""

NULL = "\\N"
_SPECIAL = re.compile(r"[\\\t\n\r\0]")
_ESCAPES = str.maketrans({"\0": "\ufffd", "\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"})


def text(value: str) -> str:
    """A text as COPY has it."""
    return value.translate(_ESCAPES) if _SPECIAL.search(value) else value


def _json(value: Any) -> str:
    return text(msgspec.json.encode(value).decode())


_WRITERS: dict[type, Callable[[Any], str]] = {
    str: text,
    Decimal: "{:f}".format,
    bool: {True: "t", False: "f"}.__getitem__,
    dict: _json,
    list: _json,
    datetime: str,
}


def copied(value: Any) -> str:
    """A value as COPY has it: what an import reads, or ``None``."""
    return NULL if value is None else _WRITERS[type(value)](value)
