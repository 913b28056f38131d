"""Price lists that nobody here wrote go in as they are, through `pricebook import` and a mapping alone.

Afterwards each price is asked for through the API and compared with the file, digit for digit.
"""

import csv
import json
from collections.abc import Callable, Iterator
from datetime import date, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx2
import pytest
from sqlalchemy.engine import URL

from app.money import DECIMAL_DIGITS
from tests.support import conformance, postgres
from tests.support.processes import SECRET, run, running

pytestmark = pytest.mark.long

Line = dict[str, str]

CLIENT = httpx2.Client(timeout=60)
SINCE_EVER = "2020-01-01"
DAY = timedelta(days=1)
NO_PRICE = "no-price"
NO_ROWS = dict.fromkeys(("rows", "create", "change", "unchanged", "error"), 0) | {"missing": None}
ITEM = "AW-{product_id}"
"""The history names products by their id alone, so that is what they are called here."""


@pytest.fixture
def api(fresh_url: URL, tmp_path: Path) -> Iterator[str]:
    """A service without items."""
    url = postgres.text(fresh_url)
    assert run("migrate", directory=tmp_path, database_url=url).returncode == 0
    with running("serve", tmp_path, database_url=url, secret_key=SECRET) as service:
        yield service.api


def send(api: str, directory: Path, file: str, mapping: list[str], *options: str) -> dict[str, Any]:
    """Apply a file of the figures; returns the import."""
    mapped = [word for entry in mapping for word in ("--map", entry)]
    source = conformance.path(f"prices/{file}")
    done = run(
        "import", source, *mapped, *options, "--apply", "--yes", "--json", directory=directory, pricebook_url=api
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr
    document: dict[str, Any] = json.loads(done.stdout)
    assert document["state"] == "applied"
    return document


def look_up(api: str, book: str, questions: list[tuple[str, str, str]]) -> list[dict[str, Any]]:
    """Prices for (instant, sku, quantity), in their order."""
    answers: dict[tuple[str, str, str], dict[str, Any]] = {}
    for at in {question[0] for question in questions}:
        asked = list(dict.fromkeys(question for question in questions if question[0] == at))
        for start in range(0, len(asked), 1000):
            part = asked[start : start + 1000]
            lines = [{"item": f"sku:{sku}", "quantity": quantity} for _, sku, quantity in part]
            body = {"book": book, "at": at, "lines": lines}
            answer = CLIENT.post(f"{api}/v1/prices:lookup", json=body)
            assert answer.status_code == 200, answer.text
            answers |= zip(part, answer.json()["prices"], strict=True)
    return [answers[question] for question in questions]


def is_exactly(found: str, given: str) -> bool:
    """The digits that were given, but for zeros at the end: answers have two decimals at least."""
    return found == given or (Decimal(found) == Decimal(given) and len(found.partition(".")[2]) == 2)


def create_book(api: str, key: str, **fields: str) -> None:
    assert CLIENT.post(f"{api}/v1/books", json={"key": key, "name": key, **fields}).status_code == 201


def test_published_prices_of_models(api: str, tmp_path: Path, record_property: Callable[[str, object], None]) -> None:
    rows = conformance.rows("prices/genai-prices.csv")
    create_book(api, "usd", currency="USD")
    mapping = [
        "sku:{sku} {unit}",
        "name:{sku} {unit}",
        "amount:price",
        "per",
        "min_quantity:tier_start",
        # A daily window becomes that of one day.
        "valid_from:2024-06-01T{daily_start}",
        "valid_from:start_date",
        "valid_to:2024-06-01T{daily_end}",
    ]
    wrong = tmp_path / "wrong.csv"
    options = ("--book", "usd", "--effective-at", SINCE_EVER, "--on-error", "skip", "--errors", str(wrong))
    document = send(api, tmp_path, "genai-prices.csv", mapping, *options)

    # The lines with the noise of floats are named, and everything else is in.
    too_long = [row for row in rows if len(row["price"].partition(".")[2]) > DECIMAL_DIGITS]
    counts = {**NO_ROWS, "rows": 3145, "create": 3138, "error": 7}
    assert (len(too_long), document["counts"]) == (7, counts)
    report = CLIENT.get(f"{api}/v1/imports/{document['id']}/rows", params={"status": "error"}).json()["rows"]
    faults = [error for row in report for error in row["errors"]]
    assert [(fault["column"], fault["code"]) for fault in faults] == [("amount", "too-many-digits")] * 7
    assert [fault["value"] for fault in faults] == [row["price"] for row in too_long]
    with wrong.open(newline="", encoding="utf-8") as file:
        named = list(csv.DictReader(file))
    assert all("amount" in row.pop("import_errors") for row in named)
    assert named == too_long

    taken = [row for row in rows if row not in too_long]
    skus = [f"{row['sku']} {row['unit']}" for row in taken]
    starts = [
        f"2024-06-01T{row['daily_start']}" if row["daily_start"] else f"{row['start_date'] or SINCE_EVER}T00:00:00Z"
        for row in taken
    ]
    quantities = [row["tier_start"] or "1" for row in taken]
    prices = look_up(api, "usd", list(zip(starts, skus, quantities, strict=True)))
    for row, sku, start, quantity, price in zip(taken, skus, starts, quantities, prices, strict=True):
        assert is_exactly(price["amount"], row["price"]), (row, price)
        assert (price["sku"], price["per"], price["currency"]) == (sku, row["per"], row["currency"])
        assert (price["valid_from"], price["min_quantity"]) == (start, quantity)
        end = f"2024-06-01T{row['daily_end']}" if row["daily_end"] else None
        assert price["valid_to"] == end
    record_property("summary", f"import: {len(taken)} of {len(rows)} published prices, 7 lines named as errors")


def test_products_and_their_history(api: str, tmp_path: Path, record_property: Callable[[str, object], None]) -> None:
    products = conformance.rows("prices/adventureworks-products.csv")
    mapping = [f"sku:{ITEM}", "name", "description:sku", "amount:list_price", "valid_from:sell_start"]
    document = send(api, tmp_path, "adventureworks-products.csv", [*mapping, "valid_through:sell_end"])
    assert document["counts"] == {**NO_ROWS, "rows": 504, "create": 504}
    # One change for each item and one for each price.
    assert document["last_seq"] - document["first_seq"] + 1 == 1008
    found = look_up(api, "default", [(row["sell_start"], f"AW-{row['product_id']}", "1") for row in products])
    for row, price in zip(products, found, strict=True):
        assert is_exactly(price["amount"], row["list_price"].rstrip("0")), (row, price)
        end = (date.fromisoformat(row["sell_end"]) + DAY).isoformat() + "T00:00:00Z" if row["sell_end"] else None
        assert (price["valid_from"], price["valid_to"]) == (f"{row['sell_start']}T00:00:00Z", end)
    listed: list[dict[str, Any]] = []
    query: dict[str, Any] = {"limit": 1000}
    while query.get("cursor", "") is not None:
        page = CLIENT.get(f"{api}/v1/items", params=query).json()
        listed += page["items"]
        query["cursor"] = page["next"]
    assert sorted((item["sku"], item["name"], item["description"]) for item in listed) == sorted(
        (f"AW-{row['product_id']}", row["name"], row["sku"]) for row in products
    )

    # The last days of the history are inclusive, and days begin where its book is.
    history = conformance.rows("prices/adventureworks-history.csv")
    create_book(api, "shop", currency="USD", time_zone="America/Los_Angeles")
    mapping = [f"sku:{ITEM}", "amount:list_price", "valid_from:start", "valid_through:end"]
    document = send(api, tmp_path, "adventureworks-history.csv", mapping, "--book", "shop", "--no-create")
    assert document["counts"] == {**NO_ROWS, "rows": 395, "create": 395}
    questions: list[tuple[str, str, str]] = []
    expected: list[str] = []
    for row in history:
        first = date.fromisoformat(row["start"])
        last = date.fromisoformat(row["end"]) if row["end"] else first + 400 * DAY
        for day in (first - DAY, first, first + (last - first) // 2, last, last + DAY):
            questions.append((day.isoformat(), f"AW-{row['product_id']}", "1"))
            expected.append(price_of(history, row["product_id"], day))
    answers = [answer.get("amount", NO_PRICE) for answer in look_up(api, "shop", questions)]
    for question, answer, given in zip(questions, answers, expected, strict=True):
        assert answer == given if NO_PRICE in (answer, given) else is_exactly(answer, given.rstrip("0")), question
    assert expected.count(NO_PRICE) > 300, "days without a price are asked about too"
    lists = f"{len(products)} products and {len(history)} prices of their history"
    record_property("summary", f"import: {lists}, {len(questions)} days asked about")


def price_of(history: list[Line], product: str, day: date) -> str:
    """What the file says, by a plain search."""
    text = day.isoformat()
    return next(
        (
            row["list_price"]
            for row in history
            if row["product_id"] == product and row["start"] <= text and (not row["end"] or text <= row["end"])
        ),
        NO_PRICE,
    )
