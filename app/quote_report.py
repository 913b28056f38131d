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
from rich import box
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table

STDIN = "-"
_TIMEOUT_SECONDS = 60
_PIPED_WIDTH = 200
_WIDEST = 1000
_MOST_FAULTS = 10
_WORD_WIDTH = 9
_WORDS_WIDTH = 30


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
    console = Console(markup=False, emoji=False, highlight=False)
    if not console.is_terminal:
        console.width = _PIPED_WIDTH
    for part in _report(answer.json(), _names(request)):
        _print(console, part)


def _print(console: Console, part: Table | str) -> None:
    """Print; a table wider than the terminal is wrapped by the terminal, whereas rich would cut its figures off."""
    needed = Measurement.get(console, console.options.update(max_width=_WIDEST), part).maximum
    console.width = max(console.width, needed)
    console.print(part)


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
    try:
        answer = httpx2.post(
            url.rstrip("/") + path,
            content=content,
            params={"explain": "true"} if explain else None,
            headers={"Content-Type": "application/json"},
            timeout=_TIMEOUT_SECONDS,
        )
    except (httpx2.TransportError, httpx2.InvalidURL) as error:
        raise QuoteError(f"No service answers at {url}: {error}. Start one with: make run") from None
    try:
        document = answer.json()
    except ValueError:
        document = None
    expected = "errors" if answer.is_error else "matches" if path.endswith(":verify") else "payable"
    if not isinstance(document, dict) or expected not in document:
        raise QuoteError(f"What answers at {url} is not Pricebook: status {answer.status_code}.")
    if answer.is_error:
        raise QuoteError("\n".join(_problem(document)))
    return answer


def _problem(problem: Mapping[str, Any]) -> Iterator[str]:
    """A problem document in words."""
    yield f"There is no quote: {problem['title']} (status {problem['status']})."
    faults = problem["errors"]
    if not faults:
        yield str(problem["detail"])
    for fault in faults[:_MOST_FAULTS]:
        yield f"{fault['pointer']}{_in_words(fault['pointer'])} {fault['message']}"
    if len(faults) > _MOST_FAULTS:
        yield f"and {len(faults) - _MOST_FAULTS} more"


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


def _table(*headings: str, left: Sequence[str]) -> Table:
    """A table whose figures are never cut off; columns that are ``left`` hold words and may be folded."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, collapse_padding=True)
    for heading in headings:
        if heading in left:
            table.add_column(heading, overflow="fold", min_width=_WORD_WIDTH, max_width=_WORDS_WIDTH)
        else:
            table.add_column(heading, justify="right", no_wrap=True)
    return table


def _lines(quote: Mapping[str, Any], names: Sequence[str]) -> Table:
    words = ("line", "adjustments", "taxed")
    table = _table("", "line", "quantity", "unit price", "adjustments", "amount", "taxed", "tax", left=words)
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
    table = _table("tax group", "base", "tax", left=["tax group"])
    for group in quote["tax_groups"]:
        table.add_row(_tax(group), group["base"], group["tax"])
    return table


def _totals(quote: Mapping[str, Any]) -> Table:
    table = _table("total", quote["currency"], left=["total"])
    for name in ("net", "tax", "gross"):
        table.add_row(name, quote[name])
    for name in ("cash_rounding", "prepaid"):
        if Decimal(quote[name]):
            table.add_row(name.replace("_", " "), quote[name])
    table.add_row("payable", quote["payable"], style="bold")
    return table
