"""Values that do not fit together are refused in a sentence that names the value, the limit and the remedy."""

import re
from pathlib import Path

import pytest
import yaml

from app.observability.metrics import SECONDS
from tests.support import chart

TABLE: list[chart.Object] = yaml.safe_load(Path(__file__).with_name("messages.yaml").read_text())
RULES = (chart.CHART / "templates" / "_validate.tpl").read_text()


def sentences(values: chart.Object) -> list[str]:
    """What the chart has against these values."""
    return chart.message(values).partition(": \n")[2].splitlines()


@pytest.mark.parametrize("case", TABLE, ids=lambda case: case["rule"])
def test_refused_in_one_sentence(case: chart.Object) -> None:
    assert sentences(case["values"]) == [case["sentence"]]


def test_every_rule_is_in_the_table() -> None:
    rules = re.findall(r'append \$faults (?:\(printf )?"([^"]+)"', RULES)
    assert len(rules) == RULES.count("append $faults") > 20
    for rule in rules:
        parts = [".+" if part in {"%s", "%d", "%v"} else re.escape(part) for part in re.split("(%[sdv])", rule)]
        assert any(re.fullmatch("".join(parts), case["sentence"]) for case in TABLE), rule


def test_an_objective_may_be_any_bucket_of_the_histogram() -> None:
    assert [chart.message({"slo": {"latencyThresholdSeconds": seconds}}) for seconds in SECONDS] == [""] * len(SECONDS)
    (told,) = [case["sentence"] for case in TABLE if case["rule"] == "no bucket"]
    assert told.endswith(f"take one of {' '.join(map(str, SECONDS))}.")


def test_a_release_whose_name_no_service_may_have_is_refused() -> None:
    assert "The name 1shop-pricebook is not a valid name of a Service" in chart.message({}, name="1shop")


def test_all_faults_are_said_at_once() -> None:
    assert len(sentences({"replicas": 20, "ingress": {"enabled": True}, "tracing": {"enabled": True}})) == 3


@pytest.mark.parametrize(
    "values",
    [
        {"fullnameOverride": "a" * 43},
        {"autoscaling": {"enabled": True, "minReplicas": 4}},
        {"podDisruptionBudget": {"maxUnavailable": 2}, "replicas": 3},
        {"podDisruptionBudget": {"maxUnavailable": 5}, "replicas": 1},
        {"replicas": 4, "maxSurge": 1, "database": {"reservedConnections": 14}},
        # Three batches' worth of stopping, but no more pods than there are; then two, to the very second.
        {"replicas": 2, "maxSurge": 1, "preStopSeconds": 25, "database": {"maxConnections": 72}},
        {"replicas": 3, "maxSurge": 1, "preStopSeconds": 13, "database": {"maxConnections": 84}},
        {"terminationGracePeriodSeconds": 50},
        {"fullnameOverride": "prices", "nameOverride": "a" * 54},
        {"minReadySeconds": 599, "config": {"migrationWaitSeconds": 599.5}},
        {"service": {"type": "NodePort", "nodePort": 30080, "externalTrafficPolicy": "Local"}},
        {"serviceMonitor": {"enabled": True, "interval": "1m30s", "scrapeTimeout": "90s"}},
        {"keda": {"enabled": True, "cpu": {"enabled": False}, "extraTriggers": [{"type": "cron"}]}},
        {"database": {"mode": "cnpg", "cnpg": {"pooler": {"defaultPoolSize": 44}}}},
        {"database": {"mode": "cnpg", "cnpg": {"pooler": {"instances": 1, "maxClientConnections": 60}}}},
    ],
    ids=str,
)
def test_taken_at_the_very_limit(values: chart.Object) -> None:
    assert chart.message(values) == ""
