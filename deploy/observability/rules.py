"""Recording rules and alerts, as data: ``<self>`` and its like are selectors, ``@names@`` the chart's values.

Objectives are watched by burn rates over two windows each, as the Site Reliability Workbook describes (chapter 5,
"Alerting on SLOs"): the long window says that it matters, the short one that it still goes on. They alone page, and
the alert on their blindness. Everything else is a cause: worth knowing, and not worth waking anybody.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

from deploy.observability.boards import prices, rollout, runtime, service

type Severity = Literal["critical", "warning"]


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
    sudden: str
    steady: str


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
_COUNT = '{{ $value | printf "%.0f" }} requests in 10 minutes'
RELEASE = {"namespace": "@namespace@", "job": "@job@"}
"""Labels of everything that is recorded, and of every alert."""


def recording_rules() -> list[Record]:
    """Requests and bad requests of each objective, over windows; and the objectives themselves, for the boards.

    They count by outcome: those series exist from a process's start, so that a rate sees the first failure. Missed is
    only what comes before a process's first scrape. The longer windows add up what the shortest one recorded, which
    weighs each moment by its traffic.
    """
    availability, latency = {"slo": "availability"}, {"slo": "latency"}

    def rate(series: str) -> str:
        return f"sum by (namespace, job) (rate(pricebook_request_seconds_{series}[5m]))"

    # Who went away may not have wanted to wait: that says nothing about errors, but it is not an answer in time.
    requests = rate('count<self,outcome!="abandoned">')
    failed = rate('count<self,outcome="failed">')
    not_failed = rate('count<self,outcome!="failed">')
    # A bound is written as 1.0 by some versions and as 1 by others.
    in_time = rate('bucket<self,outcome="answered",le=~"@latencySeconds@([.]0)?">')
    all_, bad, ratio = (f"pricebook:slo_{name}" for name in ("requests:rate5m", "bad_requests:rate5m", "bad_requests"))
    return [
        Record(all_, requests, availability),
        Record(all_, not_failed, latency),
        Record(bad, failed, availability),
        Record(bad, f"{not_failed}\n-\n{in_time}", latency),
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
                {**RELEASE, "slo": objective.slo},
            )
            for objective in OBJECTIVES
        ),
        Record("pricebook:slo_latency_threshold:seconds", "vector(@latencySeconds@)", RELEASE),
    ]


def objective_alerts() -> Iterator[Alert]:
    """Burn rates of both objectives."""
    for objective in OBJECTIVES:
        for pace, burns, wait, effect in (
            ("Fast", FAST, "2m", objective.sudden),
            ("Slow", SLOW, "15m", objective.steady),
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


def _several(counter: str) -> str:
    """More than now and then, which callers' retries hide."""
    return f"sum by (namespace, job) (increase({counter}[10m])) > 5"


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
            _several('pricebook_database_errors_total<self,kind="busy">'),
            "10m",
            _COUNT + " failed because a statement or a lock took too long",
            "Writers wait for one another, or statements take longer than they may. Those requests get 503.",
            runtime.UID,
        ),
        Alert(
            "PricebookPoolNearlyExhausted",
            """
            pricebook_database_pool_connections<self,state="in_use",pool!="importer">
            / ignoring (state) pricebook_database_pool_limit<self,pool!="importer">
            > 0.8
            """,
            "10m",
            _INSTANCE + " uses {{ $value | humanizePercentage }} of its connections in the pool {{ $labels.pool }}",
            "Soon requests have to wait for a connection, and then fail.",
            runtime.UID,
        ),
        Alert(
            "PricebookPoolTimeouts",
            _several('pricebook_database_errors_total<self,kind="pool_timeout">'),
            "2m",
            _COUNT + " failed because no database connection became free",
            "Those requests waited for DATABASE_POOL_TIMEOUT_SECONDS and got 503.",
            runtime.UID,
        ),
        Alert(
            "PricebookSlowStatements",
            """
            histogram_quantile(
              0.99,
              sum by (namespace, job, pool, le) (
                rate(pricebook_database_statement_seconds_bucket<self,pool!="importer">[5m])
              )
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
            _several("pricebook_requests_shed_total<self>"),
            "2m",
            _COUNT + " were refused: instances were at MAX_CONCURRENT_REQUESTS",
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
            "PricebookReplicaNotUsed",
            "pricebook_database_replica_in_use<self> == 0",
            "10m",
            _INSTANCE + " has not read from the replica for 10 minutes",
            "All of its reads go to the primary: the replica is away, behind, or has another ledger.",
            runtime.UID,
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
        Alert(
            "PricebookFeedBehind",
            "pricebook_feed_lag_seconds<self> > 30",
            "2m",
            _INSTANCE + " has not passed on changes that it has known of for {{ $value | humanizeDuration }}",
            "Consumers that wait there get nothing new; what they have is right as far as it goes.",
            prices.UID,
        ),
    ]


def alerts() -> list[Alert]:
    """Every alert, in the order of the file."""
    return [*objective_alerts(), *other_alerts()]
