"""Imports of price lists.

Revision: 0004
Revises: 0003
"""

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB, UUID

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

# The oldest revision whose release can still run on this one.
compatible_from = "0001"

INSTANT = sa.DateTime(timezone=True)
AMOUNT = sa.Numeric(24, 12)


def upgrade() -> None:
    op.create_table(
        "imports",
        sa.Column("id", UUID(as_uuid=True), primary_key=True, server_default=sa.text("uuidv7()")),
        sa.Column("book_id", sa.BigInteger, sa.ForeignKey("books.id"), nullable=False),
        sa.Column("effective_at", INSTANT),
        sa.Column("planned_at", INSTANT),
        sa.Column("mode", sa.Text, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("options", JSONB, nullable=False),
        sa.Column("header", JSONB),
        sa.Column("delimiter", sa.Text),
        sa.Column("file_sha256", sa.Text),
        sa.Column("file_bytes", sa.BigInteger),
        sa.Column("counts", JSONB),
        sa.Column("failure", sa.Text),
        sa.Column("base_seq", sa.BigInteger),
        sa.Column("first_seq", sa.BigInteger),
        sa.Column("last_seq", sa.BigInteger),
        sa.Column("created_at", INSTANT, nullable=False),
        sa.Column("created_by", sa.Text, nullable=False),
        sa.Column("applied_at", INSTANT),
        sa.Column("expires_at", INSTANT),
    )
    op.create_index("ix_imports_file_sha256", "imports", ["file_sha256"])
    op.create_index(
        "ix_imports_open", "imports", ["created_at"], postgresql_where=sa.text("state IN ('staged', 'previewed')")
    )
    terms: list[tuple[str, sa.types.TypeEngine[Any]]] = [
        ("amount", AMOUNT),
        ("per", AMOUNT),
        ("min_quantity", AMOUNT),
        ("tax_rate", AMOUNT),
        ("tax", AMOUNT),
        ("tax_included", sa.Boolean()),
        ("valid_from", INSTANT),
        ("valid_to", INSTANT),
        ("reason", sa.Text()),
    ]
    op.create_table(
        "import_staging",
        sa.Column("import_id", UUID(as_uuid=True), nullable=False),
        sa.Column("number", sa.BigInteger, nullable=False),
        sa.Column("line", sa.BigInteger, nullable=False),
        sa.Column("sku", sa.Text),
        sa.Column("gtin", sa.Text),
        sa.Column("item", JSONB),
        *(sa.Column(name, kind) for name, kind in terms[:5]),
        sa.Column("tax_stated", sa.Boolean, nullable=False),
        *(sa.Column(name, kind) for name, kind in terms[5:]),
        sa.Column("errors", JSONB),
        sa.Column("cells", sa.Text, nullable=False),
        prefixes=["UNLOGGED"],
    )
    op.create_table(
        "import_rows",
        sa.Column("import_id", UUID(as_uuid=True), primary_key=True),
        sa.Column("number", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("line", sa.BigInteger),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("sku", sa.Text),
        sa.Column("gtin", sa.Text),
        sa.Column("item_id", UUID(as_uuid=True)),
        sa.Column("item", JSONB),
        sa.Column("item_offset", sa.BigInteger),
        *(sa.Column(name, kind) for name, kind in terms),
        sa.Column("price_id", UUID(as_uuid=True)),
        sa.Column("price_offset", sa.BigInteger),
        sa.Column("old_price_id", UUID(as_uuid=True)),
        sa.Column("supersedes", UUID(as_uuid=True)),
        sa.Column("percent", sa.Numeric),
        sa.Column("errors", JSONB),
        sa.Column("cells", sa.Text),
    )
