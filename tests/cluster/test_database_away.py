"""The database is away for a minute: clear answers, no restart, recovery without help."""

import time

import httpx2
import pytest

from tests.cluster.conftest import Images
from tests.cluster.kube import eventually, namespace
from tests.cluster.pods import load
from tests.cluster.release import DATABASE, STANDARD_LOAD, Release
from tests.cluster.report import Report

pytestmark = pytest.mark.proof

AWAY_SECONDS = 60


def test_the_database_is_away_for_a_minute(images: Images, report: Report) -> None:
    with namespace("away") as ns:
        release = Release(ns)
        release.install(images.current)
        release.create_item()
        ready = release.ready()
        before = release.seq()
        with load(ns, images.current, *STANDARD_LOAD, "--shedding-allowed") as account:
            time.sleep(3)
            ns.kubectl("scale", "statefulset/pricebook-postgres", "--replicas=0")
            eventually(lambda: not ns.get("pods", "-l", DATABASE)["items"], seconds=60)
            stale = _what_is_answered(release)
            until = time.monotonic() + AWAY_SECONDS
            while time.monotonic() < until:
                assert release.ready() == ready, "a pod became unready: the Service would be empty"
                time.sleep(2)
            ns.kubectl("scale", "statefulset/pricebook-postgres", "--replicas=1")
            back = time.monotonic()
            ns.kubectl("rollout", "status", "statefulset/pricebook-postgres", "--timeout=60s")
            eventually(lambda: release.answers(), seconds=60, every=0.2)
            recovered = time.monotonic() - back
            time.sleep(5)
        assert account.shed > 0, "the database was never missed"
        assert account.failed == 0, account.summary
        assert release.ready() == ready
        assert release.restarts() == 0
        assert release.seq() - before == account.written > 0
        report.row(
            f"database away for {AWAY_SECONDS} s",
            "`kubectl scale statefulset --replicas=0` under load, then back",
            f"{account.requests} requests: {account.shed} answered 503 with `Retry-After`, {account.failed} otherwise "
            f"failed; a price from memory answered 200 with `Pricebook-Stale: {stale}`, a write 503; both pods ready "
            f"throughout, 0 restarts; answering {recovered:.0f} s after the database started "
            f"again; {account.written} writes answered 201, as many in the ledger",
        )


def _what_is_answered(release: Release) -> str:
    """A price that was asked for before, and no write; how old the price says that it may be."""
    with (
        release.ns.forwarded("service/pricebook", 80) as url,
        httpx2.Client(base_url=url, headers=release.authorization(), timeout=30) as client,
    ):
        price = client.get("/v1/items/sku:LOAD/price")
        assert price.status_code == 200, price.text
        assert price.json()["amount"]
        write = client.post("/v1/items/sku:LOAD/prices", json={"amount": "1.00"})
        assert (write.status_code, int(write.headers["retry-after"]) > 0) == (503, True), write.text
        return str(price.headers["pricebook-stale"])
