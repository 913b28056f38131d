"""Price rows, and the answers made from them."""

from datetime import datetime
from typing import Annotated
from uuid import UUID

from pydantic import ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from app.schemas.base import Amount, BookKey, DecimalString, Input, Moment, Output, Quantity, Rate, Reason

ONE = "1"


class PriceCreate(Input):
    """A statement about a price: from `valid_from` (until `valid_to`) the item costs `amount` per `per` units."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "amount": "19.99",
                    "tax_rate": "19",
                    "tax_included": True,
                    "valid_from": "2026-12-01",
                    "reason": "spring list",
                }
            ]
        }
    )

    book: BookKey = "default"
    amount: Amount | None = Field(description="Per `per` units; null: not for sale")
    per: Quantity = Field(default=ONE, validate_default=True, description="Base quantity")
    min_quantity: Quantity = Field(
        default=ONE, validate_default=True, description="The row answers for this quantity and more"
    )
    tax_rate: Rate | None = Field(None, description="Tax in percent; or give `tax`, or neither")
    tax: Amount | None = Field(None, description="Tax as an amount per `per` units")
    tax_included: bool | None = Field(None, description="Whether `amount` contains the tax; default: the book's")
    valid_from: Moment | None = Field(None, description="First instant; default: now")
    valid_to: Moment | None = Field(None, description="First instant after the end; null: until something newer")
    supersedes: UUID | None = Field(None, description="Id of the price row that this one corrects")
    reason: Reason | None = None

    @model_validator(mode="after")
    def _one_kind_of_tax(self) -> "PriceCreate":
        if self.tax_rate is not None and self.tax is not None:
            raise PydanticCustomError("two-taxes", "must not have both tax_rate and tax")
        return self


class InitialPrice(PriceCreate):
    """The first price of a new item."""

    supersedes: None = Field(None, description="A new item has nothing to correct")


class PriceRow(Output):
    """A price row as recorded."""

    id: UUID
    item_id: UUID
    book: str
    currency: str
    amount: DecimalString | None
    per: DecimalString
    min_quantity: DecimalString
    tax_rate: DecimalString | None
    tax: DecimalString | None
    tax_included: bool
    valid_from: datetime
    valid_to: datetime | None
    supersedes: UUID | None
    void: bool = Field(description="Whether the row was voided")
    reason: str | None
    seq: int = Field(description="Number of the change that recorded the row")
    recorded_at: datetime
    recorded_by: str
    import_id: UUID | None


class Display(Output):
    """The price of `per` units, rounded by the book's policy: for people, not for calculation."""

    net: DecimalString
    tax: DecimalString
    gross: DecimalString


class PriceAnswer(Output):
    """What an item costs."""

    item_id: UUID
    sku: str | None
    book: str
    currency: str
    at: datetime = Field(description="The instant asked about")
    known_seq: int = Field(description="The state of knowledge asked about: the last change taken into account")
    quantity: DecimalString
    amount: DecimalString = Field(description="Per `per` units, exact", examples=["19.99"])
    per: DecimalString
    min_quantity: DecimalString
    tax_rate: DecimalString | None
    tax: DecimalString | None
    tax_included: bool
    valid_from: datetime
    valid_to: datetime | None
    effective_until: datetime | None = Field(
        description="The next instant at which this answer changes by itself; null: none is known"
    )
    price_id: UUID
    seq: int
    recorded_at: datetime
    reason: str | None
    display: Display


ItemReference = Annotated[str, Field(description="Item id, or `sku:` and the sku", examples=["sku:FR-R92B"])]
