"""The price list as a file: its columns, and how a cell, a line of CSV and a line of NDJSON are written.

Pure. An export writes with it and an import reads with it, so that what one writes the other reads back, byte for byte.
"""

import csv
import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

COLUMNS = (
    "sku",
    "gtin",
    "name",
    "description",
    "unit",
    "tax_category",
    "attributes",
    "amount",
    "per",
    "min_quantity",
    "tax_rate",
    "tax",
    "tax_included",
    "valid_from",
    "valid_to",
    "reason",
)
"""In the order of the file: what the item is, then the terms of one of its price rows."""

TEXT_COLUMNS = frozenset({"sku", "name", "description", "reason"})
"""Those whose cells hold free text, which is guarded in CSV."""

NOT_FOR_SALE = "not-for-sale"
"""The cell of an amount that is null: an empty one would look as if somebody forgot it."""

_GUARDED = re.compile(r"'*(?:\s*[=+\-@＝＋－＠]|[\t\r\n]|\Z)")  # noqa: RUF001 - spreadsheets take the wide forms too.


def guard(text: str) -> str:
    """Text as a cell that no spreadsheet takes for a formula.

    An apostrophe, which spreadsheets know as the mark of text, goes before whatever they might calculate; and before
    the empty text, so that it is not read as none. Text that looks guarded already gets another one, so that
    :func:`unguard` always gives back what was there.
    """
    return f"'{text}" if _GUARDED.match(text) else text


def unguard(cell: str) -> str:
    """The text of a guarded cell. Other apostrophes stay: ``'t Hof`` is a name."""
    return cell[1:] if cell.startswith("'") and _GUARDED.match(cell) else cell


class _Line:
    """What the csv module writes a line to: it answers with the line itself."""

    @staticmethod
    def write(line: str) -> str:
        return line


HEADER = ",".join(COLUMNS) + "\r\n"
"""First line of a CSV file."""


_WRITERS: dict[str, Any] = {delimiter: csv.writer(_Line(), delimiter=delimiter) for delimiter in ",;\t"}
"""Their writerow answers with the result of write."""


def csv_text(cells: Iterable[str | None], delimiter: str = ",") -> str:
    """Cells as a line of CSV, ``\\r\\n`` included."""
    writer = _WRITERS.get(delimiter) or csv.writer(_Line(), delimiter=delimiter)
    line: str = writer.writerow(cells)
    return line


def csv_line(row: Mapping[str, Any]) -> str:
    """A line of CSV as in RFC 4180, ``\\r\\n`` included.

    No value is an empty cell, except for the amount of an item that is not for sale.

    :param row: a value for each column, as in JSON: strings, a boolean, an object, and null for none.
    """
    cells = {column: row[column] for column in COLUMNS}
    for column in TEXT_COLUMNS:
        if cells[column] is not None:
            cells[column] = guard(cells[column])
    cells["attributes"] = _json(_sorted(cells["attributes"]))
    cells["tax_included"] = "true" if cells["tax_included"] else "false"
    if cells["amount"] is None:
        cells["amount"] = NOT_FOR_SALE
    return csv_text(cells.values())


def ndjson_line(row: Mapping[str, Any]) -> str:
    """A line of NDJSON: an object with the columns as its keys, in their order. ``row`` as for :func:`csv_line`."""
    values = {column: row[column] for column in COLUMNS}
    values["attributes"] = _sorted(values["attributes"])
    return f"{_json(values)}\n"


def _sorted(attributes: Mapping[str, Any]) -> dict[str, Any]:
    return dict(sorted(attributes.items()))


_json = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
