"""Recording rules and alerts: as data, as the chart's template, and rendered with plain values.

Objectives are watched by burn rates over two windows each, as the Site Reliability Workbook describes (chapter 5,
"Alerting on SLOs"): the long window says that it matters, the short one that it still goes on. They alone page, and
the alert on their blindness. Everything else is a cause: worth knowing, and not worth waking anybody.
"""

import re
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

import yaml

from deploy.observability import selectors
from deploy.observability.boards import prices, rollout, runtime, service

type Severity = Literal["critical", "warning"]

NAMES = {
    "job": "full name of the release: its Deployment, and the job label of its targets",
    "namespace": "namespace of the release",
    "availability": "objective: per cent of the requests in 30 days that end without a server error",
    "latencyPercent": "objective: per cent of the requests in 30 days that are answered in time",
    "latencySeconds": "what in time means; a bound of the histogram http_request_duration_seconds",
    "minimumRate": "requests per second, over the long window, below which the objectives do not alert",
    "runbookURL": "where the runbooks are, without the file's name",
    "grafanaURL": "where Grafana is; may be empty",
    "labels": "map of labels for every alert",
    "disabled": "list of alerts to leave out",
}
"""What the template wants to know."""


@dataclass(frozen=True)
class Values:
    """Plain values for the rules. These defaults are for tests; the chart has its own."""

    job: str = "pricebook"
    namespace: str = "default"
    availability: float = 99.9
    latency_percent: float = 99
    latency_seconds: float = 0.25
    minimum_rate: float = 0.1
    runbook_url: str = "https://example.com/runbooks"
    grafana_url: str = ""
    labels: dict[str, str] = field(default_factory=dict)
    disabled: tuple[str, ...] = ()

    def named(self) -> dict[str, str]:
        """The values by the names that the template has for them, as text."""
        return {
            "job": self.job,
            "namespace": self.namespace,
            "availability": f"{self.availability:g}",
            "latencyPercent": f"{self.latency_percent:g}",
            "latencySeconds": f"{self.latency_seconds:g}",
            "minimumRate": f"{self.minimum_rate:g}",
            "runbookURL": self.runbook_url,
            "grafanaURL": self.grafana_url,
        }


@dataclass(frozen=True)
class Record:
    """A recording rule."""

    name: str
    expr: str
    labels: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Alert:
    """An alert. Its summary follows the release's name and holds the number; its description says what to expect."""

    name: str
    expr: str
    wait: str
    summary: str
    description: str
    board: str
    severity: Severity = "warning"
    labels: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Objective:
    """A service level objective, and what it means to miss it."""

    slo: str
    percent: str
    bad: str
    now: str
    in_time: str


@dataclass(frozen=True)
class Burn:
    """A pair of windows, and how many times faster than allowed the budget may be used over both."""

    factor: float
    long: str
    short: str


OBJECTIVES = (
    Objective(
        "availability",
        "@availability@",
        "failed with a server error (objective: @availability@ % without)",
        "Users get errors now.",
        "A steady trickle of errors will use up what the objective allows.",
    ),
    Objective(
        "latency",
        "@latencyPercent@",
        "took longer than @latencySeconds@ s (objective: @latencyPercent@ % in time)",
        "Users wait now.",
        "A steady share of slow answers will use up what the objective allows.",
    ),
)


FAST = (Burn(14.4, "1h", "5m"), Burn(6, "6h", "30m"))
SLOW = (Burn(3, "1d", "2h"), Burn(1, "3d", "6h"))
WINDOWS = ("30m", "1h", "2h", "6h", "1d", "3d")

# Outside of Kubernetes there are no pods.
_INSTANCE = "{{ or $labels.pod $labels.instance }}"
_RELEASE = {"namespace": "@namespace@", "job": "@job@"}


def recording_rules() -> list[Record]:
    """Requests and bad requests of each objective, over windows; and the objectives themselves, for the boards.

    Only the shortest window looks at the raw series, of which there are many. The longer ones add up what that one
    recorded, so they cost next to nothing and weigh each moment by its traffic.
    """
    availability, latency = {"slo": "availability"}, {"slo": "latency"}
    requests = "sum by (namespace, job) (rate(http_requests_total<self>[5m]))"
    failed = 'sum by (namespace, job) (rate(http_requests_total<self,status=~"5..">[5m]))'
    answered = 'sum by (namespace, job) (rate(http_request_duration_seconds_count<self,status!~"5..">[5m]))'
    # A bound is written as 1.0 by some versions and as 1 by others.
    in_time = (
        "sum by (namespace, job) ("
        'rate(http_request_duration_seconds_bucket<self,status!~"5..",le=~"@latencySeconds@([.]0)?">[5m]))'
    )
    all_, bad, ratio = (f"pricebook:slo_{name}" for name in ("requests:rate5m", "bad_requests:rate5m", "bad_requests"))
    return [
        Record(all_, requests, availability),
        Record(all_, answered, latency),
        Record(bad, f"{failed}\nor\n0 * {requests}", availability),
        Record(bad, f"{answered}\n-\n{in_time}", latency),
        Record(f"{ratio}:ratio_rate5m", f"{bad}<self>\n/\n{all_}<self>"),
        *(
            Record(
                f"{ratio}:ratio_rate{window}",
                f"sum_over_time({bad}<self>[{window}])\n/\nsum_over_time({all_}<self>[{window}])",
            )
            for window in WINDOWS
        ),
        *(
            Record(
                "pricebook:slo_objective:ratio",
                f"vector({objective.percent} / 100)",
                {**_RELEASE, "slo": objective.slo},
            )
            for objective in OBJECTIVES
        ),
        Record("pricebook:slo_latency_threshold:seconds", "vector(@latencySeconds@)", _RELEASE),
    ]


def objective_alerts() -> Iterator[Alert]:
    """Burn rates of both objectives."""
    for objective in OBJECTIVES:
        for pace, burns, wait, effect in (
            ("Fast", FAST, "2m", objective.now),
            ("Slow", SLOW, "15m", objective.in_time),
        ):
            for burn in burns:
                labels = f'<self,slo="{objective.slo}">'
                limit = f"{burn.factor} * (100 - {objective.percent}) / 100"
                yield Alert(
                    f"Pricebook{objective.slo.capitalize()}Burn{pace}",
                    f"""
                    pricebook:slo_bad_requests:ratio_rate{burn.long}{labels} > {limit}
                    and
                    pricebook:slo_bad_requests:ratio_rate{burn.short}{labels} > {limit}
                    and
                    avg_over_time(pricebook:slo_requests:rate5m{labels}[{burn.long}]) > @minimumRate@
                    """,
                    wait,
                    f"{{{{ $value | humanizePercentage }}}} of the requests of {burn.long} {objective.bad}",
                    f"{effect} If it goes on like this, what is allowed for 30 days is used up in "
                    f"{_duration(30 * 24 / burn.factor)} or less.",
                    service.UID,
                    "critical" if pace == "Fast" else "warning",
                    {"slo": objective.slo, "window": burn.long},
                )


def _duration(hours: float) -> str:
    return f"{hours:g} hours" if hours < 72 else f"{hours / 24:g} days"


def other_alerts() -> list[Alert]:
    """Causes, and the one state in which the objectives cannot alert: nothing is there to be asked."""
    return [
        Alert(
            "PricebookAbsent",
            "absent(up<self> == 1)",
            "5m",
            "no instance has been scraped for 5 minutes",
            "Either no instance runs, or Prometheus reaches none. Meanwhile no other alert can tell how users fare.",
            rollout.UID,
            "critical",
        ),
        Alert(
            "PricebookTargetDown",
            "up<self> == 0",
            "5m",
            f"{_INSTANCE} has not been scraped for 5 minutes",
            "Its admin port does not answer Prometheus. It may serve all the same, but nobody sees how.",
            rollout.UID,
        ),
        Alert(
            "PricebookNotReady",
            "pricebook_ready<self> == 0 and pricebook_draining<self> == 0",
            "5m",
            f"{_INSTANCE} runs but has not become ready",
            "It has never reached the database with a schema new enough, so it gets no requests.",
            rollout.UID,
        ),
        Alert(
            "PricebookTooFewAvailable",
            """
            max by (namespace, deployment) (kube_deployment_spec_replicas<deployment>)
            - max by (namespace, deployment) (kube_deployment_status_replicas_available<deployment>)
            > 0
            """,
            "15m",
            "replicas that have been missing for 15 minutes: {{ $value }}",
            "The others carry the load, and the loss of one more may be felt.",
            rollout.UID,
        ),
        Alert(
            "PricebookRolloutStuck",
            """
            max by (namespace, deployment) (kube_deployment_status_replicas<deployment>)
            - max by (namespace, deployment) (kube_deployment_status_replicas_updated<deployment>)
            > 0
            """,
            "20m",
            "the rollout does not go on; pods still of an old revision after 20 minutes: {{ $value }}",
            "The old pods serve on and users notice nothing, but what was to be rolled out is not in service.",
            rollout.UID,
        ),
        Alert(
            "PricebookMixedVersions",
            "count by (namespace, job) (count by (namespace, job, version, schema) (pricebook_info<self>)) > 1",
            "1h",
            "versions that have been running side by side for an hour: {{ $value }}",
            "Neighbouring versions are made to run together during a rollout, not for good: the older one may not know "
            "what the newer one writes.",
            rollout.UID,
        ),
        Alert(
            "PricebookCrashLooping",
            """
            sum by (namespace, pod, container) (
              increase(kube_pod_container_status_restarts_total<pods,container="pricebook">[30m])
              or
              increase(kube_pod_init_container_status_restarts_total<pods,container="migrate">[30m])
            )
            > 2
            """,
            "0m",
            '{{ $labels.container }} of {{ $labels.pod }} restarted {{ $value | printf "%.0f" }} times in 30 minutes',
            "The container ends soon after its start, again and again.",
            rollout.UID,
        ),
        Alert(
            "PricebookDatabaseUnreachable",
            "sum by (namespace, job) (pricebook_database_up<self> == bool 0) > 0",
            "1m",
            "instances that cannot reach the database: {{ $value }}",
            "Requests that need it get 503 and are told to try again. The instances stay ready and recover alone.",
            runtime.UID,
        ),
        Alert(
            "PricebookDatabaseBusy",
            'sum by (namespace, job) (rate(pricebook_database_errors_total<self,kind="busy">[5m])) > 0',
            "10m",
            '{{ $value | printf "%.2f" }} requests per second fail because a statement or a lock takes too long',
            "Writers wait for one another, or statements take longer than they may. Those requests get 503.",
            runtime.UID,
        ),
        Alert(
            "PricebookPoolNearlyExhausted",
            """
            pricebook_database_pool_connections<self,state="in_use">
            / ignoring (state) pricebook_database_pool_limit<self>
            > 0.8
            """,
            "10m",
            _INSTANCE + " uses {{ $value | humanizePercentage }} of its connections in the pool {{ $labels.pool }}",
            "Soon requests have to wait for a connection, and then fail.",
            runtime.UID,
        ),
        Alert(
            "PricebookPoolTimeouts",
            'sum by (namespace, job) (rate(pricebook_database_errors_total<self,kind="pool_timeout">[5m])) > 0',
            "2m",
            '{{ $value | printf "%.2f" }} requests per second fail because no database connection becomes free',
            "Those requests waited for DATABASE_POOL_TIMEOUT_SECONDS and got 503.",
            runtime.UID,
        ),
        Alert(
            "PricebookSlowStatements",
            """
            histogram_quantile(
              0.99, sum by (namespace, job, pool, le) (rate(pricebook_database_statement_seconds_bucket<self>[5m]))
            )
            > @latencySeconds@
            """,
            "10m",
            "one in 100 statements of the {{ $labels.pool }} pool takes {{ $value | humanizeDuration }} or more",
            "A single statement takes longer than a whole answer should (@latencySeconds@ s).",
            runtime.UID,
        ),
        Alert(
            "PricebookOverloaded",
            "sum by (namespace, job) (rate(pricebook_requests_shed_total<self>[5m])) > 0",
            "2m",
            '{{ $value | printf "%.2f" }} requests per second are refused: instances are at MAX_CONCURRENT_REQUESTS',
            "Those requests get 503 at once and are told to try again.",
            service.UID,
        ),
        Alert(
            "PricebookInFlightNearLimit",
            "pricebook_requests_in_flight<self> / pricebook_requests_limit<self> > 0.8",
            "5m",
            _INSTANCE + " has {{ $value | humanizePercentage }} of the requests in flight that it may have",
            "Beyond the limit, requests are refused.",
            service.UID,
        ),
        Alert(
            "PricebookMemoryNearLimit",
            """
            max by (namespace, pod) (container_memory_working_set_bytes<pods,container="pricebook">)
            / on (namespace, pod)
            max by (namespace, pod) (kube_pod_container_resource_limits<pods,container="pricebook",resource="memory">)
            > 0.9
            """,
            "10m",
            "{{ $labels.pod }} uses {{ $value | humanizePercentage }} of the memory it may have",
            "At its limit the kernel kills the container, with all requests in flight.",
            runtime.UID,
        ),
        Alert(
            "PricebookAutoscalerAtMaximum",
            """
            max by (namespace) (kube_horizontalpodautoscaler_status_desired_replicas<autoscaler>)
            >= max by (namespace) (kube_horizontalpodautoscaler_spec_max_replicas<autoscaler>)
            > max by (namespace) (kube_horizontalpodautoscaler_spec_min_replicas<autoscaler>)
            """,
            "30m",
            "the autoscaler has wanted its maximum of {{ $value }} replicas for 30 minutes",
            "It cannot add any more: load beyond this point makes answers slower, and then refused.",
            rollout.UID,
        ),
        Alert(
            "PricebookAutoscalerBlind",
            """
            max by (namespace, horizontalpodautoscaler) (
              kube_horizontalpodautoscaler_status_condition<autoscaler,condition="ScalingActive",status="false">
            )
            == 1
            """,
            "15m",
            "the autoscaler {{ $labels.horizontalpodautoscaler }} has not been able to read its metrics for 15 minutes",
            "The number of replicas stays as it is, whatever the load.",
            rollout.UID,
        ),
        Alert(
            "PricebookLedgerViewBehind",
            """
            max by (namespace, job) (pricebook_ledger_seq<self> offset 5m)
            - on (namespace, job) group_right ()
            pricebook_ledger_seq<self>
            > 0
            """,
            "10m",
            _INSTANCE + " is {{ $value }} changes behind what another one saw 5 minutes before",
            "It looks at another database than the others, at a replica that lags, or has not looked for some time.",
            prices.UID,
        ),
    ]


def alerts() -> list[Alert]:
    """Every alert, in the order of the file."""
    return [*objective_alerts(), *other_alerts()]


def groups(values: Values) -> dict[str, Any]:
    """The rules as Prometheus reads them: what the template gives with the same values."""
    named = values.named()

    def filled(part: Any) -> Any:
        if isinstance(part, dict):
            return {name: filled(value) for name, value in part.items()}
        return _VALUE.sub(lambda name: named[name[1]], part)

    return {
        "groups": [
            {
                "name": group,
                "rules": [
                    filled(rule | ({"labels": rule["labels"] | values.labels} if "alert" in rule else {}))
                    for rule in rules
                    if rule.get("alert") not in values.disabled
                ],
            }
            for group, rules in _groups()
        ]
    }


def template() -> str:
    """The same as a Helm template, for ``tpl`` and a dict of ``NAMES``, ``labels`` and ``disabled``."""
    lines = [
        "{{- /*",
        "Written by python -m deploy.observability; do not edit. Rendered by tpl with a dict of:",
        *(f"  {name}: {meaning}" for name, meaning in NAMES.items()),
        "*/ -}}",
        "groups:",
    ]
    for group, rules in _groups():
        lines += [f"  - name: {group}", "    rules:"]
        for rule in rules:
            # What is for Prometheus to fill in must pass through Helm as it is.
            text = yaml.dump([rule], Dumper=_Dumper, sort_keys=False, width=1_000_000).replace("{{", '{{ "{{" }}')
            text = textwrap.indent(_VALUE.sub(r"{{ .\1 }}", text).rstrip(), 6 * " ")
            if name := rule.get("alert"):
                text = text.replace("\n        annotations:\n", _MORE_LABELS + "\n        annotations:\n")
                text = f'      {{{{- if not (has "{name}" .disabled) }}}}\n{text}\n      {{{{- end }}}}'
            lines.append(text)
    return "\n".join(lines) + "\n"


_MORE_LABELS = """
          {{- with .labels }}
          {{- toYaml . | nindent 10 }}
          {{- end }}"""
_VALUE = re.compile(f"@({'|'.join(NAMES)})@")


def _groups() -> list[tuple[str, list[dict[str, Any]]]]:
    """The rules by group, with ``@names@`` of values in them."""
    return [
        ("pricebook.objectives", [_record(rule) for rule in recording_rules()]),
        ("pricebook.alerts", [_alert(alert) for alert in alerts()]),
    ]


def _record(rule: Record) -> dict[str, Any]:
    labels = {"labels": _quoted(rule.labels)} if rule.labels else {}
    return {"record": rule.name, "expr": _expression(rule.expr), **labels}


def _alert(alert: Alert) -> dict[str, Any]:
    return {
        "alert": alert.name,
        "expr": _expression(alert.expr),
        "for": alert.wait,
        "labels": _quoted({"severity": alert.severity, **_RELEASE, **alert.labels}),
        "annotations": _quoted(
            {
                "summary": f"@namespace@/@job@: {alert.summary}",
                "description": alert.description,
                "runbook_url": f"@runbookURL@/{alert.name}.md",
                "dashboard": f"@grafanaURL@/d/{alert.board}?var-namespace=@namespace@&var-job=@job@",
            }
        ),
    }


class _Expression(str):
    """Written as a block of its own."""


class _Quoted(str):
    """Written in quotes, whatever it looks like once its values are filled in."""


def _expression(text: str) -> str:
    return _Expression(selectors.fill(textwrap.dedent(text).strip(), **_RELEASE))


def _quoted(texts: dict[str, str]) -> dict[str, str]:
    return {name: _Quoted(text) for name, text in texts.items()}


class _Dumper(yaml.SafeDumper):
    """Knows the two kinds of text."""


_Dumper.add_representer(_Expression, lambda dumper, text: dumper.represent_scalar(_TEXT, text, style="|"))
_Dumper.add_representer(_Quoted, lambda dumper, text: dumper.represent_scalar(_TEXT, text, style='"'))
_TEXT = "tag:yaml.org,2002:str"
