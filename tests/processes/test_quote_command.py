"""`pricebook quote` against a service: a table, JSON, a verdict, and one message where there is nothing to show."""

import json
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from subprocess import CompletedProcess

import httpx2
import pytest
from sqlalchemy.engine import URL

from tests.support import postgres
from tests.support.processes import SECRET, run, running

SKU = "[b]FRAME"
"""What would be markup if it were taken for it."""

# A quote on one page: an item of the book with an allowance, a stated price, one without tax, and a charge.
REQUEST = """{"at": "2101-01-01", "rounding": {"cash_increment": "0.05"}, "prepaid": "100.00",
 "lines": [{"item": "sku:[b]FRAME", "quantity": 3, "adjustments": [{"percent": "-10", "reason": "autumn"}]},
           {"id": "bolts", "quantity": "250", "unit_price": 1.15, "per": "100", "tax_rate": "7",
            "tax_included": true}],
 "adjustments": [{"amount": "4.90", "tax_rate": "19", "reason": "freight"}]}"""

Command = Callable[..., CompletedProcess[str]]


@pytest.fixture(scope="module")
def quote(service_url: URL, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Command]:
    """The command, with a service that has an item."""
    directory = tmp_path_factory.mktemp("quote")
    item = {"sku": SKU, "name": "Frame"}
    price = {"amount": "33.335", "tax_rate": "19", "valid_from": "2100-01-01"}
    url = postgres.text(postgres.as_serving_role(service_url))
    with running("serve", directory, database_url=url, secret_key=SECRET) as service:
        assert httpx2.post(f"{service.api}/v1/items", json={**item, "price": price}).status_code == 201

        def command(*arguments: object, stdin: str | None = None) -> CompletedProcess[str]:
            return run("quote", *arguments, directory=directory, stdin=stdin, pricebook_url=service.api)

        yield command


@pytest.fixture
def request_file(tmp_path: Path) -> Path:
    file = tmp_path / "request.json"
    file.write_text(REQUEST)
    return file


def rows(output: str) -> list[list[str]]:
    """The cells of the tables' rows."""
    return [re.split(r"\s{2,}", line.strip()) for line in output.splitlines()]


def test_the_answer_is_shown_as_tables(quote: Command, request_file: Path) -> None:
    done = quote(request_file)
    assert (done.returncode, done.stderr) == (0, "")
    shown = rows(done.stdout)
    # 3 x 33.335 = 100.005 -> 100.01; 10 % of 100.005 -> 10.00
    assert ["1", "sku:[b]FRAME", "3", "33.335", "autumn -10 % -10.00", "90.01", "S 19 %", "17.10"] in shown
    # 250 x 1.15 / 100 = 2.875 -> 2.88, with 7 / 107 of it as tax
    assert ["2", "bolts", "250", "1.15 / 100", "2.88", "S 7 % incl.", "0.19"] in shown
    assert ["freight", "4.90", "S 19 %", "0.93"] in shown
    assert ["S 19 %", "94.91", "18.03"] in shown
    assert ["S 7 % incl.", "2.69", "0.19"] in shown
    totals = [
        ["net", "97.60"],
        ["tax", "18.22"],
        ["gross", "115.82"],
        ["cash rounding", "-0.02"],
        ["prepaid", "100.00"],
    ]
    assert [row for row in shown if row in totals] == totals
    assert ["payable", "15.80"] in shown
    assert "Quote in EUR, book default, at 2101-01-01T00:00:00Z" in done.stdout

    explained = quote(request_file, "--explain")
    assert "->" not in done.stdout
    assert "2: 250 x 1.15 / 100 = 2.875 -> 2.88" in explained.stdout.splitlines()


def test_json_is_the_answer_and_verifies_later(quote: Command, request_file: Path, tmp_path: Path) -> None:
    stored = tmp_path / "stored.json"
    done = quote(request_file, "--json", "--explain")
    assert (done.returncode, done.stderr) == (0, "")
    answer = json.loads(done.stdout)
    assert (answer["payable"], answer["lines"][1]["unit_price"]) == ("15.80", "1.15")
    assert answer["lines"][0]["explain"]

    stored.write_text(done.stdout)
    right = quote(stored, "--verify")
    assert (right.returncode, right.stdout, right.stderr) == (0, "The quote is right.\n", "")

    answer["lines"][1]["tax"] = "0.20"
    stored.write_text(json.dumps(answer))
    wrong = quote(stored, "--verify")
    assert (wrong.returncode, wrong.stderr) == (3, "")
    assert wrong.stdout.splitlines() == [
        "The quote is not right. The first difference:",
        "pointer   /lines/1/tax (line 2)",
        'stated    "0.20"',
        'computed  "0.19"',
    ]
    as_json = quote(stored, "--verify", "--json")
    assert as_json.returncode == 3
    assert json.loads(as_json.stdout)["difference"]["pointer"] == "/lines/1/tax"


def test_standard_input_is_a_file_too_and_no_digit_is_lost(quote: Command, tmp_path: Path) -> None:
    digits = "123456789012.123456789012"
    request = f'{{"currency": "EUR", "lines": [{{"unit_price": {digits}, "tax_category": null}}]}}'
    file = tmp_path / "digits.json"
    file.write_text(request)
    from_file, from_stdin = quote(file), quote("-", stdin=request)
    assert (from_file.returncode, from_stdin.returncode) == (0, 0), from_file.stderr + from_stdin.stderr
    for shown in (from_file, from_stdin):
        assert ["1", "1", digits, "123456789012.12", "none stated", "0.00"] in rows(shown.stdout)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "request.json cannot be read: No such file or directory."),
        ('{"lines":\n[1,}', "request.json is not JSON: line 2, column 4: "),
        ('{"lines": ["\udce9"]}', "request.json is not UTF-8, from byte 12 on."),
        ("[]", "There is no quote: "),
        ("[" * 100_000, "request.json is not a quote: it is nested too deeply."),
        ('{"lines": [{"item": "sku:[b]FRAME", "quantity": "x"}]}', "\n/lines/0/quantity (line 1) "),
        (
            '{"at": "2101-01-01", "lines": [{"item": "sku:[b]FRAME"}, {"item": "sku:GONE"}]}',
            "\n/lines/1/item (line 2) names no item\n",
        ),
        ('{"at": "2000-01-01", "lines": [{"item": "sku:[b]FRAME"}]}', "/lines/0/item (line 1) has no price"),
        ('{"lines": [{"unit_price": NaN, "tax_rate": "19"}]}', "/lines/0/unit_price (line 1) "),
    ],
)
def test_what_cannot_be_added_up_is_said_in_one_message(
    quote: Command, tmp_path: Path, content: str | None, message: str
) -> None:
    file = tmp_path / "request.json"
    if content is not None:
        file.write_bytes(content.encode(errors="surrogateescape"))
    done = quote(file)
    assert (done.returncode, done.stdout) == (1, "")
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) <= 2


def test_a_request_is_no_stored_quote(quote: Command, request_file: Path) -> None:
    done = quote(request_file, "--verify")
    assert (done.returncode, done.stdout) == (1, "")
    assert "/known_seq" in done.stderr


def test_a_service_that_is_away_or_another_is_said(request_file: Path, tmp_path: Path) -> None:
    nobody = run("quote", request_file, "--url", "http://127.0.0.1:1", directory=tmp_path)
    assert (nobody.returncode, nobody.stdout) == (1, "")
    assert nobody.stderr.startswith("No service answers at http://127.0.0.1:1: ")
    nowhere = run("quote", request_file, "--url", "127.0.0.1", directory=tmp_path)
    assert (nowhere.returncode, nowhere.stderr.startswith("No service answers at 127.0.0.1: ")) == (1, True)

    class Other(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.send_error(404)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Other) as server:
        threading.Thread(target=server.serve_forever).start()
        address = f"http://127.0.0.1:{server.server_port}"
        other = run("quote", request_file, "--url", address, directory=tmp_path)
        server.shutdown()
    assert (other.returncode, other.stderr) == (1, f"What answers at {address} is not Pricebook: status 404.\n")


def test_other_commands_do_not_load_it() -> None:
    code = "import sys, app.cli; print('app.quote_report' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
