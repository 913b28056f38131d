"""`pricebook quote`: a file goes to the service as it is, and its answer is shown as tables.

Amounts stay what they are in the answer, strings; nothing here calculates.
"""

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx2
from rich.table import Table

from app import client, tables

STDIN = "-"


class QuoteError(Exception):
    """The file could not be read, the service be reached, or the document be added up; the message says why."""


def show(file: str, url: str, *, explain: bool, as_json: bool) -> None:
    """Send a request for a quote and print the answer.

    :param file: path of a request of ``POST /v1/quotes``, or ``-``.
    :raises QuoteError: if there is no quote.
    """
    content, request = _read(file)
    answer = _ask(url, "/v1/quotes", content, explain=explain)
    if as_json:
        sys.stdout.write(f"{answer.text}\n")
        return
    console = tables.console()
    for part in _report(answer.json(), _names(request)):
        tables.show(console, part)


def verify(file: str, url: str, *, as_json: bool) -> bool:
    """Send a stored quote, print whether it is right, and if not, where it differs.

    :param file: path of an answer of ``POST /v1/quotes``, or ``-``.
    :raises QuoteError: if the service cannot say.
    """
    content, _ = _read(file)
    answer = _ask(url, "/v1/quotes:verify", content)
    verification = answer.json()
    if as_json:
        sys.stdout.write(f"{answer.text}\n")
    elif verification["matches"]:
        sys.stdout.write("The quote is right.\n")
    else:
        difference = verification["difference"]
        stated, computed = (json.dumps(difference[name], ensure_ascii=False) for name in ("stated", "computed"))
        sys.stdout.write(
            "The quote is not right. The first difference:\n"
            f"pointer   {difference['pointer']}{_in_words(difference['pointer'])}\n"
            f"stated    {stated}\n"
            f"computed  {computed}\n"
        )
    return bool(verification["matches"])


def _read(file: str) -> tuple[bytes, Any]:
    """The content of a file, and the document in it with its numbers as they are written."""
    name = "Standard input" if file == STDIN else file
    try:
        content = sys.stdin.buffer.read() if file == STDIN else Path(file).read_bytes()
    except OSError as error:
        raise QuoteError(f"{name} cannot be read: {error.strerror}.") from None
    try:
        return content, json.loads(content.decode(), parse_float=str, parse_int=str)
    except UnicodeDecodeError as error:
        raise QuoteError(f"{name} is not UTF-8, from byte {error.start} on.") from None
    except json.JSONDecodeError as error:
        raise QuoteError(f"{name} is not JSON: line {error.lineno}, column {error.colno}: {error.msg}.") from None
    except RecursionError:
        raise QuoteError(f"{name} is not a quote: it is nested too deeply.") from None


def _ask(url: str, path: str, content: bytes, *, explain: bool = False) -> httpx2.Response:
    expected = "matches" if path.endswith(":verify") else "payable"
    params = {"explain": "true"} if explain else None
    headers = {"Content-Type": "application/json"}
    try:
        with client.Service(url) as service:
            return service.ask("POST", path, expects=expected, content=content, params=params, headers=headers)
    except client.ProblemAnswer as error:
        found = error.document
        lines = client.faults(found, lambda pointer: pointer + _in_words(pointer))
        title = f"There is no quote: {found['title']} (status {found['status']})."
        raise QuoteError("\n".join([title, *lines])) from None
    except client.ServiceError as error:
        raise QuoteError(str(error)) from None


def _in_words(pointer: str) -> str:
    """Which line a pointer is about, counted as people do."""
    first, _, rest = pointer.removeprefix("/").partition("/")
    number = rest.partition("/")[0]
    kinds = {"lines": "line", "adjustments": "adjustment", "tax_groups": "tax group"}
    return f" ({kinds[first]} {int(number) + 1})" if first in kinds and number.isdecimal() else ""


def _names(request: Any) -> list[str]:
    """What the request calls its lines; the answer has ids of items only."""
    return [str(line.get("id") or line.get("item") or "") for line in request["lines"]]


def _report(quote: Mapping[str, Any], names: Sequence[str]) -> Iterator[Table | str]:
    book = f"book {quote['book']}" if quote["book"] else "no book"
    yield f"Quote in {quote['currency']}, {book}, at {quote['at']}, known_seq {quote['known_seq']}"
    yield ""
    yield _lines(quote, names)
    yield ""
    for number, line in enumerate(quote["lines"], 1):
        for step in line["explain"] or ():
            yield f"{number}: {step}"
        if line["explain"]:
            yield ""
    if quote["tax_groups"]:
        yield _tax_groups(quote)
        yield ""
    yield _totals(quote)
    yield ""
    rounding = quote["rounding"]
    yield f"Rounded {rounding['mode']} to {rounding['digits']} decimals, tax per {rounding['level']}"
    yield f"{quote['algorithm']}, digest"
    yield quote["digest"]


def _lines(quote: Mapping[str, Any], names: Sequence[str]) -> Table:
    words = ("line", "adjustments", "taxed")
    table = tables.table("", "line", "quantity", "unit price", "adjustments", "amount", "taxed", "tax", words=words)
    for number, (line, name) in enumerate(zip(quote["lines"], names, strict=True), 1):
        table.add_row(
            str(number),
            name,
            line["quantity"],
            line["unit_price"] + (f" / {line['per']}" if line["per"] != "1" else ""),
            "\n".join(_adjustment(adjustment) for adjustment in line["adjustments"]),
            line["amount"],
            _tax(line),
            line["tax"],
        )
    for adjustment in quote["adjustments"]:
        name = adjustment["reason"] or ("allowance" if adjustment["amount"].startswith("-") else "charge")
        share = _percent(adjustment)
        table.add_row("", name, "", "", share, adjustment["amount"], _tax(adjustment), adjustment["tax"])
    return table


def _adjustment(adjustment: Mapping[str, Any]) -> str:
    return " ".join(part for part in (adjustment["reason"], _percent(adjustment), adjustment["amount"]) if part)


def _percent(adjustment: Mapping[str, Any]) -> str:
    if adjustment["percent"] is None:
        return ""
    return f"{adjustment['percent']} %" + (f" of {adjustment['base']}" if adjustment["base"] is not None else "")


def _tax(taxed: Mapping[str, Any]) -> str:
    """How something is taxed, in a few signs."""
    if taxed["tax_category"] is None:
        return "none stated"
    rate = "as stated" if taxed["tax_rate"] is None else f"{taxed['tax_rate']} %"
    return f"{taxed['tax_category']} {rate}" + (" incl." if taxed["tax_included"] else "")


def _tax_groups(quote: Mapping[str, Any]) -> Table:
    table = tables.table("tax group", "base", "tax", words=["tax group"])
    for group in quote["tax_groups"]:
        table.add_row(_tax(group), group["base"], group["tax"])
    return table


def _totals(quote: Mapping[str, Any]) -> Table:
    table = tables.table("total", quote["currency"], words=["total"])
    for name in ("net", "tax", "gross"):
        table.add_row(name, quote[name])
    for name in ("cash_rounding", "prepaid"):
        if Decimal(quote[name]):
            table.add_row(name.replace("_", " "), quote[name])
    table.add_row("payable", quote["payable"], style="bold")
    return table
