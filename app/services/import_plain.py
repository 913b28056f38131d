"""Rows of a CSV file in which nothing is wrong, which nearly all are: a hundred at a time, column by column.

Only what is certainly right is taken here. Rows that hold anything else are left to the reading of single rows, which
alone knows the rules, and what to say of each error: whatever a list repeats, such as rates and days, is asked of it,
once. What rows say differently is held against patterns that are narrower than the rules are.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from itertools import repeat
from typing import Any

import msgspec

from app import gtin, money, price_list
from app.import_files import Record
from app.schemas.base import SUB_RESOURCES
from app.services.import_copy import NULL, copied

type Fields = dict[str, Any]
"""Staged columns of a row, by their names."""

DECIMAL_COMMA = str.maketrans({",": ".", ".": " "})
"""A decimal comma becomes a point; a point, which would stand for thousands, becomes something that is no number."""

_APART = "\x1f"
"""Between the cells of a column; no text that is taken has one in it."""
_CONTROL = r"\x00-\x1f\x7f\ud800-\udfff"


def _line(most: int) -> str:
    """A pattern of one line of text, without blanks around it, apostrophes before it, and backslashes in it."""
    return rf"[^\s'\\{_CONTROL}](?:[^\\{_CONTROL}]{{0,{most - 2}}}[^\s\\{_CONTROL}])?"


_NUMBER = rf"(?:0|[1-9][0-9]{{0,{money.INTEGER_DIGITS - 1}}})(?:\.[0-9]{{1,{money.DECIMAL_DIGITS}}})?"
_PATTERNS = {
    name: re.compile(f"(?:{pattern}{_APART})*+")
    for name, pattern in {
        "sku": f"(?:{_line(100)}{''.join(f'(?<!{end})' for end in SUB_RESOURCES)})?",
        "name": f"(?:{_line(200)})?",
        "description": rf"(?:[^'\\{_CONTROL}][^\\{_CONTROL}]{{0,3999}})?",
        "amount": _NUMBER,
        "reason": f"(?:{_line(500)})?",
    }.items()
}
"""Of a column, with :data:`_APART` after each cell."""

_OF_ITEMS = ("unit", "tax_category", "attributes")
_OF_PRICES = {
    ("per",): ("per",),
    ("min_quantity",): ("min_quantity",),
    ("tax_rate", "tax"): ("tax_rate", "tax", "tax_stated"),
    ("tax_included",): ("tax_included",),
    ("valid_from", "valid_to", "valid_through"): ("valid_from", "valid_to"),
}
"""Columns of a file that are read together, and those of the staging table that come of them, in its order."""
_REMEMBERED = 4096
"""So many values, or combinations of them, of each of these are remembered,"""
_LONGEST = 1000
"""and no longer ones."""


class _Item(msgspec.Struct, omit_defaults=True):
    name: str | None = None
    description: str | None = None
    unit: str | None = None
    tax_category: str | None = None
    attributes: dict[str, Any] | None = None


class Refused(Exception):
    """Rows that are to be read one by one."""


class PlainRows:
    """Lines of COPY for rows of one file.

    :param cells: for each field that the file has, what finds its cell in a record.
    :param read: the staged columns of a row, from its fields as texts; raises ``ValueError`` if anything is wrong.
    """

    def __init__(
        self,
        import_id: str,
        width: int,
        cells: Mapping[str, Callable[[list[str]], str]],
        read: Callable[[Fields], Fields],
        *,
        decimal: str,
    ) -> None:
        self._import_id = import_id
        self._width = width
        self._cells = cells
        self._read = read
        self._decimal = decimal
        self._items_of = self._reader(_OF_ITEMS, _of_item)
        self._prices_of = {names: self._reader(names, _copier(columns)) for names, columns in _OF_PRICES.items()}

    def _reader(self, names: Sequence[str], result: Callable[[Fields], Any]) -> Callable[[tuple[str, ...]], Any]:
        """From cells of the columns of these names, as far as the file has them, to what comes of them."""
        present = [name for name in names if name in self._cells]

        def read(cells: tuple[str, ...]) -> Any:
            if sum(map(len, cells)) > _LONGEST:
                raise Refused
            texts = [price_list.unguard(cell).strip() or None for cell in cells]
            return result(self._read({"sku": "A", "amount": "1", **dict(zip(present, texts, strict=True))}))

        return lru_cache(_REMEMBERED)(read)

    def lines(self, first: int, records: Sequence[Record[list[str]]]) -> bytes | None:
        """Lines for these records, or none if there is one that is not certainly right.

        :param first: the number of the first row.
        """
        numbers, rows = zip(*records, strict=True)
        if set(map(len, rows)) != {self._width}:
            return None
        try:
            columns = (
                repeat(self._import_id),
                map(str, range(first, first + len(rows))),
                map(str, numbers),
                *self._keys(rows),
                self._items(rows),
                self._texts(rows, "amount"),
                *(self._shared(rows, names, reader) for names, reader in self._prices_of.items()),
                _or_null(self._texts(rows, "reason")),
                repeat(NULL),
                _json(rows),
            )
        except (Refused, ValueError):
            return None
        return "".join(f"{line}\n" for line in map("\t".join, zip(*columns, strict=False))).encode()

    def _keys(self, rows: Sequence[list[str]]) -> tuple[Iterable[str], Iterable[str]]:
        skus, gtins = self._texts(rows, "sku"), self._column(rows, "gtin")
        if not all(map(gtin.is_valid, filter(None, gtins))) or ("", "") in zip(skus, gtins, strict=True):
            raise Refused
        return _or_null(skus), _or_null(gtins)

    def _items(self, rows: Sequence[list[str]]) -> Iterable[str]:
        if self._cells.keys().isdisjoint(_Item.__struct_fields__):
            return repeat(NULL)
        texts = ([text or None for text in self._texts(rows, name)] for name in ("name", "description"))
        shared = self._shared(rows, _OF_ITEMS, self._items_of)
        items = _json([_Item(*own, *others) for *own, others in zip(*texts, shared, strict=True)])
        return [NULL if item == "{}" else item for item in items]

    def _shared(
        self, rows: Sequence[list[str]], names: Sequence[str], read: Callable[[tuple[str, ...]], Any]
    ) -> Iterable[Any]:
        present = [list(map(self._cells[name], rows)) for name in names if name in self._cells]
        if not present:
            return repeat(read(()), len(rows))
        return list(map(read, zip(*present, strict=True)))

    def _column(self, rows: Sequence[list[str]], name: str) -> list[str]:
        """Cells without the blanks around them; empty ones if the file has no such column."""
        if name not in self._cells:
            return [""] * len(rows)
        cells = map(self._cells[name], rows)
        return list(cells if name == "description" else map(str.strip, cells))

    def _texts(self, rows: Sequence[list[str]], name: str) -> list[str]:
        """The same of a column of which there is a pattern.

        :raises Refused: unless all of them are as it says.
        """
        cells = self._column(rows, name)
        joined = _APART.join(cells) + _APART
        if name == "amount" and self._decimal == ",":
            joined = joined.translate(DECIMAL_COMMA)
            cells = joined[:-1].split(_APART)
        if joined.count(_APART) != len(rows) or not _PATTERNS[name].fullmatch(joined):
            raise Refused
        return cells


def _of_item(row: Fields) -> tuple[Any, ...]:
    item = row["item"] or {}
    return tuple(map(item.get, _OF_ITEMS))


def _copier(columns: Sequence[str]) -> Callable[[Fields], str]:
    return lambda row: "\t".join(copied(row[name]) for name in columns)


def _or_null(texts: list[str]) -> list[str]:
    return [text or NULL for text in texts] if "" in texts else texts


def _json(values: Iterable[Any]) -> list[str]:
    """Values as JSON, in COPY's text format."""
    # JSON has no line breaks of its own in it.
    return b"\n".join(map(msgspec.json.encode, values)).decode().replace("\\", "\\\\").split("\n")
