"""`pricebook follow`: killed at any moment, cut off from the service, or left behind by the feed, its copy is right."""

import contextlib
import http.server
import json
import random
import signal
import sqlite3
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from sqlalchemy.engine import URL

from tests.support import postgres
from tests.support.processes import PRICEBOOK, SECRET, Service, environment, free_port, run, running

pytestmark = pytest.mark.long


class Writer:
    """Writes all kinds of changes until it is told to stop, whether or not the service is there."""

    def __init__(self, api: str) -> None:
        self.api = api
        self.written = 0
        self._chance = random.Random(7)  # noqa: S311 - no secret
        self._items: list[str] = []
        self._rows: list[tuple[str, str]] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> "Writer":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(timeout=60)
        assert not self._thread.is_alive()

    def _run(self) -> None:
        with httpx2.Client(base_url=self.api, timeout=30) as client:
            while not self._stop.is_set():
                try:
                    self._write(client)
                except httpx2.TransportError:
                    time.sleep(0.1)

    def write(self, count: int) -> None:
        """Write so many times, and be done."""
        with httpx2.Client(base_url=self.api, timeout=30) as client:
            for _ in range(count):
                self._write(client)

    def _write(self, client: httpx2.Client) -> None:
        kind = self._chance.choice(["item", "record", "record", "record", "correct", "void", "rename", "archive"])
        terms = {"amount": f"{self.written}.5", "valid_from": "2026-01-01", "book": self._chance.choice(BOOKS)}
        if kind == "item" or not self._items:
            answer = client.post("/v1/items", json={"name": '\'t Größe\u2028"Ω"', "attributes": {"n": self.written}})
            assert answer.status_code == 201, answer.text
            self._items.append(answer.json()["id"])
        elif kind == "record" or not self._rows:
            self._record(client, self._chance.choice(self._items), terms)
        elif kind == "correct":
            item, row = self._chance.choice(self._rows)
            self._record(client, item, terms | {"supersedes": row})
        elif kind == "void":
            client.delete(f"/v1/prices/{self._chance.choice(self._rows)[1]}")
        else:
            address = f"/v1/items/{self._chance.choice(self._items)}"
            if kind == "rename":
                client.patch(address, json={"name": f"N {self.written}"}, headers={"If-Match": "*"})
            elif self._chance.random() < 0.2:
                client.delete(address, headers={"If-Match": "*"})
        self.written += 1

    def _record(self, client: httpx2.Client, item: str, terms: dict[str, Any]) -> None:
        answer = client.post(f"/v1/items/{item}/prices", json=terms)
        if answer.status_code == 201:
            self._rows.append((item, answer.json()["id"]))


BOOKS = ["default", "other"]


@pytest.fixture
def database(own_url: URL) -> str:
    """A migrated database, as the service takes it."""
    return postgres.text(postgres.as_serving_role(own_url))


@contextlib.contextmanager
def serving(database: str, directory: Path, **settings: object) -> Iterator[Service]:
    with running(
        "serve", directory, database_url=database, secret_key=SECRET, server="uvicorn", drain_seconds=0, **settings
    ) as service:
        yield service


@pytest.fixture
def service(database: str, tmp_path: Path) -> Iterator[Service]:
    with serving(database, tmp_path) as service:
        book = {"key": "other", "name": "Other", "currency": "JPY"}
        assert httpx2.post(f"{service.api}/v1/books", json=book).status_code == 201
        yield service


def follow(service: Service, directory: Path, *arguments: object, code: int = 0) -> list[dict[str, Any]]:
    """Run the command to its end; what it says happened."""
    done = run("follow", *arguments, "--json", directory=directory, pricebook_url=service.api)
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def refused(service: Service, directory: Path, *arguments: object) -> str:
    """Run the command, which says why it cannot."""
    done = run("follow", *arguments, directory=directory, pricebook_url=service.api)
    assert done.returncode == 1, done.stdout
    assert "Traceback" not in done.stderr
    return done.stderr


class Follower:
    """The command in the background; it ends with the block."""

    def __init__(self, api: str, directory: Path, *arguments: object) -> None:
        self.log = directory / "follower"
        self.errors = directory / "follower-errors"
        with self.log.open("ab") as output, self.errors.open("ab") as errors:
            self.process = subprocess.Popen(
                [PRICEBOOK, "follow", *map(str, arguments), "--json"],
                cwd=directory,
                env=environment(pricebook_url=api),
                stdout=output,
                stderr=errors,
            )

    def __enter__(self) -> "Follower":
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait(timeout=20)

    def events(self) -> list[dict[str, Any]]:
        """What happened so far, in the runs before as well."""
        return [json.loads(line) for line in self.log.read_text().splitlines() if line.endswith("}")]

    def seq(self) -> int:
        return max((event["seq"] for event in self.events()), default=0)


def head(service: Service) -> int:
    return int(httpx2.get(f"{service.api}/v1/export").headers["pricebook-seq"])


def wait_for(condition: Any) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.parametrize("book", BOOKS)
def test_catch_up_and_verify(service: Service, tmp_path: Path, book: str) -> None:
    writer = Writer(service.api)
    writer.write(40)
    (snapshot,) = follow(service, tmp_path, "copy", "--once", "--book", book)
    assert snapshot["event"] == "snapshot"
    assert snapshot["seq"] == head(service)
    writer.write(60)
    changes, verified = follow(service, tmp_path, "copy", "--once", "--verify", "--book", book)
    assert changes == {
        "event": "changes",
        "seq": head(service),
        "changes": head(service) - snapshot["seq"],
        "head": head(service),
    }
    assert verified["matches"]
    assert verified["items"] > 0
    # The copy is as of its seq, whatever comes later; and readable by anyone.
    writer.write(20)
    (again,) = follow(service, tmp_path, "copy", "--verify", "--book", book)
    assert again == verified
    with contextlib.closing(sqlite3.connect(tmp_path / "copy")) as copy:
        assert copy.execute("SELECT book, seq FROM copy").fetchall() == [(book, verified["seq"])]
        documents = [json.loads(document) for (document,) in copy.execute("SELECT document FROM prices")]
    assert documents
    assert {document["book"] for document in documents} == {book}


def test_killed_at_any_moment(service: Service, tmp_path: Path) -> None:
    chance = random.Random(1)  # noqa: S311 - no secret
    with Writer(service.api) as writer:
        for _ in range(12):
            with Follower(service.api, tmp_path, "copy") as follower:
                # From before the first file until deep into the feed.
                time.sleep(chance.uniform(0.2, 2.5))
        with Follower(service.api, tmp_path, "copy") as follower:
            aim = writer.written + 50
            wait_for(lambda: writer.written > aim)
            wait_for(lambda: follower.seq() >= aim)
    events = follow(service, tmp_path, "copy", "--once", "--verify")
    assert events[-1]["matches"]
    assert events[-1]["seq"] == head(service)
    # What came twice or was left out would have ended it; and after the first snapshot it needed no other.
    assert [event["event"] for event in follower.events()].count("snapshot") == 1
    assert follower.errors.read_text() == ""


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_in_order(service: Service, tmp_path: Path, how: signal.Signals) -> None:
    Writer(service.api).write(10)
    with Follower(service.api, tmp_path, tmp_path) as follower:
        wait_for(lambda: follower.seq() == head(service))
        follower.process.send_signal(how)
        assert follower.process.wait(timeout=20) == 0
    assert follower.errors.read_text() == ""
    assert (tmp_path / "default.sqlite3").is_file()
    assert follow(service, tmp_path, tmp_path, "--verify")[-1]["matches"]


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_a_service_that_restarts(database: str, tmp_path: Path, how: signal.Signals) -> None:
    port = free_port()
    api = f"http://127.0.0.1:{port}"
    with Follower(api, tmp_path, "copy") as follower, Writer(api) as writer:
        wait_for(lambda: "No service answers" in follower.errors.read_text())
        for _ in range(3):
            aim = writer.written + 30
            with serving(database, tmp_path, port=port) as service:
                wait_for(lambda: writer.written > aim)  # noqa: B023 - used within the round
                wait_for(lambda: follower.seq() >= head(service) - 50)
                service.process.send_signal(how)
                service.process.wait(timeout=20)
    assert [event["event"] for event in follower.events()].count("snapshot") == 1
    with serving(database, tmp_path, port=port) as service:
        assert follow(service, tmp_path, "copy", "--once", "--verify")[-1]["matches"]


def test_a_feed_that_no_longer_goes_back(service: Service, own_url: URL, tmp_path: Path) -> None:
    writer = Writer(service.api)
    writer.write(20)
    (first,) = follow(service, tmp_path, "copy", "--once")
    writer.write(20)
    postgres.execute(own_url, "UPDATE ledger SET feed_floor = seq - 3")
    anew, snapshot, verified = follow(service, tmp_path, "copy", "--once", "--verify")
    assert anew == {"event": "begins-anew", "seq": first["seq"], "why": "feed-truncated"}
    assert snapshot["event"] == "snapshot"
    assert snapshot["seq"] == head(service) > first["seq"]
    assert verified["matches"]


@contextlib.contextmanager
def stub(*answers: tuple[int, dict[str, str], bytes]) -> Iterator[str]:
    """The address of a service that answers so, the last one for ever."""
    left = list(answers)

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, headers, body = left.pop(0) if len(left) > 1 else left[0]
            self.send_response(status)
            for header, value in headers.items():
                self.send_header(header, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Nobody reads it."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()


def problem(status: int, slug: str = "x") -> bytes:
    document = {"type": f"/problems/{slug}", "title": "Not now", "status": status, "detail": "Later.", "errors": []}
    return json.dumps(document).encode()


@pytest.mark.parametrize("arguments", [["copy"], ["copy", "--once"]])
def test_a_feed_that_does_not_even_go_back_to_a_new_snapshot(tmp_path: Path, arguments: list[str]) -> None:
    snapshot = (200, {"Pricebook-Seq": "7", "Pricebook-Recorded-At": "2026-11-22T09:30:00Z"}, b"")
    with stub(snapshot, (410, {}, problem(410, "feed-truncated"))) as url:
        done = run("follow", *arguments, directory=tmp_path, pricebook_url=url)
    assert done.returncode == 1
    assert "does not go back to seq 7, the one of a snapshot just taken" in done.stderr
    assert "Raise its FEED_RETENTION_DAYS" in done.stderr


@pytest.mark.parametrize("status", [408, 429, 503])
def test_it_waits_as_long_as_it_is_asked_to(tmp_path: Path, status: int) -> None:
    with stub((status, {"Retry-After": "77"}, problem(status))) as url, Follower(url, tmp_path, "copy") as follower:
        wait_for(lambda: "Trying again in 77.0 s." in follower.errors.read_text())


def test_a_snapshot_that_ends_within_a_line_is_none(tmp_path: Path) -> None:
    with stub(
        (
            200,
            {"Pricebook-Seq": "7", "Pricebook-Recorded-At": "2026-11-22T09:30:00Z"},
            b'{"item":{"id":"1"},"prices":[]}\n{"item"',
        )
    ) as url:
        done = run("follow", "copy", "--once", directory=tmp_path, pricebook_url=url)
    assert done.returncode == 1
    assert "broke off within a line" in done.stderr
    with contextlib.closing(sqlite3.connect(tmp_path / "copy")) as copy:
        assert copy.execute("SELECT seq, (SELECT count(*) FROM items) FROM copy").fetchall() == [(None, 0)]


def set_back(database: URL, seq: int) -> None:
    """Restore what the service knew after a change."""
    statements = """
        SET session_replication_role = replica;
        DELETE FROM price_retirements WHERE seq > {seq};
        DELETE FROM price_rows WHERE seq > {seq};
        DELETE FROM items WHERE NOT EXISTS (SELECT FROM changes WHERE item_id = items.id AND seq <= {seq});
        DELETE FROM changes WHERE seq > {seq};
        UPDATE ledger SET (seq, recorded_at) = (SELECT seq, at FROM changes ORDER BY seq DESC LIMIT 1);
        NOTIFY pricebook_changes
    """
    postgres.execute(database, statements.format(seq=seq))


@pytest.mark.parametrize("then", [0, 40], ids=["shorter", "grown beyond the copy"])
def test_a_past_that_was_replaced(service: Service, own_url: URL, tmp_path: Path, then: int) -> None:
    Writer(service.api).write(20)
    (first,) = follow(service, tmp_path, "copy", "--once")
    set_back(own_url, 10)
    Writer(service.api).write(then)
    assert (head(service) > first["seq"]) == (then > 0)
    words = refused(service, tmp_path, "copy", "--verify")
    assert "the service's past was replaced" in words
    assert f"change {first['seq']} is not in its ledger" in words
    anew, snapshot, verified = follow(service, tmp_path, "copy", "--once", "--verify")
    assert anew == {"event": "begins-anew", "seq": first["seq"], "why": "history-diverged"}
    assert (snapshot["event"], snapshot["seq"]) == ("snapshot", head(service))
    assert verified["matches"]
    Writer(service.api).write(10)
    changes, verified = follow(service, tmp_path, "copy", "--once", "--verify")
    assert (changes["event"], verified["matches"]) == ("changes", True), "it goes on as ever"


def test_a_past_that_is_replaced_while_it_follows(service: Service, own_url: URL, tmp_path: Path) -> None:
    Writer(service.api).write(20)
    before = head(service)
    with Follower(service.api, tmp_path, "copy") as follower:
        wait_for(lambda: follower.seq() == before)
        set_back(own_url, 10)
        Writer(service.api).write(40)
        after = head(service)
        wait_for(lambda: follower.seq() == after)
        assert follower.process.poll() is None
    assert [event["event"] for event in follower.events()].count("begins-anew") == 1
    assert follow(service, tmp_path, "copy", "--once", "--verify")[-1]["matches"]


def test_processes_of_two_ledgers_at_one_address(tmp_path: Path) -> None:
    snapshot = (200, {"Pricebook-Seq": "7", "Pricebook-Recorded-At": "2026-11-22T09:30:00Z"}, b"")
    with stub(snapshot, (409, {}, problem(409, "history-diverged"))) as url:
        done = run("follow", "copy", "--once", directory=tmp_path, pricebook_url=url)
    assert done.returncode == 1
    assert "processes of two ledgers answer at this address" in done.stderr


def test_what_differs_is_shown(service: Service, tmp_path: Path) -> None:
    Writer(service.api).write(30)
    follow(service, tmp_path, "copy", "--once")
    with contextlib.closing(sqlite3.connect(tmp_path / "copy", isolation_level=None)) as copy:
        spoilt, document = copy.execute("SELECT id, document FROM items ORDER BY id LIMIT 1 OFFSET 1").fetchone()
        copy.execute("UPDATE items SET document = replace(document, 'C62', 'KGM') WHERE id = ?", (spoilt,))
    (verified,) = follow(service, tmp_path, "copy", "--verify", code=3)
    difference = verified["difference"]
    assert not verified["matches"]
    assert difference["line"] == 2
    assert spoilt in difference["copy"]
    assert '"unit":"KGM"' in difference["copy"]
    assert '"unit":"C62"' in difference["service"]
    with contextlib.closing(sqlite3.connect(tmp_path / "copy", isolation_level=None)) as copy:
        copy.execute("UPDATE items SET document = ? WHERE id = ?", (document, spoilt))
        copy.execute("DELETE FROM items WHERE id = (SELECT max(id) FROM items)")
    done = run("follow", "copy", "--verify", directory=tmp_path, pricebook_url=service.api)
    assert done.returncode == 3
    assert "copy      has no such line" in done.stdout
    follow(service, tmp_path, "other", "--once")
    with contextlib.closing(sqlite3.connect(tmp_path / "other", isolation_level=None)) as copy:
        copy.execute("INSERT INTO prices VALUES ('gone', 'one', '{}')")
    (verified,) = follow(service, tmp_path, "other", "--verify", code=3)
    assert (verified["matches"], verified["strays"]) == (False, 1)


def test_files_that_are_no_copy_of_this(service: Service, tmp_path: Path) -> None:
    (tmp_path / "text").write_text("no database at all, but long enough to be taken for the head of one")
    assert "cannot be used: file is not a database" in refused(service, tmp_path, "text", "--once")
    with contextlib.closing(sqlite3.connect(tmp_path / "another")) as another:
        another.execute("CREATE TABLE one (two)")
    assert "is no copy that pricebook follow made" in refused(service, tmp_path, "another", "--once")
    assert "There is no copy at none" in refused(service, tmp_path, "none", "--verify")
    assert not (tmp_path / "none").exists()
    follow(service, tmp_path, "copy", "--once")
    assert "is a copy of the book default, not of other" in refused(service, tmp_path, "copy", "--book", "other")
    assert "query/book names no book" in refused(service, tmp_path, "gone", "--book", "gone")


def test_two_do_not_write_to_one_file(service: Service, tmp_path: Path) -> None:
    with Follower(service.api, tmp_path, "copy") as one, Writer(service.api):
        wait_for(lambda: one.seq() > 10)
        with Follower(service.api, tmp_path, "copy") as other:
            wait_for(lambda: one.process.poll() is not None or other.process.poll() is not None)
        assert "Another process writes to copy." in one.errors.read_text()
    assert follow(service, tmp_path, "copy", "--once", "--verify")[-1]["matches"]


def test_no_service(tmp_path: Path) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    done = run("follow", "copy", "--once", directory=tmp_path, pricebook_url=url)
    assert done.returncode == 1
    assert done.stderr.startswith(f"No service answers at {url}")
