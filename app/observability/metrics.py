"""Prometheus metrics: the registry of one application, and its exposition."""

from fastapi import FastAPI
from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector
from prometheus_client.exposition import choose_encoder
from prometheus_fastapi_instrumentator import Instrumentator
from starlette.requests import Request
from starlette.responses import Response


def instrument(app: FastAPI) -> CollectorRegistry:
    """Count and time the application's requests by route template, in a registry of its own."""
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    GCCollector(registry=registry)
    Instrumentator(registry=registry, should_group_status_codes=False, should_group_untemplated=True).instrument(app)
    return registry


def exposition(request: Request, registry: CollectorRegistry) -> Response:
    """The metrics as Prometheus's text format, or as OpenMetrics for those who accept it."""
    encode, content_type = choose_encoder(request.headers.get("accept", ""))
    return Response(encode(registry), headers={"Content-Type": content_type})
