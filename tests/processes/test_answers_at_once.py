"""Answers from memory that a connection gives itself, on raw sockets under both servers: as if the application had."""

import contextlib
import re
import socket
import time
import uuid
from collections.abc import Iterator
from typing import NamedTuple

import httpx2
import pytest
from fastapi import FastAPI
from sqlalchemy.engine import URL

from tests.support import postgres
from tests.support.access import ADMIN_KEY, bearer
from tests.support.processes import SECRET, Service, running

KEEP_ALIVE_SECONDS, HEAD_SECONDS = 3, 1
KEY = b"Authorization: Bearer %b\r\n" % ADMIN_KEY.encode()
PRICE, OTHER, MISSING = b"/v1/items/sku:A/price", b"/v1/items/sku:B/price", b"/v1/items/sku:NO/price"


class Answer(NamedTuple):
    """One of a connection's."""

    status: int
    fields: dict[str, str]
    body: bytes


class Connection:
    """A client that sends what it likes."""

    def __init__(self, service: Service) -> None:
        self.socket = socket.create_connection(("127.0.0.1", service.port), timeout=20)
        self._file = self.socket.makefile("rb")

    def send(self, *requests: bytes) -> None:
        """All at once."""
        self.socket.sendall(b"".join(requests))

    def answer(self) -> Answer:
        """The next one."""
        line = self._file.readline()
        fields: dict[str, str] = {}
        while (field := self._file.readline()) not in (b"\r\n", b""):
            name, _, value = field.decode().partition(":")
            assert name.lower() not in fields, fields
            fields[name.lower()] = value.strip()
        assert line.startswith(b"HTTP/1."), line
        return Answer(int(line.split()[1]), fields, self._file.read(int(fields.get("content-length", 0))))

    def close(self) -> None:
        """Be gone."""
        self._file.close()
        self.socket.close()

    @property
    def is_closed(self) -> bool:
        """Whether the server ends it, with nothing more to say."""
        return self._file.read(1) == b""


def get(path: bytes, fields: bytes = KEY, version: bytes = b"1.1") -> bytes:
    """A request."""
    return b"GET %b HTTP/%b\r\nHost: x\r\n%b\r\n" % (path, version, fields)


@pytest.fixture(scope="module", params=["gunicorn", "uvicorn"])
def service(
    request: pytest.FixtureRequest, service_url: URL, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Service]:
    settings: dict[str, object] = {
        "database_url": postgres.text(postgres.as_serving_role(service_url)),
        "secret_key": SECRET,
        "auth_required": True,
        "admin_key": ADMIN_KEY,
        "keep_alive_seconds": KEEP_ALIVE_SECONDS,
        "body_timeout_seconds": HEAD_SECONDS,
        "log_level": "info",
        "server": request.param,
    }
    with running("serve", tmp_path_factory.mktemp("at-once"), **settings) as started:
        with httpx2.Client(base_url=started.api, headers=bearer(ADMIN_KEY)) as client:
            for sku, amount in ("A", "1.00"), ("B", "2.00"):
                document = {"name": sku, "sku": sku, "price": {"amount": amount}}
                # The other server's run has made them.
                assert client.post("/v1/items", json=document).status_code in (201, 409)
            for path in (PRICE, OTHER) * 2:
                assert client.get(path.decode()).status_code == 200
        yield started


@pytest.fixture
def connection(service: Service) -> Iterator[Connection]:
    connection = Connection(service)
    with contextlib.closing(connection):
        yield connection


def reads_from_memory(service: Service) -> float:
    metrics = httpx2.get(f"{service.admin}/metrics").text
    found = re.search(r'^pricebook_response_cache_reads_total\{result="hit"\} (\S+)$', metrics, re.MULTILINE)
    assert found is not None, metrics
    return float(found[1])


def requests(service: Service) -> float:
    metrics = httpx2.get(f"{service.admin}/metrics").text
    found = re.search(
        r'^http_requests_total\{handler="/v1/items/\{item\}/price",method="GET",status="200"\} (\S+)$',
        metrics,
        re.MULTILINE,
    )
    assert found is not None, metrics
    return float(found[1])


def test_the_connection_answers_what_the_application_answers(service: Service, connection: Connection) -> None:
    # An address that is written otherwise goes the long way to the same entry.
    connection.send(get(PRICE.replace(b"sku", b"%73ku"), KEY + b"X-Request-Id: long\r\n"))
    long = connection.answer()
    hits, counted = reads_from_memory(service), requests(service)
    connection.send(get(PRICE, KEY + b"X-Request-Id: short\r\n"))
    short = connection.answer()
    assert (short.status, short.body) == (long.status, long.body)
    names = short.fields.keys()
    assert names == long.fields.keys()
    differ = {name for name in names if short.fields[name] != long.fields[name]} - {"date", "cache-control"}
    assert (differ, short.fields["x-request-id"]) == ({"x-request-id"}, "short")
    assert (reads_from_memory(service), requests(service)) == (hits + 1, counted + 1)
    line = next(line for line in service.log.read_text().splitlines() if '"short"' in line)
    for part in ('"path": "/v1/items/sku:A/price"', '"status": 200', '"actor": "admin"', '"route": '):
        assert part in line


def test_answers_come_in_the_order_of_their_requests(connection: Connection) -> None:
    paths = [PRICE, OTHER, MISSING, PRICE, MISSING, OTHER, PRICE]
    connection.send(*map(get, paths))
    answers = [connection.answer() for _ in paths]
    assert [answer.status for answer in answers] == [404 if path == MISSING else 200 for path in paths]
    amounts = {PRICE: b'"amount":"1.00"', OTHER: b'"amount":"2.00"', MISSING: b"unknown-item"}
    assert all(amounts[path] in answer.body for path, answer in zip(paths, answers, strict=True))


def test_a_client_that_asks_much_and_reads_late_gets_all_of_it(connection: Connection) -> None:
    times = 3_000
    connection.socket.setblocking(False)
    sent, request = 0, get(PRICE) + get(OTHER)
    # As much as the server takes while nobody reads.
    with contextlib.suppress(BlockingIOError):
        while sent < times * len(request):
            sent += connection.socket.send((request * 2)[sent % len(request) :][: len(request)])
    assert sent > 10 * len(request)
    whole = sent // len(request)
    connection.socket.settimeout(20)
    for _ in range(whole):
        assert b'"amount":"1.00"' in connection.answer().body
        assert b'"amount":"2.00"' in connection.answer().body


def test_a_request_that_comes_in_two_parts_is_answered_once(connection: Connection) -> None:
    for cut in (1, 30, len(get(PRICE)) - 1):
        connection.send(get(PRICE)[:cut])
        time.sleep(0.05)
        connection.send(get(PRICE)[cut:] + get(OTHER))
        assert b'"amount":"1.00"' in connection.answer().body
        assert b'"amount":"2.00"' in connection.answer().body


@pytest.mark.parametrize(
    "request_of", [get(PRICE, KEY + b"Connection: close\r\n"), get(PRICE, version=b"1.0")], ids=["close", "HTTP/1.0"]
)
def test_a_connection_that_is_not_to_be_kept_is_closed(connection: Connection, request_of: bytes) -> None:
    connection.send(request_of)
    answer = connection.answer()
    assert b'"amount":"1.00"' in answer.body
    assert connection.is_closed


def test_a_key_that_may_not_and_one_that_may_no_more_are_refused(service: Service, connection: Connection) -> None:
    def key(*scopes: str) -> dict[str, str]:
        document = {"name": str(uuid.uuid4()), "scopes": scopes}
        made = httpx2.post(f"{service.api}/v1/keys", json=document, headers=bearer(ADMIN_KEY))
        return {name: made.json()[name] for name in ("id", "key")}

    def status(of: dict[str, str]) -> int:
        connection.send(get(PRICE, b"Authorization: Bearer %b\r\n" % of["key"].encode()))
        return connection.answer().status

    may, may_not = key("prices:read"), key("items:read")
    for _ in range(3):
        assert (status(may), status(may_not)) == (200, 403)
    httpx2.delete(f"{service.api}/v1/keys/{may['id']}", headers=bearer(ADMIN_KEY)).raise_for_status()
    deadline = time.monotonic() + 2
    while (refused := status(may)) == 200 and time.monotonic() < deadline:
        time.sleep(0.02)
    assert refused == 401


def test_a_copy_that_is_current_is_not_sent_again(connection: Connection) -> None:
    connection.send(get(PRICE))
    tag = connection.answer().fields["etag"]
    connection.send(get(PRICE, KEY + b"If-None-Match: %b\r\n" % tag.encode()), get(OTHER))
    answer = connection.answer()
    assert (answer.status, answer.body, answer.fields["etag"]) == (304, b"", tag)
    assert "content-length" not in answer.fields
    assert connection.answer().status == 200


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        (b"", 401),
        (b"Authorization: Bearer %b\r\n" % (b"x" * 64), 401),
        (b"Authorization: Bearer %b\r\n" % ADMIN_KEY.encode() * 2, 401),
        (KEY + b"Pricebook-Min-Seq: x\r\n", 422),
        (KEY + b"Content-Length: 2\r\n", 200),
        (KEY + b"Upgrade: nothing\r\nConnection: Upgrade\r\n", 200),
    ],
    ids=["no key", "unknown key", "key twice", "no number", "a body", "an upgrade"],
)
def test_what_is_unusual_is_judged_by_the_application(connection: Connection, fields: bytes, status: int) -> None:
    connection.send(get(PRICE, fields), b"{}" if b"Content-Length" in fields else b"")
    assert connection.answer().status == status


@pytest.mark.parametrize("parts", [[get(PRICE)], [get(PRICE)[:30], get(PRICE)[30:]], [get(MISSING), get(PRICE)]])
def test_a_connection_that_was_answered_is_not_taken_for_one_that_sends_a_head(
    connection: Connection, parts: list[bytes]
) -> None:
    for part in parts:
        connection.send(part)
        time.sleep(0.05)
    statuses = [connection.answer().status for _ in range(sum(part.startswith(b"GET") for part in parts))]
    assert statuses[-1] == 200
    time.sleep(HEAD_SECONDS * 2)
    connection.send(get(OTHER))
    assert connection.answer().status == 200


def test_a_head_that_stalls_after_an_answer_is_refused(connection: Connection) -> None:
    connection.send(get(PRICE), get(OTHER)[:-10])
    assert connection.answer().status == 200
    assert connection.answer().status == 408
    assert connection.is_closed


async def test_what_goes_wrong_in_memory_is_left_to_the_application(
    app: FastAPI, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(app.state.memory, "find", lambda *_: 1 / 0)
    assert app.state.memory.at_once(PRICE, [], b"") is None
    assert "ZeroDivisionError" in caplog.text


def test_a_connection_is_kept_as_long_after_an_answer_at_once_as_after_others(connection: Connection) -> None:
    began = time.monotonic()
    for _ in range(3):
        connection.send(get(PRICE))
        assert connection.answer().status == 200
        time.sleep(KEEP_ALIVE_SECONDS * 0.6)
    assert time.monotonic() - began > KEEP_ALIVE_SECONDS
    connection.send(get(PRICE))
    assert connection.answer().status == 200
    assert connection.is_closed
