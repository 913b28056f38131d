"""Price rows, and the answers made from them."""

from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from typing import Annotated
from uuid import UUID

from pydantic import ConfigDict, Field

from app.schemas import examples
from app.schemas.base import (
    Amount,
    BookKey,
    DecimalString,
    Input,
    Moment,
    OneLine,
    Output,
    Quantity,
    Rate,
    Reason,
    Truth,
)
from app.timeline import Outcome

ONE = Decimal(1)


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
    per: Quantity = Field(default=ONE, description="Base quantity")
    min_quantity: Quantity = Field(default=ONE, description="The row answers for this quantity and more")
    tax_rate: Rate | None = Field(None, description="Tax in percent; or give `tax`, or neither")
    tax: Amount | None = Field(None, description="Tax as an amount per `per` units")
    tax_included: Truth | None = Field(None, description="Whether `amount` contains the tax; default: the book's")
    valid_from: Moment | None = Field(None, description="First instant; default: now")
    valid_to: Moment | None = Field(None, description="First instant after the end; null: until something newer")
    supersedes: UUID | None = Field(None, description="Id of the price row that this one corrects")
    reason: Reason | None = None


class InitialPrice(PriceCreate):
    """The first price of a new item."""

    supersedes: None = Field(None, description="A new item has nothing to correct")


class PriceRow(Output):
    """A price row as recorded."""

    model_config = ConfigDict(json_schema_extra={"examples": [examples.PRICE_ROW]})

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


class Explanation(Output):
    """A price row and why it answers or does not."""

    price_id: UUID
    seq: int
    amount: DecimalString | None
    per: DecimalString
    min_quantity: DecimalString
    valid_from: datetime
    valid_to: datetime | None
    outcome: Outcome = Field(
        description="`answers`; or why not: retired (`superseded`, `voided`), not in force (`quantity-too-small`, "
        "`not-yet-valid`, `ended`), or behind the row that answers in the order of the rule"
    )


class PriceAnswer(Output):
    """What an item costs."""

    model_config = ConfigDict(json_schema_extra={"examples": [examples.PRICE_ANSWER]})

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
    explain: list[Explanation] | None = Field(description="With `explain=true`: every row, those in force first")


class PriceInForce(Output):
    """The terms in force during a step; `amount` is null if the item is not for sale."""

    amount: DecimalString | None
    per: DecimalString
    min_quantity: DecimalString
    tax_rate: DecimalString | None
    tax: DecimalString | None
    tax_included: bool
    valid_from: datetime
    valid_to: datetime | None
    price_id: UUID
    seq: int
    recorded_at: datetime
    reason: str | None
    display: Display | None


class Step(Output):
    """A stretch of time with one answer: from `from` until just before `to`. Without a price, all else is null."""

    model_config = ConfigDict(serialize_by_alias=True, validate_by_name=True)

    from_: datetime | None = Field(alias="from", description="null: since ever")
    to: datetime | None = Field(description="null: until something newer")
    amount: DecimalString | None
    per: DecimalString | None
    min_quantity: DecimalString | None
    tax_rate: DecimalString | None
    tax: DecimalString | None
    tax_included: bool | None
    valid_from: datetime | None
    valid_to: datetime | None
    price_id: UUID | None
    seq: int | None
    recorded_at: datetime | None
    reason: str | None
    display: Display | None


class Timeline(Output):
    """An item's prices over time in one book, for one quantity, in one state of knowledge."""

    model_config = ConfigDict(
        serialize_by_alias=True, validate_by_name=True, json_schema_extra={"examples": [examples.TIMELINE]}
    )

    item_id: UUID
    book: str
    currency: str
    from_: datetime | None = Field(alias="from")
    to: datetime | None
    known_seq: int
    steps: list[Step]


class PriceRows(Output):
    """An item's price rows in one book as recorded, superseded and voided ones included, in the order of `seq`."""

    model_config = ConfigDict(json_schema_extra={"examples": [examples.PRICE_ROWS]})

    item_id: UUID
    book: str
    currency: str
    known_seq: int
    rows: list[PriceRow]


class PriorPrice(Output):
    """The lowest price in force during the days before a reduction began."""

    model_config = ConfigDict(
        serialize_by_alias=True, validate_by_name=True, json_schema_extra={"examples": [examples.PRIOR_PRICE]}
    )

    item_id: UUID
    book: str
    currency: str
    reduced_at: datetime
    days: int
    amount: DecimalString
    per: DecimalString
    tax_rate: DecimalString | None
    tax: DecimalString | None
    tax_included: bool
    from_: datetime = Field(alias="from", description="Start of the stretch within those days with this price")
    to: datetime
    price_id: UUID


class LookupLine(Input):
    """One item to price."""

    item: Annotated[str, OneLine(104), Field(description="Item id, or `sku:` and the sku")]
    quantity: Quantity = Field(default=ONE)


class Lookup(Input):
    """Many items to price at one instant."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"lines": [{"item": "sku:FR-R92B"}, {"item": "sku:PB-1001", "quantity": "100"}]}]
        }
    )

    book: BookKey = "default"
    at: Moment | None = Field(None, description="The instant asked about; default: now")
    lines: Annotated[list[LookupLine], Field(min_length=1, max_length=1000)]


class LookupFailure(StrEnum):
    """Why a line has no price."""

    NO_PRICE = "no-price"
    NOT_FOR_SALE = "not-for-sale"
    UNKNOWN_ITEM = "unknown-item"


class LookupMiss(Output):
    """A line without a price."""

    item: str
    error: LookupFailure


class LookupAnswer(Output):
    """The prices, in the order of the lines."""

    model_config = ConfigDict(json_schema_extra={"examples": [examples.LOOKUP_ANSWER]})

    book: str
    currency: str
    at: datetime
    known_seq: int
    prices: list[PriceAnswer | LookupMiss]


class Boundary(Output):
    """An instant at which an item's price for one unit changes by itself."""

    at: datetime
    item_id: UUID
    sku: str | None
    book: str
    before: PriceInForce | None
    after: PriceInForce | None


class Schedule(Output):
    """A page of boundaries, by instant and item."""

    model_config = ConfigDict(json_schema_extra={"examples": [examples.SCHEDULE]})

    boundaries: list[Boundary]
    next: str | None = Field(description="Send as `cursor` for the next page; null on the last")
