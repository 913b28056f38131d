"""Which metrics and labels an expression may ask for: those of docs/metrics.md, and a few that Kubernetes has."""

import re
from pathlib import Path

import promql_parser

from deploy.observability import rules

ROOT = Path(__file__).parents[2]

_SERIES = {"histogram": ("_bucket", "_sum", "_count"), "summary": ("_sum", "_count")}
_ROW = re.compile(r"^\| `(\w+)` \| (counter|gauge|histogram|summary) \| ([^|]*) \|", flags=re.MULTILINE)
_TARGET = {"namespace", "job", "pod", "instance"}

# Names of kube-state-metrics 2 and of cAdvisor, with the labels that are used here.
KUBERNETES = {
    "container_memory_working_set_bytes": {"container"},
    "kube_deployment_spec_replicas": {"deployment"},
    "kube_deployment_status_replicas": {"deployment"},
    "kube_deployment_status_replicas_available": {"deployment"},
    "kube_deployment_status_replicas_unavailable": {"deployment"},
    "kube_deployment_status_replicas_updated": {"deployment"},
    "kube_horizontalpodautoscaler_spec_max_replicas": {"horizontalpodautoscaler"},
    "kube_horizontalpodautoscaler_spec_min_replicas": {"horizontalpodautoscaler"},
    "kube_horizontalpodautoscaler_spec_target_metric": {"horizontalpodautoscaler"},
    "kube_horizontalpodautoscaler_status_condition": {"horizontalpodautoscaler", "condition", "status"},
    "kube_horizontalpodautoscaler_status_current_replicas": {"horizontalpodautoscaler"},
    "kube_horizontalpodautoscaler_status_desired_replicas": {"horizontalpodautoscaler"},
    "kube_horizontalpodautoscaler_status_target_metric": {"horizontalpodautoscaler"},
    "kube_pod_container_resource_limits": {"container", "resource"},
    "kube_pod_container_resource_requests": {"container", "resource"},
    "kube_pod_container_status_restarts_total": {"container"},
    "kube_pod_container_status_waiting_reason": {"container", "reason"},
    "kube_pod_info": {"node"},
    "kube_pod_init_container_status_restarts_total": {"container"},
    "kube_pod_init_container_status_waiting_reason": {"container", "reason"},
    "kube_pod_start_time": set(),
    "kube_pod_status_phase": {"phase"},
    "kube_poddisruptionbudget_status_current_healthy": {"poddisruptionbudget"},
    "kube_poddisruptionbudget_status_desired_healthy": {"poddisruptionbudget"},
    "kube_poddisruptionbudget_status_pod_disruptions_allowed": {"poddisruptionbudget"},
}


def documented() -> dict[str, set[str]]:
    """Every series of docs/metrics.md by its name, with its labels."""
    found = {}
    for name, kind, labels in _ROW.findall((ROOT / "docs" / "metrics.md").read_text()):
        own = set(re.findall(r"`(\w+)`", labels))
        for suffix in _SERIES.get(kind, ("",)):
            found[name + suffix] = own | ({"le"} if suffix == "_bucket" else set())
    return found


def known() -> dict[str, set[str]]:
    """Every series that there may be, with its labels."""
    recorded = {rule.name: {"slo"} for rule in rules.recording_rules()}
    prometheus = {"up": set[str](), "ALERTS": {"alertname", "alertstate", "severity"}}
    return documented() | KUBERNETES | recorded | prometheus


def faults(expr: str) -> list[str]:
    """The metrics that do not exist, and the labels that those that do have not."""
    series = known()
    found = []

    def visit(node: promql_parser.Expr) -> None:
        if not isinstance(node, promql_parser.VectorSelector):
            return
        if node.name not in series:
            found.append(str(node.name))
            return
        labels = {matcher.name for matcher in node.matchers.matchers}
        found.extend(f"{node.name}{{{label}}}" for label in labels - series[node.name] - _TARGET)

    promql_parser.walk(promql_parser.parse(expr), visit)
    return found
