"""Replicas follow the load: by processor time (HPA) and by requests (KEDA)."""

import time

import pytest

from tests.cluster.conftest import Images
from tests.cluster.kube import eventually, namespace
from tests.cluster.pods import load
from tests.cluster.release import Release
from tests.cluster.report import Report

pytestmark = pytest.mark.proof

HARD = [
    "--host=pricebook",
    "--path=/v1/items/sku:LOAD/price",
    "--keep-alive=16",
    "--think-seconds=0",
    "--shedding-allowed",
]
LIGHT = [
    "--host=pricebook",
    "--path=/v1/items/sku:LOAD/price",
    "--keep-alive=10",
    "--think-seconds=1",
    "--shedding-allowed",
]


def follows(release: Release, images: Images, report: Report, what: str, how: str) -> None:
    began = time.monotonic()
    with load(release.ns, images.current, *HARD) as hard:
        eventually(lambda: len(release.ready()) >= 3, seconds=240, every=1)
        up = time.monotonic() - began
    began = time.monotonic()
    with load(release.ns, images.current, *LIGHT) as light:
        release.settled(2, seconds=300)
        down = time.monotonic() - began
    assert hard.failed == light.failed == 0, (hard.summary, light.summary)
    report.row(
        what,
        how,
        f"from 2 replicas to 3 or more after {up:.0f} s of load, back to 2 {down:.0f} s after it; "
        f"{hard.requests + light.requests} requests, 0 failed",
    )


def test_processor_time(images: Images, report: Report) -> None:
    with namespace("hpa") as ns:
        release = Release(
            ns,
            arguments=(
                "--set=autoscaling.enabled=true",
                "--set=autoscaling.minReplicas=2",
                "--set=autoscaling.maxReplicas=3",
                "--set=autoscaling.behavior.scaleDown.stabilizationWindowSeconds=15",
            ),
        )
        release.install(images.current)
        release.create_item()
        eventually(lambda: "currentMetrics" in ns.get("hpa", "pricebook")["status"], seconds=120)
        follows(release, images, report, "HorizontalPodAutoscaler", "containerResource CPU, load from a pod")


def test_requests(images: Images, report: Report) -> None:
    with namespace("keda") as ns:
        release = Release(
            ns,
            arguments=(
                "--set=keda.enabled=true",
                "--set=keda.minReplicas=2",
                "--set=keda.maxReplicas=3",
            ),
        )
        release.install(images.current)
        release.create_item()
        follows(release, images, report, "KEDA ScaledObject", "Prometheus trigger")
