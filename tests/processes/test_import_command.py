"""`pricebook import` against a service: what it shows, what it asks, what it writes, and how it ends."""

import base64
import hashlib
import json
import os
import pty
import re
import shlex
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import httpx2
import pytest
from sqlalchemy.engine import URL

from tests.support import postgres
from tests.support.processes import PRICEBOOK, SECRET, environment, run, running

CLIENT = httpx2.Client(timeout=60)

HEADER = "sku,name,amount,per,tax_rate,valid_from\n"
OLD = f"""{HEADER}BOLT,Bolt,10.00,100,19,2100-01-01
FRAME,"Frame, red",1431.50,1,19,2100-01-01
PUMP,Pump,20,1,19,2100-01-01
WHEEL,Wheel,40.00,1,19,2100-01-01
"""
NEW = f"""{HEADER}BOLT,Bolt,10.50,100,19,2101-01-01
FRAME,"Frame, red",1717.80,1,19,2101-01-01
PUMP,Pump,20,1,7,2101-01-01
SADDLE,Saddle,25,,19,2101-01-01
"""


@pytest.fixture(scope="module")
def address(service_url: URL, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A service."""
    url = postgres.text(postgres.as_serving_role(service_url))
    with running("serve", tmp_path_factory.mktemp("import"), database_url=url, secret_key=SECRET) as service:
        yield service.api


@dataclass
class Desk:
    """A person with files, and a book of their own."""

    directory: Path
    api: str
    book: str

    def file(self, content: str | bytes, name: str = "list.csv") -> Path:
        path = self.directory / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    def command(self, *arguments: object, stdin: str | None = None) -> CompletedProcess[str]:
        arguments = ("import", *arguments, "--book", self.book)
        return run(*arguments, directory=self.directory, stdin=stdin, pricebook_url=self.api)

    def load(self, content: str) -> None:
        """Apply a list, to begin with: without the command, which is a second's work."""
        answer = CLIENT.post(
            f"{self.api}/v1/imports",
            params={"book": self.book, "mode": "apply"},
            content=content.encode(),
            headers={"Content-Type": "text/csv"},
        )
        assert answer.status_code == 201, answer.text

    def price(self, sku: str, at: str) -> str | None:
        answer = CLIENT.get(f"{self.api}/v1/items/sku:{sku}/price", params={"book": self.book, "at": at})
        amount: str | None = answer.json().get("amount")
        return amount

    def record(self, sku: str, amount: str, valid_from: str) -> None:
        price = {"book": self.book, "amount": amount, "valid_from": valid_from}
        assert CLIENT.post(f"{self.api}/v1/items/sku:{sku}/prices", json=price).status_code == 201

    def at_terminal(
        self, answer: bytes, *arguments: object, meanwhile: Callable[[], None] = lambda: None
    ) -> tuple[int, str, str]:
        """Run the command at a terminal and answer its question; returns exit code, output, and what was shown."""
        master, terminal = pty.openpty()
        process = subprocess.Popen(
            [PRICEBOOK, "import", *map(str, arguments), "--book", self.book],
            cwd=self.directory,
            env=environment(pricebook_url=self.api, term="xterm"),
            stdin=terminal,
            stdout=subprocess.PIPE,
            stderr=terminal,
            text=True,
        )
        os.close(terminal)
        guard = threading.Timer(60, process.kill)
        guard.start()
        shown = b""
        asked = False
        try:
            while part := _read(master):
                shown += part
                if not asked and shown.endswith(b"[y/N] "):
                    asked = True
                    meanwhile()
                    os.write(master, answer)
            output, _ = process.communicate()
        finally:
            guard.cancel()
            os.close(master)
        return process.returncode, output, shown.decode()


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65_536)
    except OSError:  # The other side is closed.
        return b""


@pytest.fixture
def desk(address: str, tmp_path: Path) -> Desk:
    book = f"book-{uuid.uuid4().hex[:12]}"
    body = {"key": book, "name": "A book", "currency": "EUR"}
    assert CLIENT.post(f"{address}/v1/books", json=body).status_code == 201
    return Desk(tmp_path, address, book)


def rows(output: str) -> list[list[str]]:
    """The cells of the tables' rows."""
    return [re.split(r"\s{2,}", line.strip()) for line in output.splitlines()]


def next_command(output: str) -> list[str]:
    """The command that the output ends with."""
    return shlex.split(output.splitlines()[-1])


def test_a_preview_shows_what_would_happen_and_writes_nothing(desk: Desk) -> None:
    desk.load(OLD)
    done = desk.command(desk.file(NEW), "--effective-at", "2101-06-01")
    assert (done.returncode, done.stderr) == (0, "")
    shown = rows(done.stdout)
    assert [row for row in shown if len(row) == 6 and row[-1] == "2101-01-01T00:00:00Z"] == [
        ["3", "FRAME", "1431.50", "1717.80", "+20.00 %", "2101-01-01T00:00:00Z"],
        ["2", "BOLT", "10.00 / 100", "10.50 / 100", "+5.00 %", "2101-01-01T00:00:00Z"],
        ["4", "PUMP", "20.00 (19 % tax)", "20.00 (7 % tax)", "0.00 %", "2101-01-01T00:00:00Z"],
    ]
    assert ["5", "SADDLE", "25.00 (19 % tax)", "2101-01-01T00:00:00Z"] in shown
    assert "\nNot in the file, left as they are\n" in done.stdout
    assert ["WHEEL", "40.00", "2100-01-01T00:00:00Z"] in shown
    assert ["4", "1", "3", "0", "0"] in shown
    assert "Prices begin 2101-06-01T00:00:00Z, unless a row says otherwise" in done.stdout
    assert "Nothing is written yet." in done.stdout
    assert desk.price("FRAME", "2102-01-01") == "1431.50"

    ends = desk.command("list.csv", "--effective-at", "2101-06-01", "--missing", "end")
    assert "Not in the file, no longer for sale: 1" in ends.stdout


def test_the_greatest_changes_come_first_and_top_says_how_many(desk: Desk) -> None:
    items = [f"I{number},Item,100,,,2100-01-01" for number in range(9)]
    desk.load("\n".join([HEADER.strip(), *items]))
    changed = [f"I{number},Item,{100 + number * (-1) ** number},,,2101-01-01" for number in range(9)]
    file = desk.file("\n".join([HEADER.strip(), *changed]))
    done = desk.command(file, "--effective-at", "2102-01-01", "--top", 3)
    assert "Changes, the greatest first: 3 of 8" in done.stdout
    assert [row[1:5] for row in rows(done.stdout) if len(row) == 6 and row[1].startswith("I")] == [
        ["I8", "100.00", "108.00", "+8.00 %"],
        ["I7", "100.00", "93.00", "-7.00 %"],
        ["I6", "100.00", "106.00", "+6.00 %"],
    ]
    silent = desk.command(file, "--effective-at", "2102-01-01", "--top", 0)
    assert "I8" not in silent.stdout
    assert ["9", "0", "8", "1", "0"] in rows(silent.stdout)


def test_apply_writes_at_once_and_says_which_changes(desk: Desk) -> None:
    desk.load(OLD)
    file = desk.file(NEW.replace(",2101-01-01", ","))
    done = desk.command(file, "--effective-at", "2101-01-01", "--missing", "end", "--apply", "--yes")
    assert (done.returncode, done.stderr) == (0, "")
    applied = re.search(r"^Applied at \S+Z: changes (\d+) to (\d+)\.$", done.stdout, re.MULTILINE)
    assert applied is not None
    recorded = CLIENT.get(f"{desk.api}/v1/changes", params={"after": int(applied[1]) - 1}).json()
    assert recorded["head"] == int(applied[2])
    types = [change["type"] for change in recorded["changes"] if change["book"] == desk.book]
    assert types == ["price.recorded"] * 5
    assert [desk.price(sku, "2101-01-01") for sku in ("BOLT", "FRAME", "PUMP", "SADDLE", "WHEEL")] == [
        "10.50",
        "1717.80",
        "20.00",
        "25.00",
        None,
    ]
    assert desk.price("FRAME", "2100-12-31") == "1431.50"

    again = desk.command(file, "--effective-at", "2101-01-01", "--missing", "end", "--apply", "--yes")
    assert again.returncode == 0
    assert re.search(
        rf"It was applied before, at \S+: changes {applied[1]} to {applied[2]}\. Nothing is left", again.stdout
    )


def test_where_nothing_changes_nothing_is_asked(desk: Desk) -> None:
    desk.load(OLD)
    file = desk.file(OLD)
    preview = desk.command(file)
    assert (preview.returncode, "There is nothing to apply: it records no price." in preview.stdout) == (0, True)
    code, output, shown = desk.at_terminal(b"", file, "--apply")
    assert (code, "[y/N]" in shown) == (0, False)
    assert re.search(r"Applied at \S+: it recorded no price\.", output)


def test_the_command_that_it_names_applies_what_was_shown(desk: Desk) -> None:
    name = "the list of 'Q3'.csv"
    desk.file("Art. No;Description;Price in €\nBOLT;Bolt M4;6,32\nNEW-1;New;1.234,50\n".encode("utf-16"), name)
    mapping = ["--map", "sku:Art. No", "--map", "name:{Description} (new)", "--map", "amount:Price in €"]
    shown = desk.command(name, *mapping, "--decimal", ",", "--encoding", "utf-16", "--create")
    assert shown.returncode == 3, "a point is no sign for thousands"
    assert ["3", "NEW-1", "amount", "1.234,50"] in [row[:4] for row in rows(shown.stdout)]

    options = ["--decimal", ",", "--encoding", "utf-16", "--on-error", "skip", "--max-change-percent", "12.5"]
    shown = desk.command(name, *mapping, *options)
    assert shown.returncode == 0
    program, *arguments = next_command(shown.stdout)
    assert (program, arguments[-1]) == ("pricebook", "--apply")
    done = run(*arguments, "--yes", directory=desk.directory, pricebook_url=desk.api)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    assert desk.price("BOLT", "2101-01-01") == "6.32"
    first, second = (re.search(r"^Import (\S+):", output.stdout, re.MULTILINE) for output in (shown, done))
    assert first is not None
    assert second is not None
    assert first[1] == second[1], "the same preview is applied"


def test_standard_input_is_a_file_too(desk: Desk) -> None:
    lines = '{"sku":"PIPE","name":"Pipe","amount":"3.30"}\n{"sku":"TUBE","name":"Tube","amount":null}\n'
    unknown = desk.command("-", stdin=lines)
    assert (unknown.returncode, unknown.stdout) == (1, "")
    assert unknown.stderr == "Nothing says what standard input is: add --format csv or --format ndjson.\n"
    shown = desk.command("-", "--format", "ndjson", stdin=lines)
    assert (shown.returncode, shown.stderr) == (0, "")
    assert ["2", "TUBE", "not for sale", "when applied"] in [
        [row[0], row[1], row[2][:12], row[-1]] for row in rows(shown.stdout) if len(row) > 3
    ]
    applied = subprocess.run(["bash", "-c", shown.stdout.splitlines()[-1]], capture_output=True, text=True, check=True)
    assert json.loads(applied.stdout)["state"] == "applied"
    assert desk.price("PIPE", "2101-01-01") == "3.30"

    done = desk.command("-", "--format", "ndjson", "--apply", "--yes", stdin=lines.replace("3.30", "3.40"))
    assert (done.returncode, desk.price("PIPE", "2101-01-01")) == (0, "3.40")


def test_the_suffix_says_what_a_file_is(desk: Desk) -> None:
    table = "sku\tname\tamount\nTAB\tTab\t1.10\n"
    line = '{"sku":"TAB","name":"Tab","amount":"1.10"}\n'
    for name, content in {"a.TSV": table, "b.jsonl": line}.items():
        done = desk.command(desk.file(content, name), "--json")
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["counts"]["create"] == 1
    sheet = desk.command(desk.file("", "prices.xlsx"))
    assert (sheet.returncode, "prices.xlsx is: add --format csv" in sheet.stderr) == (1, True)


def test_without_a_terminal_it_writes_only_with_yes(desk: Desk) -> None:
    file = desk.file(OLD)
    done = desk.command(file, "--apply")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        "--apply asks before it writes, and there is no terminal to ask at. Add --yes, or leave out --apply.\n"
    )
    piped = desk.command("-", "--format", "csv", "--apply", stdin=OLD)
    assert (piped.returncode, "standard input is the file" in piped.stderr) == (1, True)
    alone = desk.command(file, "--yes")
    assert (alone.returncode, alone.stderr) == (1, "--yes goes with --apply.\n")
    assert CLIENT.get(f"{desk.api}/v1/imports", params={"book": desk.book}).json()["items"] == []


def test_at_a_terminal_it_shows_asks_and_does_as_told(desk: Desk) -> None:
    file = desk.file(OLD)
    for answer in (b"n\n", b"\n", b"\x04"):
        code, output, shown = desk.at_terminal(answer, file, "--apply")
        assert code == 4
        assert "Nothing was written. The preview can be applied until " in output
        assert desk.price("FRAME", "2101-01-01") is None
    assert "Uploading" in shown
    assert "Comparing with the prices in force" in shown
    assert ["3", "FRAME", "1431.50 (19 % tax)", "2100-01-01T00:00:00Z"] in rows(output)

    code, output, _ = desk.at_terminal(b"y\n", file, "--apply")
    assert code == 0
    assert re.search(r"^Applied at \S+: changes \d+ to \d+\.$", output, re.MULTILINE)
    assert desk.price("FRAME", "2101-01-01") == "1431.50"


def test_json_is_the_import_and_nothing_else(desk: Desk) -> None:
    file = desk.file(OLD)
    preview = desk.command(file, "--json")
    assert (preview.returncode, preview.stderr) == (0, "")
    document = json.loads(preview.stdout)
    assert (document["state"], document["counts"]["create"], document["book"]) == ("previewed", 4, desk.book)
    assert CLIENT.get(f"{desk.api}/v1/imports/{document['id']}").json() == document

    # At a terminal the person sees what the question is about, and the output is the document alone.
    code, output, shown = desk.at_terminal(b"n\n", file, "--apply", "--json")
    assert (code, json.loads(output)["state"]) == (4, "previewed")
    assert "First prices: 4" in shown

    done = desk.command(file, "--apply", "--yes", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    applied = json.loads(done.stdout)
    assert (applied["id"], applied["state"]) == (document["id"], "applied")
    assert applied["last_seq"] - applied["first_seq"] >= 3

    wrong = desk.command(desk.file("sku,name,amount\nX,X,x\n"), "--apply", "--yes", "--json")
    assert (wrong.returncode, wrong.stderr) == (3, "")
    assert json.loads(wrong.stdout)["counts"]["error"] == 1


def test_other_encodings_are_refused_in_words_and_read_when_named(desk: Desk) -> None:
    content = "sku,name,amount\nSCHLAUCH,Schläuche 50 %,1.50\n"
    file = desk.file(content.encode("windows-1252"))
    refused = desk.command(file)
    assert (refused.returncode, refused.stdout) == (1, "")
    assert refused.stderr.startswith("The file cannot be read (status 422).\nline 2 is not UTF-8; ")
    assert refused.stderr.endswith("\nHere: --encoding windows-1252, or what else it is.\n")
    done = desk.command(file, "--encoding", "windows-1252", "--apply", "--yes")
    assert done.returncode == 0
    item = CLIENT.get(f"{desk.api}/v1/items", params={"sku": "SCHLAUCH"}).json()["items"][0]
    assert item["name"] == "Schläuche 50 %"

    marked = desk.command(desk.file(b"\xef\xbb\xbf" + content.encode()), "--json")
    assert (marked.returncode, json.loads(marked.stdout)["counts"]["unchanged"]) == (0, 1)
    wide = desk.file(content.encode("utf-16"))
    assert "list.csv is UTF-16; " in desk.command(wide).stderr
    assert desk.command(wide, "--encoding", "utf-16").returncode == 0


def test_rows_with_errors_are_named_corrected_and_sent_again(desk: Desk) -> None:
    desk.load(OLD)
    content = "sku;name;amount;tax_rate\nBOLT;Bolt;x;19\nFRAME;Räder;1.450,00;19\nPUMP;Pump;21,00;19\nNEW;;5,00;19\n"
    file = desk.file(content.encode("windows-1252"))
    options = ["--decimal", ",", "--encoding", "windows-1252", "--errors", "wrong.csv", "--effective-at", "2101-01-01"]
    done = desk.command(file, *options, "--apply", "--yes")
    assert (done.returncode, done.stderr) == (3, "")
    shown = [row[:4] for row in rows(done.stdout)]
    assert "Rows with errors: 3" in done.stdout
    assert ["2", "BOLT", "amount", "x"] in shown
    assert ["3", "FRAME", "amount", "1.450,00"] in shown
    assert ["5", "NEW", "name", "is required, because the item is new"] in shown
    assert "Nothing is written while rows have errors." in done.stdout
    assert desk.price("PUMP", "2101-01-01") == "20.00"

    # What was right goes in; the rest is corrected in the file, whose column of errors is passed over.
    skipped = desk.command(file, *options, "--on-error", "skip", "--apply", "--yes")
    assert (skipped.returncode, skipped.stderr) == (0, "")
    assert "Rows with errors, left out: 3" in skipped.stdout
    assert desk.price("PUMP", "2101-01-01") == "21.00"
    wrong = desk.directory / "wrong.csv"
    text = wrong.read_text(encoding="utf-8")
    assert text.splitlines()[0] == "sku;name;amount;tax_rate;import_errors"
    assert len(text.splitlines()) == 4
    assert "amount must be a number" in text
    corrected = (
        text.replace("BOLT;Bolt;x", "BOLT;Bolt;10,00").replace("1.450,00", "1450,00").replace("NEW;;", "NEW;New;")
    )
    wrong.write_text(corrected, encoding="utf-8")

    send = next(line for line in skipped.stdout.splitlines() if line.strip().startswith("pricebook import wrong.csv"))
    program, *arguments = shlex.split(send)
    assert "--encoding" not in arguments, "the file is in UTF-8 now"
    again = run(*arguments, "--apply", "--yes", directory=desk.directory, pricebook_url=desk.api)
    assert (program, again.returncode) == ("pricebook", 0), again.stdout + again.stderr
    assert [desk.price(sku, "2101-01-01") for sku in ("BOLT", "FRAME", "NEW")] == ["10.00", "1450.00", "5.00"]


def test_a_comma_before_the_decimals_is_recognized(desk: Desk) -> None:
    file = desk.file("sku;name;amount\nA;A;1,50\n")
    assert "If a comma stands before the decimals in this file: --decimal ," in desk.command(file).stdout
    assert desk.command(file, "--decimal", ",").returncode == 0


def test_a_slipped_decimal_point_stops_the_list(desk: Desk) -> None:
    desk.load(OLD)
    file = desk.file(f"{HEADER}FRAME,,14315.0,,,2101-01-01\n")
    done = desk.command(file, "--apply", "--yes")
    assert done.returncode == 3
    assert "changes the price by 900 %, from 1431.5" in done.stdout
    assert desk.price("FRAME", "2101-01-01") == "1431.50"
    assert desk.command(file, "--max-change-percent", "1000", "--apply", "--yes").returncode == 0
    assert desk.price("FRAME", "2101-01-01") == "14315.00"


def test_the_file_of_errors_never_replaces_the_list(desk: Desk) -> None:
    file = desk.file("sku,name,amount\nX,X,x\n")
    done = desk.command(file, "--errors", "./list.csv")
    assert (done.returncode, done.stderr) == (
        1,
        f"--errors would write over {file} itself. Give it another name.\n",
    )
    assert file.read_text() == "sku,name,amount\nX,X,x\n"
    nowhere = desk.command(file, "--errors", "nowhere/wrong.csv")
    assert (nowhere.returncode, nowhere.stderr) == (
        1,
        "nowhere/wrong.csv cannot be written: No such file or directory.\n",
    )
    right = desk.command(desk.file("sku,name,amount\nX,X,1\n"), "--errors", "wrong.csv")
    assert (right.returncode, (desk.directory / "wrong.csv").exists()) == (0, False)


@pytest.mark.parametrize("as_json", [False, True])
def test_prices_that_move_before_the_answer_are_a_conflict(desk: Desk, as_json: bool) -> None:
    desk.load(OLD)
    code, output, shown = desk.at_terminal(
        b"y\n",
        desk.file(NEW),
        "--apply",
        *(["--json"] if as_json else []),
        meanwhile=lambda: desk.record("FRAME", "1500.00", "2100-06-01"),
    )
    assert code == 3
    assert "Prices moved since the preview (status 409).\r\n" in shown
    assert "line 3 (item FRAME) has other prices" in shown
    assert desk.price("BOLT", "2101-01-01") == "10.00"
    if as_json:
        assert json.loads(output)["state"] == "conflict"


@pytest.mark.parametrize(
    ("content", "arguments", "message"),
    [
        (b"", [], "The file cannot be read (status 422).\nlist.csv has no rows"),
        (b"PK\x03\x04...", [], "list.csv is a spreadsheet or ZIP archive; send the list itself"),
        (
            b'sku,name,amount\nX,"X,1\nY,Y,2\n',
            [],
            "line 2 begins with a quote that is never closed: the file is not whole",
        ),
        (b"Art,name,amount\nX,X,1\n", [], "\nHere: --map FIELD:COLUMN, once for each field that counts."),
        (
            b"sku,name,amount\nX,X,1\n",
            ["--map", "price:amount"],
            "--map is wrong: price is not a field of a price list",
        ),
        (b"sku,name,amount\nX,X,1\n", ["--max-change-percent", "x"], "--max-change-percent must be a number"),
        (b"sku,name,amount\nX,X,1\n", ["--effective-at", "soon"], "--effective-at "),
        (b"sku,name,amount\nX,X,1\n", ["--book", "gone"], "--book names no book"),
    ],
)
def test_what_is_not_taken_is_said_in_words(desk: Desk, content: bytes, arguments: list[str], message: str) -> None:
    options = arguments if "--book" in arguments else [*arguments, "--book", desk.book]
    desk.file(content)
    done = run("import", "list.csv", *options, directory=desk.directory, pricebook_url=desk.api)
    assert (done.returncode, done.stdout) == (1, "")
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) <= 3


def test_a_file_that_cannot_be_opened_is_said(desk: Desk) -> None:
    absent = desk.command("absent.csv")
    assert (absent.returncode, absent.stderr) == (1, "absent.csv cannot be read: No such file or directory.\n")
    (desk.directory / "folder.csv").mkdir()
    folder = desk.command("folder.csv")
    assert (folder.returncode, folder.stderr) == (1, "folder.csv cannot be read: Is a directory.\n")


def test_what_steers_a_terminal_is_shown_as_it_is_written(desk: Desk) -> None:
    done = desk.command(desk.file("sku,name,amount\nX,X,[b]\x1b[2J9\u00a0\n"))
    assert done.returncode == 3
    assert r"[b]\x1b[2J9" in done.stdout
    assert "\x1b" not in done.stdout


def test_a_service_that_is_away_is_said(desk: Desk) -> None:
    file = desk.file(OLD)
    nobody = desk.command(file, "--url", "http://127.0.0.1:1")
    assert (nobody.returncode, nobody.stdout) == (1, "")
    assert nobody.stderr.startswith("No service answers at http://127.0.0.1:1: ")
    nowhere = desk.command(file, "--url", "127.0.0.1")
    assert (nowhere.returncode, nowhere.stderr.startswith("No service answers at 127.0.0.1: ")) == (1, True)


class Other(BaseHTTPRequestHandler):
    """Stands for a service: takes a preview, if it has a document, and breaks off the connection at its ``:apply``."""

    protocol_version = "HTTP/1.1"
    document: bytes | None = None
    received: list[tuple[dict[str, str], bytes]]

    def do_POST(self) -> None:
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.received.append((headers, self.rfile.read(int(headers.get("content-length", 0)))))
        if self.path.endswith(":apply"):
            self.close_connection = True
        elif self.document is None:
            self.send_error(404)
        else:
            self.send_response(201)
            self.send_header("Content-Length", str(len(self.document)))
            self.end_headers()
            self.wfile.write(self.document)

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def another_service(document: Any = None) -> Iterator[tuple[str, list[tuple[dict[str, str], bytes]]]]:
    received: list[tuple[dict[str, str], bytes]] = []
    fields = {"document": document and json.dumps(document).encode(), "received": received}
    with ThreadingHTTPServer(("127.0.0.1", 0), type("_Other", (Other,), fields)) as server:
        threading.Thread(target=server.serve_forever).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", received
        finally:
            server.shutdown()


@pytest.mark.parametrize("through_a_pipe", [False, True])
def test_the_file_goes_as_it_is_with_its_length_digest_and_the_key(tmp_path: Path, through_a_pipe: bool) -> None:
    content = "".join(f"line {number}\n" for number in range(30_000))
    file = tmp_path / "list.csv"
    file.write_text(content)
    with another_service() as (address, received):
        source, stdin = ("-", content) if through_a_pipe else (file, None)
        options = ["--format", "csv", "--encoding", "windows-1252"]
        key = {"pricebook_url": address, "pricebook_key": "pb_1234"}
        done = run("import", source, *options, directory=tmp_path, stdin=stdin, **key)
    assert (done.returncode, done.stderr) == (1, f"What answers at {address} is not Pricebook: status 404.\n")
    [(headers, body)] = received
    assert body == content.encode()
    digest = base64.b64encode(hashlib.sha256(body).digest()).decode()
    assert headers["content-digest"] == f"sha-256=:{digest}:"
    assert headers["content-length"] == str(len(body))
    assert "transfer-encoding" not in headers
    assert headers["content-type"] == "text/csv; charset=windows-1252"
    assert headers["authorization"] == "Bearer pb_1234"


def test_a_connection_that_breaks_while_applying_leaves_it_open_what_happened(desk: Desk) -> None:
    file = desk.file(OLD)
    document = json.loads(desk.command(file, "--json").stdout)
    with another_service(document) as (address, _):
        done = desk.command(file, "--apply", "--yes", "--json", "--url", address)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"The connection to {address} broke off: ")
    assert done.stderr.endswith(f"It may have been applied all the same: {address}/v1/imports/{document['id']} says.\n")


def test_other_commands_do_not_load_it() -> None:
    code = "import sys, app.cli; print([name for name in sys.modules if name.startswith('app.import')])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
