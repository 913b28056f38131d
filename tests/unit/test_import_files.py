"""Records out of bytes, however the bytes are cut."""

import csv
import io
from collections.abc import Callable, Iterator
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.import_files import CHARSETS, MOST_RECORD_CHARACTERS, CsvRecords, FileError, JsonRecords, Text

CELLS = st.text(
    st.characters(exclude_categories=["Cs"]) | st.sampled_from(',;\t"\r\n \u2028\x85\x0b\ufeffä😀'), max_size=8
)
TABLES = st.lists(st.lists(CELLS, min_size=2, max_size=4), min_size=1, max_size=6)
PIECES = st.lists(st.integers(0, 400), max_size=12)

type Outcome = tuple[list[tuple[int, object]], tuple[str, int | None] | None]


def cut(data: bytes, places: list[int]) -> Iterator[bytes]:
    for start, end in pairwise([0, *sorted(place % (len(data) + 1) for place in places), len(data)]):
        yield data[start:end]


def read(pieces: Iterator[bytes], records: CsvRecords | JsonRecords, charset: str = "utf-8") -> Outcome:
    """All records, and the fault that ended them."""
    found: list[tuple[int, object]] = []
    text = Text(charset)
    try:
        for piece in pieces:
            for part in text.feed(piece):
                found.extend(records.feed(part))
        for part in text.feed(b"", final=True):
            found.extend(records.feed(part))
        found.extend(records.finish())
    except FileError as error:
        return found, (error.code, error.line)
    return found, None


def every_way(data: bytes, places: list[int], records: Callable[[], CsvRecords | JsonRecords], charset: str) -> Outcome:
    """The outcome, which is the same for the whole, for single bytes, and for these pieces."""
    whole = read(iter([data]), records(), charset)
    assert read((bytes([byte]) for byte in data), records(), charset) == whole
    assert read(cut(data, places), records(), charset) == whole
    return whole


@given(
    table=TABLES, delimiter=st.sampled_from(",;\t"), end=st.sampled_from(["\n", "\r\n"]), places=PIECES, data=st.data()
)
def test_what_the_csv_module_writes_is_read(
    table: list[list[str]], delimiter: str, end: str, places: list[int], data: st.DataObject
) -> None:
    header = ["sku", "amount"]
    charset = data.draw(st.sampled_from(["utf-8", "utf-16", "us-ascii"]))
    text = io.StringIO(newline="")
    writer = csv.writer(text, delimiter=delimiter, lineterminator=end, quoting=csv.QUOTE_ALL)
    writer.writerows([header, *table])
    body = text.getvalue().encode("utf-16" if charset == "utf-16" else "utf-8")
    found, fault = every_way(body, places, CsvRecords, charset)
    assert fault is None
    assert [cells for _, cells in found] == [header, *(cells for cells in table if any(cells))]
    lines = [1]
    for cells in [header, *table]:
        lines.append(lines[-1] + 1 + "".join(cells).count("\n"))
    expected = [line for line, cells in zip(lines, [header, *table], strict=False) if any(cells)]
    assert [line for line, _ in found] == expected


@given(body=st.binary(max_size=60) | st.text('a,;"\n\r\tä', max_size=40).map(str.encode), places=PIECES)
@pytest.mark.parametrize("charset", list(CHARSETS))
@pytest.mark.parametrize("records", [CsvRecords, JsonRecords])
def test_no_bytes_surprise(
    records: Callable[[], CsvRecords | JsonRecords], charset: str, body: bytes, places: list[int]
) -> None:
    every_way(body, places, records, charset)
    every_way(b"sku,amount\n" + body, places, records, charset)


@given(lines=st.lists(st.text(st.characters(exclude_characters="\n", exclude_categories=["Cs"]))), places=PIECES)
def test_lines_of_ndjson_end_at_line_feeds_alone(lines: list[str], places: list[int]) -> None:
    if lines and lines[0].startswith("\ufeff"):
        lines[0] = f"x{lines[0]}"
    body = "\n".join(["{}", *lines]).encode()
    found, fault = every_way(body, places, JsonRecords, "utf-8")
    assert fault is None
    expected = [(number, line.strip()) for number, line in enumerate(["{}", *lines], 1) if line.strip()]
    assert found == expected


@pytest.mark.parametrize(
    ("first", "delimiter"),
    [
        ("sku,amount", ","),
        ("sku;amount", ";"),
        ("sku\tamount", "\t"),
        ('"a,b,c";amount', ";"),
        ("sku", ","),
        ("sep=|\nsku|amount", "|"),
        ('"sep=;"\r\nsku;amount', ";"),
        ("sep=\t\nsku\tamount", "\t"),
        ("sep=,\nsku;x;amount,y", ","),
        ("\n \r\nsku;amount", ";"),
        ('sep="\nsku', ","),
    ],
)
def test_the_delimiter_is_found(first: str, delimiter: str) -> None:
    records = CsvRecords()
    found = [*records.feed(f"{first}\n"), *records.finish()]
    assert records.delimiter == delimiter
    assert len(found) == (2 if '="\n' in first else 1)


@pytest.mark.parametrize("records", [CsvRecords, JsonRecords])
def test_records_have_a_length(records: Callable[[], CsvRecords | JsonRecords]) -> None:
    line = "x" * MOST_RECORD_CHARACTERS
    for ending in ("", "\n", "\nx,y\n"):
        whole = f"a,b\n{line}{ending}".encode()
        for size in (len(whole), 65_536):
            pieces = (whole[start : start + size] for start in range(0, len(whole), size))
            found, fault = read(pieces, records())
            # A line of just that length is none too long, but with its end it is for the quotes it might be in.
            if ending and records is CsvRecords:
                assert fault == ("record-too-long", 2)
                continue
            assert fault is None
            assert len(found) == 2 + ending.count("x")
        found, fault = read(iter([b"a,b\nx", whole[4:]]), records())
        assert (len(found), fault) == (1, ("record-too-long", 2))


def test_a_long_quoted_record_is_not_read_again_with_each_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """Or a megabyte of line breaks would keep the process busy for minutes."""
    parsed = 0

    def counted(lines: list[str], **options: object) -> object:
        nonlocal parsed
        parsed += len(lines)
        return reader(lines, **options)  # type: ignore[arg-type]

    reader = csv.reader
    monkeypatch.setattr(csv, "reader", counted)
    count = 100_000
    records = CsvRecords()
    found = list(records.feed('sku,amount\n"'))
    for _ in range(count):
        found.extend(records.feed("\n"))
    found.extend(records.feed('",1\nB,2\n'))
    found.extend(records.finish())
    assert [cells for _, cells in found] == [["sku", "amount"], ["\n" * count, "1"], ["B", "2"]]
    assert parsed < 6 * count
