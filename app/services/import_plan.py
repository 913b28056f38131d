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
from typing import Any, Literal
from uuid import UUID

from app.database import WriteSession
from app.schemas.import_run import RowStatus
from app.services.import_sql import statement


def _error(condition: str, *, column: str, value: str, code: str, message: str) -> str:
    """One error of a row as SQL: an element of an array, null unless the condition holds.

    :param column: an expression of text, as are ``value`` and ``message``.
    """
    return (
        f"CASE WHEN {condition} THEN jsonb_build_object('column', {column}, 'value', {value}, "
        f"'code', '{code}', 'message', {message}) END"
    )


_KEY = "CASE WHEN sku IS NULL THEN 'gtin' ELSE 'sku' END"
_INSTANT = '\'YYYY-MM-DD"T"HH24:MI:SS.US"Z"\''


_BEFORE_PRICES = ",\n".join(
    (
        _error(
            "subject_id IS NULL AND NOT :create",
            column=_KEY,
            value="coalesce(sku, gtin)",
            code="unknown-item",
            message="'names no item, and new ones are not to be created'",
        ),
        _error(
            "subject_id IS NULL AND :create AND (new_item ->> 'name') IS NULL",
            column="'name'",
            value="NULL",
            code="missing",
            message="'is required, because the item is new'",
        ),
        _error(
            "archived_at IS NOT NULL",
            column=_KEY,
            value="coalesce(sku, gtin)",
            code="item-archived",
            message="'is archived and takes no new prices'",
        ),
        _error(
            "sku IS NOT NULL AND holder_id IS DISTINCT FROM subject_id AND holder_id IS NOT NULL",
            column="'gtin'",
            value="gtin",
            code="gtin-of-another-item",
            message="'belongs to another item' || coalesce(', with the sku ' || holder_sku, '')",
        ),
        _error(
            "subject_id IS NULL AND gtin IS NOT NULL AND gtin_first <> gtin_last",
            column="'gtin'",
            value="gtin",
            code="duplicate-gtin",
            message="'is given to more than one new item of this file'",
        ),
        _error(
            "subject_id IS NULL AND two_gtins",
            column="'gtin'",
            value="gtin",
            code="conflicting-gtin",
            message="'differs from that of another row for the same new item'",
        ),
        _error(
            "twins > 1",
            column=_KEY,
            value="coalesce(sku, gtin)",
            code="duplicate-row",
            message="'is there ' || twins || ' times for the same quantity and interval, first in line ' || first_line",
        ),
        _error(
            "ends <= starts",
            column="'valid_to'",
            value=f"to_char(ends AT TIME ZONE 'UTC', {_INSTANT})",
            code="empty-interval",
            message="'must be later than the beginning'",
        ),
    )
)
_WITH_PRICES = ",\n".join(
    (
        _error(
            "tax IS NOT NULL AND NOT tax_stated AND (amount, per) IS DISTINCT FROM (old_amount, old_per)",
            column="'tax'",
            value="NULL",
            code="tax-missing",
            message="'is required, or tax_rate: the price before states its tax as an amount'",
        ),
        _error(
            "tax_included AND tax > amount",
            column="'tax'",
            value="trim_scale(tax)::text",
            code="tax-exceeds-amount",
            message="'must not exceed the amount that includes it'",
        ),
        _error(
            "abs(percent) > :max_change_percent",
            column="'amount'",
            value="trim_scale(amount)::text",
            code="change-too-large",
            message=(
                "'changes the price by ' || trim_scale(percent) || ' %, from ' || trim_scale(old_amount) || "
                "CASE WHEN old_per <> 1 THEN ' per ' || trim_scale(old_per) ELSE '' END || "
                "': more than max_change_percent allows'"
            ),
        ),
    )
)

_INSERT = statement(
    f"""
INSERT INTO import_rows (import_id, number, line, status, sku, gtin, item_id, item, item_offset, amount, per,
    min_quantity, tax_rate, tax, tax_included, valid_from, valid_to, reason, price_id, price_offset, old_price_id,
    supersedes, percent, errors, cells)
WITH matched AS (
    SELECT s.*, coalesce(s.min_quantity, 1) AS units, coalesce(s.valid_from, :planned_at) AS starts, s.valid_to AS ends,
        CASE WHEN s.sku IS NULL THEN by_gtin.id ELSE by_sku.id END AS subject_id,
        CASE WHEN s.sku IS NULL THEN by_gtin.archived_at ELSE by_sku.archived_at END AS archived_at,
        by_gtin.id AS holder_id, by_gtin.sku AS holder_sku
    FROM import_staging AS s
    LEFT JOIN items AS by_sku ON by_sku.sku = s.sku
    LEFT JOIN items AS by_gtin ON by_gtin.gtin = s.gtin
    WHERE s.import_id = :import_id
),
named AS (
    -- Of no language, because rows are sorted by it.
    SELECT *, coalesce(subject_id::text, 'sku ' || sku, 'gtin ' || gtin) COLLATE "C" AS subject FROM matched
),
compared AS (
    SELECT *,
        count(*) OVER same AS twins, min(line) OVER same AS first_line,
        min(subject) OVER claim AS gtin_first, max(subject) OVER claim AS gtin_last,
        first_value(item) OVER (PARTITION BY subject ORDER BY (item ->> 'name') IS NULL, number) AS new_item,
        min(gtin) OVER newcomer AS new_gtin, min(gtin) OVER newcomer <> max(gtin) OVER newcomer AS two_gtins
    FROM named
    WINDOW same AS (PARTITION BY subject, units, starts, ends, errors IS NULL),
        claim AS (PARTITION BY gtin, subject_id IS NULL AND errors IS NULL),
        newcomer AS (PARTITION BY subject, errors IS NULL)
),
checked AS MATERIALIZED (
    SELECT number, line, sku, gtin, new_gtin, subject, subject_id, new_item, amount, per, units, tax_rate, tax,
        tax_stated, tax_included, valid_from, starts, ends, reason, cells,
        coalesce(errors, to_jsonb(nullif(array_remove(ARRAY[{_BEFORE_PRICES}], NULL), '{{}}'))) AS errors
    FROM compared
),
stood AS (
    SELECT c.number, c.line, c.sku, c.gtin, c.new_gtin, c.subject, c.subject_id, c.new_item, c.amount, c.units,
        c.tax_stated, c.valid_from, c.starts, c.ends, c.reason, c.cells, c.errors,
        old.id AS old_id, old.amount AS old_amount, old.per AS old_per, old.tax_rate AS old_tax_rate,
        old.tax AS old_tax, old.tax_included AS old_tax_included, old.valid_from AS old_starts, old.same,
        coalesce(c.per, old.per, 1) AS per,
        CASE WHEN c.tax_stated THEN c.tax_rate ELSE old.tax_rate END AS tax_rate,
        CASE WHEN c.tax_stated THEN c.tax WHEN c.amount IS NOT NULL THEN old.tax END AS tax,
        coalesce(c.tax_included, old.tax_included, :tax_included) AS tax_included,
        lag(c.starts) OVER (PARTITION BY c.subject, c.units, c.ends IS NULL, c.errors IS NULL ORDER BY c.starts)
            AS before
    FROM checked AS c
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
judged AS (
    SELECT *,
        coalesce(errors, to_jsonb(nullif(array_remove(ARRAY[{_WITH_PRICES}], NULL), '{{}}'))) AS faults,
        CASE WHEN old_id IS NULL THEN 'create'
             WHEN (amount, per, tax_rate, tax, tax_included) IS NOT DISTINCT FROM
                  (old_amount, old_per, old_tax_rate, old_tax, old_tax_included)
              AND (same OR ends IS NULL AND (before IS NULL OR before <= old_starts)) THEN 'unchanged'
             ELSE 'change' END AS outcome
    FROM priced
),
decided AS (
    SELECT *, CASE WHEN faults IS NULL THEN outcome ELSE 'error' END AS status,
        faults IS NULL AND outcome <> 'unchanged' AS records,
        faults IS NULL AND subject_id IS NULL
            AND row_number() OVER (PARTITION BY subject, faults IS NULL ORDER BY number) = 1 AS creates
    FROM judged
),
created AS MATERIALIZED (
    SELECT subject, uuidv7() AS id FROM (SELECT subject FROM decided WHERE creates ORDER BY number) AS ordered
)
SELECT :import_id, d.number, d.line, d.status, d.sku, d.gtin, coalesce(d.subject_id, n.id),
    CASE WHEN d.creates THEN d.new_item || jsonb_build_object('gtin', d.new_gtin) END,
    CASE WHEN d.creates THEN sum(d.creates::int + d.records::int) OVER running - 1 END,
    CASE WHEN d.faults IS NULL THEN d.amount END, CASE WHEN d.faults IS NULL THEN d.per END,
    CASE WHEN d.faults IS NULL THEN d.units END, CASE WHEN d.faults IS NULL THEN d.tax_rate END,
    CASE WHEN d.faults IS NULL THEN d.tax END, CASE WHEN d.faults IS NULL THEN d.tax_included END,
    CASE WHEN d.faults IS NULL THEN coalesce(d.valid_from, :effective_at) END,
    CASE WHEN d.faults IS NULL THEN d.ends END, CASE WHEN d.faults IS NULL THEN d.reason END,
    CASE WHEN d.records THEN uuidv7() END,
    CASE WHEN d.records THEN sum(d.creates::int + d.records::int) OVER running END,
    d.old_id, CASE WHEN d.records AND d.same THEN d.old_id END, d.percent, d.faults,
    CASE WHEN d.faults IS NOT NULL THEN d.cells END
FROM decided AS d
LEFT JOIN created AS n ON d.subject_id IS NULL AND n.subject = d.subject AND d.faults IS NULL
WINDOW running AS (ORDER BY d.number)
"""  # noqa: S608 - it is put together of constants
)

_INSERT_MISSING = statement(
    """
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
    JOIN LATERAL (
        SELECT DISTINCT ON (p.min_quantity) p.*
        FROM price_rows AS p
        WHERE p.item_id = s.item_id AND p.book_id = :book_id AND p.seq <= :base_seq
            AND p.valid_to IS NULL AND p.valid_from <= :planned_at
            AND NOT EXISTS (SELECT FROM price_retirements AS r WHERE r.price_id = p.id AND r.seq <= :base_seq)
        ORDER BY p.min_quantity, p.valid_from DESC, p.seq DESC
    ) AS p ON p.amount IS NOT NULL
)
SELECT :import_id, :rows + m.place, 'missing', m.sku, m.gtin, m.item_id, NULL, m.per, m.min_quantity, m.tax_rate,
    m.tax_included, :effective_at, CASE WHEN :end_missing THEN uuidv7() END,
    CASE WHEN :end_missing THEN :last_offset + m.place END, m.id,
    CASE WHEN :end_missing AND m.valid_from = :planned_at THEN m.id END
FROM missing AS m
"""
)
_COUNT = statement(
    """
SELECT status, count(*) AS rows, max(price_offset) AS last_offset
FROM import_rows WHERE import_id = :import_id GROUP BY status
"""
)
_CLEAR = statement("DELETE FROM import_staging WHERE import_id = :import_id")
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
        await session.execute(_ANALYZE[table])


async def make(session: WriteSession, terms: Terms) -> dict[str, int]:
    """Turn the staged rows of an import into its plan, and count the rows of each status."""
    values = asdict(terms)
    await session.execute(_INSERT, values)
    counted = (await session.execute(_COUNT, values)).all()
    counts = {row.status: row.rows for row in counted}
    rows = sum(counts.values())
    last = max((row.last_offset or 0 for row in counted), default=0)
    missing: Any = await session.execute(_INSERT_MISSING, values | {"rows": rows, "last_offset": last})
    await clear(session, terms.import_id)
    return {"rows": rows, **{status: counts.get(status, 0) for status in RowStatus}, "missing": missing.rowcount}


async def clear(session: WriteSession, import_id: UUID) -> None:
    """Forget the staged rows."""
    await session.execute(_CLEAR, {"import_id": import_id})
