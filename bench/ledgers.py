"""Ledgers of any size, made in the database itself and the same every time."""

import contextlib
from collections.abc import AsyncIterator
from typing import Any

from sqlalchemy.engine import URL

from bench import data

ROWS_PER_ITEM = 10
LIST_PRICES = 8

# Item ids sort as they were made, as version 7 does. The rows of an item lie far apart, as rows recorded over years do.
# Days are spread by multiplying with numbers that have no common factor with their range. One item in ten takes part in
# a price list that begins tomorrow; so the first page of the schedule lies among many boundaries at one instant.
_FILL = """
CREATE FUNCTION pg_temp.item_id(number bigint) RETURNS uuid IMMUTABLE LANGUAGE sql
RETURN CAST('01900000-0000-7000-8000-' || lpad(to_hex(number), 12, '0') AS uuid);

CREATE FUNCTION pg_temp.price_id(number bigint) RETURNS uuid IMMUTABLE LANGUAGE sql
RETURN CAST('01910000-0000-7000-8000-' || lpad(to_hex(number), 12, '0') AS uuid);

INSERT INTO items (id, sku, name, unit, tax_category, attributes, version, created_at, updated_at)
SELECT pg_temp.item_id(number), 'PLAN-' || lpad(CAST(number AS text), 7, '0'),
       (ARRAY['Frame', 'Wheel', 'Saddle', 'Pedal', 'Chain'])[number % 5 + 1] || ' ' || md5(CAST(number AS text)),
       'C62', 'S', '{}', 1, l.recorded_at, l.recorded_at
FROM ledger l, generate_series(0, {items} - 1) AS number;

INSERT INTO changes (seq, at, actor, type, item_id, after)
SELECT number + 2, l.recorded_at + (number + 2) * interval '1 microsecond', 'bench', 'item.created', i.id,
       to_jsonb(i)
FROM ledger l, generate_series(0, {items} - 1) AS number JOIN items i ON i.id = pg_temp.item_id(number);

INSERT INTO price_rows (id, item_id, book_id, amount, per, min_quantity, tax_rate, tax_included, valid_from, valid_to,
                        seq, recorded_at, recorded_by)
SELECT pg_temp.price_id(number), pg_temp.item_id(item), b.id, (1000 + number % 9000) / 100.0, 1, 1, 19, false,
       today + CASE
           WHEN place < {list_prices} THEN -60 * ({list_prices} - place) - item * 7 % 53
           WHEN place = {list_prices} THEN item * 11 % 91 - 60
           WHEN item % 10 = 0 THEN 1
           ELSE 2 + item * 13 % 89
       END * interval '1 day',
       CASE WHEN place = {list_prices} THEN today + (item * 11 % 91 - 60 + 14) * interval '1 day' END,
       {items} + 2 + number, l.recorded_at + ({items} + 2 + number) * interval '1 microsecond', 'bench'
FROM ledger l, books b, date_trunc('day', now()) AS today, generate_series(0, {rows} - 1) AS number,
     LATERAL (SELECT number % {items} AS item, number / {items} AS place) AS of_row;

INSERT INTO changes (seq, at, actor, type, item_id, book_id, price_id)
SELECT seq, recorded_at, recorded_by, 'price.recorded', item_id, book_id, id FROM price_rows ORDER BY seq;

INSERT INTO price_retirements (price_id, seq)
SELECT pg_temp.price_id(number * 50 + (number + number * 50 / {items}) % 50), {items} + {rows} + 2 + number
FROM generate_series(0, {rows} / 50 - 1) AS number;

INSERT INTO changes (seq, at, actor, type, item_id, book_id, price_id)
SELECT r.seq, l.recorded_at + r.seq * interval '1 microsecond', 'bench', 'price.voided', p.item_id, p.book_id, p.id
FROM ledger l, price_retirements r JOIN price_rows p ON p.id = r.price_id;

UPDATE ledger SET (seq, recorded_at) = (SELECT seq, at FROM changes ORDER BY seq DESC LIMIT 1);
"""


def item_id(number: int) -> str:
    """The id of an item, by its number from 0."""
    return f"01900000-0000-7000-8000-{number:012x}"


def sku(number: int) -> str:
    """Its sku."""
    return f"PLAN-{number:07}"


async def fill(database: URL, rows: int) -> None:
    """Fill an empty ledger with so many price rows, ten for each item: eight list prices, a sale, a scheduled one.

    One row in fifty is voided.
    """
    connection = await data.connect(database)
    try:
        # Nothing here needs to survive a crash, and every key is right by construction.
        await connection.execute(
            "SET synchronous_commit = off; SET session_replication_role = replica; SET maintenance_work_mem = '256MB'"
        )
        counts = {"rows": rows, "items": rows // ROWS_PER_ITEM, "list_prices": LIST_PRICES}
        async with _without_indexes(connection):
            await connection.execute(_FILL.replace("'{}'", "'{{}}'").format(**counts))
    finally:
        await connection.close()
    await data.settle(database)


@contextlib.asynccontextmanager
async def _without_indexes(connection: Any) -> AsyncIterator[None]:
    """Take away the indexes that no constraint needs, and make them again afterwards, which takes a fraction of it."""
    found = await connection.fetch(
        "SELECT indexrelid::regclass::text AS name, pg_get_indexdef(indexrelid) AS definition FROM pg_index "
        "WHERE indrelid IN ('items'::regclass, 'price_rows'::regclass, 'changes'::regclass) "
        "AND NOT EXISTS (SELECT FROM pg_constraint WHERE conindid = indexrelid)"
    )
    for index in found:
        await connection.execute(f"DROP INDEX {index['name']}")
    yield
    for index in found:
        await connection.execute(index["definition"])
