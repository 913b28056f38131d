"""Two replicas: what one answers as written, the other answers at once, and the log has no gap."""

from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import httpx2
import pytest

from tests.cluster.conftest import Images
from tests.cluster.kube import namespace
from tests.cluster.release import Release
from tests.cluster.report import Report

pytestmark = pytest.mark.proof

WRITES = 150


def test_a_write_through_one_is_read_through_the_other(images: Images, report: Report) -> None:
    with namespace("two") as ns, ExitStack() as stack:
        release = Release(ns)
        release.install(images.current)
        urls = [stack.enter_context(ns.forwarded(f"pod/{name}", 8000)) for name in release.ready()]
        assert len(urls) == 2
        before = release.seq()
        key = release.authorization()

        def write_and_read(writer: int) -> int:
            stale = 0
            with (
                httpx2.Client(base_url=urls[writer], headers=key) as here,
                httpx2.Client(base_url=urls[1 - writer], headers=key) as there,
            ):
                item = {"sku": f"TWO-{writer}", "name": "Two replicas", "price": {"amount": "1.00", "tax_rate": "19"}}
                assert here.post("/v1/items", json=item).status_code == 201
                for number in range(WRITES):
                    amount = f"{number + 2}.00"
                    done = here.post(f"/v1/items/sku:TWO-{writer}/prices", json={"amount": amount, "tax_rate": "19"})
                    assert done.status_code == 201, done.text
                    seen = {"pricebook-min-seq": done.headers["pricebook-seq"]}
                    read = there.get(f"/v1/items/sku:TWO-{writer}/price", headers=seen)
                    assert read.status_code == 200, read.text
                    stale += read.json()["amount"] != amount
            return stale

        with ThreadPoolExecutor(2) as pool:
            stale = sum(pool.map(write_and_read, (0, 1)))
        seqs = [row[0] for row in release.sql(f"SELECT seq FROM changes WHERE seq > {before} ORDER BY seq")]  # noqa: S608 - a number
        assert stale == 0
        assert seqs == list(range(before + 1, before + 1 + len(seqs)))
        report.row(
            "two replicas",
            "writers through both at once, each write read through the other pod, with `Pricebook-Min-Seq`",
            f"{2 * WRITES} writes, {stale} stale reads; {len(seqs)} changes, numbered without a gap",
        )
