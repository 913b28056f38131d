"""Which column of a file is which field of a price list: by its name, or by a mapping.

A mapping entry is ``target:source``. The source is the name of a column, or a text with names in braces, such as
``sku:{model} {unit}``; it is empty where all columns that it names are. Several entries for one target are tried in
their order, and the first that is not empty counts. ``target`` alone stands for ``target:target``.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

from app import price_list
from app.import_files import FileError

COLUMNS = (*price_list.COLUMNS[:-1], "valid_through", price_list.COLUMNS[-1])
"""The fields of a row of a price list: those that an export has, and ``valid_through``, the last day, as people say it
instead of ``valid_to``."""

ERRORS_COLUMN = "import_errors"
"""Added to a file of rows with errors, and passed over when it is sent again."""

_UNPRINTABLE = re.compile("[\x00-\x1f\x7f\ud800-\udfff]")
_PLACE = re.compile(r"\{([^{}]+)\}")

type _Cells = Sequence[str | None] | Mapping[str, Any]
type _Reader = Callable[[Any], Any]


class MappingError(ValueError):
    """A mapping entry that cannot be meant; the message says what to write."""


@dataclass(frozen=True, slots=True)
class Source:
    """Where a field comes from: the column ``template``, or a text with columns in it."""

    template: str

    @property
    def columns(self) -> list[str]:
        """The columns that it reads."""
        return _PLACE.findall(self.template) or [self.template]

    def reader(self, key_of: Callable[[str], Any]) -> _Reader:
        """A function from a record to the value; ``key_of`` finds a column's key in the record."""
        parts = _PLACE.split(self.template)
        if len(parts) == 1:
            key = key_of(self.template)
            return itemgetter(key)
        keys = {name: key_of(name) for name in parts[1::2]}

        def fill(cells: Any) -> str | None:
            values = {name: cells[key] for name, key in keys.items()}
            if not any(values.values()):
                return None
            return "".join(part if index % 2 == 0 else str(values[part] or "") for index, part in enumerate(parts))

        return fill


def parse_mapping(entries: Iterable[str]) -> dict[str, list[Source]]:
    """Read mapping entries, in the order in which they are tried.

    :raises MappingError: if a target is not one of :data:`COLUMNS`, or names no source.
    """
    result: dict[str, list[Source]] = {}
    for entry in entries:
        target, colon, source = entry.partition(":")
        if target not in COLUMNS:
            raise MappingError(f"{target[:100]} is not a field of a price list; those are {', '.join(COLUMNS)}")
        if _UNPRINTABLE.search(source):
            raise MappingError(f"{target} has a source with control characters, which no column has")
        if colon and not source:
            raise MappingError(f"{target} has no source; write {target}:name-of-the-column")
        result.setdefault(target, []).append(Source(source if colon else target))
    return result


def match_header(header: Sequence[str], mapping: Mapping[str, list[Source]], line: int = 1) -> dict[str, list[_Reader]]:
    """For each field of a CSV file, the functions that read it from a record, in the order in which they are tried.

    With a mapping, only what it names is read. Without, columns bear the names of fields, in any case.

    :raises FileError: if a column is not there, is there twice, or is unknown.
    """
    names = [price_list.unguard(name).strip() for name in header]
    if any(_UNPRINTABLE.search(name) for name in names):
        raise FileError("unknown-column", "names a column with control characters in its name", 1)
    if not mapping:
        names = [name.lower() for name in names]
        unknown = [name for name in names if name and name not in (*COLUMNS, ERRORS_COLUMN)]
        if unknown:
            raise FileError(
                "unknown-column",
                f"names the column {_quoted(unknown[0])}, which is not a field of a price list "
                f"({', '.join(COLUMNS)}); map the columns that count, and the others are left out",
                line,
            )
        mapping = {name: [Source(name)] for name in names if name in COLUMNS}

    def index_of(name: str) -> int:
        found = [index for index, candidate in enumerate(names) if candidate == name]
        if len(found) != 1:
            raise FileError(
                "unknown-column" if not found else "duplicate-column",
                f"has {'no' if not found else 'more than one'} column {_quoted(name)}; "
                f"it names {', '.join(map(_quoted, names[:30]))}",
                line,
            )
        return found[0]

    readers = {target: [source.reader(index_of) for source in sources] for target, sources in mapping.items()}
    if "amount" not in readers:
        raise FileError("missing-column", "names no column amount; map it if it has another name", line)
    if not readers.keys() & {"sku", "gtin"}:
        raise FileError("missing-column", "names no column sku or gtin; map it if it has another name", line)
    return readers


def whole_cells(readers: Mapping[str, Sequence[_Reader]]) -> dict[str, _Reader] | None:
    """What finds the cell of each field of :func:`match_header`, if each is one cell and nothing is put together."""
    cells = {target: candidates[0] for target, candidates in readers.items() if len(candidates) == 1}
    return (
        cells if len(cells) == len(readers) and all(isinstance(cell, itemgetter) for cell in cells.values()) else None
    )


class _Absent(dict[str, Any]):
    """An object of an NDJSON file, whose absent keys are null."""

    def __missing__(self, key: str) -> None:
        return None


def match_keys(keys: Iterable[str], mapping: Mapping[str, list[Source]]) -> dict[str, list[_Reader]]:
    """The same for an object of an NDJSON file, whose keys may differ from line to line.

    :raises MappingError: without a mapping, if a key is unknown.
    """
    if not mapping:
        unknown = [key for key in keys if key not in (*COLUMNS, ERRORS_COLUMN)]
        if unknown:
            raise MappingError(f"{_quoted(unknown[0])} is not a field of a price list")
        mapping = {key: [Source(key)] for key in keys if key in COLUMNS}
    else:
        present = set(keys)
        mapping = {
            target: found
            for target, sources in mapping.items()
            if (found := [source for source in sources if present & set(source.columns)])
        }
    return {target: [source.reader(lambda name: name) for source in sources] for target, sources in mapping.items()}


def read(readers: Mapping[str, list[_Reader]], cells: _Cells) -> dict[str, Any]:
    """The fields of a record, by their names. In a CSV file, blanks around a value go, and nothing else is ``None``."""
    if isinstance(cells, dict):
        record = _Absent(cells)
        return {target: _first(candidates, record) for target, candidates in readers.items()}
    result: dict[str, Any] = {}
    for target, candidates in readers.items():
        value = _first(candidates, cells)
        result[target] = value if value is None or target == "description" else value.strip() or None
    return result


def _first(candidates: Sequence[_Reader], record: Any) -> Any:
    for candidate in candidates[:-1]:
        value = candidate(record)
        if value is not None and value != "":
            return value
    return candidates[-1](record)


def _quoted(name: str) -> str:
    return f'"{name[:100]}"'
