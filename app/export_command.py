"""`pricebook export`: a price list of a running service, to standard output or to a file that is whole or not there."""

import contextlib
import hashlib
import json
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeElapsedColumn, TransferSpeedColumn

from app import client, tables

CSV = "csv"


class ExportError(Exception):
    """There is no file; the message says why."""


@dataclass(slots=True)
class Received:
    """What has come so far."""

    form: str
    rows: int = 0
    size: int = 0
    ends_a_line: bool = True
    digest: Any = field(default_factory=hashlib.sha256)
    _quoted: bool = False

    def add(self, chunk: bytes) -> None:
        """Count a piece of the file."""
        self.size += len(chunk)
        self.ends_a_line = chunk.endswith(b"\n")
        self.digest.update(chunk)
        if self.form != CSV:
            self.rows += chunk.count(b"\n")
            return
        # In CSV a line break within quotes is part of a cell.
        for place, part in enumerate(chunk.split(b'"')):
            if place:
                self._quoted = not self._quoted
            if not self._quoted:
                self.rows += part.count(b"\n")

    @property
    def data_rows(self) -> int:
        """Rows, without the heading of a table."""
        return self.rows - (self.form == CSV)


def export(url: str, parameters: dict[str, Any], output: Path | None, *, as_json: bool) -> None:
    """Fetch an export.

    The seq goes to standard error, and with ``as_json`` a description of the file to standard output.

    :param parameters: those of ``GET /v1/export``; null stands for the default.
    :param output: the file, which appears only when it is whole; without it, standard output.
    :raises ExportError: if it cannot be written.
    :raises ServiceError: if the service has no such list, or the connection breaks off.
    """
    received = Received(parameters["format"])
    asked = {name: value for name, value in parameters.items() if value is not None}
    with client.Service(url) as service, service.stream("GET", "/v1/export", params=asked) as answer:
        seq = service.seq_of(answer)
        with _destination(output) as file, _progress(output) as show:
            for chunk in answer.iter_bytes():
                file.write(chunk)
                received.add(chunk)
                show(received)
            if not received.ends_a_line:
                raise service.cut_off()
    where = "" if output is None else f" in {output}"
    sys.stderr.write(f"{received.data_rows:,} rows{where}, as known at seq {seq}\n")
    if as_json:
        about = {
            "seq": seq,
            "rows": received.data_rows,
            "bytes": received.size,
            "sha256": received.digest.hexdigest(),
        }
        sys.stdout.write(f"{json.dumps(about)}\n")


@contextlib.contextmanager
def _destination(output: Path | None) -> Iterator[BinaryIO]:
    if output is None:
        try:
            yield sys.stdout.buffer
            sys.stdout.buffer.flush()
        except OSError as error:
            # What is still to be written would fail once more at the end of the process.
            with Path(os.devnull).open("wb") as nowhere:
                os.dup2(nowhere.fileno(), sys.stdout.fileno())
            if isinstance(error, BrokenPipeError):
                # Its reader has enough, as in `| head`.
                raise
            raise ExportError(f"Standard output cannot be written: {error.strerror or error}.") from None
        return
    target = Path(os.path.realpath(output))
    if target.exists() and not target.is_file():
        raise ExportError(f"{output} is no regular file; leave --output out and redirect standard output there.")
    part = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        with part.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        part.replace(target)
    except OSError as error:
        raise ExportError(f"{output} cannot be written: {error.strerror or error}.") from None
    finally:
        part.unlink(missing_ok=True)


@contextlib.contextmanager
def _progress(output: Path | None) -> Iterator[Any]:
    """Shows how much has come, to people whose terminal does not get the file itself."""
    console = tables.console(stderr=True)
    if not console.is_terminal or (output is None and sys.stdout.isatty()):
        yield lambda _: None
        return
    columns = (
        TextColumn("{task.fields[rows]:,} rows"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("", total=None, rows=0)
        yield lambda received: progress.update(task, completed=received.size, rows=max(received.data_rows, 0))
