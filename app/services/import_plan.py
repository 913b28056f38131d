"""The plan of an import: what each staged row does to the prices as known at one seq.

A few statements, for any number of rows. A row is about one price: of its item, its ``min_quantity``, its interval.
What stands there before is

- the row in force with the same interval, if there is one: a difference corrects it (``supersedes``);
- else, for an open-ended row, the latest open-ended row of that quantity that has begun: the list price goes on from
  the new one; offers with an end are left alone, since they come before it anyway;
- else, for a row with an end, what answers at its beginning for that quantity.

What the row leaves out is as it was there. A row is unchanged if it says what stands, and nothing else of the file
comes between.
"""

from dataclasses import asdict, dataclass
from datetime import datetime
from decimal import Decimal
from typing import Literal
from uuid import UUID

from app.database import WriteSession
from app.schemas.import_run import RowStatus
from app.services import import_missing
from app.services.import_faults import BEFORE_PRICES, WITH_PRICES
from app.services.import_sql import statement


def _id(kind: str, number: str) -> str:
    """An id as SQL: a UUID of version 7 that counts up from a random one, because each random one is asked of the
    system (RFC 9562, section 6.2, method 2)."""
    return f"(ids.{kind} || lpad(to_hex(ids.start + {number}), 12, '0'))::uuid"


_INSERT = statement(
    f"""
INSERT INTO import_rows (import_id, number, line, status, sku, gtin, item_id, item, item_offset, amount, per,
    min_quantity, tax_rate, tax, tax_included, valid_from, valid_to, reason, price_id, price_offset, old_price_id,
    supersedes, percent, errors, cells)
WITH ids AS MATERIALIZED (
    SELECT left(uuidv7()::text, 24) AS items, left(uuidv7()::text, 24) AS prices,
        -- Half of what 12 digits can count, so that it does not overflow.
        ('x' || right(uuidv7()::text, 12))::bit(48)::bigint >> 1 AS start
),
matched AS (
    SELECT s.*, coalesce(s.min_quantity, 1) AS units, coalesce(s.valid_from, :planned_at) AS starts, s.valid_to AS ends,
        CASE WHEN s.sku IS NULL THEN by_gtin.id ELSE by_sku.id END AS subject_id,
        CASE WHEN s.sku IS NULL THEN by_gtin.archived_at ELSE by_sku.archived_at END AS archived_at,
        by_gtin.id AS holder_id, by_gtin.sku AS holder_sku
    FROM import_staging AS s
    LEFT JOIN items AS by_sku ON by_sku.sku = s.sku
    LEFT JOIN items AS by_gtin ON by_gtin.gtin = s.gtin
    WHERE s.import_id = :import_id
),
named AS MATERIALIZED (
    -- Of no language, because rows are compared by it.
    SELECT *, coalesce(subject_id::text, 'sku ' || sku, 'gtin ' || gtin) COLLATE "C" AS subject FROM matched
),
-- Most subjects have one row, about which there is nothing to be found in others. So what rows of the same subject mean
-- for each other is only asked of those that have more.
crowds AS MATERIALIZED (
    SELECT subject FROM named GROUP BY subject HAVING count(*) > 1
),
crowded AS MATERIALIZED (
    SELECT * FROM named WHERE subject IN (SELECT subject FROM crowds)
),
twins AS (
    SELECT subject, units, starts, ends, count(*) AS twins, min(line) AS first_line
    FROM crowded WHERE errors IS NULL GROUP BY subject, units, starts, ends HAVING count(*) > 1
),
newcomers AS (
    SELECT DISTINCT ON (subject) subject, item, min(gtin) OVER of_subject AS gtin,
        min(gtin) OVER of_subject <> max(gtin) OVER of_subject AS two_gtins
    FROM crowded WHERE subject_id IS NULL AND errors IS NULL
    WINDOW of_subject AS (PARTITION BY subject)
    ORDER BY subject, (item ->> 'name') IS NULL, number
),
contested AS (
    SELECT gtin FROM named WHERE gtin IS NOT NULL AND subject_id IS NULL AND errors IS NULL
    GROUP BY gtin HAVING min(subject) <> max(subject)
),
compared AS (
    SELECT c.*, t.twins, t.first_line, contested.gtin IS NOT NULL AS is_contested,
        CASE WHEN n.subject IS NULL THEN c.item ELSE n.item END AS new_item,
        CASE WHEN n.subject IS NULL THEN c.gtin ELSE n.gtin END AS new_gtin, n.two_gtins
    FROM named AS c
    LEFT JOIN twins AS t ON t.subject = c.subject AND t.units = c.units AND t.starts = c.starts
        AND coalesce(t.ends, 'infinity') = coalesce(c.ends, 'infinity')
    LEFT JOIN newcomers AS n ON n.subject = c.subject
    LEFT JOIN contested ON contested.gtin = c.gtin
),
checked AS MATERIALIZED (
    SELECT number, line, sku, gtin, new_gtin, subject, subject_id, new_item, amount, per, units, tax_rate, tax,
        tax_stated, tax_included, valid_from, starts, ends, reason, cells,
        coalesce(errors, {BEFORE_PRICES}) AS errors
    FROM compared
),
steps AS (
    SELECT number, lag(starts) OVER (PARTITION BY subject, units ORDER BY starts) AS before
    FROM checked WHERE ends IS NULL AND errors IS NULL AND subject IN (SELECT subject FROM crowds)
),
stood AS (
    SELECT c.number, c.line, c.sku, c.gtin, c.new_gtin, c.subject, c.subject_id, c.new_item, c.amount, c.units,
        c.tax_stated, c.valid_from, c.ends, c.reason, c.cells, c.errors, steps.before,
        old.id AS old_id, old.amount AS old_amount, old.per AS old_per, old.tax_rate AS old_tax_rate,
        old.tax AS old_tax, old.tax_included AS old_tax_included, old.valid_from AS old_starts, old.same,
        coalesce(c.per, old.per, 1) AS per,
        CASE WHEN c.tax_stated THEN c.tax_rate ELSE old.tax_rate END AS tax_rate,
        CASE WHEN c.tax_stated THEN c.tax WHEN c.amount IS NOT NULL THEN old.tax END AS tax,
        coalesce(c.tax_included, old.tax_included, :tax_included) AS tax_included
    FROM checked AS c
    LEFT JOIN steps ON steps.number = c.number
    LEFT JOIN LATERAL (
        SELECT p.*, p.valid_from = c.starts AND p.valid_to IS NOT DISTINCT FROM c.ends AS same
        FROM price_rows AS p
        WHERE p.item_id = c.subject_id AND p.book_id = :book_id AND p.min_quantity = c.units AND p.seq <= :base_seq
            AND p.valid_from <= c.starts
            AND (p.valid_to IS NULL OR c.ends IS NOT NULL AND p.valid_to > c.starts)
            AND NOT EXISTS (SELECT FROM price_retirements AS r WHERE r.price_id = p.id AND r.seq <= :base_seq)
        ORDER BY same DESC, p.valid_to IS NULL, p.valid_from DESC, p.seq DESC
        LIMIT 1
    ) AS old ON c.errors IS NULL
),
priced AS (
    SELECT *,
        CASE WHEN old_amount > 0 THEN round(100 * (amount * old_per - old_amount * per) / (old_amount * per), 2) END
            AS percent
    FROM stood
),
judged AS MATERIALIZED (
    SELECT *,
        coalesce(errors, {WITH_PRICES}) AS faults,
        CASE WHEN old_id IS NULL THEN 'create'
             WHEN (amount, per, tax_rate, tax, tax_included) IS NOT DISTINCT FROM
                  (old_amount, old_per, old_tax_rate, old_tax, old_tax_included)
              AND (same OR ends IS NULL AND (before IS NULL OR before <= old_starts)) THEN 'unchanged'
             ELSE 'change' END AS outcome
    FROM priced
),
created AS (
    SELECT subject, min(number) AS number FROM judged WHERE subject_id IS NULL AND faults IS NULL GROUP BY subject
),
decided AS (
    SELECT d.*, n.number AS creator,
        CASE WHEN d.faults IS NULL THEN d.outcome ELSE 'error' END AS status,
        d.faults IS NULL AND d.outcome <> 'unchanged' AS records,
        n.number IS NOT DISTINCT FROM d.number AS creates
    FROM judged AS d
    LEFT JOIN created AS n ON d.subject_id IS NULL AND n.subject = d.subject AND d.faults IS NULL
)
SELECT :import_id, d.number, d.line, d.status, d.sku, d.gtin, coalesce(d.subject_id, {_id("items", "d.creator")}),
    CASE WHEN NOT d.creates THEN NULL
         WHEN d.new_gtin IS NULL THEN d.new_item
         ELSE d.new_item || jsonb_build_object('gtin', d.new_gtin) END,
    CASE WHEN d.creates THEN sum(d.creates::int + d.records::int) OVER running - 1 END,
    CASE WHEN d.faults IS NULL THEN d.amount END, CASE WHEN d.faults IS NULL THEN d.per END,
    CASE WHEN d.faults IS NULL THEN d.units END, CASE WHEN d.faults IS NULL THEN d.tax_rate END,
    CASE WHEN d.faults IS NULL THEN d.tax END, CASE WHEN d.faults IS NULL THEN d.tax_included END,
    CASE WHEN d.faults IS NULL THEN coalesce(d.valid_from, :effective_at) END,
    CASE WHEN d.faults IS NULL THEN d.ends END, CASE WHEN d.faults IS NULL THEN d.reason END,
    CASE WHEN d.records THEN {_id("prices", "d.number")} END,
    CASE WHEN d.records THEN sum(d.creates::int + d.records::int) OVER running END,
    d.old_id, CASE WHEN d.records AND d.same THEN d.old_id END, d.percent, d.faults,
    CASE WHEN d.faults IS NOT NULL THEN d.cells END
FROM decided AS d CROSS JOIN ids
WINDOW running AS (ORDER BY d.number ROWS UNBOUNDED PRECEDING)
"""  # noqa: S608 - it is put together of constants
)

_COUNT = statement(
    """
SELECT status, count(*) AS rows, max(price_offset) AS last_offset
FROM import_rows WHERE import_id = :import_id GROUP BY status
"""
)
_CLEAR = statement("DELETE FROM import_staging WHERE import_id = :import_id")
_BRIEFLY = statement("SET LOCAL default_statistics_target = 10")
"""How many rows there are is to be known, and of which import; not what is in them."""
_ANALYZE = {table: statement(f"ANALYZE {table}") for table in ("import_staging", "import_rows")}
_FEW_ROWS = 1000
"""So many can be joined in any way without harm."""


@dataclass(frozen=True, slots=True)
class Terms:
    """What a plan is made for."""

    import_id: UUID
    book_id: int
    tax_included: bool
    """The book's default."""
    base_seq: int
    effective_at: datetime | None
    planned_at: datetime
    """The instant to compare prices at: ``effective_at``, or else now."""
    create: bool
    end_missing: bool
    max_change_percent: Decimal


async def know_rows(
    session: WriteSession, rows: int, table: Literal["import_staging", "import_rows"] = "import_staging"
) -> None:
    """Let the planner know how many rows there are: what it believes is of an import before, or of none.

    In a transaction of its own, because another one that does this waits for its end.
    """
    if rows > _FEW_ROWS:
        await session.execute(_BRIEFLY)
        await session.execute(_ANALYZE[table])


async def make(session: WriteSession, terms: Terms) -> dict[str, int | None]:
    """Turn the staged rows of an import into its plan, and count the rows of each status.

    What is missing in the file is only counted if it is to end.
    """
    values = asdict(terms)
    await session.execute(_INSERT, values)
    counted = (await session.execute(_COUNT, values)).all()
    counts = {row.status: row.rows for row in counted}
    rows = sum(counts.values())
    last = max((row.last_offset or 0 for row in counted), default=0)
    missing = None
    if terms.end_missing:
        missing = await import_missing.end(session, values | {"rows": rows, "last_offset": last})
    await clear(session, terms.import_id)
    return {"rows": rows, **{status: counts.get(status, 0) for status in RowStatus}, "missing": missing}


async def clear(session: WriteSession, import_id: UUID) -> None:
    """Forget the staged rows."""
    await session.execute(_CLEAR, {"import_id": import_id})
