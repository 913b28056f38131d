"""Books: price lists, each in one currency."""

from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any

from pydantic import AfterValidator, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from app import instants, money
from app.money import RoundingLevel, RoundingMode
from app.schemas import examples
from app.schemas.base import Amount, BookKey, DecimalString, Input, Name, Output, Truth


def _currency(code: str) -> str:
    try:
        money.minor_units(code)
    except KeyError:
        raise PydanticCustomError(
            "unknown-currency", "must be an ISO 4217 currency with minor units, such as EUR"
        ) from None
    return code


def _time_zone(name: str) -> str:
    try:
        instants.zone(name)
    except KeyError:
        raise PydanticCustomError("unknown-time-zone", "must be an IANA time zone, such as Europe/Berlin") from None
    return name


Currency = Annotated[
    str,
    AfterValidator(_currency),
    Field(description="ISO 4217", examples=["EUR"], json_schema_extra={"pattern": "^[A-Z]{3}$"}),
]
TimeZone = Annotated[
    str, AfterValidator(_time_zone), Field(description="IANA time zone, in which bare dates begin", examples=["UTC"])
]


class RoundingInput(Input):
    """A rounding policy; in a patch, absent fields stay."""

    mode: RoundingMode = RoundingMode.HALF_UP
    level: RoundingLevel = RoundingLevel.GROUP
    cash_increment: Amount | None = Field(None, description="Cash totals are multiples of this; null: no cash rounding")


class Rounding(Output):
    """A rounding policy."""

    mode: RoundingMode
    level: RoundingLevel
    cash_increment: DecimalString | None


class BookCreate(Input):
    """A new book."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "key": "retail-de",
                    "name": "Retail Germany",
                    "currency": "EUR",
                    "time_zone": "Europe/Berlin",
                    "tax_included": True,
                }
            ]
        }
    )

    key: BookKey = Field(description="Lower-case word that names the book in requests; it never changes")
    name: Name
    currency: Currency
    time_zone: TimeZone = "UTC"
    tax_included: Truth = Field(False, description="Whether new price rows contain tax, unless they say otherwise")
    rounding: RoundingInput = RoundingInput()


class BookPatch(Input):
    """A JSON merge patch (RFC 7396): named fields change, absent fields stay."""

    model_config = ConfigDict(
        json_schema_extra={"minProperties": 1, "examples": [{"rounding": {"cash_increment": "0.05"}}]}
    )

    name: Name = Field(default=None)  # type: ignore[assignment]  # absent means unchanged; null is refused
    currency: Currency = Field(default=None, description="Only while the book has no prices")  # type: ignore[assignment]  # as for name
    time_zone: TimeZone = Field(default=None)  # type: ignore[assignment]  # as for name
    tax_included: Truth = Field(default=None)  # type: ignore[assignment]  # as for name
    rounding: RoundingInput = Field(default=None, description="Merged field by field")  # type: ignore[assignment]  # as for name

    @model_validator(mode="after")
    def _not_empty(self) -> "BookPatch":
        if not self.model_fields_set:
            raise PydanticCustomError("empty-patch", "must change at least one field")
        return self


class Book(Output):
    """A book."""

    model_config = ConfigDict(json_schema_extra={"examples": [examples.BOOK]})

    key: str
    name: str
    currency: str
    time_zone: str
    tax_included: bool
    rounding: Rounding
    version: int = Field(description="Grows with each change; the ETag")
    created_at: datetime
    updated_at: datetime


class BookList(Output):
    """All books, by key."""

    model_config = ConfigDict(json_schema_extra={"examples": [examples.BOOK_LIST]})

    items: list[Book]
    next: str | None = Field(description="Always null: a service has few books")


def rounding_document(rounding: dict[str, Any], digits: int) -> dict[str, Any]:
    """The policy as it is stored and answered.

    :raises ValueError: if the cash increment is zero or finer than the currency's minor unit.
    """
    increment: Decimal | None = rounding["cash_increment"]
    if increment is not None and (increment <= 0 or money.round_to(increment, digits) != increment):
        raise ValueError(f"must be a positive amount with at most {digits} decimals, as the currency has")
    return {**rounding, "cash_increment": None if increment is None else money.plain(increment, digits)}
