"""Traces: off, unless OpenTelemetry's own environment variables ask for them.

They are the one part of the configuration that :mod:`app.settings` does not read: their names and meanings are
OpenTelemetry's, and its SDK reads most of them itself.
"""

import os
from typing import TYPE_CHECKING

import structlog
from fastapi.telemetry import TelemetryConfig
from opentelemetry import trace

if TYPE_CHECKING:
    from app.observability.span_export import SpanExport

logger = structlog.get_logger(__name__)


class Tracing:
    """The traces of one application, or none of them."""

    def __init__(self, export: "SpanExport | None" = None) -> None:
        self._export = export
        self._provider: trace.TracerProvider = export.provider if export else trace.NoOpTracerProvider()

    @property
    def on(self) -> bool:
        """Whether there are any."""
        return self._export is not None

    @property
    def tracer(self) -> trace.Tracer:
        """For spans of our own."""
        return self._provider.get_tracer("pricebook")

    @property
    def for_fastapi(self) -> TelemetryConfig:
        """A span for each request, named by its route. Metrics and logs go their own ways."""
        return {
            "tracer_provider": self._provider,
            "tracing": self.on,
            "metrics": False,
            "logs": False,
            "operation_spans": False,
            "auto_configure": False,
        }

    async def close(self) -> None:
        """Deliver the last spans, for a bounded time."""
        if self._export is not None:
            await self._export.close()


def from_environment() -> Tracing:
    """Set up what ``OTEL_*`` asks for. What it asks for and cannot have is said in a warning: prices come first."""
    try:
        if not wanted():
            return Tracing()
        # Half a second and some megabytes, which only those pay who want traces.
        from app.observability.span_export import SpanExport

        return Tracing(SpanExport())
    except (ValueError, RuntimeError) as error:
        logger.warning("traces are off", reason=str(error))
        return Tracing()


def wanted() -> bool:
    """Whether the environment asks for traces.

    :raises ValueError: if it asks for some that this service does not have.
    """
    exporter = _variable("OTEL_TRACES_EXPORTER")
    if exporter not in {"", "none", "otlp"}:
        raise ValueError(f"OTEL_TRACES_EXPORTER is {exporter}; it can be otlp or none")
    endpoint = _variable("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
    if exporter == "none" or not (exporter or endpoint) or _variable("OTEL_SDK_DISABLED") == "true":
        return False
    protocol = _variable("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
    if protocol not in {"", "http/protobuf"}:
        raise ValueError(
            f"OTEL_EXPORTER_OTLP_PROTOCOL (or _TRACES_PROTOCOL) is {protocol}; traces go by http/protobuf only, "
            "usually to port 4318"
        )
    return True


def _variable(*names: str) -> str:
    """The first of the variables that is set, without regard to case, or nothing."""
    values = (os.environ.get(name, "").strip().lower() for name in names)
    return next(filter(None, values), "")
