"""Exports as a client sees them over the network: it may be slow, go away, and be told that a file is not whole."""

import json
import re
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
from sqlalchemy.engine import URL

from tests.support import postgres
from tests.support.processes import SECRET, Service, running

pytestmark = pytest.mark.long

ITEMS = 4_000
# Longer than what sockets hold: the server has to wait for a client that does not read.
FILL = """
    SET session_replication_role = replica;
    INSERT INTO items (sku, name, description, unit, tax_category, attributes, version, created_at, updated_at)
    SELECT 'S-' || number, 'Item ' || number, repeat('long ', 790), 'C62', 'S', '{}', 1, now(), now()
    FROM generate_series(1, 4000) AS number;
    INSERT INTO changes (seq, at, actor, type, item_id, after)
    SELECT 1 + row_number() OVER (ORDER BY id), now(), 'test', 'item.created', id, to_jsonb(items) FROM items;
    INSERT INTO price_rows (item_id, book_id, amount, per, min_quantity, tax_included, valid_from, seq, recorded_at,
                            recorded_by)
    SELECT item_id, 1, 1, 1, 1, false, now(), seq, at, 'test' FROM changes WHERE item_id IS NOT NULL;
    UPDATE ledger SET seq = 4001, recorded_at = now();
"""


@contextmanager
def serving(own_url: URL, directory: Path, **settings: object) -> Iterator[Service]:
    """A service with a list of some 16 MB and a single connection for reads."""
    postgres.execute(own_url, FILL)
    url = postgres.text(postgres.as_serving_role(own_url))
    with running(
        "serve", directory, database_url=url, secret_key=SECRET, database_pool_size=1, drain_seconds=0, **settings
    ) as service:
        yield service


def metric(service: Service, series: str) -> float:
    text = httpx2.get(f"{service.admin}/metrics").text
    (value,) = re.findall(rf"^{re.escape(series)} (.*)$", text, re.MULTILINE)
    return float(value)


def wait_for(condition: Any) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.parametrize("kind", ["gunicorn", "uvicorn"])
def test_a_slow_client_holds_no_connection_and_gets_a_whole_file(own_url: URL, tmp_path: Path, kind: str) -> None:
    with serving(own_url, tmp_path, server=kind) as service:
        asked_at = time.monotonic()
        with httpx2.stream("GET", f"{service.api}/v1/export", params={"format": "ndjson"}, timeout=30) as answer:
            content = answer.iter_raw(65536)
            begun = next(content)
            sleeps_at = time.monotonic()
            # The client sleeps, and others are served by the only connection.
            for _ in range(20):
                assert httpx2.get(f"{service.api}/v1/items", params={"limit": 1}, timeout=30).status_code == 200
            assert metric(service, "pricebook_requests_in_flight") == 1
            slept = time.monotonic() - sleeps_at
            lines = (begun + b"".join(content)).splitlines()
        assert len(lines) == ITEMS
        assert json.loads(lines[-1])["sku"] == f"S-{ITEMS}"
        # A client that takes its time does not make a slow answer.
        took = time.monotonic() - asked_at
        wait_for(lambda: metric(service, "pricebook_requests_in_flight") == 0)
        series = '{handler="/v1/export",method="GET",status="200"}'
        assert metric(service, f"http_request_duration_seconds_count{series}") == 1
        assert metric(service, f"http_request_duration_seconds_sum{series}") + slept <= took


@pytest.mark.parametrize("kind", ["gunicorn", "uvicorn"])
def test_a_client_that_goes_away_ends_the_work(own_url: URL, tmp_path: Path, kind: str) -> None:
    with serving(own_url, tmp_path, server=kind) as service:
        with httpx2.stream("GET", f"{service.api}/v1/export", timeout=30) as answer:
            content = answer.iter_raw()
            next(content)
            assert metric(service, "pricebook_requests_in_flight") == 1
        wait_for(lambda: metric(service, "pricebook_requests_in_flight") == 0)
        assert "request failed" not in service.log.read_text()


@pytest.mark.parametrize("kind", ["gunicorn", "uvicorn"])
def test_a_client_that_reads_nothing_loses_its_place(own_url: URL, tmp_path: Path, kind: str) -> None:
    limits = {"client_timeout_seconds": 2, "max_concurrent_requests": 1}
    with serving(own_url, tmp_path, server=kind, **limits) as service, socket.socket() as idle:
        idle.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        idle.connect(("127.0.0.1", service.port))
        idle.sendall(b"GET /v1/export HTTP/1.1\r\nHost: x\r\n\r\n")
        # Its answer has begun, and nobody else is served.
        assert idle.recv(1)
        assert httpx2.get(f"{service.api}/v1/items").status_code == 503
        wait_for(lambda: httpx2.get(f"{service.api}/v1/items").status_code == 200)
        wait_for(lambda: metric(service, "pricebook_requests_in_flight") == 0)
        assert "request failed" not in service.log.read_text()


@pytest.mark.parametrize("kind", ["gunicorn", "uvicorn"])
@pytest.mark.parametrize("form", ["csv", "snapshot"])
def test_a_database_that_goes_away_cuts_the_file_off(own_url: URL, tmp_path: Path, kind: str, form: str) -> None:
    server = own_url.set(database="postgres")
    with serving(own_url, tmp_path, server=kind) as service:
        with httpx2.stream("GET", f"{service.api}/v1/export", params={"format": form}, timeout=30) as answer:
            assert answer.status_code == 200
            content = answer.iter_raw()
            next(content)
            # A connection that ends between two batches is replaced, so none may be had any more.
            postgres.execute(
                server,
                f'ALTER DATABASE "{own_url.database}" ALLOW_CONNECTIONS false',
                f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{own_url.database}'",  # noqa: S608 - the name is ours
            )
            with pytest.raises(httpx2.RemoteProtocolError):
                for _ in content:
                    pass
        postgres.execute(server, f'ALTER DATABASE "{own_url.database}" ALLOW_CONNECTIONS true')
        # Said once, with its cause; and it counts as a failure, although its head said 200.
        wait_for(lambda: metric(service, 'pricebook_request_seconds_count{outcome="failed"}') == 1)
        lines = [json.loads(line) for line in service.log.read_text().splitlines()]
        (said,) = [line for line in lines if line["event"] == "answer cut off"]
        assert (said["path"], said["problem"]) == ("/v1/export", "database-unavailable")
        assert said["reason"], "which one depends on what the export was at"
        assert said["request_id"] == answer.headers["x-request-id"]
        assert [line for line in lines if line["level"] == "error" or "exception" in line] == []
        wait_for(lambda: httpx2.get(f"{service.api}/v1/export", params={"format": form}, timeout=30).status_code == 200)
