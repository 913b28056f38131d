"""Quotes: what several things cost together, and the documents that say so."""

from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any, Literal, Self
from uuid import UUID

from pydantic import ConfigDict, Field, WithJsonSchema, model_validator
from pydantic_core import PydanticCustomError

from app.money import RoundingLevel, RoundingMode
from app.quoting import RATED_CATEGORIES
from app.schemas import examples
from app.schemas.base import Amount, BookKey, Input, Moment, OneLine, Output, Quantity, Rate, Reason, Truth
from app.schemas.base import SignedDecimal as Signed
from app.schemas.book import Currency

MOST_LINES = 10_000
ONE = "1"

TaxCategory = Annotated[
    Literal["S", "Z", "E", "AE", "K", "G", "O", "L", "M", "B"],
    Field(description="UNTDID 5305, as EN 16931 uses it: S standard, Z zero, E exempt, AE reverse charge, ..."),
]


class QuoteAdjustment(Input):
    """A charge, or an allowance if it is negative: an `amount`, or a `percent` of `base`."""

    amount: Signed | None = Field(None, description="With at most as many decimals as results have")
    percent: Signed | None = None
    base: Amount | None = Field(
        None,
        description="What `percent` is of; default: the line's quantity x price, or the lines of the same tax group",
    )
    reason: Reason | None = None

    @model_validator(mode="after")
    def _one_of_two(self) -> Self:
        if (self.amount is None) == (self.percent is None):
            raise PydanticCustomError("amount-or-percent", "must have either an amount or a percent")
        if self.base is not None and self.percent is None:
            raise PydanticCustomError("base-without-percent", "must not have a base without a percent")
        if self.percent is not None and self.percent < -100:
            raise PydanticCustomError("more-than-everything", "must not take off more than 100 percent")
        return self


def _check_tax(category: str | None, rate: Decimal | None) -> None:
    if category is None and rate is not None:
        raise PydanticCustomError("rate-without-category", "must not have a tax_rate if no tax is stated")
    if category is not None and category not in RATED_CATEGORIES and rate:
        raise PydanticCustomError(
            "rate-with-untaxed-category",
            "must not have a tax_rate: tax_category {category} has none",
            {"category": category},
        )


class QuoteDocumentAdjustment(QuoteAdjustment):
    """An adjustment of the whole document. It belongs to a tax group, which may be one that no line has."""

    tax_rate: Rate | None = Field(None, description="Percent; S, L and M need one")
    tax_category: TaxCategory | None = Field(
        default="S", description="null: no tax is stated; it adds to net and gross alone"
    )
    tax_included: Truth | None = Field(None, description="Default: that of the quote")

    @model_validator(mode="after")
    def _taxed_or_not(self) -> Self:
        _check_tax(self.tax_category, self.tax_rate)
        if self.tax_category in RATED_CATEGORIES and self.tax_rate is None:
            raise PydanticCustomError("rate-required", "must have a tax_rate, or a tax_category without one")
        return self


class QuoteLine(Input):
    """So many units of an item at the book's price, or of anything at a `unit_price`."""

    id: Annotated[str, OneLine(100)] | None = Field(None, description="Yours; answered as sent")
    item: Annotated[str, OneLine(104)] | None = Field(None, description="Item id, or `sku:` and the sku")
    quantity: Signed = Field(default=ONE, validate_default=True, description="Negative: goods returned")
    unit_price: Amount | None = Field(None, description="For `per` units; default: the book's price of the item")
    per: Quantity | None = Field(None, description="Base quantity of `unit_price`; default: 1")
    tax_rate: Rate | None = Field(None, description="Percent; default: that of the book's price")
    tax_category: TaxCategory | None = Field(
        None,
        description="Default: the item's, or S without an item. null: no tax is stated; the line adds to net and gross "
        "alone",
    )
    tax_included: Truth | None = Field(None, description="Whether `unit_price` contains the tax; default: the quote's")
    adjustments: list[QuoteAdjustment] = Field(default_factory=list, max_length=100)

    @property
    def states_tax(self) -> bool:
        """Whether the line says itself how it is taxed."""
        return "tax_category" in self.model_fields_set or self.tax_rate is not None

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if "tax_category" in self.model_fields_set:
            _check_tax(self.tax_category, self.tax_rate)
        if self.unit_price is not None:
            nothing_stated = not self.states_tax and self.item is None
            if self.tax_rate is None and (nothing_stated or self.tax_category in RATED_CATEGORIES):
                raise PydanticCustomError(
                    "rate-required", "must have a tax_rate, or a tax_category that has none (null: no tax is stated)"
                )
        elif self.item is None:
            raise PydanticCustomError("no-price-given", "must have an item or a unit_price")
        elif self.per is not None or self.tax_included is not None:
            raise PydanticCustomError("belongs-to-price", "must not have per or tax_included without a unit_price")
        return self


class QuoteRounding(Input):
    """How results are rounded; absent fields are those of the book's policy."""

    mode: RoundingMode = RoundingMode.HALF_UP
    level: RoundingLevel = RoundingLevel.GROUP
    digits: Annotated[int, Field(ge=0, le=12, strict=True)] | None = Field(
        None, description="Decimals of results; default: the currency's minor units"
    )
    cash_increment: Amount | None = Field(
        None, description="What is to be paid is a multiple of this; null: no rounding"
    )


class QuoteRequest(Input):
    """Lines and adjustments to be added up."""

    model_config = ConfigDict(json_schema_extra={"examples": [examples.QUOTE_REQUEST]})

    book: BookKey | None = Field(
        None, description="Where prices come from; default: `default`, unless `currency` is given"
    )
    currency: Currency | None = Field(None, description="Instead of a book, if every line has a `unit_price`")
    at: Moment | None = Field(None, description="The instant whose prices are asked for; default: now")
    tax_included: Truth | None = Field(
        None, description="Whether `unit_price` and document adjustments contain the tax; default: the book's"
    )
    rounding: QuoteRounding | None = Field(None, description="Default: the book's policy")
    prepaid: Signed | None = Field(None, description="What was paid before")
    lines: Annotated[list[QuoteLine], Field(max_length=MOST_LINES)]
    adjustments: list[QuoteDocumentAdjustment] = Field(default_factory=list, max_length=1000)

    @model_validator(mode="after")
    def _not_empty(self) -> Self:
        if not self.lines and not self.adjustments:
            raise PydanticCustomError("no-lines", "must have at least one line or adjustment")
        return self


# Of a quote that is sent back, text may be shown again as what differs: it must be short, and something that JSON can
# hold. A limit of its length makes pydantic refuse halves of surrogate pairs. One that is no number is different, too,
# so its schema has no pattern.
Figure = Annotated[
    str,
    Field(max_length=200),
    WithJsonSchema(
        {"type": "string", "maxLength": 200, "description": "Decimal in plain notation", "examples": ["19.99"]}
    ),
]


class QuotedAdjustment(Output):
    """An adjustment, and what it comes to."""

    amount: Figure
    percent: Figure | None
    base: Figure | None = Field(description="As sent")
    reason: str | None


class QuotedDocumentAdjustment(QuotedAdjustment):
    """An adjustment of the document, and its part of the tax."""

    tax_rate: Figure | None
    tax_category: TaxCategory | None
    tax_included: bool
    net: Figure
    tax: Figure
    gross: Figure


class QuotedLine(Output):
    """A line, where its price comes from, and its part of the tax. `net + tax = gross`."""

    id: str | None
    item: str | None = Field(description="The item's id")
    price_id: UUID | None = Field(description="The price row that answered; null: the price was stated")
    quantity: Figure
    unit_price: Figure
    per: Figure
    tax_rate: Figure | None
    tax_category: TaxCategory | None
    tax_included: bool
    adjustments: list[QuotedAdjustment]
    amount: Figure = Field(description="Quantity x price and the adjustments; contains tax if `tax_included`")
    net: Figure
    tax: Figure
    gross: Figure
    explain: list[str] | None = Field(
        description="With `explain=true`: the arithmetic, step by step; not in the digest"
    )


class TaxGroup(Output):
    """What is taxed in the same way. `base` is without tax."""

    tax_category: TaxCategory
    tax_rate: Figure | None = Field(description="null: the tax is stated as an amount")
    tax_included: bool
    base: Figure
    tax: Figure


class QuotedRounding(Output):
    """The policy that was used."""

    mode: RoundingMode
    level: RoundingLevel
    digits: int
    cash_increment: Figure | None


class Quote(Output):
    """The totals. `gross = net + tax` and `payable = gross + cash_rounding - prepaid`, exactly."""

    # It is sent, too, to be verified: it is built at the start like all inputs.
    model_config = ConfigDict(defer_build=False, json_schema_extra={"examples": [examples.QUOTE]})

    book: str | None = Field(description="null: every price was stated")
    currency: str
    at: datetime
    known_seq: int = Field(strict=True, ge=1, le=2**63 - 1, description="The last change taken into account")
    algorithm: str = Field(max_length=100, description="Name of the arithmetic; it never changes its results")
    rounding: QuotedRounding
    lines: list[QuotedLine]
    adjustments: list[QuotedDocumentAdjustment]
    tax_groups: list[TaxGroup]
    net: Figure
    tax: Figure
    gross: Figure
    cash_rounding: Figure
    prepaid: Figure
    payable: Figure
    digest: str = Field(
        max_length=64,
        description="SHA-256 of the answer without `digest` and `explain`, as canonical JSON, in hexadecimal",
    )

    def request(self) -> QuoteRequest:
        """What was asked, as far as the answer depends on it.

        :raises pydantic.ValidationError: if no request can have been answered like this.
        """
        adjustment = {"amount", "percent", "base", "reason"}
        taxed = {"tax_rate", "tax_category", "tax_included"}
        priced = {"unit_price", "per", "tax_included"}

        def asked(given: dict[str, Any], fields: set[str]) -> dict[str, Any]:
            """Without the amount that a percentage came to."""
            return {name: given[name] for name in fields if name != "amount" or given["percent"] is None}

        document = self.model_dump(mode="json")
        return QuoteRequest.model_validate(
            {
                "book": document["book"],
                "currency": document["currency"],
                "at": document["at"],
                "rounding": document["rounding"],
                "prepaid": document["prepaid"],
                "lines": [
                    {
                        **{name: line[name] for name in {"id", "item", "quantity", "tax_rate", "tax_category"}},
                        **({name: line[name] for name in priced} if line["price_id"] is None else {}),
                        "adjustments": [asked(each, adjustment) for each in line["adjustments"]],
                    }
                    for line in document["lines"]
                ],
                "adjustments": [asked(each, adjustment | taxed) for each in document["adjustments"]],
            }
        )


class Difference(Output):
    """The first place at which a quote is not what it should be."""

    pointer: str = Field(description="JSON pointer into the quote")
    stated: Any = Field(description="What the quote says there")
    computed: Any = Field(description="What the ledger says")


class Verification(Output):
    """Whether a quote is what the ledger, as it was known then, and the arithmetic give."""

    model_config = ConfigDict(json_schema_extra={"examples": [examples.VERIFICATION]})

    matches: bool
    difference: Difference | None = Field(description="null if it matches")
