"""Applying the plan of an import: one transaction, one instant, one block of seqs."""

from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from app.access import Scope
from app.database import WriteSession
from app.errors import FieldError, Forbidden, ImportConflict
from app.models import ChangeType
from app.services import ledger
from app.services.import_sql import statement
from app.services.ledger import Block
from app.services.prices import CLOCK_TOLERANCE

_MOST_NAMED = 100

# Whoever changes a book or an item in place holds its lock before asking for the ledger's, so here they come first,
# too. The foreign keys would take these locks later.
_LOCK_ITEMS = statement(
    """
SELECT count(*) FROM (
    SELECT FROM items AS i
    WHERE i.id IN (SELECT r.item_id FROM import_rows AS r WHERE r.import_id = :import_id AND r.price_offset IS NOT NULL)
    ORDER BY i.id FOR KEY SHARE
) AS locked
"""
)
_LOCK_BOOK = statement("SELECT FROM books WHERE id = :book_id FOR KEY SHARE")
_COUNT = statement(
    """
SELECT count(price_offset) AS prices, count(item_offset) AS items FROM import_rows WHERE import_id = :import_id
"""
)

_CORRECTIONS = statement(
    """
SELECT count(*) FROM import_rows
WHERE import_id = :import_id AND price_offset IS NOT NULL AND valid_from < :past
"""
)
_NOW = statement("SELECT clock_timestamp()")
_FORGOTTEN = statement("SELECT feed_floor > :base_seq FROM ledger")
_BOOK_CHANGED = statement(
    """
SELECT EXISTS (
    SELECT FROM changes AS c
    WHERE c.seq > :base_seq AND c.seq < :before_seq AND c.book_id = :book_id AND c.item_id IS NULL
        AND (c.before -> 'currency', c.before -> 'time_zone', c.before -> 'tax_included')
            IS DISTINCT FROM (c.after -> 'currency', c.after -> 'time_zone', c.after -> 'tax_included')
)
"""
)
# Set operations, because they take the same short time whatever the planner believes of tables that just grew.
_MOVED = statement(
    """
WITH changed AS MATERIALIZED (
    SELECT c.item_id, c.price_id, c.before, c.after, c.book_id FROM changes AS c
    WHERE c.seq > :base_seq AND c.seq < :before_seq AND c.item_id IS NOT NULL
),
causes AS MATERIALIZED (
    SELECT item_id, 'price-moved' AS code, 'has other prices than at the preview' AS message
    FROM changed WHERE book_id = :book_id
    UNION
    SELECT p.item_id, 'price-began', 'has a scheduled price that began since the preview'
    FROM price_rows AS p
    WHERE p.book_id = :book_id AND p.seq <= :base_seq AND p.valid_from > :planned_at AND p.valid_from <= :effective_at
        AND NOT EXISTS (SELECT FROM price_retirements AS r WHERE r.price_id = p.id AND r.seq <= :base_seq)
    UNION
    SELECT item_id, 'item-changed', 'has another sku or gtin than at the preview, or was archived or restored'
    FROM changed
    WHERE price_id IS NULL AND (before ->> 'sku', before ->> 'gtin', before ->> 'archived_at')
        IS DISTINCT FROM (after ->> 'sku', after ->> 'gtin', after ->> 'archived_at')
),
moved AS MATERIALIZED (
    SELECT item_id FROM causes
    INTERSECT
    -- What the file does not name, and the import leaves alone, may move.
    SELECT r.item_id FROM import_rows AS r
    WHERE r.import_id = :import_id AND r.status <> 'error' AND (r.line IS NOT NULL OR r.price_offset IS NOT NULL)
    LIMIT :most
),
unseen AS MATERIALIZED (
    SELECT item_id FROM causes
    WHERE :end_missing AND EXISTS (
        SELECT FROM price_rows AS p WHERE p.item_id = causes.item_id AND p.book_id = :book_id AND p.valid_to IS NULL
    )
    EXCEPT
    SELECT r.item_id FROM import_rows AS r WHERE r.import_id = :import_id
    LIMIT :most
)
SELECT DISTINCT ON (r.number) r.line, r.sku, r.gtin, c.code, c.message
FROM import_rows AS r JOIN causes AS c ON c.item_id = r.item_id
WHERE r.import_id = :import_id AND r.item_id IN (SELECT item_id FROM moved)
UNION ALL
SELECT r.line, r.sku, r.gtin, 'item-exists', 'was to be created, and exists now'
FROM import_rows AS r JOIN items AS i ON i.sku = r.sku WHERE r.import_id = :import_id AND r.item_offset IS NOT NULL
UNION ALL
SELECT r.line, r.sku, r.gtin, 'item-exists', 'was to be created, and another item has its gtin now'
FROM import_rows AS r JOIN items AS i ON i.gtin = r.item ->> 'gtin'
WHERE r.import_id = :import_id AND r.item_offset IS NOT NULL
UNION ALL
SELECT r.line, r.sku, r.gtin, 'already-over', 'ends before it would begin'
FROM import_rows AS r
WHERE r.import_id = :import_id AND r.price_offset IS NOT NULL AND r.valid_to <= coalesce(r.valid_from, :effective_at)
UNION ALL
SELECT NULL, i.sku, i.gtin, 'item-unseen', 'has prices that the preview did not see, and is not in the file'
FROM items AS i WHERE i.id IN (SELECT item_id FROM unseen)
ORDER BY 1 NULLS LAST
LIMIT :most
"""
)
_ITEM = {
    "id": "r.item_id",
    "sku": "r.sku",
    "name": "r.item ->> 'name'",
    "description": "r.item ->> 'description'",
    "gtin": "r.item ->> 'gtin'",
    "unit": "coalesce(r.item ->> 'unit', 'C62')",
    "tax_category": "coalesce(r.item ->> 'tax_category', 'S')",
    "attributes": "coalesce(r.item -> 'attributes', '{}')",
}
"""What a new item is, and its change says of it."""

_INSERT_ITEMS = statement(
    f"""
INSERT INTO items ({", ".join(_ITEM)}, version, created_at, updated_at)
SELECT {", ".join(_ITEM.values())}, 1, :recorded_at, :recorded_at
FROM import_rows AS r
WHERE r.import_id = :import_id AND r.item_offset IS NOT NULL
ORDER BY r.number
"""  # noqa: S608 - it is put together of constants
)
_INSERT_PRICES = statement(
    """
INSERT INTO price_rows (id, item_id, book_id, amount, per, min_quantity, tax_rate, tax, tax_included, valid_from,
    valid_to, supersedes, reason, seq, recorded_at, recorded_by, import_id)
SELECT r.price_id, r.item_id, :book_id, r.amount, r.per, r.min_quantity, r.tax_rate, r.tax, r.tax_included,
    coalesce(r.valid_from, :recorded_at), r.valid_to, r.supersedes, r.reason, :base_seq + r.price_offset, :recorded_at,
    :actor, :import_id
FROM import_rows AS r
WHERE r.import_id = :import_id AND r.price_offset IS NOT NULL
ORDER BY r.number
"""
)
_INSERT_RETIREMENTS = statement(
    """
INSERT INTO price_retirements (price_id, successor_id, seq)
SELECT r.supersedes, r.price_id, :base_seq + r.price_offset
FROM import_rows AS r
WHERE r.import_id = :import_id AND r.supersedes IS NOT NULL
"""
)
_DOCUMENT = ", ".join(f"'{name}', {value}" for name, value in _ITEM.items())
_LOG = statement(
    f"""
INSERT INTO changes (seq, at, actor, type, item_id, book_id, price_id, after)
SELECT :base_seq + change.place, :recorded_at, :actor, change.type, r.item_id, change.book_id, change.price_id,
    CASE WHEN change.price_id IS NULL THEN jsonb_build_object({_DOCUMENT}, 'archived_at', NULL, 'version', 1,
        'created_at', :recorded_json, 'updated_at', :recorded_json) END
FROM import_rows AS r
-- The plan has the numbers in the order of its rows, an item before its price, so nothing is to be sorted.
CROSS JOIN LATERAL (VALUES (r.item_offset, 'item.created', NULL::bigint, NULL::uuid),
    (r.price_offset, 'price.recorded', :book_id, r.price_id)) AS change (place, type, book_id, price_id)
WHERE r.import_id = :import_id AND change.place IS NOT NULL
ORDER BY r.number
"""  # noqa: S608 - it is put together of constants
)


class Plan(NamedTuple):
    """A plan to be applied."""

    import_id: UUID
    book_id: int
    base_seq: int
    planned_at: datetime
    end_missing: bool


async def moved(session: WriteSession, plan: Plan, *, before_seq: int, at: datetime) -> list[FieldError]:
    """What became of the plan's prices since it was made, row by row; at most a hundred.

    :param before_seq: look at changes before this one.
    :param at: when prices without a beginning of their own would begin.
    """
    values = plan._asdict() | {"before_seq": before_seq, "most": _MOST_NAMED}
    if await session.scalar(_FORGOTTEN, values):
        # Perhaps nothing moved; but the log that would say so goes back only to here.
        return [
            FieldError("book", "preview-too-old", "may have changed in times that FEED_RETENTION_DAYS has forgotten")
        ]
    if await session.scalar(_BOOK_CHANGED, values):
        return [
            FieldError("book", "book-changed", "has another currency, time zone or tax default than at the preview")
        ]
    rows = await session.execute(_MOVED, values | {"effective_at": max(at, plan.planned_at)})
    return [
        FieldError(
            f"line/{row.line}" if row.line else "missing", row.code, f"(item {row.sku or row.gtin}) {row.message}"
        )
        for row in rows
    ]


async def write(
    session: WriteSession, plan: Plan, *, effective_at: datetime | None, actor: str, may_correct: bool
) -> Block:
    """Write the plan to the ledger.

    :param may_correct: whether rows may begin in the past.
    :raises Forbidden: if some do and may not.
    :raises ImportConflict: if prices moved since it was made. The transaction must not be committed then.
    """
    values: dict[str, Any] = plan._asdict()
    await session.execute(_LOCK_BOOK, values)
    await session.execute(_LOCK_ITEMS, values)
    prices, items = (await session.execute(_COUNT, values)).one()
    if prices:
        # From here until the commit nobody else writes.
        block = await ledger.advance_block(session, prices + items)
    else:
        # Nothing to write, and still a question whether that holds now.
        head = await ledger.head(session)
        now: datetime = (await session.execute(_NOW)).scalar_one()
        block = Block(head.seq + 1, head.seq, max(now, head.recorded_at))
    faults = await moved(session, plan, before_seq=block.first_seq, at=effective_at or block.recorded_at)
    if faults:
        raise ImportConflict(
            f"Prices moved since the preview, which compares with seq {plan.base_seq}. Nothing was written. "
            "Send the file again for a new preview.",
            faults,
        )
    if not may_correct:
        past = {"import_id": plan.import_id, "past": block.recorded_at - CLOCK_TOLERANCE}
        if corrections := await session.scalar(_CORRECTIONS, past):
            raise Forbidden(
                f"{corrections} of its rows begin in the past: corrections, which need the scope "
                f"{Scope.PRICES_CORRECT}. Nothing was written; with a key that has it, it can still be applied.",
            )
    values |= {
        "base_seq": block.first_seq - 1,
        "recorded_at": block.recorded_at,
        # As the documents of items are written everywhere else.
        "recorded_json": block.recorded_at.isoformat().replace("+00:00", "Z"),
        "actor": actor,
    }
    for sql in (_INSERT_ITEMS, _INSERT_PRICES, _INSERT_RETIREMENTS, _LOG):
        await session.execute(sql, values)
    session.changes.update({ChangeType.ITEM_CREATED: items, ChangeType.PRICE_RECORDED: prices})
    return block
