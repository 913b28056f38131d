"""Items, in full (v1) and in the plain form."""

from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from typing import Annotated, Any
from uuid import UUID

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, WithJsonSchema, model_validator
from pydantic_core import PydanticCustomError

from app import money
from app.schemas import examples
from app.schemas.base import (
    PARAGRAPH,
    Amount,
    Gtin,
    Input,
    Name,
    OneLine,
    Output,
    Paragraph,
    Sku,
    Unit,
    no_control_characters,
)
from app.schemas.price import InitialPrice, PriceAnswer

MOST_ATTRIBUTES = 50


class TaxCategory(StrEnum):
    """Tax category letters of EN 16931 (UNCL 5305)."""

    STANDARD = "S"
    ZERO_RATED = "Z"
    EXEMPT = "E"
    REVERSE_CHARGE = "AE"
    INTRA_COMMUNITY = "K"
    EXPORT = "G"
    OUTSIDE_SCOPE = "O"
    CANARY_ISLANDS = "L"
    CEUTA_AND_MELILLA = "M"
    TRANSFERRED = "B"


def _few_attributes(attributes: dict[str, Any]) -> dict[str, Any]:
    if len(attributes) > MOST_ATTRIBUTES:
        raise PydanticCustomError("too-many-attributes", f"may have at most {MOST_ATTRIBUTES} attributes")
    return attributes


def _attribute_value(value: Any) -> Any:
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int) and abs(value) < 2**53:
        return value
    if isinstance(value, str) and len(value) <= 500:
        return no_control_characters(value)
    raise PydanticCustomError(
        "not-an-attribute",
        "must be a string of at most 500 characters, a whole number or a boolean; write a decimal as a string",
    )


AttributeName = Annotated[str, OneLine(64)]
AttributeValue = Annotated[
    str | int | bool,
    WithJsonSchema({"type": ["string", "integer", "boolean"], "examples": ["black"]}),
]
_VALUE_SCHEMA: list[dict[str, Any]] = [
    {"type": "string", "maxLength": 500, "pattern": PARAGRAPH},
    {"type": "integer", "minimum": 1 - 2**53, "maximum": 2**53 - 1},
    {"type": "boolean"},
]
_InputValue = Annotated[Any, AfterValidator(_attribute_value), WithJsonSchema({"anyOf": _VALUE_SCHEMA})]
_PatchValue = Annotated[
    Any, AfterValidator(_attribute_value), WithJsonSchema({"anyOf": [*_VALUE_SCHEMA, {"type": "null"}]})
]
_FEW = Field(json_schema_extra={"maxProperties": MOST_ATTRIBUTES, "additionalProperties": False})
Attributes = Annotated[dict[AttributeName, _InputValue], AfterValidator(_few_attributes), _FEW]
_PatchedAttributes = Annotated[dict[AttributeName, _PatchValue], AfterValidator(_few_attributes), _FEW]


class ItemCreate(Input):
    """A new item, optionally with its first price in the book `default`."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "sku": "FR-R92B",
                    "name": "Frame",
                    "attributes": {"colour": "black", "size": 58},
                    "price": {"amount": "1431.50", "tax_rate": "19"},
                }
            ]
        }
    )

    sku: Sku | None = Field(None, description="Your own unique number for the item")
    name: Name
    description: Paragraph | None = None
    gtin: Gtin | None = Field(None, description="Global Trade Item Number; its check digit is verified")
    unit: Unit = Field("C62", description="Unit of measure, UN/ECE Recommendation 20 (C62 is one piece)")
    tax_category: TaxCategory = Field(TaxCategory.STANDARD, description="EN 16931 letter")
    attributes: Attributes = Field({}, description="A few flat facts of your own")
    price: InitialPrice | None = Field(None, description="The first price row, valid from now unless it says otherwise")

    @model_validator(mode="after")
    def _no_null_attributes(self) -> "ItemCreate":
        if any(value is None for value in self.attributes.values()):
            raise PydanticCustomError("not-an-attribute", "attributes must not be null")
        return self


class ItemPatch(Input):
    """A JSON merge patch (RFC 7396): named fields change, absent fields stay.

    `null` clears `sku`, `description`, `gtin` and single attributes, and restores an archived item; the others have
    no empty state and refuse it.
    """

    model_config = ConfigDict(
        json_schema_extra={"minProperties": 1, "examples": [{"name": "Frame, 58 cm", "attributes": {"size": 58}}]}
    )

    sku: Sku | None = None
    name: Name = Field(default=None)  # type: ignore[assignment]  # absent means unchanged; null is refused
    description: Paragraph | None = None
    gtin: Gtin | None = None
    unit: Unit = Field(default=None)  # type: ignore[assignment]  # as for name
    tax_category: TaxCategory = Field(default=None)  # type: ignore[assignment]  # as for name
    attributes: _PatchedAttributes = Field(default={}, description="Merged key by key; null removes a key")
    archived_at: None = Field(None, description="Only null: restores an archived item")

    @model_validator(mode="after")
    def _not_empty(self) -> "ItemPatch":
        if not self.model_fields_set:
            raise PydanticCustomError("empty-patch", "must change at least one field")
        return self


class Item(Output):
    """An item."""

    model_config = ConfigDict(json_schema_extra={"examples": [examples.ITEM]})

    id: UUID
    sku: str | None
    name: str
    description: str | None
    gtin: str | None
    unit: str
    tax_category: TaxCategory
    attributes: dict[str, AttributeValue]
    archived_at: datetime | None
    version: int = Field(description="Grows with each change; the ETag")
    created_at: datetime
    updated_at: datetime


class PricedItem(Item):
    """An item and its price at the instant asked about; `null` if it has none or is not for sale."""

    model_config = ConfigDict(json_schema_extra={"examples": [examples.PRICED_ITEM]})

    price: PriceAnswer | None


class ItemList(Output):
    """A page of items."""

    model_config = ConfigDict(json_schema_extra={"examples": [examples.ITEM_LIST]})

    items: list[PricedItem]
    next: str | None = Field(description="Send as `cursor` for the next page; null on the last")


_PlainAmount = Annotated[
    Amount, WithJsonSchema({"type": "number", "minimum": 0, "exclusiveMaximum": 10**money.INTEGER_DIGITS})
]


class PlainItemCreate(BaseModel):
    """An item as in a first tutorial. Unknown fields are ignored."""

    model_config = ConfigDict(
        extra="ignore", json_schema_extra={"examples": [{"name": "Foo", "price": 35.4, "tax": 3.2}]}
    )

    name: Name
    description: Paragraph | None = None
    price: _PlainAmount
    tax: _PlainAmount | None = Field(None, description="An amount, not a rate")


JsonNumber = Annotated[Decimal, WithJsonSchema({"type": "number"})]


class PlainItem(Output):
    """An item with its price now in the book `default`, as JSON numbers.

    `price` is null if there is none, or only one for a base quantity other than one piece.
    """

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "id": "01a20537-de50-7ff8-9c93-02db0b06a11c",
                    "name": "Foo",
                    "description": None,
                    "price": 35.4,
                    "tax": 3.2,
                    "price_with_tax": 38.6,
                }
            ]
        }
    )

    id: UUID
    name: str
    description: str | None
    price: JsonNumber | None
    tax: JsonNumber | None
    price_with_tax: JsonNumber | None
