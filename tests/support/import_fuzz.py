"""Random price lists that crowd into a few items, instants and amounts, as CSV and as NDJSON."""

import csv
import io
import json
import random
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

from tests.support.import_oracle import Options

SKUS = ("A", "B", "C", "D")
NEW_SKUS = ("N1", "N2")
GTINS = ("4006381333931", "96385074", "036000291452", "10614141000415")
PAST = ("2020-01-01", "2021-03-28", "2022-06-15T08:00:00Z")
FUTURE = ("2091-01-01", "2092-10-26", "2093-06-15T08:00:00Z")
AMOUNTS = ("10", "10.00", "11", "12.5", "9.99", "100", "0", "0.061232374", "1431.50")
BAD_AMOUNTS = ("x", "1e2", "-1", "1,234.50", "1234567890123", "01", "NaN")
ZONES = ("UTC", "Europe/Berlin", "America/New_York")

type Cells = dict[str, str | None]


@dataclass(frozen=True)
class List:
    """A price list as a file, and its rows as the oracle takes them."""

    body: bytes
    content_type: str
    rows: list[tuple[int, Cells]]
    query: dict[str, str]
    options: Options


def price(chance: random.Random) -> dict[str, Any]:
    """A price as the API takes it."""
    start = chance.choice(PAST + FUTURE)
    tax: dict[str, Any] = chance.choice(
        [{}, {"tax_rate": "19"}, {"tax_rate": "7"}, {"tax": "1.50", "tax_included": False}]
    )
    return {
        "amount": chance.choice([*AMOUNTS, None]),
        "per": chance.choice(["1", "1", "1", "100", "0.5"]),
        "min_quantity": chance.choice(["1", "1", "10"]),
        "valid_from": start,
        "valid_to": chance.choice([None, None, "2090-01-01", "2094-01-01"]) if start in PAST else None,
        "tax_included": chance.choice([True, False]),
        **tax,
    }


def price_list(chance: random.Random, *, included: bool, time_zone: str) -> List:
    """A random file, and how it is to be sent."""
    kind = chance.choice(["csv", "csv", "ndjson"])
    decimal = chance.choice([".", ".", ","]) if kind == "csv" else "."
    at = chance.choice([None, None, "2025-01-01", "2091-01-01", "2022-06-15T08:00:00Z"])
    options = Options(
        format=kind,
        decimal=decimal,
        create=chance.random() < 0.8,
        end_missing=chance.random() < 0.4,
        most_percent=Decimal(chance.choice(["50", "10", "0", "100000"])),
        effective_at=None if at is None else _instant(at, time_zone),
        time_zone=time_zone,
        included=included,
    )
    query = {
        "on_error": chance.choice(["skip", "skip", "abort"]),
        "missing": "end" if options.end_missing else "ignore",
        "create": "true" if options.create else "false",
        "max_change_percent": str(options.most_percent),
        "decimal": decimal,
        **({"effective_at": at} if at else {}),
    }
    optional = ("name", "description", "per", "min_quantity", "tax_rate", "tax", "tax_included", "valid_from")
    columns = [name for name in (*optional, "valid_to", "valid_through", "reason") if chance.random() < 0.5]
    columns += chance.choice([["sku"], ["sku", "gtin"], ["sku", "gtin"], ["gtin"]])
    columns.append("amount")
    chance.shuffle(columns)
    tidy = chance.random()
    rows = [_cells(chance, columns, tidy) for _ in range(chance.randint(1, 8))]
    rows[0]["amount"] = rows[0]["amount"] or "10"
    if kind == "ndjson":
        return _as_ndjson(chance, rows, query, options)
    return _as_csv(chance, columns, rows, query, options)


def _instant(text: str, time_zone: str) -> datetime:
    if "T" in text:
        return datetime.fromisoformat(text)
    return datetime.combine(date.fromisoformat(text), time(), ZoneInfo(time_zone)).astimezone(UTC)


def _cells(chance: random.Random, columns: list[str], tidy: float) -> Cells:
    def rarely(value: str | None, otherwise: str | None = None) -> str | None:
        return value if chance.random() > tidy else otherwise

    cells: Cells = {
        "sku": chance.choice([*SKUS, *SKUS, *NEW_SKUS, None]) if "gtin" in columns else chance.choice(SKUS + NEW_SKUS),
        "gtin": rarely(chance.choice([*GTINS, *GTINS, "4006381333932"])),
        "name": chance.choice(["Pear", None, None]) if chance.random() < 0.3 else "Näme of it",
        "description": chance.choice([None, "two\nlines", 'a "quoted", one; \t']),
        "amount": chance.choice([*AMOUNTS, *AMOUNTS, "not-for-sale", rarely(chance.choice(BAD_AMOUNTS), "10")]),
        "per": rarely(chance.choice(["1", "100", "0.5", "0"])),
        "min_quantity": chance.choice([None, "1", "1.0", "10", rarely("0")]),
        "tax_rate": chance.choice([None, "19", "19.0", "7"]),
        "tax": rarely(chance.choice(["1.50", "200", "-1"])),
        "tax_included": chance.choice([None, "true", "false"]),
        "valid_from": chance.choice([None, *PAST, *FUTURE, rarely("2026-02-30")]),
        "valid_to": rarely(chance.choice([*PAST, "2094-01-01", "2094-01-01"])),
        "valid_through": rarely(chance.choice(["2019-12-31", "2093-12-31", "2093-12-31", "2093-06-15T08:00:00Z"])),
        "reason": chance.choice([None, "spring list"]),
    }
    if chance.random() < 0.1:
        cells["amount"] = None
    return {name: cells[name] for name in columns}


def _as_csv(
    chance: random.Random, columns: list[str], rows: list[Cells], query: dict[str, str], options: Options
) -> List:
    delimiter = chance.choice(",;\t")
    end = chance.choice(["\r\n", "\n"])
    text = io.StringIO()
    writer = csv.writer(text, delimiter=delimiter, lineterminator=end)
    line = 1
    if chance.random() < 0.2:
        text.write(f"sep={delimiter}{end}")
        line += 1
    writer.writerow(columns if chance.random() < 0.7 else [name.upper() for name in columns])
    placed = []
    for row in rows:
        line += 1
        if chance.random() < 0.1:
            text.write(end)
            line += 1
        cells = {name: _with_comma(value, name, options.decimal, chance) for name, value in row.items()}
        writer.writerow([value or "" for value in cells.values()])
        if any(cells.values()):  # Spreadsheets leave empty rows behind, which are none.
            placed.append((line, cells))
        line += (row.get("description") or "").count("\n")
    bom = "\ufeff" if chance.random() < 0.3 else ""
    charset = chance.choice(["", "", "; charset=windows-1252", "; charset=utf-16"])
    encoding = {"": "utf-8", "; charset=windows-1252": "cp1252", "; charset=utf-16": "utf-16"}[charset]
    body = ("" if charset else bom) + text.getvalue()
    return List(body.encode(encoding), f"text/csv{charset}", placed, query, options)


def _with_comma(value: str | None, column: str, decimal: str, chance: random.Random) -> str | None:
    if decimal == "." or value is None or column not in ("amount", "per", "min_quantity", "tax_rate", "tax"):
        return value
    return value.replace(".", ",") if chance.random() < 0.95 else value


def _as_ndjson(chance: random.Random, rows: list[Cells], query: dict[str, str], options: Options) -> List:
    lines, placed, line = [], [], 0
    for row in rows:
        line += 1
        if chance.random() < 0.1:
            lines.append(" ")
            line += 1
        # A line leaves out what another one has.
        cells = {name: value for name, value in row.items() if value is not None or chance.random() < 0.5}
        cells = {name: None if (name, value) == ("amount", "not-for-sale") else value for name, value in cells.items()}
        lines.append(json.dumps({name: _json_value(chance, name, value) for name, value in cells.items()}))
        placed.append((line, cells))
    return List("\n".join(lines).encode(), "application/x-ndjson", placed, query, options)


def _json_value(chance: random.Random, column: str, value: str | None) -> Any:
    if column == "tax_included" and value is not None:
        return value == "true"
    return value
