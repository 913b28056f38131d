"""Clients that are slow, silent or gone, on raw sockets: each loses its connection, and nobody else anything."""

import contextlib
import json
import re
import resource
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from sqlalchemy.engine import URL

from tests.support import postgres
from tests.support.processes import SECRET, Service, running

pytestmark = pytest.mark.long

HEAD = b"POST %s HTTP/1.1\r\nHost: x\r\nContent-Type: %s\r\nContent-Length: 1000\r\n\r\n"

GET = b"GET %b HTTP/1.1\r\nHost: x\r\n\r\n"
GET_ = b"GET /problems HTTP/1.1\r\nHost: x\r\n%b\r\n"


@pytest.fixture(scope="module")
def settings(service_url: URL) -> dict[str, object]:
    return {"database_url": postgres.text(postgres.as_serving_role(service_url)), "secret_key": SECRET}


@pytest.fixture(scope="module", params=["gunicorn", "uvicorn"])
def service(
    request: pytest.FixtureRequest, settings: dict[str, object], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Service]:
    directory = tmp_path_factory.mktemp("slow")
    limits = {"body_timeout_seconds": 1, "keep_alive_seconds": 4, "client_timeout_seconds": 2}
    with running("serve", directory, **settings, **limits, server=request.param) as started:
        yield started


def everything_sent_to(service: Service, *parts: bytes) -> bytes:
    """What the server sends until it closes the connection, which it has to do within 20 seconds."""
    with socket.create_connection(("127.0.0.1", service.port), timeout=20) as opened:
        for part in parts:
            opened.sendall(part)
        return b"".join(iter(lambda: opened.recv(65536), b""))


def problem(answer: bytes) -> dict[str, Any]:
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"content-type: application/problem+json" in head.lower(), answer[:1000]
    document: dict[str, Any] = json.loads(body)
    return document


@pytest.mark.parametrize("sent", [b"", b'{"name":'])
def test_a_body_that_stalls_is_answered_408_and_its_connection_closed(service: Service, sent: bytes) -> None:
    answer = everything_sent_to(service, HEAD % (b"/items/", b"application/json"), sent)
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b"/problems/request-timeout" in answer
    assert b"connection: close" in answer.lower()


def test_an_upload_that_stalls_is_answered_408_and_its_connection_closed(service: Service) -> None:
    answer = everything_sent_to(service, HEAD % (b"/v1/imports?book=default", b"text/csv"), b"sku,amount\n")
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert httpx2.get(f"{service.api}/v1/items?limit=1").status_code == 200


def test_a_connection_without_a_request_is_closed(service: Service) -> None:
    assert everything_sent_to(service, b"") == b""


@pytest.mark.parametrize(
    ("before", "sent"),
    [
        (b"", b"\r\n"),
        (GET % b"/problems", b"\r\n"),
        (b"GET /problems HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n", b"{"),
    ],
    ids=["a line before any request", "a line after a request", "a body that nobody waited for"],
)
@pytest.mark.parametrize("times", [1, 3])
def test_what_begins_no_request_does_not_keep_a_connection(
    service: Service, before: bytes, sent: bytes, times: int
) -> None:
    with socket.create_connection(("127.0.0.1", service.port), timeout=20) as opened:
        opened.sendall(before)
        answer = opened.recv(65536) if before else b""
        assert answer.count(b"HTTP/1.1 200 ") == bool(before)
        with contextlib.suppress(ConnectionError):
            for _ in range(times):
                opened.sendall(sent)
                time.sleep(0.5)
            while opened.recv(65536):
                pass


@pytest.mark.parametrize("before", [b"", GET % b"/problems"])
@pytest.mark.parametrize("sent", [b"G", b"GET /problems HTTP/1.1\r\nHost: x\r\n"])
def test_a_head_that_stalls_is_answered_408_and_its_connection_closed(
    service: Service, before: bytes, sent: bytes
) -> None:
    answers = everything_sent_to(service, before, sent)
    assert answers.count(b"HTTP/1.1 200 ") == bool(before)
    assert problem(answers[answers.index(b"HTTP/1.1 408 ") :])["type"] == "/problems/request-timeout"


def test_a_head_that_comes_byte_by_byte_is_answered_408(service: Service) -> None:
    """Whoever sends a byte now and then is not idle, and must not be waited for either."""
    with socket.create_connection(("127.0.0.1", service.port), timeout=20) as opened:
        opened.sendall(b"GET /problems HTTP/1.1\r\n")
        opened.setblocking(False)
        for _ in range(200):
            with contextlib.suppress(BlockingIOError):
                assert opened.recv(65536).startswith(b"HTTP/1.1 408 ")
                return
            opened.send(b"a: b\r\n")
            time.sleep(0.1)
    pytest.fail("the connection lives on")


FIELDS = [b"x-%d: %b\r\n" % (number, b"y" * 500) for number in range(70)]
TOO_LARGE = {
    "a long line": (b"GET /problems?%b HTTP/1.1\r\nHost: x\r\n\r\n" % (b"a" * 8_200), "414 /problems/uri-too-long"),
    "many fields": (GET_ % (b"a: b\r\n" * 101), "431 /problems/header-fields-too-large"),
    "a large field": (GET_ % (b"a: %b\r\n" % (b"b" * 33_000)), "431 /problems/header-fields-too-large"),
    "much in all": (GET_ % b"".join(FIELDS), "431 /problems/header-fields-too-large"),
    "no http": (b"\x16\x03\x01\x02\x00\r\n\r\n", "400 /problems/malformed-request"),
}


@pytest.mark.parametrize("parts", [1, 20])
@pytest.mark.parametrize("kind", TOO_LARGE)
def test_a_head_beyond_the_limits_is_refused(service: Service, kind: str, parts: int) -> None:
    head, expected = TOO_LARGE[kind]
    size = -(-len(head) // parts)
    answer = everything_sent_to(service, *(head[begin : begin + size] for begin in range(0, len(head), size)))
    document = problem(answer)
    assert f"{document['status']} {document['type']}" == expected
    assert answer.startswith(b"HTTP/1.1 %d " % document["status"])
    assert b"connection: close\r\n" in answer.lower()
    assert b"x-content-type-options: nosniff\r\n" in answer.lower()
    assert document["request_id"] in service.log.read_text()


def test_a_head_within_the_limits_is_read(service: Service) -> None:
    long_line = b"GET /problems?%b HTTP/1.1\r\nHost: x\r\n\r\n" % (b"a" * 8_000)
    # By the application, which does not know the parameter.
    assert everything_sent_to(service, long_line).startswith(b"HTTP/1.1 422 ")
    assert everything_sent_to(service, GET_ % b"".join(FIELDS[:60])).startswith(b"HTTP/1.1 200 ")


@pytest.fixture
def few_files() -> Iterator[None]:
    """Processes that are started may have no more open files than many a shell allows, unless they ask for more."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (512, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.usefixtures("few_files")
@pytest.mark.parametrize("kind", ["gunicorn", "uvicorn"])
def test_connections_beyond_the_limit_are_refused(settings: dict[str, object], tmp_path: Path, kind: str) -> None:
    with (
        running("serve", tmp_path, **settings, server=kind, max_connections=5) as service,
        contextlib.ExitStack() as stack,
    ):
        address = ("127.0.0.1", service.port)
        kept = [stack.enter_context(socket.create_connection(address, timeout=20)) for _ in range(5)]
        for opened in kept:
            opened.sendall(GET % b"/problems")
            assert opened.recv(65536).startswith(b"HTTP/1.1 200 ")
        for _ in range(3):
            answer = everything_sent_to(service, GET % b"/problems")
            assert answer.startswith(b"HTTP/1.1 503 ")
            assert b"retry-after: 1\r\n" in answer.lower()
            assert "(MAX_CONNECTIONS)" in problem(answer)["detail"]
        limits = Path(f"/proc/{service.process.pid}/limits").read_text()
        assert re.search(r"^Max open files +1005 ", limits, re.MULTILINE)
        # Also one that says nothing.
        assert everything_sent_to(service, b"") == b""
        assert httpx2.get(f"{service.admin}/livez").status_code == 200
        assert "pricebook_requests_shed_total 3.0" in httpx2.get(f"{service.admin}/metrics").text
        kept.pop().close()
        deadline = time.monotonic() + 20
        while not everything_sent_to(service, GET_ % b"Connection: close\r\n").startswith(b"HTTP/1.1 200 "):
            assert time.monotonic() < deadline
