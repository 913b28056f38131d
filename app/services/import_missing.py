"""Prices in force whose items a file does not name: an import ends them, or leaves them and only tells of them.

Those that it leaves are looked for when somebody asks, a page at a time. There may be millions of them, and nothing
happens to them.
"""

from collections.abc import Mapping
from decimal import Decimal
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import RowMapping

from app import money
from app.database import ReadSession, WriteSession
from app.services.import_sql import statement

_STANDING = """
SELECT DISTINCT ON (p.min_quantity) p.*
FROM price_rows AS p
WHERE p.item_id = i.id AND p.book_id = :book_id AND p.seq <= :base_seq
    AND p.valid_to IS NULL AND p.valid_from <= :planned_at
    AND NOT EXISTS (SELECT FROM price_retirements AS r WHERE r.price_id = p.id AND r.seq <= :base_seq)
ORDER BY p.min_quantity, p.valid_from DESC, p.seq DESC
"""
"""The list prices of an item ``i`` at an instant, as known at a seq: one for each quantity."""

_END = statement(
    f"""
INSERT INTO import_rows (import_id, number, status, sku, gtin, item_id, amount, per, min_quantity, tax_rate,
    tax_included, valid_from, price_id, price_offset, old_price_id, supersedes)
WITH standing AS (
    -- A set operation, because it takes the same short time whatever the planner believes of the tables.
    SELECT p.item_id FROM price_rows AS p
    WHERE p.book_id = :book_id AND p.valid_to IS NULL AND p.valid_from <= :planned_at AND p.seq <= :base_seq
    EXCEPT
    SELECT r.item_id FROM import_rows AS r WHERE r.import_id = :import_id
),
missing AS (
    SELECT i.sku, i.gtin, p.*, row_number() OVER (ORDER BY i.id, p.min_quantity) AS place
    FROM standing AS s
    JOIN items AS i ON i.id = s.item_id AND i.archived_at IS NULL
    JOIN LATERAL ({_STANDING}) AS p ON p.amount IS NOT NULL
)
SELECT :import_id, :rows + m.place, 'missing', m.sku, m.gtin, m.item_id, NULL, m.per, m.min_quantity, m.tax_rate,
    m.tax_included, :effective_at, uuidv7(), :last_offset + m.place, m.id,
    CASE WHEN m.valid_from = :planned_at THEN m.id END
FROM missing AS m
"""  # noqa: S608 - it is put together of constants
)

_LOOK = statement(
    f"""
WITH walked AS MATERIALIZED (
    SELECT id FROM items WHERE id >= :item_id AND archived_at IS NULL ORDER BY id LIMIT :rows
),
unnamed AS MATERIALIZED (
    SELECT id FROM walked EXCEPT SELECT r.item_id FROM import_rows AS r WHERE r.import_id = :import_id
),
missing AS (
    SELECT i.sku, i.gtin, p.*
    FROM unnamed AS u JOIN items AS i ON i.id = u.id CROSS JOIN LATERAL ({_STANDING}) AS p
    WHERE p.amount IS NOT NULL AND (i.id, p.min_quantity) > (:item_id, :min_quantity)
    ORDER BY i.id, p.min_quantity LIMIT :most
),
looked AS (
    SELECT (SELECT id FROM walked ORDER BY id DESC LIMIT 1) AS last_id, (SELECT count(*) FROM walked) AS items
)
SELECT l.last_id, l.items, m.* FROM looked AS l LEFT JOIN missing AS m ON true ORDER BY m.item_id, m.min_quantity
"""  # noqa: S608 - it is put together of constants
)
_IS_WHOLE = statement("SELECT EXISTS (SELECT FROM import_rows WHERE import_id = :import_id AND number = 1)")

_MORE = Decimal(10) ** money.INTEGER_DIGITS
"""More than any quantity."""
_FEWEST, _MOST = 1000, 250_000
"""Items that one statement looks at: few at first, because mostly they are found at once."""


class Place(NamedTuple):
    """A place in the list of them, which goes by item and quantity."""

    item_id: UUID
    min_quantity: Decimal


BEFORE_ALL = Place(UUID(int=0), Decimal(0))


async def end(session: WriteSession, values: Mapping[str, Any]) -> int:
    """Add to a plan what ends the prices of items that its file does not name, and say how many there are.

    :param values: the terms of the plan, the number of its last row, and its last offset.
    """
    ended: Any = await session.execute(_END, values)
    return int(ended.rowcount)


async def left(session: ReadSession, record: RowMapping, *, after: Place, most: int) -> list[RowMapping]:
    """Prices that an import leaves as they are, with the sku and gtin of their items; none once its rows are forgotten.

    Prices are those that the plan was compared with; items that were archived since are not among them.
    """
    values = {name: record[name] for name in ("book_id", "base_seq", "planned_at")} | {"import_id": record["id"]}
    if not await session.scalar(_IS_WHOLE, values):
        return []
    found: list[RowMapping] = []
    items = _FEWEST
    while True:
        values |= after._asdict() | {"rows": items, "most": most - len(found)}
        rows = (await session.execute(_LOOK, values)).mappings().all()
        found += [row for row in rows if row["item_id"] is not None]
        if len(found) == most or rows[0]["items"] < items:
            return found
        after = Place(rows[0]["last_id"], _MORE)
        items = min(4 * items, _MOST)
