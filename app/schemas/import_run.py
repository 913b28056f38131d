"""Imports of price lists: a row of a file, the run, and the report of what each row does."""

from datetime import date, datetime
from enum import StrEnum
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import ConfigDict, Field, PlainValidator, model_validator
from pydantic_core import PydanticCustomError

from app.schemas import examples
from app.schemas.base import (
    Amount,
    DecimalString,
    Gtin,
    Input,
    Moment,
    Name,
    Output,
    Paragraph,
    Quantity,
    Rate,
    Reason,
    Sku,
    Unit,
)
from app.schemas.item import Attributes, TaxCategory


class ImportState(StrEnum):
    """Where an import stands."""

    STAGED = "staged"
    """Its file is being read."""
    PREVIEWED = "previewed"
    APPLIED = "applied"
    CONFLICT = "conflict"
    """Prices moved between preview and apply; nothing was written."""
    FAILED = "failed"
    """The file cannot be read, or has errors and was to be applied whole; nothing was written."""
    EXPIRED = "expired"
    """Cancelled, or not applied in time."""


class RowStatus(StrEnum):
    """What a row of the file does."""

    CREATE = "create"
    """A first price, perhaps of a new item."""
    CHANGE = "change"
    UNCHANGED = "unchanged"
    ERROR = "error"
    MISSING = "missing"
    """Not a row of the file: a price in force whose item the file does not name."""


def _day(value: Any) -> date:
    try:
        return date.fromisoformat(value)
    except (TypeError, ValueError):
        raise PydanticCustomError("not-a-date", "must be a date (2026-12-31), the last day on which it holds") from None


LastDay = Annotated[date, PlainValidator(_day)]


class ImportRow(Input):
    """One row of a price list. What it leaves out stays as it is: base quantity and tax of the price before."""

    sku: Sku | None = None
    gtin: Gtin | None = None
    name: Name | None = None
    description: Paragraph | None = None
    unit: Unit | None = None
    tax_category: TaxCategory | None = None
    attributes: Attributes | None = None
    amount: Amount | None
    per: Quantity | None = None
    min_quantity: Quantity | None = None
    tax_rate: Rate | None = None
    tax: Amount | None = None
    tax_included: bool | None = None
    valid_from: Moment | None = None
    valid_to: Moment | None = None
    valid_through: LastDay | None = None
    reason: Reason | None = None

    @model_validator(mode="after")
    def _consistent(self) -> "ImportRow":
        if self.sku is None and self.gtin is None:
            raise PydanticCustomError("no-key", "must have a sku or a gtin")
        if self.tax is not None and self.tax_rate is not None:
            raise PydanticCustomError("two-taxes", "must not have both tax and tax_rate")
        if self.valid_to is not None and self.valid_through is not None:
            raise PydanticCustomError("two-ends", "must not have both valid_to and valid_through")
        if any(value is None for value in (self.attributes or {}).values()):
            raise PydanticCustomError("not-an-attribute", "attributes must not be null")
        return self


class Counts(Output):
    """How many rows do what. `rows` is those of the file; `missing` are not among them."""

    rows: int
    create: int
    change: int
    unchanged: int
    error: int
    missing: int | None = Field(description="null with `missing=ignore`: they are only looked for when `rows` is read")


class ImportOptions(Output):
    """How the file was to be read and what to do with it."""

    format: Literal["csv", "ndjson"]
    charset: str = Field(description="As Content-Type named it; utf-8 if it did not")
    on_error: Literal["abort", "skip"]
    missing: Literal["ignore", "end"]
    create: bool
    max_change_percent: DecimalString
    decimal: Literal[".", ","]
    mapping: list[str]


class ImportRun(Output):
    """An import: one file for one book."""

    model_config = ConfigDict(json_schema_extra={"examples": [examples.IMPORT]})

    id: UUID
    book: str
    effective_at: datetime | None = Field(
        description="When its prices begin, unless a row says otherwise; null: when it is applied"
    )
    mode: Literal["preview", "apply"]
    state: ImportState
    options: ImportOptions
    base_seq: int | None = Field(description="The preview compares with prices as known after this change")
    first_seq: int | None = Field(description="First change that it made; null if it made none")
    last_seq: int | None
    file_sha256: str | None = Field(description="Of the body as it was sent, in hexadecimal")
    file_bytes: int | None
    counts: Counts | None = Field(description="null while the file is being read")
    failure: str | None = Field(description="Why it failed")
    created_at: datetime
    created_by: str
    applied_at: datetime | None
    expires_at: datetime | None = Field(description="Until when a preview can be applied")


class ImportList(Output):
    """Imports, the newest first."""

    model_config = ConfigDict(json_schema_extra={"examples": [examples.IMPORT_LIST]})

    items: list[ImportRun]
    next: str | None = Field(description="Send as `cursor` for the next page; null on the last")


class Terms(Output):
    """A price, without its item and book."""

    amount: DecimalString | None = Field(description="null: not for sale")
    per: DecimalString
    min_quantity: DecimalString
    tax_rate: DecimalString | None
    tax: DecimalString | None
    tax_included: bool
    valid_from: datetime | None = Field(description="null: when the import is applied")
    valid_to: datetime | None


class RowError(Output):
    """What is wrong with a row."""

    column: str | None = Field(description="null: the row as a whole")
    value: str | None = Field(description="The beginning of what the file has there")
    code: str
    message: str


class ImportRowReport(Output):
    """What a row does."""

    line: int | None = Field(description="Line of the file that the row begins at; null for `missing`")
    sku: str | None
    gtin: str | None
    status: RowStatus
    old: Terms | None = Field(description="The price that stands before; null: none")
    new: Terms | None = Field(
        description="The price that the row states; null for `error`, and for `missing` left alone"
    )
    percent: DecimalString | None = Field(
        description="Change of the price of one unit, to two decimals; null where there is nothing to compare"
    )
    errors: list[RowError]


class ImportRows(Output):
    """A page of the report."""

    model_config = ConfigDict(json_schema_extra={"examples": [examples.IMPORT_ROWS]})

    rows: list[ImportRowReport]
    next: str | None = Field(description="Send as `cursor` for the next page; null on the last")
