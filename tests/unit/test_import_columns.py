"""Columns by name and by mapping."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app import price_list
from app.import_columns import (
    COLUMNS,
    ERRORS_COLUMN,
    MappingError,
    match_header,
    match_keys,
    parse_mapping,
    read,
)
from app.import_files import FileError


def mapped(header: list[str], cells: list[str | None], *mapping: str) -> dict[str, object]:
    return read(match_header(header, parse_mapping(mapping)), cells)


def test_an_import_knows_every_column_of_an_export() -> None:
    assert set(price_list.COLUMNS) <= set(COLUMNS)


def test_names_in_any_case_and_order() -> None:
    assert mapped([" Amount", "SKU ", "", "import_errors"], ["1", " A ", "x", "old"]) == {"amount": "1", "sku": "A"}


@pytest.mark.parametrize("blank", [None, "", " ", "\t"])
def test_empty_cells_are_none(blank: str | None) -> None:
    assert mapped(["sku", "amount", "name"], ["A", "1", blank]) == {"sku": "A", "amount": "1", "name": None}


def test_a_description_keeps_its_blanks() -> None:
    assert mapped(["sku", "amount", "description"], ["A", "1", " x\n"])["description"] == " x\n"


@given(st.permutations(COLUMNS), st.data())
def test_columns_by_their_names(names: list[str], data: st.DataObject) -> None:
    size = data.draw(st.integers(1, len(names)))
    chosen = sorted({"sku", "amount", *names[:size]}, key=names.index)
    cells: list[str | None] = [f"v-{name}" for name in chosen]
    assert mapped(chosen, cells) == dict(zip(chosen, cells, strict=True))


def test_several_sources_are_tried_in_turn() -> None:
    header = ["sku", "p1", "p2", "p3"]
    mapping = ("sku", "amount:p2", "amount:p1", "amount:p3")
    assert mapped(header, ["A", "1", "2", "3"], *mapping)["amount"] == "2"
    assert mapped(header, ["A", "1", "", "3"], *mapping)["amount"] == "1"
    assert mapped(header, ["A", None, None, "3"], *mapping)["amount"] == "3"
    assert mapped(header, ["A", None, None, None], *mapping)["amount"] is None


def test_columns_are_joined() -> None:
    header = ["a", "b", "amount"]
    for cells, sku in (
        (["X", "Y", "1"], "X-Y!"),
        (["X", None, "1"], "X-!"),
        ([None, None, "1"], None),
        (["", "", "1"], None),
    ):
        assert mapped(header, cells, "sku:{a}-{b}!", "amount")["sku"] == sku  # type: ignore[arg-type]
    assert mapped(header, ["X", "Y", "1"], "sku:{a}{b}{a}", "amount")["sku"] == "XYX"
    assert mapped(["a b:c", "amount"], ["X", "1"], "sku:a b:c", "amount")["sku"] == "X"


def test_only_what_is_mapped_is_read() -> None:
    header = ["Nr", "name", "x", "x", "amount"]
    assert mapped(header, ["A", "n", "", "", "1"], "sku:Nr", "amount") == {"sku": "A", "amount": "1"}


@pytest.mark.parametrize(
    ("header", "mapping", "code"),
    [
        (["sku", "amount", "colour"], [], "unknown-column"),
        (["sku", "sku", "amount"], [], "duplicate-column"),
        (["sku", "SKU", "amount"], [], "duplicate-column"),
        (["sku", "name"], [], "missing-column"),
        (["name", "amount"], [], "missing-column"),
        (["a", "amount"], ["sku:A", "amount"], "unknown-column"),
        (["a", "a", "amount"], ["sku:a", "amount"], "duplicate-column"),
        (["a", "amount"], ["sku:{a}{b}", "amount"], "unknown-column"),
        (["a", "amount"], ["sku:a"], "missing-column"),
    ],
)
def test_headers_that_do_not_fit(header: list[str], mapping: list[str], code: str) -> None:
    with pytest.raises(FileError) as caught:
        match_header(header, parse_mapping(mapping), 3)
    assert (caught.value.code, caught.value.line) == (code, 3)


@pytest.mark.parametrize("entry", ["", ":", "colour", "colour:x", "sku:", "SKU:x", f"{ERRORS_COLUMN}:x"])
def test_entries_that_mean_nothing(entry: str) -> None:
    with pytest.raises(MappingError):
        parse_mapping([entry])


def test_keys_of_objects() -> None:
    document = {"sku": "A", "amount": None, ERRORS_COLUMN: "old"}
    assert read(match_keys(document, {}), document) == {"sku": "A", "amount": None}
    with pytest.raises(MappingError, match="colour"):
        match_keys({"sku": "A", "colour": "red"}, {})


def test_keys_that_are_mapped_may_be_absent() -> None:
    """What an object leaves out is not given; that is not the same as null."""
    mapping = parse_mapping(["sku:id", "amount:p1", "amount:p2", "tax:{t}"])
    for document, expected in (
        ({"id": "A", "p1": 1, "x": {}}, {"sku": "A", "amount": 1}),
        ({"id": "A", "p2": 2}, {"sku": "A", "amount": 2}),
        ({"id": "A", "p1": None, "p2": 2}, {"sku": "A", "amount": 2}),
        ({"id": "A", "p1": 0, "p2": 2}, {"sku": "A", "amount": 0}),
        ({"id": "A", "p1": None}, {"sku": "A", "amount": None}),
        ({"id": "A", "t": 3}, {"sku": "A", "tax": "3"}),
    ):
        assert read(match_keys(document, mapping), document) == expected
