"""Service: is it well for its users? Objectives, requests by route, load."""

from grafana_foundation_sdk.models.dashboard import Dashboard

from deploy.observability import house
from deploy.observability.house import Column, Query, or_zero

UID = "pricebook-service"

_QUANTILES = (0.5, 0.95, 0.99)
_OBJECTIVES = (("availability", "Answered without a server error"), ("latency", "Answered fast enough"))


def board() -> Dashboard:
    """Build it."""
    return house.board(
        UID,
        "Service",
        "Rate, errors and duration of requests by route, the objectives, and how near to its limits the service is.",
        ("Objectives", [*_objectives(), _burn(), _alerts()]),
        ("Requests", _requests()),
        ("Load", _load()),
        ("Callers", _callers()),
    )


def _bad_share(slo: str) -> str:
    """Share of requests in 30 days that were bad, by their number: a busy hour counts for more than a quiet one."""
    return f"""
        sum_over_time(pricebook:slo_bad_requests:rate5m<self,slo="{slo}">[30d])
        / sum_over_time(pricebook:slo_requests:rate5m<self,slo="{slo}">[30d])
    """


def _objectives() -> list[house.Panel]:
    panels: list[house.Panel] = []
    for slo, title in _OBJECTIVES:
        panels += [
            house.number(
                f"{title}, 30 days",
                f"Share of the requests of 30 days that were good by the objective for {slo}. Needs the chart's rules.",
                "percentunit",
                f"1 - {_bad_share(slo)}",
                calm="blue",
                decimals=3,
                instant=True,
                nothing="no requests",
            ),
            house.number(
                "Objective",
                f"What the chart's values promise for {slo}: share of requests in 30 days.",
                "percentunit",
                f'pricebook:slo_objective:ratio<self,slo="{slo}">',
                calm="text",
                span=3,
                decimals=3,
                instant=True,
            ),
            house.number(
                "Budget left",
                "Part of the bad requests allowed in 30 days that is left. Below zero, the objective is missed.",
                "percentunit",
                f'1 - {_bad_share(slo)} / (1 - pricebook:slo_objective:ratio<self,slo="{slo}">)',
                calm="red",
                steps=[(0, "orange"), (0.25, "green")],
                span=5,
                decimals=1,
                instant=True,
                nothing="no requests",
            ),
        ]
    return panels


def _burn() -> house.Panel:
    return house.graph(
        "Burn rate",
        "How fast the error budget is used: at 1 it lasts just 30 days. 14.4 over an hour and 6 over six hours page; "
        "3 over a day and 1 over three days want a look in working hours.",
        "none",
        *(
            Query(
                f"pricebook:slo_bad_requests:ratio_rate{window}<self> / (1 - pricebook:slo_objective:ratio<self>)",
                f"{{{{slo}}}}, {window}",
            )
            for window in ("1h", "6h", "3d")
        ),
        span=16,
        steps=[(1, "yellow"), (6, "orange"), (14.4, "red")],
    )


def _alerts() -> house.Panel:
    firing = 'sum by (alertname, severity) (ALERTS<self,alertname=~"Pricebook.+",alertstate="firing">)'
    return house.graph(
        "Alerts firing",
        "Alerts of this release that fire. Each has a runbook, linked from its annotation runbook_url.",
        "short",
        Query(or_zero(firing, "alertname"), "{{alertname}} {{severity}}"),
        span=8,
        stacked=True,
    )


def _requests() -> list[house.Panel]:
    rate = "rate(http_requests_total<self%s>[$__rate_interval])"
    failed = rate % ',status=~"5.."'
    outcomes = "sum(rate(pricebook_request_seconds_count<self,outcome%s>[$__rate_interval]))"
    buckets = "rate(http_request_duration_seconds_bucket<self>[$__rate_interval])"
    by_status = house.graph(
        "Answers by status",
        "Requests per second by status code. 4xx are answers too: an unknown item, or no price at that time. "
        "499 got none: the client went away.",
        "reqps",
        Query(f"sum by (status) ({rate % ''})", "{{status}}"),
        stacked=True,
    )
    for digit, color in (("2", "green"), ("3", "blue"), ("4", "orange"), ("5", "red")):
        by_status.override_by_regexp(f"/^{digit}/", house.shades_of(color))
    return [
        house.graph(
            "Requests by route",
            "Requests per second by method and route template. A route 'none' is an address that does not exist.",
            "reqps",
            Query(f"sum by (method, handler) ({rate % ''})", "{{method}} {{handler}}"),
            stacked=True,
        ),
        by_status,
        house.graph(
            "Share of requests that failed",
            "Server errors among all requests whose client waited, of all routes together.",
            "percentunit",
            Query(f"{outcomes % '="failed"'} / {outcomes % '!="abandoned"'}", "failed"),
            Query('1 - pricebook:slo_objective:ratio<self,slo="availability">', "allowed over 30 days", limit=True),
        ),
        house.graph(
            "Server errors by route",
            "Answers 5xx per second. 503 is trouble that passes (database, overload) and says when to try again; "
            "500 is a defect, and the log has its traceback.",
            "reqps",
            Query(
                or_zero(f"sum by (status, method, handler) ({failed})", "handler"), "{{status}} {{method}} {{handler}}"
            ),
            stacked=True,
        ),
        house.graph(
            "Duration",
            "Time to answer, all routes together, as seen by the server. Diamonds are single requests with a trace, "
            "where tracing is on.",
            "s",
            *(
                Query(f"histogram_quantile({q}, sum by (le) ({buckets}))", f"p{q * 100:g}", exemplars=True)
                for q in _QUANTILES
            ),
            Query("pricebook:slo_latency_threshold:seconds<self>", "objective", limit=True),
        ),
        house.graph(
            "Duration by route, p99",
            "The time within which 99 of 100 requests of a route are answered.",
            "s",
            Query(
                f"histogram_quantile(0.99, sum by (le, method, handler) ({buckets}))",
                "{{method}} {{handler}}",
                exemplars=True,
            ),
            Query("pricebook:slo_latency_threshold:seconds<self>", "objective", limit=True),
        ),
        house.heat(
            "Durations",
            "How many requests took how long. Two bands are two kinds of request; a band that widens is a queue.",
            "s",
            Query(f"sum by (le) ({buckets})", "{{le}}", exemplars=True),
        ),
        house.graph(
            "Size of answers by route",
            "Mean size of an answer's body.",
            "bytes",
            Query(
                "sum by (handler) (rate(http_response_size_bytes_sum<self>[$__rate_interval])) "
                "/ sum by (handler) (rate(http_response_size_bytes_count<self>[$__rate_interval]))",
                "{{handler}}",
            ),
        ),
        house.grid(
            "Routes",
            "The present of each route: how much it is asked, how much of that fails, how long it takes.",
            [("method", "Method"), ("handler", "Route")],
            Column("Requests", "reqps", f"sum by (method, handler) ({rate % ''})"),
            Column(
                "Failed",
                "percentunit",
                f"(sum by (method, handler) ({failed}) or 0 * sum by (method, handler) ({rate % ''}))"
                f" / sum by (method, handler) ({rate % ''})",
            ),
            *(
                Column(f"p{q * 100:g}", "s", f"histogram_quantile({q}, sum by (le, method, handler) ({buckets}))")
                for q in _QUANTILES
            ),
        ),
    ]


def _load() -> list[house.Panel]:
    return [
        house.graph(
            "Requests in flight",
            "Requests that a pod works on at the same time. At the limit it answers 503 at once.",
            "short",
            Query("pricebook_requests_in_flight<self>", "{{pod}}"),
            Query("min(pricebook_requests_limit<self>)", "limit of a pod", limit=True),
            span=8,
        ),
        house.graph(
            "Use of the limit",
            "Requests in flight as a share of the limit, of the fullest pod and of all together. A gap between the two "
            "means that requests are spread unevenly.",
            "percentunit",
            Query("max(pricebook_requests_in_flight<self> / pricebook_requests_limit<self>)", "fullest pod"),
            Query("sum(pricebook_requests_in_flight<self>) / sum(pricebook_requests_limit<self>)", "all"),
            span=8,
            steps=[(0.8, "orange"), (1, "red")],
        ),
        house.graph(
            "Requests shed",
            "Requests per second refused because a pod was at its limit.",
            "reqps",
            Query("sum by (pod) (rate(pricebook_requests_shed_total<self>[$__rate_interval]))", "{{pod}}"),
            span=8,
            stacked=True,
        ),
    ]


def _callers() -> list[house.Panel]:
    return [
        house.graph(
            "Requests refused for want of a key",
            "Answers 401 per second by reason. unknown: a key that is wrong, revoked or of a former SECRET_KEY. A jump "
            "after a change of SECRET_KEY: callers were left behind. One that lasts: somebody tries keys.",
            "reqps",
            Query(
                or_zero("sum by (reason) (rate(pricebook_auth_failures_total<self>[$__rate_interval]))", "reason"),
                "{{reason}}",
            ),
            span=8,
            stacked=True,
        ),
        house.graph(
            "Keys in force",
            "Keys that each pod knows; 0 until it first had to. Lines that stay apart for longer than a scrape mean "
            "that a pod is not asked, or does not reach the database.",
            "short",
            Query("pricebook_keys<self>", "{{pod}}"),
            span=8,
        ),
        house.graph(
            "Sent again, tried again",
            "Requests per second that callers sent again with their Idempotency-Key and that were answered as before; "
            "and tries that the service made again after the database failed a request, by cause.",
            "reqps",
            Query("sum(rate(pricebook_replays_total<self>[$__rate_interval]))", "answered as before"),
            Query(
                "sum by (cause) (rate(pricebook_retries_total<self>[$__rate_interval]))", "tried again after {{cause}}"
            ),
            span=8,
        ),
    ]
