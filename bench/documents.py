"""Documents to be added up, the same for Pricebook and for the rival with floats, and whether the two agree."""

import json
from collections.abc import Callable, Sequence
from decimal import Decimal
from itertools import count, islice
from typing import Any

import httpx2

from bench import BenchFailed, data
from bench.servers import Server

PRICEBOOK_PATH, FLOATS_PATH = "/v1/quotes", "/quotes"
_TAX_RATE = 19
_PERCENT = -10

Line = dict[str, Any]


def stated(number: int, quantity: int) -> tuple[Line, Line]:
    """A line at a price of its own: for Pricebook, and for floats."""
    price = data.price(number)
    ours = {"quantity": str(quantity), "unit_price": str(price), "tax_rate": str(_TAX_RATE)}
    return ours, {"quantity": quantity, "unit_price": float(price), "tax_rate": _TAX_RATE}


def of_book(pricebook_items: Sequence[str], tutorial_items: Sequence[int]) -> Callable[[int, int], tuple[Line, Line]]:
    """Makes a line at the price that the server has: for Pricebook, and for floats."""

    def line(number: int, quantity: int) -> tuple[Line, Line]:
        ours = {"item": pricebook_items[number], "quantity": str(quantity)}
        return ours, {"item": tutorial_items[number], "quantity": quantity, "tax_rate": _TAX_RATE}

    return line


def write(
    line: Callable[[int, int], tuple[Line, Line]], *, lines: int, documents: int, head: dict[str, str]
) -> tuple[list[str], list[str]]:
    """Different documents of so many lines as JSON, for Pricebook and for floats; an allowance on every third line."""
    numbers = count()
    ours, floats = [], []
    for _ in range(documents):
        pairs = [line(number * 7 % data.ITEMS, 1 + number % 9) for number in islice(numbers, lines)]
        for ours_line, floats_line in pairs[::3]:
            ours_line["adjustments"] = [{"percent": str(_PERCENT)}]
            floats_line["adjustments"] = [{"percent": _PERCENT}]
        ours.append(json.dumps({**head, "lines": [pair[0] for pair in pairs]}))
        floats.append(json.dumps({"lines": [pair[1] for pair in pairs]}))
    return ours, floats


def differing(pricebook: tuple[Server, list[str]], floats: tuple[Server, list[str]]) -> int:
    """Ask each server, given with its documents, for every document. In how many do the gross totals differ?

    :raises BenchFailed: if an answer is no success, or if the two differ by more than the rounding of floats explains.
    """
    different = 0
    with httpx2.Client(timeout=30) as client:
        for one, other in zip(pricebook[1], floats[1], strict=True):
            exact = _gross(client, pricebook[0], PRICEBOOK_PATH, one)
            rounded = _gross(client, floats[0], FLOATS_PATH, other)
            different += exact != rounded
            if abs(exact - rounded) > Decimal("0.01") * (1 + one.count("percent")):
                raise BenchFailed(f"Pricebook adds up to {exact} what floats add up to {rounded}.")
    return different


def _gross(client: httpx2.Client, server: Server, path: str, document: str) -> Decimal:
    headers = {"Content-Type": "application/json", **server.headers}
    answer = client.post(server.url + path, content=document, headers=headers)
    if not answer.is_success:
        raise BenchFailed(f"POST {path} answered {answer.status_code}: {answer.text}")
    return Decimal(str(answer.json()["gross"]))
