"""Replicas follow the load: by processor time (HPA) and by requests (KEDA)."""

import time
from typing import Any

import pytest

from tests.cluster import monitoring
from tests.cluster.conftest import Images
from tests.cluster.kube import eventually, namespace
from tests.cluster.pods import load
from tests.cluster.release import Release
from tests.cluster.report import Report

pytestmark = pytest.mark.proof

HARD = [
    "--host=pricebook",
    # An explained price is made anew each time; what memory answers costs too little to need more pods.
    "--path=/v1/items/sku:LOAD/price?explain=true",
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


def test_turned_on_over_a_running_release(images: Images, report: Report) -> None:
    """The field changes hands, from Helm to the autoscaler, and nobody's hand lets go of it."""
    with namespace("handover") as ns:
        release = Release(ns, arguments=("--set=replicas=3",))
        release.install(images.current)
        release.create_item()
        with load(ns, images.current, *LIGHT) as account, ns.watched("deployment/pricebook", ".spec.replicas") as seen:
            release.install(
                images.current,
                "--set=autoscaling.enabled=true",
                "--set=autoscaling.minReplicas=2",
                "--set=autoscaling.maxReplicas=4",
                "--set=autoscaling.behavior.scaleDown.stabilizationWindowSeconds=5",
            )
            release.settled(2, seconds=300)
        assert account.failed == 0, account.summary
        assert seen[0] == "3"
        assert set(seen) <= {"2", "3", "4"}, seen
        report.row(
            "autoscaling turned on later",
            "`helm upgrade` of three replicas to a HorizontalPodAutoscaler of two to four, under light load",
            f"replicas asked for: {', '.join(seen)}; {account.requests} requests, 0 failed",
        )


def test_requests(images: Images, report: Report) -> None:
    with namespace("keda") as ns:
        release = Release(
            ns,
            arguments=(
                "--set=serviceMonitor.enabled=true",
                "--set=serviceMonitor.interval=5s",
                "--set=keda.enabled=true",
                "--set=keda.minReplicas=2",
                "--set=keda.maxReplicas=3",
                "--set=keda.pollingInterval=5",
                "--set=keda.cpu.enabled=false",
                f"--set=keda.prometheus.serverAddress={monitoring.address()}",
                "--set=keda.prometheus.requestRate.enabled=true",
                "--set=keda.prometheus.requestRate.perPod=30",
                "--set=autoscaling.behavior.scaleDown.stabilizationWindowSeconds=15",
            ),
        )
        release.install(images.current)
        release.create_item()
        eventually(lambda: ready(ns.get("scaledobject", "pricebook")), seconds=120)
        follows(release, images, report, "KEDA ScaledObject", "requests per second from Prometheus, load from a pod")


def ready(scaled_object: dict[str, Any]) -> bool:
    conditions = scaled_object["status"]["conditions"]
    return any(condition["type"] == "Ready" and condition["status"] == "True" for condition in conditions)
