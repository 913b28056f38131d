"""Imports: the run, its rows while they are read, and what each of them does."""

from decimal import Decimal
from typing import Any
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    DateTime,
    ForeignKey,
    Index,
    Numeric,
    Table,
    Text,
    Uuid,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from app.models.base import Amount, Base, Instant, Uuid7
from app.money import DECIMAL_DIGITS, INTEGER_DIGITS

_AMOUNT = Numeric(INTEGER_DIGITS + DECIMAL_DIGITS, DECIMAL_DIGITS)


class ImportRecord(Base):
    """A file for a book. ``planned_at`` is the instant that the plan compares prices at."""

    __tablename__ = "imports"
    __table_args__ = (
        Index("ix_imports_file_sha256", "file_sha256"),
        # What housekeeping looks for: few are open at a time.
        Index("ix_imports_open", "created_at", postgresql_where=text("state IN ('staged', 'previewed')")),
    )

    id: Mapped[Uuid7]
    book_id: Mapped[int] = mapped_column(BigInteger, ForeignKey("books.id"))
    effective_at: Mapped[Instant | None]
    planned_at: Mapped[Instant | None]
    mode: Mapped[str]
    state: Mapped[str]
    options: Mapped[dict[str, Any]] = mapped_column(JSONB)
    header: Mapped[list[str] | None] = mapped_column(JSONB(none_as_null=True))
    delimiter: Mapped[str | None]
    file_sha256: Mapped[str | None]
    file_bytes: Mapped[int | None] = mapped_column(BigInteger)
    counts: Mapped[dict[str, int] | None] = mapped_column(JSONB(none_as_null=True))
    failure: Mapped[str | None]
    base_seq: Mapped[int | None] = mapped_column(BigInteger)
    first_seq: Mapped[int | None] = mapped_column(BigInteger)
    last_seq: Mapped[int | None] = mapped_column(BigInteger)
    created_at: Mapped[Instant]
    created_by: Mapped[str]
    applied_at: Mapped[Instant | None]
    expires_at: Mapped[Instant | None]


STAGING = Table(
    "import_staging",
    Base.metadata,
    Column("import_id", Uuid, nullable=False),
    Column("number", BigInteger, nullable=False),
    Column("line", BigInteger, nullable=False),
    Column("sku", Text),
    Column("gtin", Text),
    Column("item", JSONB),
    Column("amount", _AMOUNT),
    Column("per", _AMOUNT),
    Column("min_quantity", _AMOUNT),
    Column("tax_rate", _AMOUNT),
    Column("tax", _AMOUNT),
    Column("tax_stated", Boolean, nullable=False),
    Column("tax_included", Boolean),
    Column("valid_from", DateTime(timezone=True)),
    Column("valid_to", DateTime(timezone=True)),
    Column("reason", Text),
    Column("errors", JSONB),
    Column("cells", Text, nullable=False),
    prefixes=["UNLOGGED"],
)
"""Rows as they were read, until the plan is made of them.

Unlogged, because what a crash takes away belongs to an upload that the crash cut, too. Without a key, because rows only
come by COPY and go by import.
"""


class PlannedRow(Base):
    """What a row does, ready to be written: ``item_offset`` and ``price_offset`` become seqs when it is applied.

    It has no foreign key to its import, which would be checked for each of a million rows.
    """

    __tablename__ = "import_rows"

    import_id: Mapped[UUID] = mapped_column(primary_key=True)
    number: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    line: Mapped[int | None] = mapped_column(BigInteger)
    status: Mapped[str]
    sku: Mapped[str | None]
    gtin: Mapped[str | None]
    item_id: Mapped[UUID | None]
    item: Mapped[dict[str, Any] | None] = mapped_column(JSONB)
    item_offset: Mapped[int | None] = mapped_column(BigInteger)
    amount: Mapped[Amount | None]
    per: Mapped[Amount | None]
    min_quantity: Mapped[Amount | None]
    tax_rate: Mapped[Amount | None]
    tax: Mapped[Amount | None]
    tax_included: Mapped[bool | None]
    valid_from: Mapped[Instant | None]
    valid_to: Mapped[Instant | None]
    reason: Mapped[str | None]
    price_id: Mapped[UUID | None]
    price_offset: Mapped[int | None] = mapped_column(BigInteger)
    old_price_id: Mapped[UUID | None]
    supersedes: Mapped[UUID | None]
    percent: Mapped[Decimal | None] = mapped_column(Numeric)
    errors: Mapped[list[dict[str, Any]] | None] = mapped_column(JSONB)
    cells: Mapped[str | None]
