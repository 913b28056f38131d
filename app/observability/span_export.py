"""Sends spans to an OpenTelemetry collector, by OTLP over HTTP; the variables ``OTEL_*`` say where and how.

Loaded only by a process that traces: the SDK is large.
"""

import asyncio
import logging
import threading
from collections.abc import Sequence
from importlib.metadata import version

import structlog
from opentelemetry.exporter.otlp.proto.http import trace_exporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExportResult

logger = structlog.get_logger(__name__)

FLUSH_SECONDS = 5.0
"""How long the stop waits for the last spans to be delivered."""


class SpanExport:
    """A provider of spans that are collected in memory and sent by a thread of its own, never by a request."""

    def __init__(self) -> None:
        # What the environment says of the resource comes last, so that it wins.
        resource = Resource.create(
            {
                "service.name": "pricebook",
                "service.version": version("pricebook"),
                **OTELResourceDetector().detect().attributes,
            }
        )
        self._exporter = _Exporter()
        self.provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        self.provider.add_span_processor(BatchSpanProcessor(self._exporter))

    async def close(self) -> None:
        """Send what is left. A collector that does not take it in time does not keep the process from ending."""
        sending = threading.Thread(target=self.provider.shutdown, name="last spans", daemon=True)
        sending.start()
        await asyncio.to_thread(sending.join, FLUSH_SECONDS)
        if sending.is_alive():
            self._exporter.shutdown()  # type: ignore[no-untyped-call]  # It ends its waiting for the next try.
            logger.warning("spans lost", reason=f"the collector did not take them within {FLUSH_SECONDS:g} seconds")


class _Exporter(OTLPSpanExporter):
    """Says once that spans are not taken, and why, and once that they are again, whatever the library has to say."""

    def __init__(self) -> None:
        super().__init__()
        self._failing = False
        self._words = _FirstWords()
        logging.getLogger(trace_exporter.__name__).addFilter(self._words)
        # It would say for each span that the queue is full.
        logging.getLogger("opentelemetry.sdk._shared_internal").setLevel(logging.CRITICAL)

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Send a batch; called by the thread that sends."""
        self._words.message = None
        result = super().export(spans)
        failed = result is not SpanExportResult.SUCCESS
        if failed and not self._failing:
            logger.warning("spans not delivered", reason=self._words.message)
        elif self._failing and not failed:
            logger.info("spans delivered again")
        self._failing = failed
        return result


class _FirstWords(logging.Filter):
    """Keeps what a logger says to itself, and remembers the first of it."""

    message: str | None = None

    def filter(self, record: logging.LogRecord) -> bool:
        """Drop the record."""
        self.message = self.message or record.getMessage()
        return False
