"""Every expression gives data on a real Prometheus that scrapes the real service under traffic."""

import asyncio
import itertools
import math
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import asyncpg
import httpx2
from sqlalchemy.engine import URL

from deploy.observability import Expression, expressions, queries, rule_file
from tests.observability_config.alert_cases import JOB, NAMESPACE, POD
from tests.observability_config.test_runbooks import PROMQL, RUNBOOKS
from tests.support import postgres, prometheus
from tests.support.processes import SECRET, Service, running


def asked() -> list[Expression]:
    """Those of boards, rules and runbooks that need no Kubernetes; the cluster's own suite asks the others."""
    found = list(expressions(namespace=NAMESPACE, job=JOB, rate_interval="10s", time_range="10s"))
    for path in RUNBOOKS.glob("Pricebook*.md"):
        for expr in PROMQL.findall(path.read_text()):
            found += [Expression("runbooks", path.stem, part) for part in queries.compared(expr)]
    return [one for one in found if not queries.needs_kubernetes(one.expr)]


def one_round(client: httpx2.Client, number: int) -> None:
    """A request of each kind."""
    created = client.post("/items/", json={"name": f"Item {number}", "price": 35.4, "tax": 3.2}).json()["id"]
    recorded = client.post(f"/v1/items/{created}/prices", json={"amount": "30.00", "tax_rate": "20"})
    price = client.get(f"/v1/items/{created}/price", params={"at": "2101-01-01"})
    fresh = client.get(price.url, headers={"If-None-Match": price.headers["ETag"]})
    looked_up = client.post("/v1/prices:lookup", json={"lines": [{"item": created}, {"item": "sku:none"}]})
    unknown = client.get("/v1/items/sku:none/price")
    quote = client.post("/v1/quotes", json={"lines": [{"item": created, "quantity": "3"}]})
    verified = client.post("/v1/quotes:verify", json=quote.json())
    different = client.post("/v1/quotes:verify", json={**quote.json(), "net": "1.00"})
    wrong = client.post("/items/", json={"name": 5})
    price_list = f"sku,name,amount\nLIVE-{number},Item {number},{number + 1}.00\n"
    imported = client.post(
        "/v1/imports", params={"mode": "apply"}, content=price_list, headers={"Content-Type": "text/csv"}
    )
    answers = (recorded, price, fresh, looked_up, unknown, quote, verified, different, wrong, imported)
    assert [answer.status_code for answer in answers] == [201, 200, 304, 200, 404, 200, 200, 200, 422, 201]


@contextmanager
def traffic(service: Service) -> Iterator[None]:
    """Requests that go on until the end of the block."""
    over = threading.Event()

    def send() -> None:
        with httpx2.Client(base_url=service.api) as client:
            for number in itertools.count():
                one_round(client, number)
                if over.wait(0.1):
                    return

    with ThreadPoolExecutor() as pool:
        sender = pool.submit(send)
        try:
            yield
        finally:
            over.set()
        sender.result()


def test_every_expression_gives_data(service_url: URL, tmp_path: Path) -> None:
    prometheus.program("prometheus")
    url = postgres.text(postgres.as_serving_role(service_url))
    # What is said of a replica needs one; a server that is always level with itself will do.
    settings = {"database_lock_timeout_milliseconds": 50, "ledger_watch_seconds": 0.5, "database_read_url": url}
    with running("serve", tmp_path, database_url=url, secret_key=SECRET, **settings) as service:
        asyncio.run(fail_once(service_url, service))
        target = service.admin.removeprefix("http://")
        labels = {"namespace": NAMESPACE, "pod": POD}
        groups = rule_file.groups(rule_file.Values(namespace=NAMESPACE, job=JOB))
        with prometheus.scraping(target, tmp_path, labels=labels, rules=groups) as server, traffic(service):
            missing = asked()
            assert len(missing) > 150
            deadline = time.monotonic() + 60
            while missing and time.monotonic() < deadline:
                time.sleep(1)
                missing = [one for one in missing if not has_data(server, one.expr)]
    assert not missing, "\n".join(f"no data: {one.board}, {one.panel}: {one.expr}" for one in missing)


def has_data(server: prometheus.Prometheus, expr: str) -> bool:
    """Whether there is a number at all; what divides zero by zero gives none."""
    return any(math.isfinite(value) for _, value in server.query(expr))


async def fail_once(service_url: URL, service: Service) -> None:
    """A write that finds the ledger locked, and so an answer 503."""
    connection = await asyncpg.connect(postgres.text(service_url))
    try:
        async with connection.transaction():
            await connection.execute("SELECT 1 FROM ledger FOR UPDATE")
            async with httpx2.AsyncClient(base_url=service.api, timeout=20) as client:
                answer = await client.post("/items/", json={"name": "Foo", "price": 1})
    finally:
        await connection.close()
    assert answer.status_code == 503
