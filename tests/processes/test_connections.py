"""Connections are kept and closed as announced, during a stop too, and requests beyond the limit refused."""

import asyncio
import json
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import asyncpg
import httpx2
import pytest
from sqlalchemy.engine import URL

from tests.support import postgres
from tests.support.processes import SECRET, Service, running

pytestmark = [pytest.mark.long, pytest.mark.parametrize("kind", ["gunicorn", "uvicorn"])]

GET = b"GET /problems HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.fixture
def settings(service_url: URL, kind: str) -> dict[str, object]:
    url = postgres.text(postgres.as_serving_role(service_url))
    return {"server": kind, "database_url": url, "secret_key": SECRET}


@contextmanager
def connection(service: Service) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", service.port), timeout=20) as opened:
        yield opened


def ask(opened: socket.socket, request: bytes = GET) -> httpx2.Headers:
    """The headers of the answer to a request, read to its end."""
    opened.sendall(request)
    return answer(opened)


def answer(opened: socket.socket) -> httpx2.Headers:
    with opened.makefile("rb") as stream:
        stream.readline()
        lines = iter(lambda: stream.readline().decode().strip(), "")
        headers = httpx2.Headers([(name, value) for name, _, value in (line.partition(": ") for line in lines)])
        assert len(stream.read(int(headers["content-length"]))) == int(headers["content-length"])
    return headers


def until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


def drains(service: Service) -> bool:
    return httpx2.get(f"{service.admin}/readyz").status_code == 503


def logged(service: Service, event: str) -> list[dict[str, Any]]:
    lines = map(json.loads, service.log.read_text().splitlines())
    return [line for line in lines if line["event"] == event]


def test_a_drain_serves_on_and_sends_everybody_elsewhere(settings: dict[str, object], tmp_path: Path) -> None:
    with running("serve", tmp_path, **settings, drain_seconds=60) as service, connection(service) as kept:
        assert "connection" not in ask(kept)
        service.process.terminate()
        until(lambda: drains(service), "still ready although the stop has begun")
        assert httpx2.get(f"{service.admin}/readyz").json()["reason"] == "The process is stopping."
        assert httpx2.get(f"{service.admin}/livez").status_code == 200
        assert httpx2.get(f"{service.admin}/metrics").status_code == 200
        with connection(service) as other:
            assert ask(other)["connection"] == "close"
            assert other.recv(1) == b"", "the server does as it says"
        service.process.terminate()
        answers = [
            httpx2.get(f"{service.api}/nowhere"),
            httpx2.post(f"{service.api}/items/", content=b" " * 2_000_000),
            httpx2.get(f"{service.api}/v1/items?limit=many"),
            httpx2.get(f"{service.api}/v1/items?limit=1"),
        ]
        assert [(given.status_code, given.headers["connection"]) for given in answers] == [
            (404, "close"),
            (413, "close"),
            (422, "close"),
            (200, "close"),
        ]
        assert service.process.poll() is None, "a second SIGTERM changes nothing"
        assert ask(kept)["connection"] == "close"
        assert kept.recv(1) == b""
        assert service.process.wait(timeout=10) == 0, "it ends when nobody is left, long before the 60 seconds"
    assert [begun["seconds"] for begun in logged(service, "drain begins")] == [60]
    assert [ended["open_connections"] for ended in logged(service, "drain ends")] == [0]


def test_the_end_of_the_drain_closes_idle_connections_and_waits_for_requests(
    settings: dict[str, object], tmp_path: Path
) -> None:
    body = b'{"name":"Slow","price":1}'
    head = b"POST /items/ HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
    with (
        running("serve", tmp_path, **settings, drain_seconds=1) as service,
        connection(service) as idle,
        connection(service) as unused,
        connection(service) as slow,
    ):
        ask(idle)
        slow.sendall(head % len(body) + body[:5])
        time.sleep(0.2)
        service.process.terminate()
        assert idle.recv(1) == b""
        assert unused.recv(1) == b""
        assert drains(service), "the admin port answers to the end"
        with pytest.raises(OSError):  # noqa: PT011 - refused or reset, by the kernel's choice
            ask_new(service)
        assert slow_answer(slow, body[5:])["connection"] == "close"
        assert service.process.wait(timeout=10) == 0
    assert [ended["open_connections"] for ended in logged(service, "drain ends")] == [3]


def ask_new(service: Service) -> None:
    with connection(service) as late:
        ask(late)


def slow_answer(slow: socket.socket, rest: bytes) -> httpx2.Headers:
    slow.sendall(rest)
    return answer(slow)


@pytest.mark.parametrize("first", [signal.SIGTERM, signal.SIGINT])
def test_an_interrupt_stops_at_once(settings: dict[str, object], tmp_path: Path, first: signal.Signals) -> None:
    with running("serve", tmp_path, **settings, drain_seconds=60) as service, connection(service) as idle:
        ask(idle)
        if first == signal.SIGTERM:
            service.process.terminate()
            until(lambda: drains(service), "still ready although the stop has begun")
        code, output = service.stop(signal.SIGINT)
    assert code == 0, output
    assert "Traceback" not in output


def test_requests_that_do_not_end_are_cut_off(service_url: URL, settings: dict[str, object], tmp_path: Path) -> None:
    with (
        running("serve", tmp_path, **settings, drain_seconds=0, graceful_timeout_seconds=1) as service,
        connection(service) as slow,
    ):
        slow.sendall(b"POST /items/ HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n")
        time.sleep(0.2)
        service.process.terminate()
        assert service.process.wait(timeout=10) == 0
    assert "Traceback" not in service.log.read_text()


def test_idle_connections_are_kept_for_the_time_that_is_set(settings: dict[str, object], tmp_path: Path) -> None:
    with running("serve", tmp_path, **settings, keep_alive_seconds=2) as service, connection(service) as idle:
        for _ in range(2):
            ask(idle)
            answered = time.monotonic()
            time.sleep(1)
        assert idle.recv(1) == b""
        assert 1.8 < time.monotonic() - answered < 6


def test_an_answer_before_the_end_of_the_body_says_whether_the_connection_ends(
    settings: dict[str, object], tmp_path: Path
) -> None:
    head = b"POST /nowhere HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n"
    with running("serve", tmp_path, **settings) as service, connection(service) as opened:
        if ask(opened, head).get("connection") == "close":
            assert opened.recv(1) == b""
        else:
            opened.sendall(b"12345")
            assert ask(opened)["content-type"] == "application/json"


async def test_more_requests_than_the_limit_are_refused_at_once(
    service_url: URL, settings: dict[str, object], tmp_path: Path
) -> None:
    limit = 5
    with running("serve", tmp_path, **settings, max_concurrent_requests=limit) as service:
        owner = await asyncpg.connect(postgres.text(service_url))
        async with httpx2.AsyncClient(base_url=service.api, timeout=20) as client:
            async with owner.transaction():
                await owner.execute("UPDATE ledger SET seq = seq")
                held = [
                    asyncio.create_task(client.post("/items/", json={"name": "Held", "price": 1})) for _ in range(limit)
                ]
                async with asyncio.timeout(10):
                    while (await client.get("/problems")).status_code != 503:  # noqa: ASYNC110 - it tells nobody.
                        await asyncio.sleep(0.05)
                started = time.monotonic()
                refused = [await client.get("/problems"), await client.get("/items/")]
                seconds = time.monotonic() - started
                admin = [httpx2.get(f"{service.admin}/{path}") for path in ("livez", "readyz", "metrics")]
            answers = await asyncio.gather(*held)
            after = await client.get("/problems")
        await owner.close()
    for given in refused:
        assert (given.status_code, given.headers["retry-after"]) == (503, "1")
        assert given.json()["type"] == "/problems/overloaded"
        assert "5 requests" in given.json()["detail"]
    assert seconds < 1
    assert [given.status_code for given in admin] == [200, 200, 200]
    assert 'http_requests_total{handler="/items/",method="GET",status="503"} 1.0' in admin[2].text
    assert [given.status_code for given in answers] == [200] * limit
    assert after.status_code == 200
    assert ("/items/", 503) in [(line["path"], line["status"]) for line in logged(service, "request")]


async def test_a_client_that_goes_away_is_no_failure_of_the_service(
    service_url: URL, settings: dict[str, object], kind: str, tmp_path: Path
) -> None:
    # gunicorn ends its request; uvicorn finishes it, for nobody.
    status, outcome = (499, "abandoned") if kind == "gunicorn" else (200, "answered")
    limits = {"database_lock_timeout_milliseconds": 60_000, "database_statement_timeout_milliseconds": 60_000}
    with running("serve", tmp_path, **settings, **limits) as service:

        def counted() -> bool:
            return bool(logged(service, "request"))

        def writes() -> bool:
            in_use = 'pricebook_database_pool_connections{pool="writer",state="in_use"} 1.0'
            return in_use in httpx2.get(f"{service.admin}/metrics").text

        owner = await asyncpg.connect(postgres.text(service_url))
        async with owner.transaction():
            await owner.execute("UPDATE ledger SET seq = seq")
            async with httpx2.AsyncClient(base_url=service.api, timeout=60) as client:
                held = asyncio.create_task(client.post("/items/", json={"name": "Held", "price": 1}))
                await asyncio.to_thread(until, writes, "the request does not reach the database")
                held.cancel()
            if kind == "gunicorn":
                await asyncio.to_thread(until, counted, "the request is not ended")
        await owner.close()
        await asyncio.to_thread(until, counted, "the request is not finished")
        metrics = httpx2.get(f"{service.admin}/metrics").text
    assert [line["status"] for line in logged(service, "request")] == [status]
    assert f'http_requests_total{{handler="/items/",method="POST",status="{status}"}} 1.0' in metrics
    for name in ("answered", "failed", "abandoned"):
        count = f'pricebook_request_seconds_count{{outcome="{name}"}} {float(name == outcome)}'
        assert count in metrics, metrics
    assert "Traceback" not in service.log.read_text()
