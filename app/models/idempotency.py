"""Answers that are given again to a request that is sent again."""

from typing import Any

from sqlalchemy import BigInteger, Index, LargeBinary
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from app.models.base import Base, Instant


class StoredAnswer(Base):
    """The answer to a request with an ``Idempotency-Key``, written in the transaction of what it did.

    ``owner`` is the id of the key that sent it: one caller's idempotency keys never meet another's.
    """

    __tablename__ = "stored_answers"
    __table_args__ = (Index("ix_stored_answers_created_at", "created_at"),)

    owner: Mapped[str] = mapped_column(primary_key=True)
    key: Mapped[str] = mapped_column(primary_key=True)
    fingerprint: Mapped[bytes] = mapped_column(LargeBinary)
    """Of the request: SHA-256 of its method, address and body."""
    status: Mapped[int] = mapped_column(BigInteger)
    headers: Mapped[dict[str, Any]] = mapped_column(JSONB)
    body: Mapped[bytes] = mapped_column(LargeBinary)
    created_at: Mapped[Instant]
