"""The document that a quote is answered with: made, digested, and compared with one that comes back."""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any
from uuid import UUID

from app import money, quote_steps, quoting
from app.quoting import Policy, Tax, Totals
from app.schemas.quote import Difference, Quote, QuoteAdjustment, QuoteRequest


@dataclass(frozen=True, slots=True)
class PricedLine:
    """A line with its price, wherever that comes from."""

    priced: quoting.Line
    item_id: UUID | None
    price_id: UUID | None


def build(
    request: QuoteRequest, lines: Sequence[PricedLine], totals: Totals, policy: Policy, *, explain: bool, **head: Any
) -> Quote:
    """The answer, with its digest. ``head`` are its first fields, up to ``algorithm``."""
    digits, of_price = policy.digits, money.minor_units(head["currency"])

    def plain(amount: Decimal) -> str:
        return money.plain(amount, digits)

    def split(entry: quoting.Entry) -> dict[str, str]:
        return {"net": plain(entry.net), "tax": plain(entry.tax), "gross": plain(entry.gross)}

    def adjusted(given: QuoteAdjustment, amount: Decimal) -> dict[str, Any]:
        return {
            "amount": plain(amount),
            "percent": _plain_or_none(given.percent),
            "base": _plain_or_none(given.base),
            "reason": given.reason,
        }

    answer = {
        **head,
        "rounding": {
            "mode": policy.mode,
            "level": policy.level,
            "digits": digits,
            "cash_increment": None if policy.cash_increment is None else plain(policy.cash_increment),
        },
        "lines": [
            {
                "id": given.id,
                "item": None if line.item_id is None else str(line.item_id),
                "price_id": line.price_id,
                "quantity": money.plain(given.quantity),
                "unit_price": money.plain(line.priced.unit_price, of_price),
                "per": money.plain(line.priced.per),
                **_tax_fields(entry.key),
                "adjustments": [adjusted(*pair) for pair in zip(given.adjustments, entry.adjustments, strict=True)],
                "amount": plain(entry.amount),
                **split(entry),
                "explain": quote_steps.of_line(line.priced, entry, policy) if explain else None,
            }
            for given, line, entry in zip(request.lines, lines, totals.lines, strict=True)
        ],
        "adjustments": [
            {**adjusted(given, entry.amount), **_tax_fields(entry.key), **split(entry)}
            for given, entry in zip(request.adjustments, totals.adjustments, strict=True)
        ],
        "tax_groups": [
            {**_tax_fields(group.key), "base": plain(group.base), "tax": plain(group.tax)} for group in totals.groups
        ],
        **{name: plain(getattr(totals, name)) for name in _TOTALS},
    }
    quote = Quote(**answer, digest="")
    return quote.model_copy(update={"digest": digest(quote)})


_TOTALS = ("net", "tax", "gross", "cash_rounding", "prepaid", "payable")


def _tax_fields(tax: Tax) -> dict[str, Any]:
    return {"tax_category": tax.category, "tax_rate": _plain_or_none(tax.rate), "tax_included": tax.included}


def _plain_or_none(number: Decimal | None) -> str | None:
    return None if number is None else money.plain(number)


def comparable(quote: Quote) -> dict[str, Any]:
    """What counts of a quote: all but the explanations."""
    return quote.model_dump(mode="json", exclude={"lines": {"__all__": {"explain"}}})


def digest(quote: Quote) -> str:
    """SHA-256 of the quote in canonical JSON: names in order, no blanks, UTF-8."""
    document = comparable(quote)
    del document["digest"]
    canonical = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(canonical.encode()).hexdigest()


def differences(stated: Any, computed: Any, pointer: str = "") -> Iterator[Difference]:
    """The places at which two documents of one shape differ, in the order of the document."""
    if isinstance(computed, dict):
        for name, value in computed.items():
            yield from differences(stated[name], value, f"{pointer}/{name}")
    elif isinstance(computed, list) and len(stated) == len(computed):
        for index, value in enumerate(computed):
            yield from differences(stated[index], value, f"{pointer}/{index}")
    elif type(stated) is not type(computed) or stated != computed:
        yield Difference(pointer=pointer, stated=stated, computed=computed)


def at(document: Mapping[str, Any], pointer: str) -> Any:
    """What is at a JSON pointer."""
    place: Any = document
    for name in pointer.removeprefix("/").split("/"):
        place = place[int(name) if isinstance(place, list) else name]
    return place
