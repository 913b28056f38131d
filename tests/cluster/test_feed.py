"""A consumer follows the feed of two replicas while pods come and go, and prices come one by one and as lists."""

import json
import time
from typing import Any

import httpx2
import pytest

from tests.cluster.conftest import Images
from tests.cluster.kube import Namespace, eventually, namespace
from tests.cluster.pods import load, pod
from tests.cluster.release import STANDARD_LOAD, Release
from tests.cluster.report import Report

pytestmark = pytest.mark.proof

UPGRADES = 3
ROWS = 2_000
URL = "http://pricebook"
COPY = "/tmp/copy.db"  # noqa: S108 - a volume of the pod's own


def verified(ns: Namespace) -> dict[str, Any]:
    """What the consumer's copy says of itself, once it is found equal to a fresh export."""
    lines = ns.kubectl(
        "exec", "consumer", "--", "pricebook", "follow", COPY, "--verify", "--json", "--url", URL
    ).splitlines()
    found: dict[str, Any] = json.loads(lines[-1])
    return found


def import_list(release: Release, number: int) -> None:
    """A price list through whichever pod is there."""
    rows = "".join(f"LIST-{row},Item {row},{row % 90 + number + 10}.00\n" for row in range(ROWS))
    with release.ns.forwarded("service/pricebook", 80) as url:
        done = httpx2.post(
            f"{url}/v1/imports",
            params={"mode": "apply"},
            content=f"sku,name,amount\n{rows}",
            headers={"Content-Type": "text/csv"} | release.authorization(),
            timeout=60,
        )
    assert done.status_code == 201, done.text
    assert done.json()["state"] == "applied"


def test_a_copy_stays_equal_while_pods_roll(images: Images, report: Report) -> None:
    with namespace("feed") as ns:
        release = Release(ns)
        release.install(images.current)
        release.create_item()
        ns.apply(pod("consumer", images.current, ["pricebook", "follow", COPY, "--json", "--url", URL]))
        eventually(lambda: '"seq"' in ns.kubectl("logs", "consumer"), seconds=60)
        before = release.seq()
        # Writers wait while a list is applied, and some may be told to try again: another matter than a lost change.
        with load(ns, images.current, *STANDARD_LOAD, "--shedding-allowed") as account:
            time.sleep(5)
            for turn in range(UPGRADES):
                release.install(images.current if turn % 2 else images.next)
                release.settled(2)
                import_list(release, turn)
        assert account.failed == 0, account.summary
        head = release.seq()
        eventually(lambda: verified(ns)["seq"] == head, seconds=60)
        assert ns.get("pod", "consumer")["status"]["phase"] == "Running"
        assert head - before == account.written + ROWS * (UPGRADES + 1)
        report.row(
            "the feed across pods",
            f"`pricebook follow` against two replicas, {UPGRADES} upgrades, {UPGRADES} imports of {ROWS} rows",
            f"{head - before} changes, each of them once; the copy equals a fresh export at seq {head}, byte for byte; "
            f"{account.requests} requests beside it, {account.failed} failed, {account.shed} told to try again",
        )
