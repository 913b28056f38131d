"""Traces: whose they are, what they hold and what not, and that a collector in trouble is nobody else's."""

import io
import json
import logging
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
import structlog
from opentelemetry import trace
from opentelemetry.trace import NonRecordingSpan, SpanContext, SpanKind, StatusCode
from sqlalchemy.engine import URL

from app.main import create_app
from app.observability import logs, tracing
from app.settings import Settings
from tests.api.test_trouble import client_of
from tests.support import postgres
from tests.support.collector import collector
from tests.support.processes import SECRET, Service, environment, free_port, running

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
SAMPLED = {"traceparent": f"00-{TRACE}-{PARENT}-01"}
# OTLP numbers the kinds of spans from 1, the API from 0.
SERVER, CLIENT = SpanKind.SERVER.value + 1, SpanKind.CLIENT.value + 1


@contextmanager
def serving(service_url: URL, directory: Path, endpoint: str, **settings: object) -> Iterator[Service]:
    """The service as a process that sends its spans to the endpoint."""
    options: dict[str, object] = {"otel_exporter_otlp_endpoint": endpoint, "otel_bsp_schedule_delay": 100, **settings}
    url = postgres.text(postgres.as_serving_role(service_url))
    with running("serve", directory, database_url=url, secret_key=SECRET, **options) as service:
        yield service


def lines(service: Service, event: str) -> list[dict[str, Any]]:
    """What the service logged of one kind."""
    logged = [json.loads(line) for line in service.log.read_text().splitlines()]
    return [line for line in logged if line["event"] == event]


def wait_for_line(service: Service, event: str) -> dict[str, Any]:
    deadline = time.monotonic() + 20
    while not (found := lines(service, event)):
        assert time.monotonic() < deadline, service.log.read_text()
        time.sleep(0.05)
    return found[0]


def roots(name: str) -> Any:
    return lambda span: span.kind == SERVER and span.name == name


KEY = "hunter2-hunter2-hunter2-hunter2-hunter2"


@pytest.mark.parametrize("kind", ["gunicorn", "uvicorn"])
def test_a_request_with_its_statements(service_url: URL, tmp_path: Path, kind: str) -> None:
    with (
        collector() as received,
        serving(service_url, tmp_path, received.endpoint, server=kind, admin_key=KEY) as service,
    ):
        httpx2.post(f"{service.api}/v1/items", json={"name": "x", "sku": f"TRACED-{kind}", "price": {"amount": 1}})
        headers = {**SAMPLED, "X-Request-Id": "till-7.1", "Authorization": f"Bearer {KEY}"}
        answer = httpx2.get(f"{service.api}/v1/items/sku:TRACED-{kind}/price?quantity=1", headers=headers)
        assert answer.status_code == 200
        (root,) = received.wait_for(roots("GET /v1/items/{item}/price"))
        assert (root.trace_id, root.parent_id, root.status) == (TRACE, PARENT, StatusCode.UNSET.value)
        assert root.attributes["http.route"] == "/v1/items/{item}/price"
        assert root.attributes["http.response.status_code"] == 200
        assert root.attributes["pricebook.request_id"] == "till-7.1"
        assert root.attributes["url.query"] == "REDACTED"
        assert root.resource["service.name"] == "pricebook"

        (statement,) = received.wait_for(lambda span: span.parent_id == root.span_id)
        assert (statement.name, statement.kind, statement.trace_id) == ("SELECT", CLIENT, TRACE)
        assert statement.attributes["db.system.name"] == "postgresql"
        assert statement.attributes["db.client.connection.pool.name"] == "reader"
        assert "$1" in statement.attributes["db.query.text"]

        assert httpx2.get(f"{service.api}/v1/books?key=hunter2", headers=headers).status_code == 422
        (refused,) = received.wait_for(roots("GET /v1/books"))
        assert refused.attributes["url.query"] == "REDACTED"
        assert httpx2.get(f"{service.api}/v1/items/{KEY}", headers=headers).status_code == 404
        (astray,) = received.wait_for(roots("GET /v1/items/{item}"))
        assert astray.attributes["url.path"] == "/v1/items/***"

        (created,) = received.wait_for(roots("POST /v1/items"))
        assert created.trace_id != TRACE, "nobody sent a traceparent with it"
        assert created.parent_id == ""
        written = received.wait_for(lambda span: span.parent_id == created.span_id, 6)
        assert {span.attributes["db.client.connection.pool.name"] for span in written} == {"writer"}
        assert {"UPDATE", "INSERT", "SELECT"} <= {span.name for span in written}
        # The looks of the ledger watch belong to no request.
        assert not [span for span in received.spans if not span.parent_id and span.kind != SERVER]

        line = next(line for line in lines(service, "request") if line["request_id"] == "till-7.1")
        assert (line["trace_id"], line["span_id"]) == (TRACE, root.span_id)
        assert (line["route"], line["status"]) == ("/v1/items/{item}/price", 200)
        assert line["bytes"] == len(answer.content)
        assert line["milliseconds"] > 0
        assert service.stop(signal.SIGTERM)[0] == 0
    sent = b"".join(received.bodies)
    for secret in ("hunter2", SECRET, "only-for-tests"):
        assert secret.encode() not in sent, secret


def test_failures_and_what_is_not_sampled(service_url: URL, tmp_path: Path) -> None:
    with collector() as received, serving(service_url, tmp_path, received.endpoint) as service:
        httpx2.get(f"{service.api}/v1/books", headers={"traceparent": f"00-{TRACE}-{PARENT}-00"})
        item = {"name": "PRIVATE", "sku": "TWICE-1"}
        statuses = [httpx2.post(f"{service.api}/v1/items", json=item).status_code for _ in range(2)]
        assert statuses == [201, 409]
        (failed,) = received.wait_for(lambda span: span.status == StatusCode.ERROR.value)
        assert failed.name == "INSERT"
        assert failed.attributes["error.type"] == "23505"
        assert httpx2.get(f"{service.api}/nowhere").status_code == 404
        (unknown,) = received.wait_for(roots("GET"))
        assert "http.route" not in unknown.attributes

        assert not [span for span in received.spans if span.trace_id == TRACE]
        assert [line["trace_id"] for line in lines(service, "request") if line["path"] == "/v1/books"] == [TRACE]
        exposition = httpx2.get(f"{service.admin}/metrics", headers={"Accept": "application/openmetrics-text"}).text
        assert f'trace_id="{unknown.trace_id}"' in exposition
        assert f'trace_id="{TRACE}"' not in exposition
    sent = b"".join(received.bodies)
    assert b"PRIVATE" not in sent
    assert b"TWICE" not in sent


def test_the_variables_of_opentelemetry_are_honoured(service_url: URL, tmp_path: Path) -> None:
    with collector() as received:
        options = {
            "otel_exporter_otlp_traces_endpoint": f"{received.endpoint}/own/path",
            "otel_exporter_otlp_compression": "none",
            "otel_service_name": "till",
            "otel_resource_attributes": "deployment.environment.name=test,service.name=ignored",
        }
        with serving(service_url, tmp_path, "http://127.0.0.1:1", **options) as service:
            httpx2.get(f"{service.api}/items/")
            (root,) = received.wait_for(roots("GET /items/"))
    assert (root.resource["service.name"], root.resource["deployment.environment.name"]) == ("till", "test")


@pytest.mark.parametrize("kind", ["gunicorn", "uvicorn"])
def test_the_last_spans_are_sent_at_the_stop(service_url: URL, tmp_path: Path, kind: str) -> None:
    with collector() as received:
        with serving(service_url, tmp_path, received.endpoint, server=kind, otel_bsp_schedule_delay=60_000) as service:
            httpx2.get(f"{service.api}/items/", headers=SAMPLED)
            assert not received.spans
            code, output = service.stop(signal.SIGTERM)
        assert code == 0, output
        assert min(span.name for span in received.spans if span.trace_id == TRACE) == "GET /items/"
        assert "Traceback" not in output


def ask(service: Service, count: int) -> float:
    """The longest time that one of so many requests took, in seconds."""
    longest = 0.0
    with httpx2.Client(base_url=service.api) as client:
        for _ in range(count):
            started = time.monotonic()
            assert client.get("/items/").status_code == 200
            longest = max(longest, time.monotonic() - started)
    return longest


@pytest.mark.long
def test_an_unreachable_collector_costs_nobody_anything(service_url: URL, tmp_path: Path) -> None:
    nowhere = f"http://127.0.0.1:{free_port()}"
    # It gives up after five seconds or more, so that a request that waited for it would show. A small queue: spans are
    # dropped too.
    limits = {"otel_exporter_otlp_timeout": 10, "otel_bsp_max_queue_size": 20, "otel_bsp_max_export_batch_size": 10}
    with serving(service_url, tmp_path, nowhere, **limits) as service:
        assert ask(service, 100) < 5
        reason = wait_for_line(service, "spans not delivered")["reason"]
        assert "Connection refused" in reason
        assert ask(service, 50) < 5
        code, output = service.stop(signal.SIGTERM)
    assert code == 0
    assert output.count("spans not delivered") == 1
    assert "Traceback" not in output
    others = [line for line in map(json.loads, output.splitlines()) if line["logger"].startswith("opentelemetry")]
    assert others == []


def test_a_collector_that_refuses_and_then_takes(service_url: URL, tmp_path: Path) -> None:
    with collector() as received:
        received.status = 401
        with serving(service_url, tmp_path, received.endpoint) as service:
            ask(service, 1)
            assert "401" in wait_for_line(service, "spans not delivered")["reason"]
            for _ in range(3):
                ask(service, 1)
                time.sleep(0.3)  # longer than a batch is collected
            received.status = 200
            ask(service, 1)
            wait_for_line(service, "spans delivered again")
            assert len(lines(service, "spans not delivered")) == 1


@pytest.mark.long
def test_a_collector_that_hangs_delays_the_stop_for_a_bounded_time(service_url: URL, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as hanging:
        endpoint = f"http://127.0.0.1:{hanging.getsockname()[1]}"
        with serving(service_url, tmp_path, endpoint, otel_exporter_otlp_timeout=60) as service:
            assert ask(service, 20) < 5
            assert service.stop(signal.SIGTERM)[0] == 0  # within 20 seconds, that is
            assert lines(service, "spans lost")[0]["reason"] == "the collector did not take them within 5 seconds"


@pytest.mark.parametrize(
    ("variables", "wanted"),
    [
        ({}, False),
        ({"OTEL_SERVICE_NAME": "till"}, False),
        ({"OTEL_TRACES_EXPORTER": "otlp"}, True),
        ({"OTEL_TRACES_EXPORTER": " OTLP "}, True),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318"}, True),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": ""}, False),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://collector:4318/v1/traces"}, True),
        ({"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": "http://collector:4318/v1/metrics"}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318", "OTEL_TRACES_EXPORTER": "none"}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318", "OTEL_SDK_DISABLED": "true"}, False),
        ({"OTEL_TRACES_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"}, True),
    ],
)
def test_traces_are_off_unless_asked_for(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], *, wanted: bool
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert tracing.wanted() is wanted


@pytest.mark.parametrize(
    ("variables", "reason"),
    [
        ({"OTEL_TRACES_EXPORTER": "zipkin"}, "OTEL_TRACES_EXPORTER is zipkin; it can be otlp or none"),
        (
            {"OTEL_TRACES_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"},
            (
                "OTEL_EXPORTER_OTLP_PROTOCOL (or _TRACES_PROTOCOL) is grpc; traces go by http/protobuf only, "
                "usually to port 4318"
            ),
        ),
        (
            {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", "OTEL_BSP_MAX_QUEUE_SIZE": "0"},
            "max_queue_size must be a positive integer.",
        ),
    ],
)
async def test_what_cannot_be_had_is_said_and_prices_are_answered(
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    variables: dict[str, str],
    reason: str,
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with caplog.at_level(logging.WARNING):
        async with client_of(create_app(settings)) as client:
            assert (await client.get("/v1/books")).status_code == 200
    messages: list[Any] = [record.msg for record in caplog.records]
    said = [(line["event"], line["reason"]) for line in messages if "AUTH_REQUIRED" not in line]
    assert said == [("traces are off", reason)]


def test_a_process_without_traces_does_not_load_what_they_need(tmp_path: Path) -> None:
    program = """
import sys
from app.main import create_app
from app.settings import Settings
create_app(Settings(_env_file=None, database_url="postgresql://x/x", secret_key="x" * 32))
print([name for name in ("opentelemetry.sdk", "google.protobuf", "requests") if name in sys.modules])
"""
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, cwd=tmp_path, env=environment(), capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


@pytest.mark.parametrize("kind", ["structlog", "standard library"])
def test_log_lines_name_their_trace_if_they_have_one(kind: str) -> None:
    handler = logging.StreamHandler(log := io.StringIO())
    handler.setFormatter(logs.formatter("json"))
    logger = logging.getLogger(f"of a test, {kind}")
    logger.addHandler(handler)
    said = logger if kind == "standard library" else structlog.get_logger(logger.name)
    context = SpanContext(int(TRACE, 16), int(PARENT, 16), is_remote=True)
    said.warning("without")
    with trace.use_span(NonRecordingSpan(context)):
        said.warning("within")
    logger.removeHandler(handler)
    without, within = map(json.loads, log.getvalue().splitlines())
    assert not {"trace_id", "span_id"} & without.keys()
    assert (within["event"], within["trace_id"], within["span_id"]) == ("within", TRACE, PARENT)
