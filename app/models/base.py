"""Base of all tables: naming rules and column types that many share."""

from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any
from uuid import UUID

from sqlalchemy import DateTime, MetaData, Numeric, Text, Uuid, text
from sqlalchemy.orm import DeclarativeBase, mapped_column

from app.money import DECIMAL_DIGITS, INTEGER_DIGITS

Uuid7 = Annotated[UUID, mapped_column(Uuid(), primary_key=True, server_default=text("uuidv7()"))]
"""A key that PostgreSQL makes; it grows with time, so new rows go to the end of their index."""

Instant = Annotated[datetime, mapped_column(DateTime(timezone=True))]
Amount = Annotated[Decimal, mapped_column(Numeric(INTEGER_DIGITS + DECIMAL_DIGITS, DECIMAL_DIGITS))]


class Base(DeclarativeBase):
    """Declarative base. Constraint names are fixed, so that services can tell which rule a write broke."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map: dict[Any, Any] = {str: Text()}  # noqa: RUF012 - read by SQLAlchemy as it stands.
