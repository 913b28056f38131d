"""Price rows: the append-only ledger, and the rule that says which row answers."""

from uuid import UUID

from sqlalchemy import BigInteger, CheckConstraint, ForeignKey, Index, text
from sqlalchemy.orm import Mapped, mapped_column

from app.models.base import Amount, Base, Instant, Uuid7


class PriceRow(Base):
    """One statement: in this book, this item costs ``amount`` per ``per`` units, from then (until then).

    A null ``amount`` says that the item is not for sale. Rows are never updated or deleted; a trigger refuses both.
    """

    __tablename__ = "price_rows"
    __table_args__ = (
        CheckConstraint("amount >= 0", name="amount"),
        CheckConstraint("per > 0", name="per"),
        CheckConstraint("min_quantity > 0", name="min_quantity"),
        CheckConstraint("tax_rate >= 0", name="tax_rate"),
        CheckConstraint("tax >= 0", name="tax"),
        CheckConstraint("tax IS NULL OR tax_rate IS NULL", name="one_tax"),
        CheckConstraint("valid_to > valid_from", name="interval"),
        Index("ix_price_rows_item_id_book_id_valid_from", "item_id", "book_id", "valid_from"),
        # The schedule walks along the starts and ends of prices for one unit, over all items, in its own order.
        Index(
            "ix_price_rows_book_id_valid_from_item_id",
            "book_id",
            "valid_from",
            "item_id",
            postgresql_where=text("min_quantity <= 1"),
        ),
        Index(
            "ix_price_rows_book_id_valid_to_item_id",
            "book_id",
            "valid_to",
            "item_id",
            postgresql_where=text("valid_to IS NOT NULL AND min_quantity <= 1"),
        ),
    )

    id: Mapped[Uuid7]
    item_id: Mapped[UUID] = mapped_column(ForeignKey("items.id"))
    book_id: Mapped[int] = mapped_column(BigInteger, ForeignKey("books.id"))
    amount: Mapped[Amount | None]
    per: Mapped[Amount]
    min_quantity: Mapped[Amount]
    tax_rate: Mapped[Amount | None]
    tax: Mapped[Amount | None]
    tax_included: Mapped[bool]
    valid_from: Mapped[Instant]
    valid_to: Mapped[Instant | None]
    supersedes: Mapped[UUID | None] = mapped_column(ForeignKey("price_rows.id"))
    reason: Mapped[str | None]
    seq: Mapped[int] = mapped_column(BigInteger)
    recorded_at: Mapped[Instant]
    recorded_by: Mapped[str]
    import_id: Mapped[UUID | None]


class PriceRetirement(Base):
    """From ``seq`` on, a price row is hidden: superseded by ``successor_id``, or voided if that is null.

    The primary key lets each row be retired once.
    """

    __tablename__ = "price_retirements"

    price_id: Mapped[UUID] = mapped_column(ForeignKey("price_rows.id"), primary_key=True)
    successor_id: Mapped[UUID | None] = mapped_column(ForeignKey("price_rows.id"))
    seq: Mapped[int] = mapped_column(BigInteger)
