"""The rows of a file: each becomes a line of COPY, with what is wrong with it."""

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from functools import lru_cache
from itertools import batched
from typing import Any
from uuid import UUID

import msgspec
from pydantic import ValidationError

from app import exact_json, import_columns, instants, price_list
from app.import_columns import MappingError, Source
from app.import_files import CsvRecords, FileError, JsonRecords, Record
from app.problems import fault_message
from app.schemas.import_run import ImportRow
from app.services.import_copy import COLUMNS, copied
from app.services.import_plain import DECIMAL_COMMA, PlainRows

_DECIMALS = ("amount", "per", "min_quantity", "tax_rate", "tax")
_ITEM = ("name", "description", "unit", "tax_category", "attributes")
_MOST_ECHOED = 100
_FEW = 12
"""So many rows cost about as much one by one as it costs to look for the one in which something is wrong."""
_AT_ONCE = 100
"""Rows read without a pause: some milliseconds, in which the process does nothing else."""

type _Reading = Callable[[Any], tuple[dict[str, Any], str]]


@dataclass(frozen=True, slots=True)
class Format:
    """How a file is to be read."""

    name: str
    charset: str
    decimal: str
    mapping: dict[str, list[Source]]
    time_zone: str
    most_rows: int


@dataclass(slots=True)
class Staged:
    """What a file turned out to be, once it is read."""

    rows: int = 0
    bytes: int = 0
    header: list[str] | None = None
    delimiter: str | None = None
    digest: Any = field(default_factory=hashlib.sha256)


class Lines:
    """Lines of COPY for the records of one file."""

    def __init__(self, import_id: UUID, how: Format, staged: Staged) -> None:
        self._import_id = str(import_id)
        self._how = how
        self._staged = staged
        self._records: CsvRecords | JsonRecords = CsvRecords() if how.name == "csv" else JsonRecords()
        self._read: _Reading | None = None if how.name == "csv" else self._read_json
        self._plain: PlainRows | None = None
        self._zone = instants.zone(how.time_zone)
        self._start_of_day = lru_cache(1024)(lambda day: instants.start_of_day(day, self._zone))

    def feed(self, text: str) -> Iterator[bytes]:
        """Those of the records that end in this text, some at a time.

        :raises FileError: if the file cannot be read as a whole.
        """
        return self._some(self._records.feed(text))

    def finish(self) -> Iterator[bytes]:
        """The last one, if the file did not end with a line break. Raises as :meth:`feed`."""
        yield from self._some(self._records.finish())
        if self._staged.rows == 0:
            raise FileError("empty-file", "has no rows")

    def _some(self, records: Iterator[Record[Any]]) -> Iterator[bytes]:
        if self._read is None and (header := next(records, None)) is not None:
            self._read = self._read_csv(header)
        for some in batched(records, _AT_ONCE):
            if (over := self._staged.rows + len(some) - self._how.most_rows) > 0:
                message = f"has more than {self._how.most_rows} rows (MAX_IMPORT_ROWS); split it"
                raise FileError("too-many-rows", message, some[-over].line)
            yield self._lines(some)

    def _lines(self, records: Sequence[Record[Any]]) -> bytes:
        """Lines of these records. Where something is wrong is looked for by halves: most of the others are plain."""
        if self._plain is None or len(records) <= _FEW:
            return b"".join(map(self._line, records))
        if (lines := self._plain.lines(self._staged.rows + 1, records)) is not None:
            self._staged.rows += len(records)
            return lines
        middle = len(records) // 2
        return self._lines(records[:middle]) + self._lines(records[middle:])

    def _line(self, record: Record[Any]) -> bytes:
        assert self._read is not None  # noqa: S101 - the header came before it
        self._staged.rows += 1
        values: dict[str, Any] = {}
        cells = ""
        try:
            values, cells = self._read(record.content)
            fields = self._fields(values)
        except _RowFault as fault:
            fields = {"errors": fault.errors, "tax_stated": False}
            cells = fault.cells or cells
            # Whatever is wrong with it, it names its item, whose price must not look like one that is missing.
            values = values or fault.values
            fields |= {key: values[key] for key in ("sku", "gtin") if isinstance(values.get(key), str)}
        return self._encode(record.line, fields, cells)

    def _read_csv(self, record: Record[list[str]]) -> _Reading:
        header = record.content
        self._staged.header = header
        assert isinstance(self._records, CsvRecords)  # noqa: S101 - only they have a header
        self._staged.delimiter = self._records.delimiter
        readers = import_columns.match_header(header, self._how.mapping, record.line)
        width = len(header)
        if (cells := import_columns.whole_cells(readers)) is not None:
            self._plain = PlainRows(self._import_id, width, cells, self._fields, decimal=self._how.decimal)

        def read(cells: list[str]) -> tuple[dict[str, Any], str]:
            kept = msgspec.json.encode(cells).decode()
            plain: list[str | None] = [cell or None for cell in cells]
            if "'" in kept:
                plain = [price_list.unguard(cell) if cell else None for cell in cells]
            if len(cells) != width:
                values = import_columns.read(readers, plain + [None] * (width - len(cells)))
                message = f"has {len(cells)} cells, but the header has {width}"
                raise _RowFault([_error(None, None, "wrong-width", message)], kept, values)
            return import_columns.read(readers, plain), kept

        return read

    def _read_json(self, line: str) -> tuple[dict[str, Any], str]:
        try:
            document = exact_json.loads(line.encode())
        except json.JSONDecodeError as error:
            raise _RowFault([_error(None, line, "not-json", f"is not JSON: {error.msg}")], line) from None
        if not isinstance(document, dict):
            raise _RowFault([_error(None, line, "not-an-object", "must be a JSON object")], line)
        try:
            readers = import_columns.match_keys(document, self._how.mapping)
        except MappingError as error:
            raise _RowFault([_error(None, None, "extra-forbidden", str(error))], line, document) from None
        return import_columns.read(readers, document), line

    def _fields(self, values: dict[str, Any]) -> dict[str, Any]:
        """The staged columns of a row.

        :raises _RowFault: with everything that is wrong with its values.
        """
        given = {name: value for name, value in values.items() if value is not None}
        if self._how.name == "ndjson":
            given |= {"amount": None} if values.get("amount", ...) is None else {}
        else:
            self._from_text(given)
        try:
            row = ImportRow.model_validate(given)
        except ValidationError as error:
            faults = error.errors(include_url=False)
            raise _RowFault([_from_pydantic(fault, values, self._how.decimal) for fault in faults]) from None
        valid_from = self._instant("valid_from", row.valid_from)
        valid_to = self._instant("valid_to", row.valid_to)
        if row.valid_through is not None:
            valid_to = self._instant("valid_through", row.valid_through, days=1)
        if valid_from is not None and valid_to is not None and valid_to <= valid_from:
            column = "valid_to" if row.valid_through is None else "valid_through"
            raise _RowFault([_error(column, values[column], "empty-interval", "must be later than valid_from")])
        return {
            "sku": row.sku,
            "gtin": row.gtin,
            "item": {name: value for name in _ITEM if (value := getattr(row, name)) is not None} or None,
            **{name: getattr(row, name) for name in _DECIMALS},
            "tax_stated": "tax" in values or "tax_rate" in values,
            "tax_included": row.tax_included,
            "valid_from": valid_from,
            "valid_to": valid_to,
            "reason": row.reason,
        }

    def _from_text(self, given: dict[str, Any]) -> None:
        """Turn the text of a CSV file into what an object of an NDJSON file has."""
        if given.get("amount") == price_list.NOT_FOR_SALE:
            given["amount"] = None
        if self._how.decimal == ",":
            for name in _DECIMALS:
                if (text := given.get(name)) is not None:
                    given[name] = text.translate(DECIMAL_COMMA)
        if "attributes" in given:
            try:
                given["attributes"] = exact_json.loads(given["attributes"].encode())
            except json.JSONDecodeError as error:
                message = f"is not JSON: {error.msg}"
                raise _RowFault([_error("attributes", given["attributes"], "not-json", message)]) from None

    def _instant(self, column: str, moment: datetime | date | None, *, days: int = 0) -> datetime | None:
        if moment is None or isinstance(moment, datetime):
            return moment
        try:
            start: datetime = self._start_of_day(moment + timedelta(days=days))
        except (instants.NotAnInstant, OverflowError) as error:
            raise _RowFault([_error(column, moment, "not-an-instant", str(error))]) from None
        return start

    def _encode(self, line: int, fields: dict[str, Any], cells: str) -> bytes:
        own = {"import_id": self._import_id, "number": str(self._staged.rows), "line": str(line), "cells": cells}
        staged = fields | own
        return ("\t".join(copied(staged.get(column)) for column in COLUMNS) + "\n").encode("utf-8", "replace")


class _RowFault(ValueError):
    """A row that cannot be read."""

    def __init__(self, errors: list[dict[str, Any]], cells: str = "", values: dict[str, Any] | None = None) -> None:
        super().__init__()
        self.errors = errors
        self.cells = cells
        self.values = values or {}


def _error(column: str | None, value: object, code: str, message: str) -> dict[str, Any]:
    shown = None if value is None else _storable(str(value)[:_MOST_ECHOED])
    return {"column": column, "value": shown, "code": code, "message": _storable(message)}


def _storable(text: str) -> str:
    """Without NUL and halves of surrogate pairs, which the database does not take."""
    return text.encode("utf-8", "replace").decode().replace("\0", "\ufffd")


def _from_pydantic(fault: Any, values: dict[str, Any], decimal: str) -> dict[str, Any]:
    column = str(fault["loc"][0]) if fault["loc"] else None
    value = None if column is None else values.get(column)
    if isinstance(value, exact_json.UnusableNumber):
        value = value.literal
    message = fault_message(fault)
    if column in _DECIMALS and decimal == ",":
        message = message.replace('"19.99"', '"19,99"')
    return _error(column, value, str(fault["type"]).replace("_", "-"), message)
