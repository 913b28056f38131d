"""What the database holds, compared with itself and with what callers were told."""

from collections import defaultdict
from typing import Any

import asyncpg

from tests.chaos.record import Record

_HEAD = """
    SELECT l.seq, (SELECT max(seq) FROM changes) AS newest, (SELECT count(*) FROM changes) AS changes,
        (SELECT count(*) FROM changes WHERE type = 'price.recorded') AS recorded,
        (SELECT count(*) FROM price_rows) AS prices,
        (SELECT count(*) FROM changes WHERE type = 'price.voided') AS voided,
        (SELECT count(*) FROM price_retirements WHERE successor_id IS NULL) AS voids,
        (SELECT count(*) FROM changes WHERE type = 'item.created') AS created,
        (SELECT count(*) FROM items) AS items
    FROM ledger AS l
"""

_NOTHING = {
    "price rows and their changes": """
        SELECT p.id, p.seq, c.seq, c.type
        FROM price_rows AS p FULL JOIN (SELECT * FROM changes WHERE type = 'price.recorded') AS c ON c.price_id = p.id
        WHERE (p.seq, p.recorded_at, p.item_id, p.book_id) IS DISTINCT FROM (c.seq, c.at, c.item_id, c.book_id)
    """,
    "voided price rows and their changes": """
        SELECT r.price_id, r.seq, c.seq
        FROM (SELECT * FROM price_retirements WHERE successor_id IS NULL) AS r
        FULL JOIN (SELECT * FROM changes WHERE type = 'price.voided') AS c ON c.price_id = r.price_id
        WHERE r.seq IS DISTINCT FROM c.seq
    """,
    "superseded price rows and their successors": """
        SELECT r.price_id, r.successor_id
        FROM (SELECT * FROM price_retirements WHERE successor_id IS NOT NULL) AS r
        FULL JOIN (SELECT * FROM price_rows WHERE supersedes IS NOT NULL) AS p ON p.id = r.successor_id
        WHERE (r.price_id, r.seq) IS DISTINCT FROM (p.supersedes, p.seq)
    """,
    "items and the last of their changes": """
        SELECT i.id, i.version, c.*
        FROM items AS i FULL JOIN (
            SELECT item_id, count(*) AS versions, min(type) FILTER (WHERE before IS NULL) AS first,
                (array_agg(after ORDER BY seq DESC))[1] AS after
            FROM changes WHERE price_id IS NULL AND item_id IS NOT NULL GROUP BY item_id
        ) AS c ON c.item_id = i.id
        WHERE (i.version, i.version, i.name, i.sku, 'item.created')
            IS DISTINCT FROM (c.versions, (c.after ->> 'version')::int, c.after ->> 'name', c.after ->> 'sku', c.first)
    """,
    "instants in the order of seqs": """
        SELECT seq, at, before FROM (SELECT seq, at, lag(at) OVER (ORDER BY seq) AS before FROM changes) AS c
        WHERE at < before
    """,
    "imports, all of their rows or none": """
        SELECT i.id, i.state, i.counts, i.first_seq, i.last_seq, p.*
        FROM imports AS i FULL JOIN (
            SELECT import_id, count(*) AS records, max(seq) AS last, count(DISTINCT recorded_at) AS instants
            FROM price_rows WHERE import_id IS NOT NULL GROUP BY import_id
        ) AS p ON p.import_id = i.id
        WHERE CASE WHEN i.state = 'applied'
            THEN coalesce(p.records, 0) <> (i.counts ->> 'create')::int + (i.counts ->> 'change')::int
                OR i.last_seq IS DISTINCT FROM p.last OR p.instants > 1
            ELSE i.id IS NULL OR p.records IS NOT NULL OR i.first_seq IS NOT NULL OR i.last_seq IS NOT NULL END
    """,
    "imports, their blocks of seqs": """
        SELECT i.id, i.first_seq, i.last_seq, b.*
        FROM imports AS i, LATERAL (
            SELECT count(*) AS changes, count(DISTINCT c.at) AS instants,
                count(*) FILTER (WHERE c.type = 'price.recorded' AND p.import_id IS DISTINCT FROM i.id) AS foreigners,
                count(*) FILTER (WHERE c.type NOT IN ('price.recorded', 'item.created')) AS others
            FROM changes AS c LEFT JOIN price_rows AS p ON p.id = c.price_id
            WHERE c.seq BETWEEN i.first_seq AND i.last_seq
        ) AS b
        WHERE i.first_seq IS NOT NULL
            AND (b.changes <> i.last_seq - i.first_seq + 1 OR b.instants <> 1 OR b.foreigners > 0 OR b.others > 0)
    """,
    "imports, the states": """
        SELECT id, state FROM imports
        WHERE state NOT IN ('staged', 'previewed', 'applied', 'conflict', 'failed', 'expired')
            OR (state = 'failed') <> (failure IS NOT NULL AND state <> 'conflict')
            OR (state = 'applied') <> (applied_at IS NOT NULL)
    """,
    "price rows that one line of a file recorded twice": """
        SELECT item_id, reason, count(*) FROM price_rows WHERE import_id IS NOT NULL
        GROUP BY item_id, reason, min_quantity HAVING count(*) > 1
    """,
}
"""Each finds nothing, or names what is wrong."""


async def head(connection: asyncpg.Connection, record: Record) -> int:
    """The cheap part, at any time: numbers without gaps, as many changes as things changed. Returns the head."""
    row = await connection.fetchrow(_HEAD)
    seq, *_ = row.values()
    if not seq == row["newest"] == row["changes"]:
        record.violation(f"the ledger is at {seq}, the newest of {row['changes']} changes is {row['newest']}")
    for one, other in (("recorded", "prices"), ("voided", "voids"), ("created", "items")):
        if row[one] != row[other]:
            record.violation(f"there are {row[one]} {one} and {row[other]} {other}")
    return int(seq)


async def everything(connection: asyncpg.Connection, record: Record) -> None:
    """All of it, when nobody writes."""
    await head(connection, record)
    for what, query in _NOTHING.items():
        if found := await connection.fetch(f"{query} LIMIT 5"):
            record.violation(f"{what}: {[dict(row) for row in found]}")
    await _single_writes(connection, record)
    await _imports(connection, record)


async def _single_writes(connection: asyncpg.Connection, record: Record) -> None:
    found: defaultdict[str, list[Any]] = defaultdict(list)
    query = """
        SELECT c.seq, c.type, c.price_id::text, c.after ->> 'name' AS name, p.reason
        FROM changes AS c LEFT JOIN price_rows AS p ON p.id = c.price_id
        WHERE p.import_id IS NULL AND c.book_id IS DISTINCT FROM 0
    """
    for row in await connection.fetch(query):
        token = row["price_id"] if row["type"] == "price.voided" else row["name"] or row["reason"]
        if token is not None:
            found[token].append((row["type"], row["seq"]))
    for attempt in record.attempts:
        changes = sorted(found[attempt.token], key=lambda change: change[1])
        record.counts["writes confirmed" if attempt.seq is not None else "writes left open"] += 1
        expected = _expected(attempt.kind, changes[-1][1]) if changes else []
        if changes != expected:
            record.violation(f"{attempt}: there are the changes {changes}")
        elif attempt.seq is not None and (not changes or changes[-1][1] != attempt.seq):
            record.violation(f"{attempt}, but its last change is {changes}")
        elif attempt.refused and changes:
            record.violation(f"{attempt} was refused, but its changes are there: {changes}")
        elif attempt.insisted:
            if attempt.seq is None:
                record.violation(f"{attempt} was never answered")
            record.counts["writes with a key, each there exactly once"] += 1
        elif attempt.seq is None and changes:
            record.counts["writes left open that had been committed"] += 1


def _expected(kind: str, last: int) -> list[tuple[str, int]]:
    """The changes of one write, whose last one has this seq."""
    if kind == "create":
        return [("item.created", last - 1), ("price.recorded", last)]
    return [({"price": "price.recorded", "void": "price.voided", "change": "item.updated"}[kind], last)]


async def _imports(connection: asyncpg.Connection, record: Record) -> None:
    query = "SELECT id::text, state, first_seq, last_seq, counts IS NULL AS unplanned FROM imports"
    imports = {row["id"]: row for row in await connection.fetch(query)}
    for applied in record.applied:
        row = imports.get(applied.id)
        if row is None or (row["state"], row["first_seq"], row["last_seq"]) != (
            "applied",
            applied.first_seq,
            applied.last_seq,
        ):
            record.violation(f"{applied} is in the database as {row}")
    for import_id in record.not_applied:
        if imports[import_id]["state"] != "conflict":
            record.violation(f"an import answered as a conflict is {imports[import_id]}")
    for row in imports.values():
        record.counts[f"imports {row['state']}"] += 1
