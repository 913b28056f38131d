"""Items, books, price rows, the ledger and its changes, and the book `default`.

Revision: 0001
Revises: none
"""

import json

import sqlalchemy as sa
from alembic import context, op
from sqlalchemy.dialects.postgresql import JSONB, UUID

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

INSTANT = sa.DateTime(timezone=True)
AMOUNT = sa.Numeric(24, 12)


def upgrade() -> None:
    op.execute("CREATE EXTENSION IF NOT EXISTS pg_trgm")
    op.create_table(
        "books",
        sa.Column("id", sa.BigInteger, sa.Identity(always=True), primary_key=True),
        sa.Column("key", sa.Text, nullable=False, unique=True),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("currency", sa.Text, nullable=False),
        sa.Column("time_zone", sa.Text, nullable=False),
        sa.Column("tax_included", sa.Boolean, nullable=False),
        sa.Column("rounding", JSONB, nullable=False),
        sa.Column("version", sa.BigInteger, nullable=False),
        sa.Column("created_at", INSTANT, nullable=False),
        sa.Column("updated_at", INSTANT, nullable=False),
        sa.CheckConstraint("currency ~ '^[A-Z]{3}$'", name="currency"),
    )
    op.create_table(
        "items",
        sa.Column("id", UUID(as_uuid=True), primary_key=True, server_default=sa.text("uuidv7()")),
        sa.Column("sku", sa.Text, unique=True),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("description", sa.Text),
        sa.Column("gtin", sa.Text, unique=True),
        sa.Column("unit", sa.Text, nullable=False),
        sa.Column("tax_category", sa.Text, nullable=False),
        sa.Column("attributes", JSONB, nullable=False),
        sa.Column("archived_at", INSTANT),
        sa.Column("version", sa.BigInteger, nullable=False),
        sa.Column("created_at", INSTANT, nullable=False),
        sa.Column("updated_at", INSTANT, nullable=False),
    )
    for column in ("name", "sku"):
        op.create_index(
            f"ix_items_{column}_trgm",
            "items",
            [column],
            postgresql_using="gin",
            postgresql_ops={column: "gin_trgm_ops"},
        )
    op.create_table(
        "price_rows",
        sa.Column("id", UUID(as_uuid=True), primary_key=True, server_default=sa.text("uuidv7()")),
        sa.Column("item_id", UUID(as_uuid=True), sa.ForeignKey("items.id"), nullable=False),
        sa.Column("book_id", sa.BigInteger, sa.ForeignKey("books.id"), nullable=False),
        sa.Column("amount", AMOUNT),
        sa.Column("per", AMOUNT, nullable=False),
        sa.Column("min_quantity", AMOUNT, nullable=False),
        sa.Column("tax_rate", AMOUNT),
        sa.Column("tax", AMOUNT),
        sa.Column("tax_included", sa.Boolean, nullable=False),
        sa.Column("valid_from", INSTANT, nullable=False),
        sa.Column("valid_to", INSTANT),
        sa.Column("supersedes", UUID(as_uuid=True), sa.ForeignKey("price_rows.id")),
        sa.Column("reason", sa.Text),
        sa.Column("seq", sa.BigInteger, nullable=False),
        sa.Column("recorded_at", INSTANT, nullable=False),
        sa.Column("recorded_by", sa.Text, nullable=False),
        sa.Column("import_id", UUID(as_uuid=True)),
        sa.CheckConstraint("amount >= 0", name="amount"),
        sa.CheckConstraint("per > 0", name="per"),
        sa.CheckConstraint("min_quantity > 0", name="min_quantity"),
        sa.CheckConstraint("tax_rate >= 0", name="tax_rate"),
        sa.CheckConstraint("tax >= 0", name="tax"),
        sa.CheckConstraint("tax IS NULL OR tax_rate IS NULL", name="one_tax"),
        sa.CheckConstraint("valid_to > valid_from", name="interval"),
    )
    op.create_index("ix_price_rows_item_id_book_id_valid_from", "price_rows", ["item_id", "book_id", "valid_from"])
    op.create_index(
        "ix_price_rows_book_id_valid_from_item_id",
        "price_rows",
        ["book_id", "valid_from", "item_id"],
        postgresql_where=sa.text("min_quantity <= 1"),
    )
    op.create_index(
        "ix_price_rows_book_id_valid_to_item_id",
        "price_rows",
        ["book_id", "valid_to", "item_id"],
        postgresql_where=sa.text("valid_to IS NOT NULL AND min_quantity <= 1"),
    )
    op.create_table(
        "price_retirements",
        sa.Column("price_id", UUID(as_uuid=True), sa.ForeignKey("price_rows.id"), primary_key=True),
        sa.Column("successor_id", UUID(as_uuid=True), sa.ForeignKey("price_rows.id")),
        sa.Column("seq", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "ledger",
        sa.Column("singleton", sa.Boolean, primary_key=True, server_default="true"),
        sa.Column("seq", sa.BigInteger, nullable=False),
        sa.Column("recorded_at", INSTANT, nullable=False),
        sa.CheckConstraint("singleton", name="singleton"),
        # The row is rewritten by every write: room on its page keeps the new versions beside the old.
        postgresql_with={"fillfactor": 10},
    )
    op.create_table(
        "changes",
        sa.Column("seq", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("at", INSTANT, nullable=False),
        sa.Column("actor", sa.Text, nullable=False),
        sa.Column("type", sa.Text, nullable=False),
        sa.Column("item_id", UUID(as_uuid=True)),
        sa.Column("book_id", sa.BigInteger),
        sa.Column("price_id", UUID(as_uuid=True)),
        sa.Column("before", JSONB),
        sa.Column("after", JSONB),
    )
    op.create_index("ix_changes_at_seq", "changes", ["at", "seq"])
    op.create_index(
        "ix_changes_item_id_seq", "changes", ["item_id", "seq"], postgresql_where=sa.text("price_id IS NULL")
    )
    op.create_index(
        "ix_changes_sku_seq",
        "changes",
        [sa.text("(after ->> 'sku')"), "seq"],
        postgresql_where=sa.text("price_id IS NULL"),
    )
    op.create_index(
        "ix_changes_book_id_seq", "changes", ["book_id", "seq"], postgresql_where=sa.text("item_id IS NULL")
    )
    _make_append_only("price_rows", "UPDATE OR DELETE")
    _make_append_only("price_retirements", "UPDATE OR DELETE")
    # Old changes may be forgotten one day; none is ever rewritten.
    _make_append_only("changes", "UPDATE")
    _create_default_book()


def _make_append_only(table: str, refused: str) -> None:
    op.execute(
        f"""
        CREATE FUNCTION {table}_are_append_only() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            RAISE EXCEPTION 'rows of {table} stay as they are: record a new row instead'
                USING ERRCODE = 'restrict_violation';
        END $$
        """
    )
    op.execute(
        f"""
        CREATE TRIGGER append_only BEFORE {refused} ON {table}
        FOR EACH ROW EXECUTE FUNCTION {table}_are_append_only()
        """
    )
    op.execute(
        f"""
        CREATE TRIGGER no_truncate BEFORE TRUNCATE ON {table}
        FOR EACH STATEMENT EXECUTE FUNCTION {table}_are_append_only()
        """
    )


def _create_default_book() -> None:
    """The book `default` is the first change, seq 1, so that whoever follows the changes from 0 knows it."""
    attributes = context.config.attributes
    book = {
        "key": "default",
        "name": "Default",
        "currency": attributes.get("default_currency", "EUR"),
        "time_zone": attributes.get("default_time_zone", "UTC"),
        "tax_included": False,
        "rounding": {"mode": "half_up", "level": "group", "cash_increment": None},
        "version": 1,
    }
    op.execute("INSERT INTO ledger (seq, recorded_at) VALUES (1, now())")
    op.execute(
        sa.text(
            """
            INSERT INTO books (key, name, currency, time_zone, tax_included, rounding, version, created_at, updated_at)
            SELECT b.key, b.name, b.currency, b.time_zone, b.tax_included, b.rounding, b.version, l.recorded_at,
                   l.recorded_at
            FROM ledger l, jsonb_to_record(CAST(:book AS jsonb)) AS b(key text, name text, currency text,
                 time_zone text, tax_included boolean, rounding jsonb, version integer)
            """
        ).bindparams(book=json.dumps(book))
    )
    op.execute(
        sa.text(
            """
            INSERT INTO changes (seq, at, actor, type, book_id, after)
            SELECT l.seq, l.recorded_at, 'migration', 'book.created', b.id,
                   CAST(:book AS jsonb) || jsonb_build_object('created_at', t.recorded, 'updated_at', t.recorded)
            FROM ledger l, books b,
                 to_char(l.recorded_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') AS t(recorded)
            """
        ).bindparams(book=json.dumps(book))
    )
