"""Keys to the API."""

from datetime import datetime

from sqlalchemy import ARRAY, BigInteger, CheckConstraint, DateTime, Index, LargeBinary, Text, text
from sqlalchemy.orm import Mapped, mapped_column

from app.models.base import Base, Instant


class ApiKey(Base):
    """A key that was handed out. Its secret is not here, only a digest that needs ``SECRET_KEY`` to be made.

    Keys are never deleted: names are unique among those that were not revoked, so a name and an instant tell for ever
    which key wrote something. Who changes a key raises ``api_key_state.version`` in the same transaction.
    """

    __tablename__ = "api_keys"
    __table_args__ = (Index("uq_api_keys_name", "name", unique=True, postgresql_where=text("revoked_at IS NULL")),)

    id: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str]
    scopes: Mapped[list[str]] = mapped_column(ARRAY(Text))
    digest: Mapped[bytes] = mapped_column(LargeBinary)
    secret_key_id: Mapped[str]
    """Which ``SECRET_KEY`` the digest was made with: a fingerprint that tells nothing else of it."""
    created_at: Mapped[Instant]
    created_by: Mapped[str]
    expires_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    revoked_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    revoked_by: Mapped[str | None]


class ApiKeyState(Base):
    """One row: which state the keys are in. It is not the ledger's row, for which writers of prices queue.

    A version grows with the clock, so that a ledger that was set back, to a backup perhaps, does not come to one again.
    """

    __tablename__ = "api_key_state"
    __table_args__ = (CheckConstraint("singleton", name="singleton"),)

    singleton: Mapped[bool] = mapped_column(primary_key=True)
    version: Mapped[int] = mapped_column(BigInteger)
