"""Rows read by the hundred are what they are when read one by one."""

import csv
import io
from collections.abc import Sequence
from typing import Any
from unittest.mock import patch
from uuid import UUID

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from app.import_columns import COLUMNS, parse_mapping
from app.import_files import FileError
from app.services import import_reading
from app.services.import_plain import PlainRows
from app.services.import_reading import Format, Lines, Staged

ID = UUID(int=7)

NUMBERS = ["", "1", "19", "10.50", "0", "0.0", "1,5", "1.234,5", "-1", "01", "1e2", " 7 ", "9" * 12, "9" * 13]
NUMBERS += ["0." + "1" * 12, "0." + "1" * 13, ".5", "5.", "\u0661", "'1", "+1"]
TEXTS = [
    "",
    "x",
    " x",
    "x ",
    "'",
    "'x",
    "'=1",
    "''=1",
    "=1",
    "a'b",
    'say "x"',
    "a\\b",
    "a\tb",
    "a\nb",
    "a\x1fb",
    "\x1f",
    "\x7f",
]
TEXTS += [
    "\u00a0x",
    "\u2028",
    "x\u0085",
    "é",
    "\U0001f600",
    "n" * 100,
    "n" * 101,
    "n" * 200,
    "n" * 201,
    "n" * 500,
    "n" * 501,
]
DAYS = ["", "2026-01-01", "2026-03-29", "2026-02-30", "2026-01-01T00:00:00Z", "2026-01-01T01:00:00+01:00", "0001-01-01"]
DAYS += ["9999-12-31", "2025-12-31", "2026-01-01T24:00:00Z", "'2026-01-01", " 2026-01-01", "now"]
OWN = {
    "sku": [*TEXTS, "A", "B/price", "/prices", "A/b", "x/prior-price ", "x/pricey"],
    "gtin": ["", "4006381333931", "96385074", "4006381333932", " 96385074", "1", "\u0669" * 8],
    "name": TEXTS,
    "description": [*TEXTS, " ", "d" * 4000, "d" * 4001, "two\r\nlines"],
    "unit": ["", "C62", "KGM", "kgm", "C", " C62", "'C62"],
    "tax_category": ["", "S", "AE", "s", "X"],
    "attributes": [
        "",
        "{}",
        '{"a":1.50}',
        '{"a":null}',
        '{"a":"\\\\"}',
        "[]",
        "{",
        '{"a":"x","b":true}',
        " {} ",
        "{}" + " " * 1000,
    ],
    "amount": [*NUMBERS, "not-for-sale", "NaN"],
    "tax_included": ["", "true", "false", "1", "0", "yes", "TRUE", "maybe"],
    "valid_from": DAYS,
    "valid_to": DAYS,
    "valid_through": DAYS,
    "reason": TEXTS,
}
CELLS = {name: st.sampled_from(OWN.get(name, NUMBERS)) | st.text(max_size=4) for name in COLUMNS}
GOOD = dict.fromkeys(COLUMNS, "") | {"sku": "A", "name": "a", "amount": "1", "reason": "because"}


@st.composite
def files(draw: st.DrawFn) -> tuple[list[str], list[list[str]]]:
    """A header, and rows of which most differ from a right one in a few cells."""
    key = draw(st.sampled_from([["sku"], ["gtin"], ["sku", "gtin"]]))
    others = [name for name in COLUMNS if name not in ("sku", "gtin", "amount")]
    header = draw(st.permutations([*key, "amount", *draw(st.lists(st.sampled_from(others), unique=True))]))
    rows = []
    for _ in range(draw(st.integers(2, 5))):
        row = {name: GOOD[name] for name in header}
        for name in draw(st.lists(st.sampled_from(header), max_size=3)):
            row[name] = draw(CELLS[name])
        rows.append([*row.values()])
    if draw(st.integers(0, 9)) == 0:
        rows[-1] = rows[-1] + ["more"] if draw(st.booleans()) else rows[-1][:-1]
    return list(header), rows


def written(header: Sequence[str], rows: Sequence[Sequence[str]], delimiter: str = ",") -> str:
    text = io.StringIO()
    csv.writer(text, delimiter=delimiter, quoting=csv.QUOTE_ALL).writerows([header, *rows])
    return text.getvalue()


def lines(
    text: str, *, decimal: str = ".", zone: str = "Europe/Berlin", most: int = 1000, mapping: Sequence[str] = ()
) -> bytes:
    """What is copied to the staging table."""
    how = Format("csv", "utf-8", decimal, parse_mapping(mapping), zone, most)
    reading = Lines(ID, how, Staged())
    return b"".join([*reading.feed(text), *reading.finish()])


def one_by_one(text: str, **how: Any) -> bytes:
    """The same without any look at more than one row."""
    with patch.object(PlainRows, "lines", return_value=None):
        return lines(text, **how)


@settings(max_examples=200, deadline=None)
@given(files(), st.sampled_from(".,"), st.sampled_from(["UTC", "America/New_York"]))
@example((["sku", "amount"], [["A\x1fB", "1"], ["C", "2"]]), ".", "UTC")
@example((["sku", "amount", "attributes"], [["A", "1", "{}"]]), ".", "UTC")
def test_rows_at_once_are_what_they_are_one_by_one(
    file: tuple[list[str], list[list[str]]], decimal: str, zone: str
) -> None:
    with patch.object(import_reading, "_FEW", 1):
        text = written(*file)
        assert lines(text, decimal=decimal, zone=zone) == one_by_one(text, decimal=decimal, zone=zone)


@pytest.mark.parametrize("column", COLUMNS)
def test_each_value_of_each_column_is_what_it_is_alone(column: str) -> None:
    header = [name for name in COLUMNS if name != column] + [column]
    for value in OWN.get(column, NUMBERS):
        text = written(header, [[GOOD[name] for name in header[:-1]] + [value]] * 2)
        with patch.object(import_reading, "_FEW", 1):
            assert lines(text) == one_by_one(text), value


def test_an_ordinary_list_is_read_at_once() -> None:
    header = ["sku", "gtin", "name", "unit", "amount", "tax_rate", "valid_from", "reason"]
    rows = [[f"A-{n}", "", f'Item "{n}"', "C62", f"{n}.50", "19", f"2026-01-{n % 28 + 1:02d}", ""] for n in range(1000)]
    with patch.object(Lines, "_line", side_effect=AssertionError):
        assert lines(written(header, rows), most=1000).count(b"\n") == 1000


def test_one_bad_row_leaves_most_of_the_others_plain() -> None:
    rows = [[f"A-{n}", "a", "x" if n == 333 else "1"] for n in range(1000)]
    with patch.object(Lines, "_line", autospec=True, side_effect=Lines._line) as alone:
        found = lines(written(["sku", "name", "amount"], rows))
    assert alone.call_count <= 12
    numbers = [line.split(b"\t")[1:4] for line in found.splitlines()]
    assert numbers == [[b"%d" % n, b"%d" % (n + 1), b"A-%d" % (n - 1)] for n in range(1, 1001)]


def test_columns_put_together_are_read_one_by_one() -> None:
    rows = [["A", f"{n}", "1"] for n in range(20)]
    found = lines(written(["model", "size", "amount"], rows), mapping=["sku:{model} {size}", "amount"])
    assert [line.split(b"\t")[3] for line in found.splitlines()] == [b"A %d" % n for n in range(20)]


@pytest.mark.parametrize("rows", [101, 250])
def test_the_row_that_is_too_many_is_named(rows: int) -> None:
    with pytest.raises(FileError) as refused:
        lines(written(["sku", "amount"], [["A", "1"]] * rows), most=100)
    assert (refused.value.code, refused.value.line) == ("too-many-rows", 102)
    assert lines(written(["sku", "amount"], [["A", "1"]] * 100), most=100).count(b"\n") == 100
