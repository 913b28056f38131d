"""When each alert fires and when it does not: series in promtool's notation, an instant, and the alerts expected.

Windows include their first instant in Prometheus 2 and exclude it in Prometheus 3: no case may depend on that.
"""

from dataclasses import dataclass, field

NAMESPACE, JOB, POD = "shop", "pricebook", "pricebook-7d9f8b6c5d-x2x4z"


@dataclass(frozen=True)
class Case:
    """What one alert makes of some series.

    ``series`` are by selector; namespace and job are added to each. ``fires`` are the summaries, after the release's
    name, and the labels besides those that the alert always has. Until ``calm``, it does not fire.
    """

    story: str
    at: str
    series: dict[str, str]
    fires: dict[str, dict[str, str]] = field(default_factory=dict)
    calm: str = "0m"


def _requests(good: str, failed: str, abandoned: str = "0x1500", pod: str = POD) -> dict[str, str]:
    counts = {"answered": good, "failed": failed, "abandoned": abandoned}
    return {
        f'pricebook_request_seconds_count{{pod="{pod}",outcome="{outcome}"}}': values
        for outcome, values in counts.items()
    }


def _durations(all_: str, in_time: str, abandoned: str = "0x1500") -> dict[str, str]:
    return _requests(all_, "0+1x1500", abandoned) | {
        f'pricebook_request_seconds_bucket{{pod="{POD}",outcome="answered",le="0.25"}}': in_time,
        # What failed in no time was not answered in time.
        f'pricebook_request_seconds_bucket{{pod="{POD}",outcome="failed",le="0.25"}}': "0+1x1500",
    }


def _burning(slo: str, window: str) -> dict[str, str]:
    return {"slo": slo, "window": window}


_FAILED = "of the requests of {} failed with a server error (objective: 99.9 % without)"
_SLOW = "of the requests of {} took longer than 0.25 s (objective: 99 % in time)"
_DEPLOYMENT = f'deployment="{JOB}"'
_HPA = f'horizontalpodautoscaler="{JOB}"'
_KEDA = f'horizontalpodautoscaler="keda-hpa-{JOB}"'
_DESIRED = "kube_horizontalpodautoscaler_status_desired_replicas"
_MOST = "kube_horizontalpodautoscaler_spec_max_replicas"
_LEAST = "kube_horizontalpodautoscaler_spec_min_replicas"
_CONDITION = "kube_horizontalpodautoscaler_status_condition"
_CONTAINER = f'pod="{POD}",container="pricebook"'
_STATEMENTS = "pricebook_database_statement_seconds_bucket"

CASES: dict[str, list[Case]] = {
    "PricebookAvailabilityBurnFast": [
        Case(
            "two of 20 a minute fail, for an hour after six without requests",
            "436m",
            _requests("0x360 18+18x76", "0x360 2+2x76"),
            {f"10% {_FAILED.format('1h')}": _burning("availability", "1h")},
            calm="360m",
        ),
        Case(
            "one in 100 fails for six hours",
            "360m",
            _requests("0+594x360", "0+6x360"),
            {f"1% {_FAILED.format('6h')}": _burning("availability", "6h")},
        ),
        Case("the same, while less than 0.1 requests per second come", "360m", _requests("0+4x360", "0+1x360")),
        Case(
            "the first 600 requests of a new pod",
            "364m",
            _requests("_x360 0x10", "_x360 0 600x9", pod="new"),
            {
                f"100% {_FAILED.format('1h')}": _burning("availability", "1h"),
                f"100% {_FAILED.format('6h')}": _burning("availability", "6h"),
            },
        ),
        Case("clients go away, and nothing fails", "360m", _requests("0+600x360", "0x360", abandoned="0+600x360")),
        Case(
            "15 in 1000 for two hours",
            "120m",
            _requests("0+985x120", "0+15x120"),
            {
                f"1.5% {_FAILED.format('1h')}": _burning("availability", "1h"),
                f"1.5% {_FAILED.format('6h')}": _burning("availability", "6h"),
            },
        ),
        Case(
            "14 in 1000 for an hour after 1 in 1000 for ten",
            "660m",
            _requests("0+999x600 599400+986x60", "0+1x600 600+14x60"),
        ),
        Case(
            "61 in 10000 for six hours",
            "360m",
            _requests("0+9939x360", "0+61x360"),
            {f"0.61% {_FAILED.format('6h')}": _burning("availability", "6h")},
        ),
        Case("59 in 10000 for six hours", "360m", _requests("0+9941x360", "0+59x360")),
        Case("it is over for six minutes", "382m", _requests("0+600x382", "0x360 60+60x15 960x6")),
        Case("one in 1000 fails, as allowed", "360m", _requests("0+1998x360", "0+2x360")),
        Case("it has just begun", "362m", _requests("0+600x362", "0x355 60+60x7")),
    ],
    "PricebookAvailabilityBurnSlow": [
        Case(
            "five in 1000 fail for a day",
            "25h",
            _requests("0+995x1500", "0+5x1500"),
            {
                f"0.5% {_FAILED.format('1d')}": _burning("availability", "1d"),
                f"0.5% {_FAILED.format('3d')}": _burning("availability", "3d"),
            },
        ),
        Case(
            "two in 1000 fail for a day",
            "25h",
            _requests("0+998x1500", "0+2x1500"),
            {f"0.2% {_FAILED.format('3d')}": _burning("availability", "3d")},
        ),
        Case("the same, while less than 0.1 requests per second come", "25h", _requests("0+4x1500", "0+1x1500")),
        Case(
            "31 in 10000",
            "25h",
            _requests("0+9969x1500", "0+31x1500"),
            {
                f"0.31% {_FAILED.format('1d')}": _burning("availability", "1d"),
                f"0.31% {_FAILED.format('3d')}": _burning("availability", "3d"),
            },
        ),
        Case(
            "29 in 10000",
            "25h",
            _requests("0+9971x1500", "0+29x1500"),
            {f"0.29% {_FAILED.format('3d')}": _burning("availability", "3d")},
        ),
        Case(
            "11 in 10000",
            "25h",
            _requests("0+9989x1500", "0+11x1500"),
            {f"0.11% {_FAILED.format('3d')}": _burning("availability", "3d")},
        ),
        Case("9 in 10000", "25h", _requests("0+9991x1500", "0+9x1500")),
        Case("it is over for seven hours", "25h", _requests("0+995x1500", "0+5x1080 5400x420")),
    ],
    "PricebookLatencyBurnFast": [
        Case(
            "five of 20 a minute are slow, for an hour after six without requests",
            "436m",
            _durations("0x360 20+20x76", "0x360 15+15x76"),
            {f"25% {_SLOW.format('1h')}": _burning("latency", "1h")},
        ),
        Case(
            "one in ten is slow for six hours",
            "360m",
            _durations("0+600x360", "0+540x360"),
            {f"10% {_SLOW.format('6h')}": _burning("latency", "6h")},
        ),
        Case("the same, while less than 0.1 requests per second come", "360m", _durations("0+5x360", "0x360")),
        Case(
            "one in eleven goes away for six hours",
            "360m",
            _durations("0+600x360", "0+600x360", abandoned="0+60x360"),
            {f"9.091% {_SLOW.format('6h')}": _burning("latency", "6h")},
        ),
        Case(
            "61 in 1000 for six hours",
            "360m",
            _durations("0+1000x360", "0+939x360"),
            {f"6.1% {_SLOW.format('6h')}": _burning("latency", "6h")},
        ),
        Case("59 in 1000 for six hours", "360m", _durations("0+1000x360", "0+941x360")),
        Case("it is over for six minutes", "382m", _durations("0+600x382", "0+600x360 216000x15 216600+600x6")),
        Case("one in 100 is slow, as allowed", "360m", _durations("0+600x360", "0+594x360")),
    ],
    "PricebookLatencyBurnSlow": [
        Case(
            "five in 100 are slow for a day",
            "25h",
            _durations("0+600x1500", "0+570x1500"),
            {
                f"5% {_SLOW.format('1d')}": _burning("latency", "1d"),
                f"5% {_SLOW.format('3d')}": _burning("latency", "3d"),
            },
        ),
        Case(
            "two in 100 are slow for a day",
            "25h",
            _durations("0+600x1500", "0+588x1500"),
            {f"2% {_SLOW.format('3d')}": _burning("latency", "3d")},
        ),
        Case(
            "31 in 1000",
            "25h",
            _durations("0+1000x1500", "0+969x1500"),
            {
                f"3.1% {_SLOW.format('1d')}": _burning("latency", "1d"),
                f"3.1% {_SLOW.format('3d')}": _burning("latency", "3d"),
            },
        ),
        Case(
            "29 in 1000",
            "25h",
            _durations("0+1000x1500", "0+971x1500"),
            {f"2.9% {_SLOW.format('3d')}": _burning("latency", "3d")},
        ),
        Case(
            "11 in 1000",
            "25h",
            _durations("0+1000x1500", "0+989x1500"),
            {f"1.1% {_SLOW.format('3d')}": _burning("latency", "3d")},
        ),
        Case("9 in 1000", "25h", _durations("0+1000x1500", "0+991x1500")),
    ],
    "PricebookAbsent": [
        Case("no target is known", "6m", {}, {"no instance has been scraped for 5 minutes": {}}, calm="4m"),
        Case(
            "no target answers",
            "6m",
            {'up{pod="a"}': "0x10", 'up{pod="b"}': "0x10"},
            {"no instance has been scraped for 5 minutes": {}},
        ),
        Case("one of two answers", "10m", {'up{pod="a"}': "0x10", 'up{pod="b"}': "1x10"}),
        Case("none answers, for three minutes", "10m", {'up{pod="a"}': "1x6 0x4"}),
    ],
    "PricebookTargetDown": [
        Case(
            "one of two does not answer",
            "8m",
            {'up{pod="a",instance="10.0.0.1:8001"}': "1x2 0x10", 'up{pod="b",instance="10.0.0.2:8001"}': "1x10"},
            {"a has not been scraped for 5 minutes": {"pod": "a", "instance": "10.0.0.1:8001"}},
            calm="7m",
        ),
        Case(
            "without pods it is named by its address",
            "8m",
            {'up{instance="10.0.0.1:8001"}': "0x10"},
            {"10.0.0.1:8001 has not been scraped for 5 minutes": {"instance": "10.0.0.1:8001"}},
        ),
        Case("it comes back in time", "10m", {'up{pod="a"}': "0x4 1x10"}),
    ],
    "PricebookNotReady": [
        Case(
            "it has never become ready",
            "6m",
            {'pricebook_ready{pod="a"}': "0x10", 'pricebook_draining{pod="a"}': "0x10"},
            {"a runs but has not become ready": {"pod": "a"}},
            calm="4m",
        ),
        Case("it drains", "6m", {'pricebook_ready{pod="a"}': "0x10", 'pricebook_draining{pod="a"}': "1x10"}),
        Case(
            "it takes its time", "6m", {'pricebook_ready{pod="a"}': "0x4 1x10", 'pricebook_draining{pod="a"}': "0x10"}
        ),
    ],
    "PricebookTooFewAvailable": [
        Case(
            "one of three is missing",
            "16m",
            {
                f"kube_deployment_spec_replicas{{{_DEPLOYMENT}}}": "3x20",
                f"kube_deployment_status_replicas_available{{{_DEPLOYMENT}}}": "2x20",
            },
            {"replicas that have been missing for 15 minutes: 1": {"deployment": JOB}},
            calm="14m",
        ),
        Case(
            "a surge is more, not fewer",
            "20m",
            {
                f"kube_deployment_spec_replicas{{{_DEPLOYMENT}}}": "3x20",
                f"kube_deployment_status_replicas_available{{{_DEPLOYMENT}}}": "4x20",
            },
        ),
    ],
    "PricebookRolloutStuck": [
        Case(
            "the new pod does not become ready",
            "25m",
            {
                f"kube_deployment_status_replicas{{{_DEPLOYMENT}}}": "3x30",
                f"kube_deployment_status_replicas_updated{{{_DEPLOYMENT}}}": "3x2 1x30",
            },
            {"the rollout does not go on; pods still of an old revision after 20 minutes: 2": {"deployment": JOB}},
            calm="22m",
        ),
        Case(
            "it takes ten minutes",
            "25m",
            {
                f"kube_deployment_status_replicas{{{_DEPLOYMENT}}}": "3x30",
                f"kube_deployment_status_replicas_updated{{{_DEPLOYMENT}}}": "3x2 1x10 3x20",
            },
        ),
    ],
    "PricebookMixedVersions": [
        Case(
            "two for an hour",
            "65m",
            {
                'pricebook_info{pod="a",version="1.0.0",schema="0001"}': "1x70",
                'pricebook_info{pod="b",version="1.1.0",schema="0002"}': "1x70",
            },
            {"versions that have been running side by side for an hour: 2": {}},
            calm="59m",
        ),
        Case(
            "two pods of one version",
            "65m",
            {
                'pricebook_info{pod="a",version="1.0.0",schema="0001"}': "1x70",
                'pricebook_info{pod="b",version="1.0.0",schema="0001"}': "1x70",
            },
        ),
        Case(
            "a rollout of half an hour",
            "65m",
            {
                'pricebook_info{pod="a",version="1.0.0",schema="0001"}': "1x30 _x40",
                'pricebook_info{pod="b",version="1.1.0",schema="0002"}': "1x70",
            },
        ),
    ],
    "PricebookCrashLooping": [
        Case(
            "the service",
            "30m",
            {f"kube_pod_container_status_restarts_total{{{_CONTAINER}}}": "0x5 1x5 2x5 3x5 4x20"},
            {f"pricebook of {POD} restarted 4 times in 30 minutes": {"pod": POD, "container": "pricebook"}},
        ),
        Case(
            "the migration before it",
            "30m",
            {f'kube_pod_init_container_status_restarts_total{{pod="{POD}",container="migrate"}}': "0x5 1+1x4 5x30"},
            {f"migrate of {POD} restarted 5 times in 30 minutes": {"pod": POD, "container": "migrate"}},
        ),
        Case("once", "30m", {f"kube_pod_container_status_restarts_total{{{_CONTAINER}}}": "0x5 1x30"}),
        Case(
            "containers of others",
            "30m",
            {
                f'kube_pod_container_status_restarts_total{{pod="{POD}",container="proxy"}}': "0+1x30",
                f'kube_pod_init_container_status_restarts_total{{pod="{POD}",container="wait"}}': "0+1x30",
            },
        ),
    ],
    "PricebookDatabaseUnreachable": [
        Case(
            "one of three",
            "5m",
            {
                'pricebook_database_up{pod="a"}': "1x2 0x10",
                'pricebook_database_up{pod="b"}': "1x10",
                'pricebook_database_up{pod="c"}': "1x10",
            },
            {"instances that cannot reach the database: 1": {}},
            calm="3m",
        ),
        Case("a short moment", "5m", {'pricebook_database_up{pod="a"}': "1x4 0 1x10"}),
    ],
    "PricebookDatabaseBusy": [
        Case(
            "every minute some",
            "20m",
            {'pricebook_database_errors_total{pod="a",kind="busy"}': "0+60x20"},
            {"600 requests in 10 minutes failed because a statement or a lock took too long": {}},
            calm="10m",
        ),
        Case(
            "six in ten minutes",
            "20m",
            {'pricebook_database_errors_total{pod="a",kind="busy"}': "0+0.6x20"},
            {"6 requests in 10 minutes failed because a statement or a lock took too long": {}},
        ),
        Case(
            "four in ten minutes",
            "20m",
            {'pricebook_database_errors_total{pod="a",kind="busy"}': "0+0.4x20"},
        ),
        Case("another kind", "20m", {'pricebook_database_errors_total{pod="a",kind="unavailable"}': "0+60x20"}),
        Case("once", "20m", {'pricebook_database_errors_total{pod="a",kind="busy"}': "0x5 9x20"}),
    ],
    "PricebookPoolNearlyExhausted": [
        Case(
            "nine of ten connections for reads",
            "15m",
            {
                'pricebook_database_pool_connections{pod="a",pool="reader",state="in_use"}': "9x20",
                'pricebook_database_pool_limit{pod="a",pool="reader"}': "10x20",
            },
            {"a uses 90% of its connections in the pool reader": {"pod": "a", "pool": "reader"}},
            calm="9m",
        ),
        Case(
            "idle ones",
            "15m",
            {
                'pricebook_database_pool_connections{pod="a",pool="reader",state="idle"}': "10x20",
                'pricebook_database_pool_connections{pod="a",pool="reader",state="in_use"}': "0x20",
                'pricebook_database_pool_limit{pod="a",pool="reader"}': "10x20",
            },
        ),
        Case(
            "81 of 100",
            "15m",
            {
                'pricebook_database_pool_connections{pod="a",pool="writer",state="in_use"}': "81x20",
                'pricebook_database_pool_limit{pod="a",pool="writer"}': "100x20",
            },
            {"a uses 81% of its connections in the pool writer": {"pod": "a", "pool": "writer"}},
        ),
        Case(
            "two imports that take long",
            "15m",
            {
                'pricebook_database_pool_connections{pod="a",pool="importer",state="in_use"}': "2x20",
                'pricebook_database_pool_limit{pod="a",pool="importer"}': "2x20",
            },
        ),
        Case(
            "79 of 100",
            "15m",
            {
                'pricebook_database_pool_connections{pod="a",pool="writer",state="in_use"}': "79x20",
                'pricebook_database_pool_limit{pod="a",pool="writer"}': "100x20",
            },
        ),
        Case(
            "now and then",
            "15m",
            {
                'pricebook_database_pool_connections{pod="a",pool="reader",state="in_use"}': "10x4 2 10x4 2 10x20",
                'pricebook_database_pool_limit{pod="a",pool="reader"}': "10x20",
            },
        ),
    ],
    "PricebookPoolTimeouts": [
        Case(
            "some every minute",
            "18m",
            {'pricebook_database_errors_total{pod="a",kind="pool_timeout"}': "0x10 30+30x20"},
            {"240 requests in 10 minutes failed because no database connection became free": {}},
            calm="12m",
        ),
        Case(
            "one in three minutes",
            "20m",
            {'pricebook_database_errors_total{pod="a",kind="pool_timeout"}': "0x2 1x2 2x2 3x2 4x2 5x2 6x2"},
        ),
        Case("another kind", "10m", {'pricebook_database_errors_total{pod="a",kind="busy"}': "0+30x10"}),
    ],
    "PricebookSlowStatements": [
        Case(
            "one in 20 takes up to half a second",
            "12m",
            {
                f'{_STATEMENTS}{{pod="a",pool="reader",le="0.25"}}': "0+95x20",
                f'{_STATEMENTS}{{pod="a",pool="reader",le="0.5"}}': "0+100x20",
                f'{_STATEMENTS}{{pod="a",pool="reader",le="+Inf"}}': "0+100x20",
            },
            {"one in 100 statements of the reader pool takes 450ms or more": {"pool": "reader"}},
            calm="10m",
        ),
        Case(
            "those of imports, which take long",
            "20m",
            {
                f'{_STATEMENTS}{{pod="a",pool="importer",le="0.25"}}': "0+5x20",
                f'{_STATEMENTS}{{pod="a",pool="importer",le="5"}}': "0+100x20",
                f'{_STATEMENTS}{{pod="a",pool="importer",le="+Inf"}}': "0+100x20",
            },
        ),
        Case(
            "one in 20 takes up to a quarter of a second",
            "20m",
            {
                f'{_STATEMENTS}{{pod="a",pool="reader",le="0.1"}}': "0+95x20",
                f'{_STATEMENTS}{{pod="a",pool="reader",le="0.25"}}': "0+100x20",
                f'{_STATEMENTS}{{pod="a",pool="reader",le="+Inf"}}': "0+100x20",
            },
        ),
    ],
    "PricebookOverloaded": [
        Case(
            "six a minute",
            "18m",
            {'pricebook_requests_shed_total{pod="a"}': "0x10 6+6x20"},
            {"48 requests in 10 minutes were refused: instances were at MAX_CONCURRENT_REQUESTS": {}},
            calm="12m",
        ),
        Case(
            "six at once",
            "14m",
            {'pricebook_requests_shed_total{pod="a"}': "0x10 6x20"},
            {"6 requests in 10 minutes were refused: instances were at MAX_CONCURRENT_REQUESTS": {}},
        ),
        Case("four at once", "14m", {'pricebook_requests_shed_total{pod="a"}': "0x10 4x20"}),
        Case("none", "8m", {'pricebook_requests_shed_total{pod="a"}': "7x10"}),
    ],
    "PricebookInFlightNearLimit": [
        Case(
            "170 of 200",
            "8m",
            {'pricebook_requests_in_flight{pod="a"}': "170x10", 'pricebook_requests_limit{pod="a"}': "200x10"},
            {"a has 85% of the requests in flight that it may have": {"pod": "a"}},
            calm="4m",
        ),
        Case(
            "162 of 200",
            "8m",
            {'pricebook_requests_in_flight{pod="a"}': "162x10", 'pricebook_requests_limit{pod="a"}': "200x10"},
            {"a has 81% of the requests in flight that it may have": {"pod": "a"}},
        ),
        Case(
            "158 of 200",
            "8m",
            {'pricebook_requests_in_flight{pod="a"}': "158x10", 'pricebook_requests_limit{pod="a"}': "200x10"},
        ),
        Case(
            "a burst",
            "8m",
            {
                'pricebook_requests_in_flight{pod="a"}': "5x4 200x2 5x10",
                'pricebook_requests_limit{pod="a"}': "200x10",
            },
        ),
    ],
    "PricebookMemoryNearLimit": [
        Case(
            "95 %",
            "15m",
            {
                f"container_memory_working_set_bytes{{{_CONTAINER}}}": "95x20",
                f'container_memory_working_set_bytes{{pod="{POD}",container="proxy"}}': "99x20",
                f'kube_pod_container_resource_limits{{{_CONTAINER},resource="memory"}}': "100x20",
                f'kube_pod_container_resource_limits{{{_CONTAINER},resource="cpu"}}': "1000x20",
                f'kube_pod_container_resource_limits{{pod="{POD}",container="proxy",resource="memory"}}': "500x20",
            },
            {f"{POD} uses 95% of the memory it may have": {"pod": POD}},
            calm="9m",
        ),
        Case(
            "91 %",
            "15m",
            {
                f"container_memory_working_set_bytes{{{_CONTAINER}}}": "91x20",
                f'kube_pod_container_resource_limits{{{_CONTAINER},resource="memory"}}': "100x20",
            },
            {f"{POD} uses 91% of the memory it may have": {"pod": POD}},
        ),
        Case(
            "89 %",
            "15m",
            {
                f"container_memory_working_set_bytes{{{_CONTAINER}}}": "89x20",
                f'kube_pod_container_resource_limits{{{_CONTAINER},resource="memory"}}': "100x20",
            },
        ),
    ],
    "PricebookAutoscalerAtMaximum": [
        Case(
            "four wanted of four",
            "35m",
            {
                f"{_DESIRED}{{{_HPA}}}": "4x40",
                f"{_MOST}{{{_HPA}}}": "4x40",
                f"{_LEAST}{{{_HPA}}}": "2x40",
            },
            {"the autoscaler has wanted its maximum of 4 replicas for 30 minutes": {}},
            calm="29m",
        ),
        Case(
            "KEDA's",
            "35m",
            {
                f"{_DESIRED}{{{_KEDA}}}": "4x40",
                f"{_MOST}{{{_KEDA}}}": "4x40",
                f"{_LEAST}{{{_KEDA}}}": "2x40",
            },
            {"the autoscaler has wanted its maximum of 4 replicas for 30 minutes": {}},
        ),
        Case(
            "three wanted of four",
            "35m",
            {
                f"{_DESIRED}{{{_HPA}}}": "3x40",
                f"{_MOST}{{{_HPA}}}": "4x40",
                f"{_LEAST}{{{_HPA}}}": "2x40",
            },
        ),
        Case(
            "there is nothing to choose from",
            "35m",
            {
                f"{_DESIRED}{{{_HPA}}}": "2x40",
                f"{_MOST}{{{_HPA}}}": "2x40",
                f"{_LEAST}{{{_HPA}}}": "2x40",
            },
        ),
    ],
    "PricebookAutoscalerBlind": [
        Case(
            "no metrics",
            "20m",
            {f'{_CONDITION}{{{_HPA},condition="ScalingActive",status="false"}}': "1x20"},
            {
                f"the autoscaler {JOB} has not been able to read its metrics for 15 minutes": {
                    "horizontalpodautoscaler": JOB
                }
            },
            calm="14m",
        ),
        Case(
            "at its limit, which is another condition",
            "20m",
            {
                f'{_CONDITION}{{{_HPA},condition="ScalingActive",status="true"}}': "1x20",
                f'{_CONDITION}{{{_HPA},condition="ScalingActive",status="false"}}': "0x20",
                f'{_CONDITION}{{{_HPA},condition="ScalingLimited",status="false"}}': "1x20",
            },
        ),
    ],
    "PricebookReplicaNotUsed": [
        Case(
            "The primary has had all reads for eleven minutes.",
            "11m",
            {f'pricebook_database_replica_in_use{{pod="{POD}"}}': "0x20"},
            {f"{POD} has not read from the replica for 10 minutes": {"pod": POD}},
            calm="9m",
        ),
        Case(
            "The replica was left for a while, and is used again.",
            "15m",
            {f'pricebook_database_replica_in_use{{pod="{POD}"}}': "1x3 0x5 1x20"},
        ),
    ],
    "PricebookLedgerViewBehind": [
        Case(
            "one of two stands still",
            "30m",
            {'pricebook_ledger_seq{pod="a"}': "100+10x30", 'pricebook_ledger_seq{pod="b"}': "100x30"},
            {"b is 250 changes behind what another one saw 5 minutes before": {"pod": "b"}},
            calm="15m",
        ),
        Case(
            "one looks a minute later than the other",
            "30m",
            {'pricebook_ledger_seq{pod="a"}': "100+10x30", 'pricebook_ledger_seq{pod="b"}': "90+10x30"},
        ),
        Case(
            "the database was restored from a backup, for both",
            "30m",
            {'pricebook_ledger_seq{pod="a"}': "900x20 500x10", 'pricebook_ledger_seq{pod="b"}': "900x20 500x10"},
        ),
    ],
    "PricebookFeedBehind": [
        Case(
            "a follower hangs",
            "10m",
            {'pricebook_feed_lag_seconds{pod="a"}': "0x20", 'pricebook_feed_lag_seconds{pod="b"}': "0+60x10"},
            {"b has not passed on changes that it has known of for 10m 0s": {"pod": "b"}},
            calm="2m",
        ),
        Case(
            "it catches up with a large import now and then",
            "10m",
            {'pricebook_feed_lag_seconds{pod="a"}': "0 40 0 0 40 0 0 40 0 0 40"},
        ),
    ],
}
