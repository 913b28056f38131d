"""A real Prometheus operator takes what the chart renders; every query has data; a fault raises its alert."""

from collections.abc import Iterator

import pytest

from tests.cluster import monitoring
from tests.cluster.conftest import Images
from tests.cluster.kube import eventually, namespace
from tests.cluster.pods import load
from tests.cluster.release import STANDARD_LOAD, Release
from tests.cluster.report import Report

pytestmark = pytest.mark.proof


@pytest.fixture(scope="module")
def release(images: Images) -> Iterator[Release]:
    with namespace("watched") as ns:
        release = Release(
            ns,
            arguments=(
                "--set=serviceMonitor.enabled=true",
                "--set=serviceMonitor.interval=5s",
                "--set=prometheusRule.enabled=true",
                "--set=dashboards.enabled=true",
                "--set=autoscaling.enabled=true",
            ),
        )
        release.install(images.current)
        release.create_item()
        yield release


def test_prometheus_scrapes_every_pod(release: Release, report: Report) -> None:
    expression = f'up{{namespace="{release.ns.name}", job="pricebook"}}'
    series = eventually(
        lambda: (
            [s for s in monitoring.query(expression) if s["value"][1] == "1"]
            if len(monitoring.query(expression)) == 2
            else []
        ),
        seconds=150,
    )
    assert len(series) == 2
    report.row("ServiceMonitor", "real Prometheus operator and Prometheus", f"{len(series)} of 2 pods scraped, up")


def test_prometheus_takes_every_rule(release: Release, report: Report) -> None:
    def ours() -> list[dict[str, object]]:
        groups = monitoring.prometheus("rules")["groups"]
        return [rule for group in groups if release.ns.name in group["file"] for rule in group["rules"]]

    rules = eventually(ours, seconds=150)
    eventually(lambda: all(rule["health"] == "ok" for rule in ours()), seconds=120)
    report.row("PrometheusRule", "real Prometheus operator and Prometheus", f"{len(rules)} rules, all healthy")


def test_every_query_of_the_dashboards_has_data(release: Release, images: Images, report: Report) -> None:
    from deploy.observability.queries import expressions

    with load(release.ns, images.current, *STANDARD_LOAD, "--shedding-allowed"):
        # There is no replica of the database here.
        asked = [
            one for one in expressions(namespace=release.ns.name, job="pricebook") if "replica_in_use" not in one.expr
        ]
        empty: list[str] = []

        def all_have_data() -> bool:
            empty[:] = [f"{board} / {panel}: {query}" for board, panel, query in asked if not monitoring.query(query)]
            return not empty

        try:
            eventually(all_have_data, seconds=180, every=10)
        except AssertionError:
            pytest.fail("no data:\n" + "\n".join(empty))
    report.row(
        "dashboards", "every query asked of a real Prometheus under traffic", f"{len(asked)} queries, all with data"
    )


def test_a_fault_raises_its_alert(release: Release, images: Images, report: Report) -> None:
    release.ns.kubectl("scale", "statefulset/pricebook-postgres", "--replicas=0")
    try:
        shown = eventually(
            lambda: [
                alert
                for alert in monitoring.alerts()
                if alert["labels"]["alertname"] == "PricebookDatabaseUnreachable"
                and alert["labels"]["namespace"] == release.ns.name
            ],
            seconds=420,
            every=5,
        )
    finally:
        release.ns.kubectl("scale", "statefulset/pricebook-postgres", "--replicas=1")
    annotations = shown[0]["annotations"]
    assert annotations["runbook_url"].endswith("/PricebookDatabaseUnreachable.md")
    report.row(
        "an alert",
        "the database scaled to 0",
        f"Alertmanager shows PricebookDatabaseUnreachable: `{annotations['summary']}`",
    )
