"""Metrics of the API's requests: by route template for people, and by outcome for the objectives."""

import asyncio
import re
import sys
from enum import StrEnum

from fastapi import FastAPI
from fastapi.routing import iter_route_contexts
from opentelemetry import trace
from prometheus_client import CollectorRegistry, Counter, Histogram, Summary
from prometheus_fastapi_instrumentator import Instrumentator
from prometheus_fastapi_instrumentator.metrics import Info
from starlette.types import Scope

from app.observability.metrics import SECONDS
from app.traffic import Place, Traffic

_ROUTE = "pricebook.route"
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_OTHER_METHOD = "other"
_NO_ROUTE = "none"

CLIENT_CLOSED_REQUEST = 499
"""Status in metrics and logs, after nginx, of a request whose client went away before its answer: it never got one."""


def status_of_cancelled(traffic: Traffic) -> int:
    """The status of a request that was ended before its answer: by its client, or else by the stop of this process."""
    return 500 if traffic.draining else CLIENT_CLOSED_REQUEST


class RequestOutcome(StrEnum):
    """What came of a request, as the objectives see it."""

    ANSWERED = "answered"
    FAILED = "failed"
    ABANDONED = "abandoned"


class RequestMetrics:
    """Counts, times and sizes requests. :func:`instrument` does so for all that the application answers; what is
    answered before it calls :meth:`observe` itself.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self._requests = Counter(
            "http_requests_total",
            "Total number of requests by method, status and handler.",
            ["method", "status", "handler"],
            registry=registry,
        )
        self._seconds = Histogram(
            "http_request_duration_seconds",
            "Time from the head of a request to the end of its answer, waiting for changes and sending exports apart; "
            "exemplars name traces.",
            ["method", "handler", "status"],
            buckets=SECONDS,
            registry=registry,
        )
        self._by_outcome = Histogram(
            "pricebook_request_seconds",
            "Time from the head of a request to the end of its answer, waiting for changes and sending exports apart, "
            "by what came of it.",
            ["outcome"],
            buckets=SECONDS,
            registry=registry,
        )
        self._request_bytes = Summary(
            "http_request_size_bytes", "Content-Length of requests.", ["handler"], registry=registry
        )
        self._answer_bytes = Summary(
            "http_response_size_bytes", "Content-Length of answers.", ["handler"], registry=registry
        )
        # A series by route and status begins with its first request, and a rate does not see what a series begins
        # with: to objectives that looked at those, the first errors of each route and process would not have happened.
        for outcome in RequestOutcome:
            self._by_outcome.labels(outcome)
        self._series: dict[tuple[str, str, str], tuple[Counter, Histogram, Histogram, Summary, Summary]] = {}

    def observe(
        self,
        method: str,
        handler: str,
        status: str,
        seconds: float,
        *,
        request_bytes: int,
        answer_bytes: int,
        exemplar: dict[str, str] | None,
    ) -> None:
        """Count one request. The labels must be of those that there are few of."""
        series = self._series.get((method, handler, status))
        if series is None:
            # Looking a series up by its labels takes as long as counting.
            series = self._series[method, handler, status] = (
                self._requests.labels(method, status, handler),
                self._seconds.labels(method, handler, status),
                self._by_outcome.labels(_outcome(status)),
                self._request_bytes.labels(handler),
                self._answer_bytes.labels(handler),
            )
        requests, in_seconds, by_outcome, in_bytes, out_bytes = series
        requests.inc()
        in_seconds.observe(seconds, exemplar)
        by_outcome.observe(seconds)
        in_bytes.observe(request_bytes)
        out_bytes.observe(answer_bytes)


def exemplar(span: trace.Span) -> dict[str, str] | None:
    """What names the span's trace in a histogram, if it is kept: of another one it would be an exemplar of nothing."""
    context = span.get_span_context()
    return {"trace_id": trace.format_trace_id(context.trace_id)} if context.trace_flags.sampled else None


def instrument(app: FastAPI, registry: CollectorRegistry) -> RequestMetrics:
    """Count, time and size the application's requests. Call it after the routes are there."""
    request_metrics = RequestMetrics(registry)
    # As in the OpenAPI document: how a placeholder is read is nothing that a label need say.
    templates = {
        route.path: re.sub(r":\w+}", "}", route.path) for route in iter_route_contexts(app.routes) if route.path
    }

    def bound(info: Info) -> None:
        # Callers choose methods and paths; what they choose must not become series without end.
        if info.method not in _METHODS:
            info.method = _OTHER_METHOD
        # The instrumentator gives paths that are redirected for want of a slash as they were asked for.
        if info.modified_handler not in templates:
            info.modified_handler = _NO_ROUTE
        else:
            info.modified_handler = info.request.scope[_ROUTE] = templates[info.modified_handler]
        # gunicorn cancels a request some seconds after its client went away. To the instrumentator, what was not
        # answered is a defect.
        if info.modified_status == "500" and isinstance(sys.exception(), asyncio.CancelledError):
            info.modified_status = str(status_of_cancelled(app.state.traffic))
        elif isinstance(sys.exception(), Exception):
            # What was cut off after its head has said 200, and failed.
            info.modified_status = "500"

    def observe(info: Info) -> None:
        # One that was refused at the door never had a place.
        place: Place | None = info.request.scope.get(Place.SCOPE_KEY)
        request_metrics.observe(
            info.method,
            info.modified_handler,
            info.modified_status,
            max(info.modified_duration - (place.waited_seconds if place else 0), 0),
            request_bytes=int(info.request.headers.get("Content-Length", 0)),
            answer_bytes=int(info.response.headers.get("Content-Length", 0)) if info.response else 0,
            exemplar=exemplar(trace.get_current_span()),
        )

    Instrumentator(registry=registry, should_group_status_codes=False).add(bound, observe).instrument(app)
    return request_metrics


def _outcome(status: str) -> RequestOutcome:
    if status == str(CLIENT_CLOSED_REQUEST):
        return RequestOutcome.ABANDONED
    return RequestOutcome.FAILED if status.startswith("5") else RequestOutcome.ANSWERED


def route_template(scope: Scope) -> str | None:
    """The route that a request went to, such as ``/v1/books/{key}``, once it is answered."""
    template: str | None = scope.get(_ROUTE)
    return template
