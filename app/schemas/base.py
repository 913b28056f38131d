"""Field types that requests and answers share."""

import re
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    PlainValidator,
    StringConstraints,
    WithJsonSchema,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import PydanticCustomError, PydanticKnownError, core_schema

from app import gtin, instants, money

type Document = dict[str, Any]
"""What a schema describes, with its members in its order, as values that :func:`app.documents.encode` writes.

Answers that are asked for often, and hold much, are made so: to make a model, which checks what was just read from the
database, and to have it write itself takes ten times as long. That they are as described is checked by tests.
"""

_PLAIN_NUMBER = r"(0|[1-9][0-9]{0,11})(\.[0-9]{1,12})?$"


class Input(BaseModel):
    """Base of request documents: unknown fields are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Output(BaseModel):
    """Base of answers: no field has a default, so every answer has every field.

    They are built when they are first used, which some never are: most answers are a :data:`Document`, whose model only
    describes it.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)


# Each of these is all that is called for a number, and so is :class:`OneLine` for a text: a document has hundreds of
# them, and a function that pydantic calls takes as long as a field that it checks itself.


def _decimal(value: Any) -> Decimal:
    try:
        return money.parse(value)
    except money.NotAnAmount as error:
        raise PydanticCustomError(error.code, "{reason}", {"reason": str(error)}) from None


def _not_negative(value: Any) -> Decimal:
    number = _decimal(value)
    if number < 0:
        raise PydanticCustomError("negative", "must not be negative")
    return number


def _positive(value: Any) -> Decimal:
    number = _decimal(value)
    if number <= 0:
        raise PydanticCustomError("not-positive", "must be greater than zero")
    return number


def _number_schema(example: str, before: str = "", **bounds: int) -> WithJsonSchema:
    number = {"type": "number", "exclusiveMaximum": 10**money.INTEGER_DIGITS, **bounds}
    return WithJsonSchema(
        {
            "anyOf": [{"type": "string", "pattern": f"^{before}{_PLAIN_NUMBER}"}, number],
            "description": "Decimal in plain notation, as a string or a JSON number; read exactly",
            "examples": [example],
        }
    )


SignedDecimal = Annotated[Decimal, PlainValidator(_decimal), _number_schema("-5.00", "-?", exclusiveMinimum=-(10**12))]
"""A number that may be negative."""

Amount = Annotated[Decimal, PlainValidator(_not_negative), _number_schema("19.99", minimum=0)]
"""Money that is not negative."""

Rate = Annotated[Decimal, PlainValidator(_not_negative), _number_schema("19", minimum=0)]
"""Percent, not negative."""

Quantity = Annotated[
    Decimal,
    PlainValidator(_positive),
    _number_schema("1", r"(?!0(\.0+)?$)", exclusiveMinimum=0),
]
"""A number of units, greater than zero."""

DecimalString = Annotated[
    str, WithJsonSchema({"type": "string", "pattern": r"^-?(0|[1-9][0-9]*)(\.[0-9]+)?$", "examples": ["19.99"]})
]
"""A decimal in an answer, in plain notation. Sums may have more digits than any input."""


Truth = Annotated[bool, Field(strict=True)]
"""A boolean of JSON, and nothing that could stand for one."""


def _moment(value: Any) -> datetime | date:
    try:
        return instants.parse(value)
    except instants.NotAnInstant as error:
        raise PydanticCustomError("not-an-instant", "{reason}", {"reason": str(error)}) from None


Moment = Annotated[
    datetime | date,
    PlainValidator(_moment),
    WithJsonSchema(
        {
            "anyOf": [{"type": "string", "format": "date-time"}, {"type": "string", "format": "date"}],
            "description": "RFC 3339 timestamp with offset, or a date: the start of that day in the book's time zone",
            "examples": ["2026-12-01T00:00:00Z", "2026-12-01"],
        }
    ),
]
"""An instant, or a day that becomes one in the book's time zone."""


def _instant(value: Any) -> datetime:
    moment = _moment(value)
    if not isinstance(moment, datetime):
        raise PydanticCustomError("not-an-instant", "must be a timestamp with an offset (2026-12-01T00:00:00Z)")
    return moment


Instant = Annotated[
    datetime,
    PlainValidator(_instant),
    WithJsonSchema({"type": "string", "format": "date-time", "examples": ["2026-11-22T09:30:00.123456Z"]}),
]
"""An instant, as answers write it."""


# Control characters, and halves of surrogate pairs, which JSON can express but no encoding can.
_UNPRINTABLE = re.compile("[\x00-\x1f\x7f\ud800-\udfff]")


def no_control_characters(text: str) -> str:
    """Refuse what no database or terminal should get; line breaks and tabs are fine."""
    if _UNPRINTABLE.search(text.translate({ord(character): None for character in "\t\n\r"})):
        raise PydanticCustomError("control-character", "must not contain control characters")
    return text


_END = r"[^\s\x00-\x1f\x7f\x85]"


@dataclass(frozen=True, slots=True)
class OneLine:
    """Marks a text as one line of 1 to ``most`` characters, without blanks around it and without control characters."""

    most: int

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        """Check the text as :meth:`_check` does."""
        return core_schema.no_info_after_validator_function(self._check, handler(source))

    def __get_pydantic_json_schema__(
        self, schema: core_schema.CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        """For the OpenAPI document: what is checked here, and said in better words."""
        line = rf"^{_END}([^\x00-\x1f\x7f]*{_END})?$"
        return handler(schema) | {"minLength": 1, "maxLength": self.most, "pattern": line}

    def _check(self, text: str) -> str:
        # Printable means no control character and no half of a surrogate pair, and little else is not.
        if text != text.strip() or not (text.isprintable() or _UNPRINTABLE.search(text) is None):
            raise PydanticCustomError(
                "not-one-line",
                "must be one line of text, without blanks around it and without control characters",
            )
        length = len(text)
        # As pydantic says it.
        if length < 1:
            raise PydanticKnownError("too_short", {"field_type": "Value", "min_length": 1, "actual_length": length})
        if length > self.most:
            raise PydanticKnownError(
                "too_long", {"field_type": "Value", "max_length": self.most, "actual_length": length}
            )
        return text


# Sub-resources of an item: a sku that ends in one could not be told from it in an address.
SUB_RESOURCES = ("/price", "/prices", "/prior-price")


def _addressable(text: str) -> str:
    if text.endswith(SUB_RESOURCES):
        raise PydanticCustomError("reserved-sku", "must not end in " + ", ".join(SUB_RESOURCES))
    return text


def _gtin(text: str) -> str:
    if not gtin.is_valid(text):
        raise PydanticCustomError("not-a-gtin", "must be a GTIN of 8, 12, 13 or 14 digits with the right check digit")
    return text


def _documented(pattern: str) -> Any:
    """For the OpenAPI document: what a validator of ours checks, and says of it in better words."""
    return Field(json_schema_extra={"pattern": pattern})


PARAGRAPH = r"^[^\x00-\x08\x0b\x0c\x0e-\x1f\x7f]*$"
"""Text of several lines, as JSON Schema says it."""
Paragraph = Annotated[
    str,
    StringConstraints(max_length=4000),
    AfterValidator(no_control_characters),
    _documented(PARAGRAPH),
]
Name = Annotated[str, OneLine(200)]
Reason = Annotated[str, OneLine(500)]
Sku = Annotated[str, OneLine(100), AfterValidator(_addressable)]
Gtin = Annotated[str, AfterValidator(_gtin), _documented(r"^([0-9]{8}|[0-9]{12,14})$")]
Unit = Annotated[str, StringConstraints(pattern=r"^[A-Z0-9]{2,3}$")]
BookKey = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$")]
