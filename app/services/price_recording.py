"""The statement that records a price row.

One statement, because from the number on every other writer waits: the row and its change cost the database some
hundred microseconds, and each round trip of a busy process milliseconds.
"""

from functools import cache
from typing import Any

from sqlalchemy import Select, Text, bindparam, func, insert, literal, select, true

from app.models import Change, ChangeType, PriceRetirement, PriceRow
from app.services import ledger

_STATED = (
    *("item_id", "book_id", "amount", "per", "min_quantity", "tax_rate", "tax", "tax_included"),
    *("valid_to", "supersedes", "reason", "recorded_by"),
)
"""What of a row the request and its target decide; but ``valid_from``, for which now is put if it is null."""


@cache
def statement() -> Select[Any]:
    """Takes a number, writes the row, retires what it supersedes, and logs the change: its parameters are the columns
    that the request and its target decide. It answers ``seq``, ``recorded_at``, ``id`` and ``valid_from``.

    A null ``valid_from`` stands for the instant of recording.
    """
    stamp = ledger.ADVANCE.cte("stamp")
    table = PriceRow.__table__
    made = {
        "valid_from": func.coalesce(bindparam("valid_from", type_=table.c.valid_from.type), stamp.c.recorded_at),
        "seq": stamp.c.seq,
        "recorded_at": stamp.c.recorded_at,
    }
    stated = {name: bindparam(name, type_=table.c[name].type) for name in _STATED}
    values = {**stated, **made}
    row = (
        insert(PriceRow)
        .from_select(list(values), select(*(value.label(name) for name, value in values.items())))
        .returning(table.c.id, table.c.valid_from)
        .cte("recorded")
    )
    retired = (
        insert(PriceRetirement)
        .from_select(
            ["price_id", "successor_id", "seq"],
            select(stated["supersedes"], row.c.id, stamp.c.seq)
            .select_from(stamp.join(row, true()))
            .where(stated["supersedes"].is_not(None)),
        )
        .cte("retired")
    )
    logged = {
        "seq": stamp.c.seq,
        "at": stamp.c.recorded_at,
        "actor": stated["recorded_by"],
        "type": literal(ChangeType.PRICE_RECORDED.value, Text()),
        "item_id": stated["item_id"],
        "book_id": stated["book_id"],
        "price_id": row.c.id,
    }
    change = (
        insert(Change)
        .from_select(list(logged), select(*logged.values()).select_from(stamp.join(row, true())))
        .cte("logged")
    )
    return (
        select(stamp.c.seq, stamp.c.recorded_at, row.c.id, row.c.valid_from)
        .select_from(stamp.join(row, true()))
        .add_cte(retired, change)
    )
