"""The metrics are those that are promised, and they count what happened, once it did."""

import re
from pathlib import Path
from typing import Any

import httpx2
import pytest
from fastapi import FastAPI
from prometheus_client.openmetrics.parser import text_string_to_metric_families
from sqlalchemy import event, text
from sqlalchemy.exc import DBAPIError

from app.database import Database
from app.errors import Busy, DatabaseUnavailable
from app.main import create_app
from app.migrations import head
from app.models import ChangeType
from app.observability.http_metrics import RequestOutcome
from app.observability.metrics import (
    SECONDS,
    CacheRead,
    DatabaseError,
    ImportResult,
    ImportStep,
    PriceRead,
    QuoteResult,
)
from app.schemas.import_run import RowStatus
from app.settings import Settings
from tests.api.test_operations import admin
from tests.api.test_trouble import client_of
from tests.conftest import make_settings

DOCUMENT = Path(__file__).parents[2] / "docs" / "metrics.md"

# Type and labels. Who changes a name here breaks the dashboards and alerts of others.
PROMISED: dict[str, tuple[str, set[str]]] = {
    "http_requests_total": ("counter", {"method", "handler", "status"}),
    "http_request_duration_seconds": ("histogram", {"method", "handler", "status"}),
    "pricebook_request_seconds": ("histogram", {"outcome"}),
    "http_request_size_bytes": ("summary", {"handler"}),
    "http_response_size_bytes": ("summary", {"handler"}),
    "pricebook_info": ("gauge", {"version", "schema", "server"}),
    "pricebook_ready": ("gauge", set()),
    "pricebook_draining": ("gauge", set()),
    "pricebook_requests_in_flight": ("gauge", set()),
    "pricebook_requests_limit": ("gauge", set()),
    "pricebook_requests_shed_total": ("counter", set()),
    "pricebook_auth_failures_total": ("counter", {"reason"}),
    "pricebook_keys": ("gauge", set()),
    "pricebook_replays_total": ("counter", set()),
    "pricebook_retries_total": ("counter", {"cause"}),
    "pricebook_database_up": ("gauge", set()),
    "pricebook_database_circuit_open": ("gauge", set()),
    "pricebook_database_replica_in_use": ("gauge", set()),
    "pricebook_database_pool_connections": ("gauge", {"pool", "state"}),
    "pricebook_database_pool_limit": ("gauge", {"pool"}),
    "pricebook_database_pool_wait_seconds": ("histogram", {"pool"}),
    "pricebook_database_statement_seconds": ("histogram", {"pool"}),
    "pricebook_database_errors_total": ("counter", {"kind"}),
    "pricebook_ledger_seq": ("gauge", set()),
    "pricebook_ledger_change_timestamp_seconds": ("gauge", set()),
    "pricebook_changes_total": ("counter", {"type"}),
    "pricebook_price_reads_total": ("counter", {"outcome"}),
    "pricebook_response_cache_reads_total": ("counter", {"result"}),
    "pricebook_response_cache_bytes": ("gauge", set()),
    "pricebook_response_cache_limit_bytes": ("gauge", set()),
    "pricebook_quotes_total": ("counter", {"result"}),
    "pricebook_imports_total": ("counter", {"result"}),
    "pricebook_import_rows_total": ("counter", {"status"}),
    "pricebook_import_seconds": ("histogram", {"step"}),
    "pricebook_feed_seq": ("gauge", set()),
    "pricebook_feed_lag_seconds": ("gauge", set()),
    "pricebook_feed_listening": ("gauge", set()),
    "pricebook_feed_window_changes": ("gauge", set()),
    "pricebook_feed_catch_ups_total": ("counter", {"woken_by"}),
    "pricebook_feed_waiters": ("gauge", {"kind"}),
    "pricebook_feed_waiters_limit": ("gauge", set()),
    "process_cpu_seconds_total": ("counter", set()),
    "process_resident_memory_bytes": ("gauge", set()),
    "process_virtual_memory_bytes": ("gauge", set()),
    "process_open_fds": ("gauge", set()),
    "process_max_fds": ("gauge", set()),
    "process_start_time_seconds": ("gauge", set()),
    "python_info": ("gauge", {"implementation", "major", "minor", "patchlevel", "version"}),
    "python_gc_collections_total": ("counter", {"generation"}),
    "python_gc_objects_collected_total": ("counter", {"generation"}),
    "python_gc_objects_uncollectable_total": ("counter", {"generation"}),
}
OF_A_REPLICA = {"pricebook_database_replica_in_use"}
"""There is none here: tests/replica reads what they say."""

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


async def scrape(app: FastAPI) -> list[Any]:
    """The families of metrics, as OpenMetrics has them."""
    answer = await admin(app, "/metrics", accept="application/openmetrics-text; version=1.0.0")
    assert answer.status_code == 200
    return list(text_string_to_metric_families(answer.text))  # type: ignore[no-untyped-call]  # the library has no type here


async def samples(app: FastAPI) -> Samples:
    """Every sample by name and labels."""
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in await scrape(app)
        for sample in family.samples
    }


def value(found: Samples, name: str, **labels: str) -> float:
    return found.get((name, frozenset(labels.items())), 0)


def increases(before: Samples, after: Samples, name: str) -> dict[str, float]:
    """By how much the series of a metric with one label grew; those that did not are left out."""
    return {
        label: after[key] - before.get(key, 0)
        for key in after
        if key[0] == name and after[key] != before.get(key, 0)
        for _, label in key[1]
    }


async def test_what_is_promised_is_there_and_nothing_else(client: httpx2.AsyncClient, app: FastAPI) -> None:
    await client.get("/v1/books")
    found = {}
    for family in await scrape(app):
        name = f"{family.name}_total" if family.type == "counter" else family.name
        assert family.samples or name in OF_A_REPLICA, name
        labels = [set(sample.labels) - {"le"} for sample in family.samples]
        assert all(names == labels[0] for names in labels), name
        found[name] = (family.type, labels[0] if labels else set())
    assert found == PROMISED


def test_every_metric_is_documented() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (\w+) \| ([^|]*) \|", DOCUMENT.read_text(), flags=re.MULTILINE)
    documented = {name: (kind, set(re.findall(r"`(\w+)`", labels))) for name, kind, labels in rows}
    assert documented == PROMISED
    assert len(rows) == len(documented), "a metric is described twice"


def test_values_of_labels_and_buckets_are_documented() -> None:
    document = DOCUMENT.read_text()
    for name in (
        *ChangeType,
        *DatabaseError,
        *PriceRead,
        *CacheRead,
        *QuoteResult,
        *RequestOutcome,
        *ImportResult,
        *ImportStep,
        *RowStatus,
    ):
        assert f"`{name}`" in document, name
    assert f"{', '.join(str(bound) for bound in SECONDS[:-1])} and {SECONDS[-1]} seconds" in document


@pytest.mark.parametrize(
    ("method", "path", "handler"),
    [
        ("GET", "/v1/items/sku:a/b/price", "/v1/items/{item}/price"),
        ("PUT", "/v1/books/default", "/v1/books/{key}"),
        ("GET", "/docs-assets/swagger-ui.css", "/docs-assets"),
        ("GET", "/nowhere/1", "none"),
        ("GET", "/v1/books/one/", "none"),  # redirected: the library would show it as it stands
        ("BREW", "/v1/books/default", "/v1/books/{key}"),
    ],
)
async def test_labels_are_few_whatever_is_asked(
    client: httpx2.AsyncClient, app: FastAPI, method: str, path: str, handler: str
) -> None:
    before = await samples(app)
    answer = await client.request(method, path)
    labels = {"method": "other" if method == "BREW" else method, "handler": handler, "status": str(answer.status_code)}
    after = await samples(app)
    for name in ("http_requests_total", "http_request_duration_seconds_count"):
        assert value(after, name, **labels) - value(before, name, **labels) == 1
    for name in ("http_request_size_bytes_count", "http_response_size_bytes_count"):
        assert value(after, name, handler=handler) - value(before, name, handler=handler) == 1
    assert not any(label == path for _, labels in after for _, label in labels)


async def test_an_oversized_body_to_an_address_that_is_redirected_is_no_new_series(settings: Settings) -> None:
    app = create_app(settings.model_copy(update={"max_body_bytes": 1024}))
    async with client_of(app) as client:
        assert (await client.post("/v1/books/", content=b" " * 2000)).status_code == 413
        assert value(await samples(app), "http_requests_total", method="POST", handler="none", status="413") == 1


async def test_outcomes_are_counted_from_zero(settings: Settings) -> None:
    app = create_app(settings.model_copy(update={"max_concurrent_requests": 1}))

    @app.get("/defect")
    async def defect() -> None:
        raise RuntimeError

    name = "pricebook_request_seconds_count"
    at_first = await samples(app)
    assert [at_first[name, frozenset({("outcome", outcome)})] for outcome in RequestOutcome] == [0, 0, 0]
    async with client_of(app) as client:
        for path, status in (("/v1/books", 200), ("/nowhere", 404), ("/v1/items?limit=many", 422), ("/defect", 500)):
            assert (await client.get(path)).status_code == status
        app.state.traffic.in_flight = 1
        assert (await client.get("/v1/books")).status_code == 503
    assert increases(at_first, await samples(app), name) == {"answered": 3, "failed": 2}


async def test_without_a_trace_there_is_no_exemplar(client: httpx2.AsyncClient, app: FastAPI) -> None:
    await client.get("/v1/books", headers={"traceparent": f"00-{'a' * 32}-{'b' * 16}-01"})
    assert not any(sample.exemplar for family in await scrape(app) for sample in family.samples)


async def test_changes_are_counted_by_type(client: httpx2.AsyncClient, app: FastAPI) -> None:
    before = await samples(app)
    created = (await client.post("/v1/items", json={"name": "x", "sku": "A", "price": {"amount": 1}})).json()
    tag = {"If-Match": '"1"'}
    await client.patch("/v1/items/sku:A", json={"name": "y"}, headers=tag)
    await client.delete(f"/v1/prices/{created['price']['price_id']}")
    after = await samples(app)
    assert increases(before, after, "pricebook_changes_total") == {
        "item.created": 1,
        "price.recorded": 1,
        "item.updated": 1,
        "price.voided": 1,
    }
    assert (await client.post("/v1/items", json={"name": "z", "sku": "A"})).status_code == 409
    assert (await client.patch("/v1/items/sku:A", json={"name": "y"}, headers={"If-Match": '"2"'})).status_code == 200
    assert not increases(after, await samples(app), "pricebook_changes_total"), "a refusal and a patch without effect"


async def test_changes_are_counted_only_after_the_commit(client: httpx2.AsyncClient, app: FastAPI) -> None:
    database: Database = app.state.database
    seen: list[Samples] = []

    def fail(_: object) -> None:
        raise OSError("cut")

    before = await samples(app)
    event.listen(database.writer.sync_engine, "commit", fail)
    try:
        assert (await client.post("/v1/items", json={"name": "x"})).status_code == 503
    finally:
        event.remove(database.writer.sync_engine, "commit", fail)
    after = await samples(app)
    assert not increases(before, after, "pricebook_changes_total")
    assert increases(before, after, "pricebook_database_errors_total") == {"unavailable": 1}

    async with database.writing() as session:
        session.changes[ChangeType.BOOK_UPDATED] += 1
        seen.append(await samples(app))
    assert not increases(after, seen[0], "pricebook_changes_total")
    assert increases(after, await samples(app), "pricebook_changes_total") == {"book.updated": 1}


async def test_price_reads_by_outcome(client: httpx2.AsyncClient, app: FastAPI) -> None:
    before = await samples(app)
    await client.post("/v1/items", json={"name": "x", "sku": "PRICED", "price": {"amount": 1}})
    await client.post("/v1/items", json={"name": "x", "sku": "BARE"})
    await client.post("/v1/items", json={"name": "x", "sku": "GONE", "price": {"amount": None}})
    await client.get("/v1/items")
    assert not increases(before, await samples(app), "pricebook_price_reads_total"), "nobody asked for a single price"

    for form in ("/v1/items/sku:{}/price", "/items/sku:{}"):
        before = await samples(app)
        for sku in ("PRICED", "BARE", "GONE", "NONE"):
            await client.get(form.format(sku))
        expected = {"answered": 1, "no_price": 2, "unknown_item": 1}
        assert increases(before, await samples(app), "pricebook_price_reads_total") == expected, form

    before = await samples(app)
    lines = [{"item": f"sku:{sku}"} for sku in ("PRICED", "PRICED", "BARE", "GONE", "NONE")] + [{"item": "nonsense"}]
    assert (await client.post("/v1/prices:lookup", json={"lines": lines})).status_code == 200
    expected = {"answered": 2, "no_price": 2, "unknown_item": 2}
    assert increases(before, await samples(app), "pricebook_price_reads_total") == expected


async def test_statements_and_waits_are_timed_by_pool(client: httpx2.AsyncClient, app: FastAPI) -> None:
    def counts(found: Samples) -> dict[str, list[float]]:
        names = ("pricebook_database_statement_seconds_count", "pricebook_database_pool_wait_seconds_count")
        return {pool: [value(found, name, pool=pool) for name in names] for pool in ("reader", "writer")}

    before = counts(await samples(app))
    await client.get("/v1/books")
    read = counts(await samples(app))
    assert [new - old for new, old in zip(read["reader"], before["reader"], strict=True)] == [1, 1]
    assert read["writer"] == before["writer"]
    await client.post("/v1/items", json={"name": "x"})
    written = counts(await samples(app))
    assert [new - old for new, old in zip(written["writer"], read["writer"], strict=True)] == [3, 1]
    assert written["reader"] == read["reader"]


async def test_statements_that_fail_or_come_in_numbers_are_timed_too(app: FastAPI) -> None:
    database: Database = app.state.database
    name = "pricebook_database_statement_seconds_count"
    before = value(await samples(app), name, pool="writer")
    async with database.writing() as session:
        await session.execute(text("UPDATE ledger SET seq = seq + :by"), [{"by": 1}, {"by": -1}])
    with pytest.raises(DBAPIError, match="division by zero"):
        async with database.writing() as session:
            await session.execute(text("SELECT 1 / 0"))
    assert value(await samples(app), name, pool="writer") - before == 2


async def trouble(settings: Settings, statement: str, limits: dict[str, Any]) -> None:
    database = Database(settings.model_copy(update=limits))
    try:
        async with database.reading() as one:
            await one.execute(text("SELECT 1"))
            async with database.reading() as session:
                await session.execute(text(statement))
    finally:
        await database.close()


@pytest.mark.parametrize(
    ("kind", "statement", "limits", "problem"),
    [
        ("busy", "SELECT pg_sleep(5)", {"database_statement_timeout_milliseconds": 50}, Busy),
        ("pool_timeout", "SELECT 1", {"database_pool_size": 1, "database_pool_timeout_seconds": 0.05}, Busy),
        ("unavailable", "SELECT pg_terminate_backend(pg_backend_pid())", {}, DatabaseUnavailable),
    ],
)
async def test_database_errors_by_kind(
    app: FastAPI, settings: Settings, kind: str, statement: str, limits: dict[str, Any], problem: type[Exception]
) -> None:
    before = await samples(app)
    with pytest.raises(problem):
        await trouble(settings, statement, limits)
    assert increases(before, await samples(app), "pricebook_database_errors_total") == {kind: 1}


async def test_an_unreachable_server_is_unavailable(app: FastAPI, settings: Settings) -> None:
    nowhere = make_settings(settings.sqlalchemy_url.set(host="127.0.0.1", port=1, query={}))
    before = await samples(app)
    with pytest.raises(DatabaseUnavailable):
        await trouble(nowhere, "SELECT 1", {})
    after = await samples(app)
    assert increases(before, after, "pricebook_database_errors_total") == {"unavailable": 1}
    name = "pricebook_database_pool_wait_seconds_count"
    assert value(after, name, pool="reader") - value(before, name, pool="reader") == 1


async def test_the_pools_are_read_as_they_are(settings: Settings) -> None:
    app = create_app(settings.model_copy(update={"database_pool_size": 3}))

    async def connections() -> dict[str, float]:
        found = await samples(app)
        name = "pricebook_database_pool_connections"
        assert value(found, "pricebook_database_pool_limit", pool="writer") == 3
        return {state: value(found, name, pool="writer", state=state) for state in ("in_use", "idle")}

    database: Database = app.state.database
    try:
        assert await connections() == {"in_use": 0, "idle": 0}
        async with database.writing() as one, database.writing() as two:
            for session in (one, two):
                await session.execute(text("SELECT 1"))
            assert await connections() == {"in_use": 2, "idle": 0}
        assert await connections() == {"in_use": 0, "idle": 2}
    finally:
        await database.close()
    assert await connections() == {"in_use": 0, "idle": 0}


async def test_the_state_of_the_process(settings: Settings) -> None:
    app = create_app(settings.model_copy(update={"server": "uvicorn"}))

    async def gauge(name: str) -> float:
        return value(await samples(app), f"pricebook_{name}")

    labels = {"version": app.version, "schema": head(), "server": "uvicorn"}
    assert value(await samples(app), "pricebook_info", **labels) == 1
    assert await gauge("ready") == 0
    async with app.router.lifespan_context(app):
        assert await gauge("ready") == 1
        traffic = app.state.traffic
        traffic.in_flight, traffic.shed, traffic.draining = 7, 2, True
        assert [await gauge(f"requests_{name}") for name in ("in_flight", "limit", "shed_total")] == [
            7,
            traffic.limit,
            2,
        ]
        assert await gauge("draining") == 1
        app.state.traffic.draining = True
        assert await gauge("ready") == 0


@pytest.mark.parametrize(
    ("accept", "kind", "end"),
    [
        ("", "text/plain", ""),
        ("*/*", "text/plain", ""),
        ("text/plain;version=0.0.4", "text/plain", ""),
        (
            "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,*/*;q=0.1",
            "application/openmetrics-text",
            "# EOF\n",
        ),
        ("application/openmetrics-text;version=nonsense", "application/openmetrics-text", "# EOF\n"),
    ],
)
async def test_every_client_gets_a_format(app: FastAPI, accept: str, kind: str, end: str) -> None:
    answer = await admin(app, "/metrics", accept=accept)
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith(kind)
    assert "\npricebook_ready 1.0\n" in answer.text
    assert answer.text.endswith(end)


async def test_quotes_by_result(client: httpx2.AsyncClient, app: FastAPI) -> None:
    before = await samples(app)
    request = {"currency": "EUR", "lines": [{"unit_price": "19.99", "tax_rate": "19"}]}
    quote = (await client.post("/v1/quotes", json=request)).json()
    assert increases(before, await samples(app), "pricebook_quotes_total") == {"quoted": 1}
    await client.post("/v1/quotes:verify", json=quote)
    await client.post("/v1/quotes:verify", json={**quote, "net": "20.00"})
    await client.post("/v1/quotes:verify", json={**quote, "known_seq": 1_000})
    await client.post("/v1/quotes", json={**request, "currency": "XXY"})
    assert increases(before, await samples(app), "pricebook_quotes_total") == {
        "quoted": 1,
        "verified": 1,
        "different": 1,
    }
