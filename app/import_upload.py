"""The upload of `pricebook import`: a file goes to the service as it is, whatever its size.

Memory does not grow with it: it is read twice, for its digest and for the upload.
"""

import base64
import hashlib
import os
import shlex
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import httpx2
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

from app import client, tables

STDIN = "-"

_FORMATS = {".csv": "csv", ".tsv": "csv", ".txt": "csv", ".ndjson": "ndjson", ".jsonl": "ndjson"}
_MEDIA_TYPES = {"csv": "text/csv", "ndjson": "application/x-ndjson"}
_CHUNK_BYTES = 65_536


class FailedImport(Exception):
    """The file cannot be read or is not taken; the message says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What the person asked for. What is ``None`` is left to the service."""

    file: str
    url: str
    book: str | None
    effective_at: str | None
    on_error: str | None
    missing: str | None
    create: bool | None
    max_change_percent: str | None
    decimal: str | None
    mapping: list[str]
    encoding: str | None
    format: str | None
    apply: bool
    yes: bool
    errors_file: Path | None
    top: int
    as_json: bool

    @property
    def name(self) -> str:
        """What the file is called in messages."""
        return "standard input" if self.file == STDIN else self.file

    @property
    def params(self) -> list[tuple[str, str]]:
        """The query of the request."""
        names = ("book", "effective_at", "on_error", "missing", "create", "max_change_percent", "decimal")
        given = [(name, getattr(self, name)) for name in names if getattr(self, name) is not None]
        written = [(name, str(value).lower() if name == "create" else value) for name, value in given]
        return written + [("mapping", entry) for entry in self.mapping]

    @property
    def content_type(self) -> str:
        """Media type and encoding of the file.

        :raises FailedImport: if nothing says which format it has.
        """
        name = self.format or _FORMATS.get(Path(self.file).suffix.lower())
        if name is None:
            raise FailedImport(f"Nothing says what {self.name} is: add --format csv or --format ndjson.")
        return _MEDIA_TYPES[name] + (f"; charset={self.encoding}" if self.encoding else "")

    def command(self, file: str, *more: str, encoded: bool = True) -> str:
        """The same command for another file; ``encoded`` unless that is in UTF-8 whatever this one was in."""
        words = ["pricebook", "import", file]
        for name, value in self.params:
            if name == "create":
                words.append("--create" if self.create else "--no-create")
            else:
                words += ["--map" if name == "mapping" else f"--{name.replace('_', '-')}", value]
        if self.encoding and encoded:
            words += ["--encoding", self.encoding]
        if self.format:
            words += ["--format", self.format]
        if self.url != os.environ.get("PRICEBOOK_URL", client.DEFAULT_URL):
            words += ["--url", self.url]
        return shlex.join([*words, *more])


@contextmanager
def opened(order: Order) -> Iterator[BinaryIO]:
    """The file, to be read more than once: what comes through a pipe is kept on the disk meanwhile."""
    try:
        with nullcontext(sys.stdin.buffer) if order.file == STDIN else Path(order.file).open("rb") as file:
            if order.file != STDIN and file.seekable():
                yield file
            else:
                with tempfile.TemporaryFile() as copy:
                    shutil.copyfileobj(file, copy)
                    copy.seek(0)
                    yield copy
    except OSError as error:
        raise FailedImport(f"{order.name} cannot be read: {error.strerror}.") from None


def upload(service: client.Service, order: Order, file: BinaryIO) -> httpx2.Response:
    """Send the file for a preview. The service stages as it reads, so the bar is about both."""
    digest = hashlib.sha256()
    while chunk := file.read(_CHUNK_BYTES):
        digest.update(chunk)
    size = file.tell()
    file.seek(0)
    headers = {
        "Content-Type": order.content_type,
        "Content-Length": str(size),
        "Content-Digest": f"sha-256=:{base64.b64encode(digest.digest()).decode()}:",
    }
    with _progress(size) as advance:
        content = _chunks(order, file, size, advance)
        return service.ask(
            "POST", "/v1/imports", expects="counts", waits=True, content=content, params=order.params, headers=headers
        )


def _chunks(order: Order, file: BinaryIO, size: int, advance: Callable[[int], None]) -> Iterator[bytes]:
    while size:
        chunk = file.read(min(size, _CHUNK_BYTES))
        if not chunk:
            raise FailedImport(f"{order.name} became shorter while it was sent.")
        yield chunk
        size -= len(chunk)
        advance(len(chunk))


@contextmanager
def _progress(size: int) -> Iterator[Callable[[int], None]]:
    """A bar for the upload, and then a spinner for the comparison; neither unless standard error is a terminal."""
    console = tables.console(stderr=True)
    columns = (TextColumn("Uploading"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    comparing = console.status("Comparing with the prices in force")
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=size)

        def advance(count: int) -> None:
            bar.advance(task, count)
            if bar.finished and console.is_terminal:
                bar.stop()
                comparing.start()

        try:
            yield advance
        finally:
            comparing.stop()
