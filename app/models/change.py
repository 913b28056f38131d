"""The service's logical clock, and the log of every change in its order."""

from enum import StrEnum
from typing import Any
from uuid import UUID

from sqlalchemy import BigInteger, CheckConstraint, Index, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from app.models.base import Base, Instant


class ChangeType(StrEnum):
    """What happened, as the feed names it."""

    ITEM_CREATED = "item.created"
    ITEM_UPDATED = "item.updated"
    ITEM_ARCHIVED = "item.archived"
    BOOK_CREATED = "book.created"
    BOOK_UPDATED = "book.updated"
    PRICE_RECORDED = "price.recorded"
    PRICE_VOIDED = "price.voided"


class Ledger(Base):
    """One row: the last ``seq`` handed out and when, and the seq after which the feed begins.

    A writing transaction updates it last, which locks it until the commit. So numbers appear to readers in their
    order, a rollback leaves no gap, and ``recorded_at`` grows with ``seq``.
    """

    __tablename__ = "ledger"
    __table_args__ = (CheckConstraint("singleton", name="singleton"), {"postgresql_with": {"fillfactor": 10}})

    singleton: Mapped[bool] = mapped_column(primary_key=True, server_default="true")
    seq: Mapped[int] = mapped_column(BigInteger)
    recorded_at: Mapped[Instant]
    feed_floor: Mapped[int] = mapped_column(BigInteger, server_default="0")
    access_version: Mapped[int] = mapped_column(BigInteger, server_default="0")
    """Of no use any more: see migration 0006."""


class Change(Base):
    """One committed change.

    ``before`` and ``after`` hold whole documents of items and books, which change in place. Price rows never change:
    their documents are read from ``price_rows`` by ``price_id``, so the log cannot disagree with the ledger. The ids
    carry no foreign keys: they are written in the same transaction as what they name, and none of that is ever deleted.

    Changes of prices up to ``feed_floor`` may be deleted, if another one of the same instant has a greater seq.
    Versions of items and books stay, and so does what maps an instant to a seq: pinned reads look both up. A trigger
    guards the versions.
    """

    __tablename__ = "changes"
    __table_args__ = (
        Index("ix_changes_at_seq", "at", "seq"),
        # Only the versions of items and books, which a read as known at an earlier seq looks up.
        Index("ix_changes_item_id_seq", "item_id", "seq", postgresql_where=text("price_id IS NULL")),
        Index("ix_changes_sku_seq", text("(after ->> 'sku')"), "seq", postgresql_where=text("price_id IS NULL")),
        Index("ix_changes_book_id_seq", "book_id", "seq", postgresql_where=text("item_id IS NULL")),
    )

    seq: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    at: Mapped[Instant]
    actor: Mapped[str]
    type: Mapped[str]
    item_id: Mapped[UUID | None]
    book_id: Mapped[int | None] = mapped_column(BigInteger)
    price_id: Mapped[UUID | None]
    before: Mapped[dict[str, Any] | None] = mapped_column(JSONB(none_as_null=True))
    after: Mapped[dict[str, Any] | None] = mapped_column(JSONB(none_as_null=True))
