"""Items: things that have prices."""

from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import BigInteger, ColumnElement, Index, Uuid, bindparam
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from app.models.base import Base, Instant, Uuid7


class Item(Base):
    """An item. Its prices are rows of :class:`app.models.price.PriceRow`."""

    __tablename__ = "items"
    __table_args__ = tuple(
        Index(f"ix_items_{column}_trgm", column, postgresql_using="gin", postgresql_ops={column: "gin_trgm_ops"})
        for column in ("name", "sku")
    )

    id: Mapped[Uuid7]
    sku: Mapped[str | None] = mapped_column(unique=True)
    name: Mapped[str]
    description: Mapped[str | None]
    gtin: Mapped[str | None] = mapped_column(unique=True)
    unit: Mapped[str]
    tax_category: Mapped[str]
    attributes: Mapped[dict[str, Any]] = mapped_column(JSONB)
    archived_at: Mapped[Instant | None]
    version: Mapped[int] = mapped_column(BigInteger)
    created_at: Mapped[Instant]
    updated_at: Mapped[Instant]


class ItemKey(NamedTuple):
    """How a caller names an item: by id or by sku. Exactly one of them is set."""

    id: UUID | None
    sku: str | None

    @classmethod
    def parse(cls, text: str) -> "ItemKey":
        """Read an id, or ``sku:`` and a sku.

        :raises ValueError: if the text is neither.
        """
        if text.startswith("sku:"):
            if "\0" in text:
                raise ValueError("a sku has no NUL")
            return cls(None, text.removeprefix("sku:"))
        return cls(UUID(text), None)

    @classmethod
    def any(cls, *, by_sku: bool) -> "ItemKey":
        """One of the kind, for the :attr:`condition` of statements that are made once for all items."""
        return cls(None, "any") if by_sku else cls(UUID(int=1), None)

    def __str__(self) -> str:
        return str(self.id) if self.id else f"sku:{self.sku}"

    @property
    def condition(self) -> ColumnElement[bool]:
        """Finds the item; its :attr:`parameter` is called ``item``."""
        return Item.id == bindparam("item", type_=Uuid()) if self.id else Item.sku == bindparam("item")

    @property
    def parameter(self) -> UUID | str | None:
        """The value for :attr:`condition`."""
        return self.id or self.sku
