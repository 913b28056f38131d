"""A real Prometheus scrapes the real service, with exemplars, and gets answers to the questions that people ask."""

import asyncio
import time
from pathlib import Path

import anyio
import asyncpg
import httpx2
import pytest
from fastapi import FastAPI
from sqlalchemy.engine import URL

from tests.api.test_operations import admin
from tests.observability.test_metrics import OF_A_REPLICA, PROMISED
from tests.observability.test_tracing import PARENT, serving
from tests.support import postgres, prometheus
from tests.support.collector import collector
from tests.support.processes import SECRET, running

pytestmark = pytest.mark.long

SUFFIXES = {"histogram": ("_bucket", "_sum", "_count"), "summary": ("_sum", "_count")}


@pytest.mark.parametrize("kind", ["gunicorn", "uvicorn"])
def test_what_prometheus_knows_after_some_traffic(service_url: URL, tmp_path: Path, kind: str) -> None:
    trace = f"{'0' * 31}{len(kind):x}"
    with (
        collector() as received,
        serving(service_url, tmp_path, received.endpoint, server=kind, ledger_watch_seconds=0.2) as service,
        prometheus.scraping(service.admin.removeprefix("http://"), tmp_path) as prom,
        httpx2.Client(base_url=service.api) as client,
    ):
        # A series that begins after the first scrape would begin with its first event, which is then no increase.
        sku = f"sku:PROM-{kind}"
        body = {"name": "x", "sku": sku.removeprefix("sku:"), "price": {"amount": "9.99"}}
        assert client.post("/v1/items", json=body).status_code == 201
        client.get(f"/v1/items/{sku}/price")
        prom.wait_for('http_requests_total{handler="/v1/items/{item}/price"}')
        for _ in range(5):
            client.get(f"/v1/items/{sku}/price", headers={"traceparent": f"00-{trace}-{PARENT}-01"})
        client.get("/v1/items/sku:NONE/price")
        client.get("/nowhere")

        prom.wait_for('http_requests_total{handler="none", status="404", method="GET"} == 1')
        prom.wait_for('http_requests_total{handler="/v1/items/{item}/price", status="200"} == 6')
        assert prom.query('sum(http_requests_total{handler!="none"})')[0][1] == 8
        quantile = (
            "histogram_quantile(0.99, sum by (le, handler) (rate(http_request_duration_seconds_bucket[1m]))) < 10"
        )
        assert "/v1/items/{item}/price" in {labels["handler"] for labels, _ in prom.wait_for(quantile)}
        assert prom.query('pricebook_price_reads_total{outcome="answered"}')[0][1] == 6
        assert prom.query('pricebook_changes_total{type="price.recorded"}')[0][1] == 1
        assert prom.query("pricebook_info")[0][0]["server"] == kind
        prom.wait_for("pricebook_database_up == 1")
        prom.wait_for("time() - pricebook_ledger_change_timestamp_seconds < 600")

        series = {labels["__name__"] for labels, _ in prom.query('{job="pricebook"}')}
        for name, (of_type, _) in PROMISED.items():
            for suffix in SUFFIXES.get(of_type, ("",)):
                assert f"{name}{suffix}" in series or name in OF_A_REPLICA, name
        assert not [name for name in series if name.endswith("_created")]

        selector = 'http_request_duration_seconds_bucket{handler="/v1/items/{item}/price"}'
        deadline = time.monotonic() + 10
        while {"trace_id": trace} not in (found := prom.exemplars(selector)):
            assert time.monotonic() < deadline, found
            time.sleep(0.2)
        assert received.wait_for(lambda span: span.trace_id == trace)


def test_metrics_are_to_be_had_while_the_api_is_overloaded(service_url: URL, tmp_path: Path) -> None:
    url = postgres.text(postgres.as_serving_role(service_url))
    options = {
        "database_url": url,
        "secret_key": SECRET,
        "database_pool_size": 1,
        "database_pool_timeout_seconds": 1,
        "database_lock_timeout_milliseconds": 3000,
        "ledger_watch_seconds": 0.2,
    }

    async def overload(api: str, admin: str) -> tuple[list[int], list[str]]:
        """What became of 40 writes, of which one waits for a lock and the others for its connection."""
        owner = await asyncpg.connect(postgres.text(service_url))
        async with httpx2.AsyncClient(base_url=api, timeout=30) as client, owner.transaction():
            await owner.execute("UPDATE ledger SET seq = seq")
            writes = [asyncio.create_task(client.post("/items/", json={"name": "x", "price": 1})) for _ in range(40)]
            scrapes = []
            async with httpx2.AsyncClient(base_url=admin, timeout=5) as scraper:
                for _ in range(8):
                    scrapes.append((await scraper.get("/metrics")).text)
                    await asyncio.sleep(0.25)
            answers = await asyncio.gather(*writes)
        await owner.close()
        return [answer.status_code for answer in answers], scrapes

    with (
        running("serve", tmp_path, **options) as service,
        prometheus.scraping(service.admin.removeprefix("http://"), tmp_path) as prom,
    ):
        prom.wait_for('up{job="pricebook"} == 1')
        statuses, scrapes = asyncio.run(overload(service.api, service.admin))
        assert statuses == [503] * 40
        in_use = 'pricebook_database_pool_connections{pool="writer",state="in_use"} 1.0'
        assert any(in_use in text for text in scrapes)
        assert all("\npricebook_database_up 1.0\n" in text for text in scrapes), "it is not the database's fault"
        prom.wait_for('http_requests_total{handler="/items/", status="503"} == 40')
        errors = {labels["kind"]: count for labels, count in prom.query("pricebook_database_errors_total")}
        assert errors["pool_timeout"] >= 30
        assert errors["busy"] >= 1
        assert errors["unavailable"] == 0
        waits = 'pricebook_database_pool_wait_seconds_{}{{pool="writer"{}}}'
        long = f"{waits.format('count', '')} - ignoring(le) {waits.format('bucket', ', le="0.5"')}"
        assert prom.query(long)[0][1] > 30


async def test_promtool_finds_no_fault(client: httpx2.AsyncClient, app: FastAPI) -> None:
    promtool = prometheus.program("promtool")
    await client.get("/items/")
    text = (await admin(app, "/metrics")).content
    checked = await anyio.run_process([promtool, "check", "metrics"], input=text, check=False)
    assert (checked.returncode, checked.stdout + checked.stderr) == (0, b"")
