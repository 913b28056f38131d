"""Clients that are slow, silent or gone, on raw sockets: each loses its connection, and nobody else anything."""

import socket
from collections.abc import Iterator

import httpx2
import pytest
from sqlalchemy.engine import URL

from tests.support import postgres
from tests.support.processes import SECRET, Service, running

HEAD = b"POST %s HTTP/1.1\r\nHost: x\r\nContent-Type: %s\r\nContent-Length: 1000\r\n\r\n"


@pytest.fixture(scope="module", params=["gunicorn", "uvicorn"])
def service(
    request: pytest.FixtureRequest, owner_url: URL, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Service]:
    url = postgres.text(postgres.as_serving_role(owner_url))
    settings = {"server": request.param, "database_url": url, "secret_key": SECRET}
    directory = tmp_path_factory.mktemp("slow")
    with running(
        "serve", directory, **settings, body_timeout_seconds=1, keep_alive_seconds=2, client_timeout_seconds=2
    ) as started:
        yield started


def everything_sent_to(service: Service, *parts: bytes) -> bytes:
    """What the server sends until it closes the connection, which it has to do within 20 seconds."""
    with socket.create_connection(("127.0.0.1", service.port), timeout=20) as opened:
        for part in parts:
            opened.sendall(part)
        return b"".join(iter(lambda: opened.recv(65536), b""))


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


@pytest.mark.parametrize("service", ["gunicorn"], indirect=True)
@pytest.mark.parametrize("sent", [b"", b"GET /problems HTTP/1.1\r\nHost: x\r\n"])
def test_a_connection_whose_first_request_does_not_come_is_closed(service: Service, sent: bytes) -> None:
    assert everything_sent_to(service, sent) == b""
