"""The admin port: probes, metrics, version."""

from importlib.metadata import version

import httpx2
from fastapi import FastAPI
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text
from sqlalchemy.engine import URL

from app import migrations
from app.main import create_app
from app.settings import Settings
from tests.conftest import make_settings


async def admin(app: FastAPI, path: str, **headers: str) -> httpx2.Response:
    transport = httpx2.ASGITransport(app=app.state.operations)
    async with httpx2.AsyncClient(transport=transport, base_url="http://admin.test") as client:
        return await client.get(path, headers=headers)


async def test_probes_and_version(app: FastAPI) -> None:
    assert (await admin(app, "/livez")).json() == {"status": "alive"}
    assert (await admin(app, "/readyz")).json() == {"status": "ready"}
    assert (await admin(app, "/version")).json() == {"version": version("pricebook"), "schema": migrations.head()}


async def test_the_api_does_not_show_them(client: httpx2.AsyncClient) -> None:
    for path in ("/livez", "/readyz", "/metrics", "/version"):
        assert (await client.get(path)).status_code == 404


async def test_readiness_waits_for_the_schema_and_says_so(fresh_url: URL) -> None:
    app = create_app(make_settings(fresh_url))
    async with app.router.lifespan_context(app):
        answer = await admin(app, "/readyz")
        assert (answer.status_code, "pricebook migrate" in answer.json()["reason"]) == (503, True)
        assert (await admin(app, "/livez")).status_code == 200
        await migrations.migrate(make_settings(fresh_url))
        assert (await admin(app, "/readyz")).status_code == 200
    stopped = await admin(app, "/readyz")
    assert (stopped.status_code, stopped.json()["reason"]) == (503, "The process is stopping.")


async def test_readiness_without_a_database(settings: Settings) -> None:
    app = create_app(make_settings(settings.sqlalchemy_url.set(host="127.0.0.1", port=1, query={})))
    async with app.router.lifespan_context(app):
        answer = await admin(app, "/readyz")
    assert answer.status_code == 503
    assert "cannot be used" in answer.json()["reason"]


async def test_metrics_in_both_formats(client: httpx2.AsyncClient, app: FastAPI) -> None:
    await client.get("/v1/items/sku:none/price")
    text = await admin(app, "/metrics")
    assert text.headers["content-type"].startswith("text/plain")
    counted = {
        (sample.labels["handler"], sample.labels["status"])
        for family in parse_text(text.text)
        for sample in family.samples
        if sample.name == "http_requests_total"
    }
    assert ("/v1/items/{item}/price", "404") in counted, "by route template, not by address"
    openmetrics = await admin(app, "/metrics", accept="application/openmetrics-text; version=1.0.0")
    assert openmetrics.headers["content-type"].startswith("application/openmetrics-text")
    families = parse_openmetrics(openmetrics.text)  # type: ignore[no-untyped-call]  # the library has no types here
    assert "process_resident_memory_bytes" in {family.name for family in families}
