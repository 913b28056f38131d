"""Metrics of the API's requests: by route template for people, and by outcome for the objectives."""

import asyncio
import re
import sys
import time
from bisect import bisect_left
from collections.abc import Iterator
from enum import StrEnum
from itertools import accumulate

from fastapi import FastAPI
from fastapi.routing import iter_route_contexts
from opentelemetry import trace
from prometheus_client import CollectorRegistry
from prometheus_client.core import (
    CounterMetricFamily,
    Exemplar,
    HistogramMetricFamily,
    Metric,
    SummaryMetricFamily,
)
from prometheus_fastapi_instrumentator import Instrumentator
from prometheus_fastapi_instrumentator.metrics import Info
from starlette.types import Scope

from app.observability.metrics import SECONDS
from app.retries import Tried
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


_BOUNDS = [f"{float(bound)}" for bound in SECONDS] + ["+Inf"]


class _Series:
    """The requests of one method, route and status."""

    __slots__ = ("answer_bytes", "buckets", "count", "exemplars", "request_bytes", "seconds")

    def __init__(self) -> None:
        self.count = self.request_bytes = self.answer_bytes = 0
        self.seconds = 0.0
        self.buckets = [0] * len(_BOUNDS)
        self.exemplars: list[Exemplar | None] = [None] * len(_BOUNDS)


class RequestMetrics:
    """Counts, times and sizes requests: :func:`instrument` those that the application answers, and what answers
    before it its own.

    All the metrics of a request are views of one series, so a request costs one look-up and some additions. Five
    metrics of the client library, each with its locks, took longer than the rest of an answer from memory.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self._series: dict[tuple[str, str, str], _Series] = {}
        registry.register(self)

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
        key = (method, handler, status)
        series = self._series.get(key)
        if series is None:
            series = self._series[key] = _Series()
        series.count += 1
        series.seconds += seconds
        series.request_bytes += request_bytes
        series.answer_bytes += answer_bytes
        bucket = bisect_left(SECONDS, seconds)
        series.buckets[bucket] += 1
        if exemplar is not None:
            series.exemplars[bucket] = Exemplar(exemplar, seconds, time.time())

    def collect(self) -> Iterator[Metric]:
        """The metrics as they are now."""
        requests = CounterMetricFamily(
            "http_requests",
            "Total number of requests by method, status and handler.",
            labels=["method", "status", "handler"],
        )
        durations = HistogramMetricFamily(
            "http_request_duration_seconds",
            "Time from the head of a request to the end of its answer, waiting for changes and sending exports apart; "
            "exemplars name traces.",
            labels=["method", "handler", "status"],
        )
        by_outcome = HistogramMetricFamily(
            "pricebook_request_seconds",
            "Time from the head of a request to the end of its answer, waiting for changes and sending exports apart, "
            "by what came of it.",
            labels=["outcome"],
        )
        request_bytes = SummaryMetricFamily(
            "http_request_size_bytes", "Content-Length of requests.", labels=["handler"]
        )
        answer_bytes = SummaryMetricFamily("http_response_size_bytes", "Content-Length of answers.", labels=["handler"])
        # A series by route and status begins with its first request, and a rate does not see what a series begins
        # with: to objectives that looked at those, the first errors of each route and process would not have happened.
        outcomes = {outcome: _Series() for outcome in RequestOutcome}
        handlers: dict[str, _Series] = {}
        for (method, handler, status), series in self._series.items():
            requests.add_metric([method, status, handler], series.count)
            durations.add_metric([method, handler, status], _cumulated(series), series.seconds)
            _add(outcomes[_outcome(status)], series)
            _add(handlers.setdefault(handler, _Series()), series)
        for outcome, series in outcomes.items():
            by_outcome.add_metric([outcome], _cumulated(series), series.seconds)
        for handler, series in handlers.items():
            request_bytes.add_metric([handler], series.count, series.request_bytes)
            answer_bytes.add_metric([handler], series.count, series.answer_bytes)
        yield from (requests, durations, by_outcome, request_bytes, answer_bytes)


def _cumulated(series: _Series) -> list[tuple[str, float] | tuple[str, float, Exemplar]]:
    return [
        (bound, count) if exemplar is None else (bound, count, exemplar)
        for bound, count, exemplar in zip(_BOUNDS, accumulate(series.buckets), series.exemplars, strict=True)
    ]


def _add(total: _Series, series: _Series) -> None:
    total.count += series.count
    total.seconds += series.seconds
    total.request_bytes += series.request_bytes
    total.answer_bytes += series.answer_bytes
    total.buckets = [sum(pair) for pair in zip(total.buckets, series.buckets, strict=True)]


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
        tried: Tried | None = info.request.scope.get(Tried.SCOPE_KEY)
        tried_seconds = tried.seconds if tried else 0
        request_metrics.observe(
            info.method,
            info.modified_handler,
            info.modified_status,
            max(info.modified_duration + tried_seconds - (place.waited_seconds if place else 0), 0),
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


def note_route(scope: Scope, template: str) -> None:
    """Say which route a request went to that the application did not see."""
    scope[_ROUTE] = template


def route_template(scope: Scope) -> str | None:
    """The route that a request went to, such as ``/v1/books/{key}``, once it is answered."""
    template: str | None = scope.get(_ROUTE)
    return template
