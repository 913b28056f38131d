"""`pricebook import`: what a price list would do is shown before it is done. Nothing here calculates."""

import shlex
import sys
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import httpx2

from app import client, import_tables, tables
from app.import_upload import STDIN, FailedImport, Order, opened, upload

DONE, HAS_ERRORS, REFUSED = 0, 3, 4
"""Exit codes: done; rows have errors, or prices moved since the preview; the person said no."""

_FEW = 5
"""So many rows are shown of what needs no look at each: first prices, and items that stay as they are."""

_HINTS = {
    "wrong-encoding": "Here: --encoding windows-1252, or what else it is.",
    "unknown-column": "Here: --map FIELD:COLUMN, once for each field that counts.",
    "missing-column": "Here: --map FIELD:COLUMN, once for each field that counts.",
    "duplicate-column": "Here: --map FIELD:COLUMN, once for each field that counts.",
}


def run(order: Order) -> int:
    """Send the file, show what it does, and apply it if that was asked for and is confirmed.

    :returns: the exit code.
    :raises FailedImport: if the file cannot be read or is not taken.
    :raises client.ServiceError: if there is no usable answer.
    """
    _check(order)
    with client.Service(order.url) as service:
        try:
            with opened(order) as file:
                answer = upload(service, order, file)
            return _Import(service, order, answer).go_on()
        except client.ProblemAnswer as error:
            raise FailedImport("\n".join(_in_words(error.document, order))) from None


def _check(order: Order) -> None:
    """What would only be found out after the upload."""
    _ = order.content_type
    if order.yes and not order.apply:
        raise FailedImport("--yes goes with --apply.")
    if order.apply and not order.yes and (order.file == STDIN or not (sys.stdin.isatty() and sys.stderr.isatty())):
        why = "standard input is the file" if order.file == STDIN else "there is no terminal to ask at"
        raise FailedImport(f"--apply asks before it writes, and {why}. Add --yes, or leave out --apply.")
    if (
        order.errors_file is not None
        and order.file != STDIN
        and order.errors_file.resolve() == Path(order.file).resolve()
    ):
        raise FailedImport(f"--errors would write over {order.file} itself. Give it another name.")


def _waiting(what: str) -> AbstractContextManager[object]:
    console = tables.console(stderr=True)
    return console.status(what) if console.is_terminal else nullcontext()


class _Import:
    """An import that the service has compared."""

    def __init__(self, service: client.Service, order: Order, answer: httpx2.Response) -> None:
        self._service = service
        self._order = order
        self._answer = answer
        self._run: dict[str, Any] = answer.json()
        self._address = f"/v1/imports/{self._run['id']}"
        self._is_quiet = False

    def go_on(self) -> int:
        """Show it, and apply it if that is wanted; returns the exit code."""
        order, counts = self._order, self._run["counts"]
        has_errors = counts["error"] > 0
        stops = has_errors and self._run["options"]["on_error"] == "abort"
        is_open = self._run["state"] == "previewed"
        asks = order.apply and not order.yes and not stops and is_open and self._records
        self._is_quiet = order.as_json and not asks
        if not order.as_json:
            self._show(tables.console())
        elif asks:
            self._show(tables.console(stderr=True))
        if has_errors and order.errors_file is not None:
            self._save_errors(order.errors_file)
        if not is_open:
            self._say(f"It was applied before, at {self._run['applied_at']}{self._seqs}. Nothing is left to do.")
        elif stops:
            self._say("Nothing is written while rows have errors. Correct them, or leave them out: --on-error skip")
        elif not order.apply:
            self._say_next()
        elif asks and not _confirmed():
            self._say(f"Nothing was written. The preview can be applied until {self._run['expires_at']}.")
            self._print_json()
            return REFUSED
        else:
            return self._apply()
        self._print_json()
        return HAS_ERRORS if stops and is_open else DONE

    @property
    def _records(self) -> bool:
        """Whether there is anything to write."""
        counts = self._run["counts"]
        ends = counts["missing"] if import_tables.ends_missing(self._run) else 0
        return any((counts["create"], counts["change"], ends))

    @property
    def _seqs(self) -> str:
        first, last = self._run["first_seq"], self._run["last_seq"]
        return "" if first is None else f": change {first}" if first == last else f": changes {first} to {last}"

    def _show(self, console: Any) -> None:
        top = self._order.top
        few = min(top, _FEW)
        most = {
            "change": top,
            "create": few,
            "missing": top if import_tables.ends_missing(self._run) else few,
            "error": top,
        }
        rows = {status: self._rows(status, limit) for status, limit in most.items()}
        for part in import_tables.report(self._run, rows, self._order.name):
            tables.show(console, part)

    def _rows(self, status: str, limit: int) -> list[dict[str, Any]]:
        if not limit or self._run["counts"][status] == 0:
            return []
        params = {"status": status, "limit": limit, "order": "change" if status == "change" else "line"}
        answer = self._service.ask("GET", f"{self._address}/rows", expects="rows", params=params)
        rows: list[dict[str, Any]] = answer.json()["rows"]
        return rows

    def _save_errors(self, path: Path) -> None:
        params = {"status": "error", "format": "file"}
        try:
            with path.open("wb") as file, self._service.stream("GET", f"{self._address}/rows", params=params) as answer:
                for chunk in answer.iter_bytes():
                    file.write(chunk)
        except OSError as error:
            raise FailedImport(f"{path} cannot be written: {error.strerror}.") from None
        self._say(
            f"The rows with errors are in {path} (UTF-8). Correct them, and send that file:\n"
            f"  {self._order.command(str(path), encoded=False)}"
        )

    def _say_next(self) -> None:
        if not self._records:
            self._say("There is nothing to apply: it records no price.")
            return
        self._say(f"Nothing is written yet. Until {self._run['expires_at']} this applies it:\n  {self._next}")

    @property
    def _next(self) -> str:
        """The command that applies what was shown."""
        if self._order.file != STDIN:
            return self._order.command(self._order.file, "--apply")
        key = f' -H "Authorization: Bearer ${client.KEY_VARIABLE}"' if self._service.has_key else ""
        return f"curl -X POST{key} {shlex.quote(f'{self._service.url}{self._address}:apply')}"

    def _apply(self) -> int:
        try:
            with _waiting("Applying"):
                self._answer = self._service.ask("POST", f"{self._address}:apply", expects="counts", waits=True)
        except client.ProblemAnswer as error:
            if error.slug != "import-conflict":
                raise
            lines = _in_words(error.document, self._order, most=self._order.top or None)
            sys.stderr.write("\n".join([*lines, ""]))
            self._answer = self._service.ask("GET", self._address, expects="counts")
            self._print_json()
            return HAS_ERRORS
        except client.ServiceError as error:
            raise FailedImport(
                f"{error}\nIt may have been applied all the same: {self._service.url}{self._address} says."
            ) from None
        self._run = self._answer.json()
        what = self._seqs or ": it recorded no price"
        self._say(f"Applied at {self._run['applied_at']}{what}.")
        self._print_json()
        return DONE

    def _say(self, message: str) -> None:
        """Words after the report, which go where it went."""
        if not self._is_quiet:
            (sys.stderr if self._order.as_json else sys.stdout).write(f"\n{message}\n")

    def _print_json(self) -> None:
        if self._order.as_json:
            sys.stdout.write(f"{self._answer.text}\n")


def _confirmed() -> bool:
    sys.stderr.write("\nApply it? [y/N] ")
    sys.stderr.flush()
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def _in_words(problem: Mapping[str, Any], order: Order, *, most: int | None = None) -> Iterator[str]:
    """A problem document, with the options of the command instead of parameters."""

    def place(pointer: str) -> str:
        first, _, rest = pointer.partition("/")
        where, _, column = rest.partition("/")
        if first == "query":
            return "--map" if where == "mapping" else f"--{where.replace('_', '-')}"
        if first == "line":
            return f"line {where}" + (f", {column}" if column else "")
        return {"body": order.name, "missing": "not in the file:", "book": "the book"}.get(first, pointer)

    yield f"{problem['title']} (status {problem['status']})."
    yield from client.faults(problem, place, **({"most": most} if most else {}))
    yield from dict.fromkeys(_HINTS[fault["code"]] for fault in problem["errors"] if fault["code"] in _HINTS)
