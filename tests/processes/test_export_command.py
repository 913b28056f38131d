"""`pricebook export`: a whole file or none, and what it says about it."""

import csv
import hashlib
import io
import json
import os
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2
import pytest
from sqlalchemy.engine import URL

from tests.support import postgres
from tests.support.processes import PRICEBOOK, SECRET, Service, environment, free_port, run, running


@pytest.fixture(scope="module")
def service(server: URL, migrated: URL, worker_id: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service with a small list."""
    directory = tmp_path_factory.mktemp("export")
    with postgres.database(server, f"pricebook_export_command_{worker_id}", like=migrated) as url:
        as_role = postgres.text(postgres.as_serving_role(url))
        with running("serve", directory, database_url=as_role, secret_key=SECRET) as service:
            for number in range(30):
                item = {
                    "sku": f"S-{number}",
                    "name": f'Name "{number}"',
                    "description": "Two\r\nlines",
                    "price": {"amount": f"{number}.50", "valid_from": "2026-01-01"},
                }
                assert httpx2.post(f"{service.api}/v1/items", json=item).status_code == 201
            yield service


@pytest.mark.parametrize("form", ["csv", "ndjson", "snapshot"])
def test_a_file_and_what_is_said_about_it(service: Service, tmp_path: Path, form: str) -> None:
    file = tmp_path / "list"
    done = run("export", "--format", form, "--output", file, "--json", directory=tmp_path, pricebook_url=service.api)
    assert done.returncode == 0, done.stderr
    expected = httpx2.get(f"{service.api}/v1/export", params={"format": form}).content
    assert file.read_bytes() == expected
    assert json.loads(done.stdout) == {
        "seq": 61,
        "rows": 30,
        "bytes": len(expected),
        "sha256": hashlib.sha256(expected).hexdigest(),
    }
    assert done.stderr == f"30 rows in {file}, as known at seq 61\n"
    assert list(tmp_path.iterdir()) == [file]


def test_standard_output_and_the_parameters(service: Service, tmp_path: Path) -> None:
    done = run(
        "export", "--known-seq", 11, "--at", "2026-06-01", "--book", "default", directory=tmp_path,
        pricebook_url=service.api,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert [row["sku"] for row in csv.DictReader(io.StringIO(done.stdout))] == [f"S-{number}" for number in range(5)]
    assert done.stderr == "5 rows, as known at seq 11\n"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--book", "none"], "No such book (status 404).\nquery/book names no book"),
        (["--known-seq", "99"], "No such change yet (status 422).\nquery/known_seq must not be greater than 61"),
        (["--format", "xlsx"], "query/format should be 'csv', 'ndjson' or 'snapshot'"),
        (["--json"], "--json tells about a file: name it with --output."),
    ],
)
def test_refusals(service: Service, tmp_path: Path, arguments: list[str], words: str) -> None:
    done = run("export", *arguments, directory=tmp_path, pricebook_url=service.api)
    assert done.returncode == 1
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize("output", ["/dev/null", "none/list.csv"])
def test_places_that_are_no_files(service: Service, tmp_path: Path, output: str) -> None:
    done = run("export", "--output", output, directory=tmp_path, pricebook_url=service.api)
    assert done.returncode == 1
    assert output in done.stderr
    assert "Traceback" not in done.stderr


def test_no_service(tmp_path: Path) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    done = run("export", directory=tmp_path, pricebook_url=url)
    assert done.returncode == 1
    assert done.stderr.startswith(f"No service answers at {url}")


@contextmanager
def answering(content: bytes) -> Iterator[tuple[str, list[bytes]]]:
    """A server that answers one request with these bytes and closes the connection. Yields its URL and the request."""
    requests: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                requests.append(connection.recv(65536))
                connection.sendall(content)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}", requests
        thread.join(timeout=10)


HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/csv\r\nTransfer-Encoding: chunked\r\nPricebook-Seq: 7\r\n\r\n"


def test_a_file_that_was_cut_off_is_not_there(tmp_path: Path) -> None:
    file = tmp_path / "list.csv"
    file.write_text("of yesterday")
    with answering(HEAD + b"5\r\nsku\r\n\r\n") as (url, _):
        done = run("export", "--output", file, directory=tmp_path, pricebook_url=url)
    assert done.returncode == 1
    assert "broke off" in done.stderr
    assert "Traceback" not in done.stderr
    assert file.read_text() == "of yesterday"
    assert list(tmp_path.iterdir()) == [file]


def test_a_file_that_ends_in_order_within_a_line_is_not_there(tmp_path: Path) -> None:
    with answering(HEAD + b"5\r\nsku\r\n\r\n4\r\nS-1,\r\n0\r\n\r\n") as (url, _):
        done = run("export", "--output", "list.csv", directory=tmp_path, pricebook_url=url)
    assert done.returncode == 1
    assert "broke off within a line" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_standard_output_that_takes_nothing(service: Service, tmp_path: Path) -> None:
    command = [str(PRICEBOOK), "export"]
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            command, stdout=full, stderr=subprocess.PIPE, env=environment(pricebook_url=service.api),
            text=True, timeout=60, check=False, cwd=tmp_path,
        )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr == "Standard output cannot be written: No space left on device.\n"
    # Who reads no further, as `head`, is no mistake to tell of.
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        command, stdout=writing, stderr=subprocess.PIPE, env=environment(pricebook_url=service.api),
        text=True, timeout=60, check=False, cwd=tmp_path,
    )  # fmt: skip
    os.close(writing)
    assert (done.returncode, done.stderr) == (1, "")


def test_what_is_not_pricebook(tmp_path: Path) -> None:
    with answering(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok") as (url, _):
        done = run("export", "--output", "list.csv", directory=tmp_path, pricebook_url=url)
    assert done.returncode == 1
    assert "is not Pricebook" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_the_key_is_sent_along(tmp_path: Path) -> None:
    with answering(HEAD + b"5\r\nsku\r\n\r\n0\r\n\r\n") as (url, requests):
        done = run("export", directory=tmp_path, pricebook_url=url, pricebook_key="a-key")
    assert done.returncode == 0, done.stderr
    assert b"\r\nauthorization: bearer a-key\r\n" in requests[0].lower()
