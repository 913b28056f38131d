"""The rules are what Prometheus takes, each alert fires when it should and not otherwise, and Helm renders the same."""

import re
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.observability import queries, rule_file, rules
from tests.observability_config.alert_cases import CASES, JOB, NAMESPACE, Case
from tests.support import chart, prometheus

VALUES = rule_file.Values(job=JOB, namespace=NAMESPACE)
ALERTS = sorted({alert.name for alert in rules.alerts()})

OTHERS: list[dict[str, str]] = [{"namespace": "elsewhere"}, {"release": f"{JOB}-eu"}]
"""What happens to these is not this release's."""

INTERVALS = {"Fast": "2m", "Slow": "15m"}
"""How often the rules are evaluated in cases that last for hours and for days."""


def promtool(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [prometheus.program("promtool"), *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def test_promtool_takes_the_rules(tmp_path: Path) -> None:
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump(rule_file.groups(VALUES)))
    checked = promtool("check", "rules", tmp_path / "rules.yaml")
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_every_alert_has_cases_that_fire_and_cases_that_do_not() -> None:
    assert sorted(CASES) == ALERTS
    for alert, cases in CASES.items():
        assert any(case.fires for case in cases), alert
        assert any(not case.fires for case in cases), alert
        windows = {rule.labels.get("window") for rule in rules.alerts() if rule.name == alert}
        assert windows == {labels.get("window") for case in cases for labels in case.fires.values()}, alert


@pytest.mark.parametrize("alert", ALERTS)
def test_alert(alert: str, tmp_path: Path) -> None:
    recorded, written = _rules(alert)
    groups = [{"name": "objectives", "rules": recorded}, {"name": "alerts", "rules": written}]
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump({"groups": groups}))
    document = {
        "rule_files": ["rules.yaml"],
        "group_eval_order": ["objectives", "alerts"],
        "evaluation_interval": INTERVALS.get(alert.partition("Burn")[2], "1m"),
        "tests": [
            *(_unit_test(written, case) for case in CASES[alert]),
            *(_unit_test(written, case, **other) for case in _of_others(alert) for other in OTHERS),
        ],
    }
    (tmp_path / "test.yaml").write_text(yaml.safe_dump(document))
    tested = promtool("test", "rules", tmp_path / "test.yaml")
    assert tested.returncode == 0, tested.stdout + tested.stderr


def _rules(alert: str) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """An alert's rules, and before them the recording rules that they need: the rest would only cost time."""
    objectives, others = rule_file.groups(VALUES)["groups"]
    written = [rule for rule in others["rules"] if rule["alert"] == alert]
    needed = set().union(*(queries.metrics(rule["expr"]) for rule in written))
    recorded: list[dict[str, Any]] = []
    for rule in reversed(objectives["rules"]):
        if rule["record"] in needed:
            recorded.insert(0, rule)
            needed |= queries.metrics(rule["expr"])
    return recorded, written


def _of_others(alert: str) -> list[Case]:
    firing = next(case for case in CASES[alert] if case.fires)
    if alert != "PricebookAbsent":
        return [replace(firing, story=f"{firing.story}, to another", fires={})]
    # The other way round: that another is there must not keep it from firing.
    answering = next(case for case in CASES[alert] if not case.fires)
    return [replace(answering, story=f"{answering.story}, of another", fires=firing.fires)]


def _unit_test(
    written: list[dict[str, Any]], case: Case, *, namespace: str = NAMESPACE, release: str = JOB
) -> dict[str, Any]:
    """A case as promtool wants it: with every label and annotation of the alerts expected."""
    alert = written[0]["alert"]
    expected = []
    for summary, labels in case.fires.items():
        rule = next(rule for rule in written if rule["labels"].get("window") == labels.get("window"))
        expected.append(
            {
                "exp_labels": rule["labels"] | labels,
                "exp_annotations": rule["annotations"] | {"summary": f"{NAMESPACE}/{JOB}: {summary}"},
            }
        )
    series = {_series(name, namespace, release): values for name, values in case.series.items()}
    return {
        "name": case.story,
        "interval": "1m",
        "input_series": [{"series": name, "values": values} for name, values in series.items()],
        "alert_rule_test": [
            {"eval_time": case.calm, "alertname": alert, "exp_alerts": []},
            {"eval_time": case.at, "alertname": alert, "exp_alerts": expected},
        ],
    }


def _series(selector: str, namespace: str, release: str) -> str:
    """A case's series with its namespace and job, of this release or another."""
    name, _, labels = selector.partition("{")
    job = {"kube": "kube-state-metrics", "container": "kubelet"}.get(name.partition("_")[0], JOB)
    series = f'{name}{{namespace="{namespace}",job="{job}",{labels or "}"}'
    return re.sub(
        rf'\b((?:job|deployment|pod|horizontalpodautoscaler)="(?:keda-hpa-)?){JOB}', rf"\g<1>{release}", series
    )


def test_every_alert_says_what_to_know() -> None:
    boards = {alert.board for alert in rules.alerts()}
    for group in rule_file.groups(VALUES)["groups"]:
        for rule in group["rules"]:
            if "alert" not in rule:
                assert rule["record"].startswith("pricebook:")
                continue
            assert rule["alert"].startswith("Pricebook")
            assert rule["labels"]["severity"] in {"critical", "warning"}
            assert {"namespace", "job"} <= rule["labels"].keys()
            notes = rule["annotations"]
            assert notes["summary"].startswith(f"{NAMESPACE}/{JOB}: ")
            assert "\n" not in notes["summary"]
            assert notes["description"].endswith(".")
            assert notes["runbook_url"] == f"{VALUES.runbook_url}/{rule['alert']}.md"
            assert re.fullmatch(rf"/d/({'|'.join(boards)})\?var-namespace=shop&var-job=pricebook", notes["dashboard"])


def test_only_objectives_and_their_blindness_page() -> None:
    assert {alert.name for alert in rules.alerts() if alert.severity == "critical"} == {
        "PricebookAbsent",
        "PricebookAvailabilityBurnFast",
        "PricebookLatencyBurnFast",
    }


@pytest.mark.parametrize("example", [None, "monitoring"])
def test_helm_renders_the_same(example: str | None) -> None:
    values = chart.values() if example is None else chart.example(chart.CHART / "ci" / f"{example}-values.yaml")
    slo, rule = (chart.values()[key] | values.get(key, {}) for key in ("slo", "prometheusRule"))
    expected = rule_file.Values(
        namespace=chart.NAMESPACE,
        job="shop-pricebook",
        availability=slo["availabilityPercent"],
        latency_percent=slo["latencyPercent"],
        latency_seconds=slo["latencyThresholdSeconds"],
        minimum_rate=slo["minimumRequestRate"],
        runbook_url=rule["runbookBaseUrl"],
        grafana_url=rule["grafanaUrl"],
        labels=rule["alertLabels"],
        disabled=("PricebookMixedVersions",),
    )
    values["prometheusRule"] = rule | {"enabled": True, "disabledAlerts": ["PricebookMixedVersions"]}
    (rendered,) = chart.of_kind(chart.render(values), "PrometheusRule")
    assert rendered["spec"]["groups"][:2] == rule_file.groups(expected)["groups"]
