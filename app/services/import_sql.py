"""SQL of imports, written as SQL: its statements work on sets of a hundred thousand rows."""

import re
from typing import Any

from sqlalchemy import BigInteger, Boolean, DateTime, Numeric, Text, TextClause, Uuid, bindparam, text

_TYPES: dict[str, Any] = {
    "import_id": Uuid(),
    "book_id": BigInteger(),
    "item_id": Uuid(),
    "min_quantity": Numeric(),
    "tax_included": Boolean(),
    "base_seq": BigInteger(),
    "effective_at": DateTime(timezone=True),
    "planned_at": DateTime(timezone=True),
    "recorded_at": DateTime(timezone=True),
    "past": DateTime(timezone=True),
    "recorded_json": Text(),
    "create": Boolean(),
    "end_missing": Boolean(),
    "max_change_percent": Numeric(24, 12),
    "rows": BigInteger(),
    "last_offset": BigInteger(),
    "before_seq": BigInteger(),
    "actor": Text(),
    "most": BigInteger(),
}


def statement(sql: str) -> TextClause:
    """A statement with typed parameters, by their names."""
    names = set(re.findall(r"(?<![:\w]):([a-z_]+)\b", sql))
    return text(sql).bindparams(*(bindparam(name, type_=_TYPES[name]) for name in names))
