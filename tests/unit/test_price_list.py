import csv
import io
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app import price_list

ROW: dict[str, Any] = {
    "sku": "-58",
    "gtin": "4006381333931",
    "name": "Frame, black",
    "description": 'Two "lines"\nof text',
    "unit": "C62",
    "tax_category": "S",
    "attributes": {"size": 58, "colour": "schwärzlich", "new": True},
    "amount": None,
    "per": "1",
    "min_quantity": "1",
    "tax_rate": "19",
    "tax": None,
    "tax_included": True,
    "valid_from": "2026-12-01T00:00:00Z",
    "valid_to": None,
    "reason": None,
}


@pytest.mark.parametrize(
    "text",
    ["=1+1", "+49", "-58", "@SUM(A1)", " =1", "\t=1", "\r=1", "\n=1", "＝1", "'=1", "''@", "'", "''", ""],  # noqa: RUF001
)
def test_what_a_spreadsheet_might_calculate_is_guarded(text: str) -> None:
    assert price_list.guard(text) == f"'{text}"


@pytest.mark.parametrize("text", ["Frame", "'t Hof", "a=b", "1-2", "''s", "é", "0", " ", "not-for-sale"])
def test_other_text_is_written_and_read_as_it_is(text: str) -> None:
    assert price_list.guard(text) == text
    assert price_list.unguard(text) == text


@given(st.text(alphabet="'=+-@\t\r\n ＝ab") | st.text())  # noqa: RUF001
def test_guarded_text_is_read_back_and_never_runs(text: str) -> None:
    cell = price_list.guard(text)
    assert price_list.unguard(cell) == text
    assert not cell.lstrip().startswith(("=", "+", "-", "@"))
    assert cell


def test_a_line_of_csv() -> None:
    assert price_list.csv_line(ROW) == (
        '\'-58,4006381333931,"Frame, black","Two ""lines""\nof text",C62,S,'
        '"{""colour"":""schwärzlich"",""new"":true,""size"":58}",'
        "not-for-sale,1,1,19,,true,2026-12-01T00:00:00Z,,\r\n"
    )


def test_a_line_of_ndjson() -> None:
    line = price_list.ndjson_line(ROW)
    assert line.endswith("}\n")
    assert line.count("\n") == 1
    assert json.loads(line) == ROW
    assert list(json.loads(line)) == list(price_list.COLUMNS)
    assert '"attributes":{"colour":"schwärzlich","new":true,"size":58}' in line


@given(st.fixed_dictionaries({name: st.none() | st.text() for name in sorted(price_list.TEXT_COLUMNS)}))
def test_csv_readers_read_what_was_written(texts: dict[str, str | None]) -> None:
    file = io.StringIO(price_list.HEADER + price_list.csv_line(ROW | texts), newline="")
    (read,) = csv.DictReader(file, strict=True)
    for name, text in texts.items():
        assert (price_list.unguard(read[name]) if read[name] else None) == text
