"""Metrics of the API's requests: by route template for people, and by outcome for the objectives."""

import asyncio
import re
import sys
from enum import StrEnum

from fastapi import FastAPI
from fastapi.routing import iter_route_contexts
from opentelemetry import trace
from prometheus_client import CollectorRegistry, Histogram
from prometheus_fastapi_instrumentator import Instrumentator, metrics
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


def instrument(app: FastAPI, registry: CollectorRegistry) -> None:
    """Count, time and size the application's requests. Call it after the routes are there."""
    seconds = Histogram(
        "http_request_duration_seconds",
        "Time from the head of a request to the end of its answer, waiting for changes and sending exports apart; "
        "exemplars name traces.",
        ["method", "handler", "status"],
        buckets=SECONDS,
        registry=registry,
    )
    by_outcome = Histogram(
        "pricebook_request_seconds",
        "Time from the head of a request to the end of its answer, waiting for changes and sending exports apart, "
        "by what came of it.",
        ["outcome"],
        buckets=SECONDS,
        registry=registry,
    )
    # A series by route and status begins with its first request, and a rate does not see what a series begins with:
    # to objectives that looked at those, the first errors of each route and process would not have happened.
    for outcome in RequestOutcome:
        by_outcome.labels(outcome)
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

    def time(info: Info) -> None:
        span = trace.get_current_span().get_span_context()
        # A trace that is not sampled is kept nowhere: it would be an exemplar of nothing.
        exemplar = {"trace_id": trace.format_trace_id(span.trace_id)} if span.trace_flags.sampled else None
        # One that was refused at the door never had a place.
        place: Place | None = info.request.scope.get(Place.SCOPE_KEY)
        duration = max(info.modified_duration - (place.waited_seconds if place else 0), 0)
        seconds.labels(info.method, info.modified_handler, info.modified_status).observe(duration, exemplar)
        by_outcome.labels(_outcome(info.modified_status)).observe(duration)

    instrumentator = Instrumentator(registry=registry, should_group_status_codes=False)
    instrumentator.add(
        bound,
        metrics.requests(registry=registry),
        time,
        metrics.request_size(
            metric_doc="Content-Length of requests.",
            should_include_method=False,
            should_include_status=False,
            registry=registry,
        ),
        metrics.response_size(
            metric_doc="Content-Length of answers.",
            should_include_method=False,
            should_include_status=False,
            registry=registry,
        ),
    )
    instrumentator.instrument(app)


def _outcome(status: str) -> RequestOutcome:
    if status == str(CLIENT_CLOSED_REQUEST):
        return RequestOutcome.ABANDONED
    return RequestOutcome.FAILED if status.startswith("5") else RequestOutcome.ANSWERED


def route_template(scope: Scope) -> str | None:
    """The route that a request went to, such as ``/v1/books/{key}``, once it is answered."""
    template: str | None = scope.get(_ROUTE)
    return template
