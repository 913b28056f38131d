"""Price lists as files: bytes go in as they arrive, records come out. Nothing here keeps more than one record.

CSV as spreadsheets write it (byte order mark, `,` `;` or tab, quoted line breaks, a first line `sep=;`), and NDJSON.
"""

import codecs
import csv
import re
from collections.abc import Iterator
from typing import NamedTuple, Protocol

MOST_RECORD_CHARACTERS = 1_048_576
"""A longer record is a file without line breaks, or a quote that nobody closed."""

csv.field_size_limit(MOST_RECORD_CHARACTERS)

CHARSETS = {
    "utf-8": "utf-8-sig",
    "us-ascii": "utf-8-sig",
    "windows-1252": "cp1252",
    "cp1252": "cp1252",
    "iso-8859-1": "iso-8859-1",
    "utf-16": "utf-16",
}
"""Encodings that are read, by the names that Content-Type gives them."""

DELIMITERS = ",;\t"
_SEP_LINE = re.compile(r'"?sep=([^"\s]|\t)"?')
_SIGNATURES = {
    b"PK\x03\x04": "a spreadsheet or ZIP archive",
    b"\xd0\xcf\x11\xe0": "an Excel workbook",
    b"\x1f\x8b": "compressed with gzip",
    b"%PDF": "a PDF document",
    b"(\xb5/\xfd": "compressed with zstd",
}
_SIGNATURE_BYTES = max(map(len, _SIGNATURES))


class FileError(ValueError):
    """The file cannot be read as a whole. ``line`` is where, counted from 1, if it is at a line."""

    def __init__(self, code: str, message: str, line: int | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.line = line


class Record[Content](NamedTuple):
    """One record and the line that it begins at, counted from 1."""

    line: int
    content: Content


class Records[Content](Protocol):
    """Makes records of text."""

    def feed(self, text: str) -> Iterator[Record[Content]]:
        """The records that end in this text.

        :raises FileError: if the text is not of the format.
        """

    def finish(self) -> Iterator[Record[Content]]:
        """The last record, if the text did not end with a line break.

        :raises FileError: if it is not whole.
        """


class Text:
    """Bytes to text.

    :param charset: a key of :data:`CHARSETS`.
    """

    def __init__(self, charset: str) -> None:
        self._charset = charset
        self._decoder = codecs.getincrementaldecoder(CHARSETS[charset])()
        self._line = 1
        self._begun = False
        self._start = b""

    def feed(self, data: bytes, *, final: bool = False) -> Iterator[str]:
        """The text of these bytes, as far as it goes: what is wrong before their end is found first.

        :raises FileError: if they are not text in that encoding.
        """
        if not self._begun:
            data = self._start = self._start + data
            if len(data) < _SIGNATURE_BYTES and not final:
                return
            self._begun = True
            self._check_signature(data)
        try:
            text = self._decoder.decode(data, final)
        except UnicodeDecodeError as error:
            text = self._before(error)
            self._line += text.count("\n")
            yield text
            raise FileError("wrong-encoding", self._wrong_encoding(), self._line) from None
        self._line += text.count("\n")
        yield text

    def _before(self, error: UnicodeDecodeError) -> str:
        self._decoder.setstate((b"", self._decoder.getstate()[1]))
        try:
            return self._decoder.decode(error.object[: error.start])
        except UnicodeDecodeError:  # UTF-16 that does not say which byte comes first.
            return ""

    def _check_signature(self, data: bytes) -> None:
        for signature, what in _SIGNATURES.items():
            if data.startswith(signature):
                raise FileError("not-text", f"is {what}; send the list itself, as CSV (UTF-8) or NDJSON")
        if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) and self._charset != "utf-16":
            raise FileError(
                "wrong-encoding", "is UTF-16; save it as UTF-8, or say so: Content-Type: text/csv; charset=utf-16"
            )

    def _wrong_encoding(self) -> str:
        if CHARSETS[self._charset] != "utf-8-sig":
            return f"is not {self._charset}, although Content-Type says so"
        return (
            'is not UTF-8; save the file as "CSV UTF-8", or say what it is, such as '
            "Content-Type: text/csv; charset=windows-1252"
        )


class CsvRecords:
    """Records of a CSV file, the header among them. The delimiter is found in the first line."""

    def __init__(self) -> None:
        self.delimiter: str | None = None
        self._rest = ""
        self._lines: list[str] = []
        self._size = 0
        self._enough = 0
        self._line = 1

    def feed(self, text: str) -> Iterator[Record[list[str]]]:
        """See :class:`Records`."""
        *lines, self._rest = (self._rest + text).split("\n")
        self._lines.extend(f"{line}\n" for line in lines)
        self._size += sum(map(len, lines)) + len(lines)
        # A record of many lines is looked at again when it has doubled, not with each of them.
        too_much = self._size + len(self._rest) > MOST_RECORD_CHARACTERS
        if lines and (self._size >= self._enough or too_much):
            yield from self._parse()
        if too_much:
            self._check_length(self._size + len(self._rest), self._line)

    @staticmethod
    def _check_length(size: int, line: int) -> None:
        if size > MOST_RECORD_CHARACTERS:
            raise FileError(
                "record-too-long",
                f"is longer than {MOST_RECORD_CHARACTERS} characters: a line break or a closing quote is missing",
                line,
            )

    def finish(self) -> Iterator[Record[list[str]]]:
        """See :class:`Records`."""
        self._lines.append(self._rest)
        self._rest = ""
        yield from self._parse()
        if self._lines:
            raise FileError("truncated", "begins with a quote that is never closed: the file is not whole", self._line)

    def _parse(self) -> Iterator[Record[list[str]]]:
        if self.delimiter is None:
            self._find_delimiter()
        if self.delimiter is None:
            return
        lines, done = self._lines, 0
        may_be_long = self._size > MOST_RECORD_CHARACTERS
        reader = csv.reader(lines, delimiter=self.delimiter, strict=True)
        try:
            for cells in reader:
                begun, done = done, reader.line_num
                line = self._line + begun
                if may_be_long:
                    self._check_length(sum(map(len, lines[begun:done])), line)
                if any(cells):  # Spreadsheets leave empty lines behind.
                    yield Record(line, cells)
        except csv.Error as error:
            fault = str(error)
            if "field limit" in fault:
                self._check_length(sum(map(len, lines[done:])), self._line + done)
            if "new-line character" in fault:
                fault = "it has a carriage return in the middle; save it with the line ends of Windows or Unix"
            # Inside of quotes, the rest of the record is still to come.
            if "unexpected end of data" not in fault:
                raise FileError("not-csv", f"is not CSV: {fault}", self._line + done) from None
        self._lines = lines[done:]
        self._line += done
        self._size = sum(map(len, self._lines))
        self._enough = 2 * self._size

    def _find_delimiter(self) -> None:
        while self._lines and not self._lines[0].strip():
            del self._lines[0]
            self._line += 1
        if not self._lines:
            return
        first = self._lines[0].rstrip("\r\n")
        if named := _SEP_LINE.fullmatch(first):
            self.delimiter = named[1]
            del self._lines[0]
            self._line += 1
            return
        unquoted = re.sub(r'"[^"]*"', "", first)
        self.delimiter = max(DELIMITERS, key=unquoted.count)


class JsonRecords:
    """Records of an NDJSON file: its lines, as they are."""

    def __init__(self) -> None:
        self._rest = ""
        self._line = 1

    def feed(self, text: str) -> Iterator[Record[str]]:
        """See :class:`Records`."""
        *lines, self._rest = (self._rest + text).split("\n")
        for line in lines:
            self._check_length(line)
            if line.strip():
                yield Record(self._line, line.strip())
            self._line += 1
        self._check_length(self._rest)

    def _check_length(self, line: str) -> None:
        if len(line) > MOST_RECORD_CHARACTERS:
            raise FileError(
                "record-too-long",
                f"is longer than {MOST_RECORD_CHARACTERS} characters; NDJSON has one object on each line",
                self._line,
            )

    def finish(self) -> Iterator[Record[str]]:
        """See :class:`Records`."""
        if self._rest.strip():
            yield Record(self._line, self._rest.strip())
