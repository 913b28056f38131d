"""What the database costs: each wait for a connection and each SQL statement, timed and traced."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from opentelemetry import trace
from opentelemetry.trace import SpanKind, StatusCode, Tracer
from sqlalchemy import Engine, event
from sqlalchemy.pool import AsyncAdaptedQueuePool, PoolProxiedConnection

from app.connection_queue import InTurn
from app.observability import metrics


class TimedPool(AsyncAdaptedQueuePool):
    """A pool whose connections are given in turn, and which times how long they are waited for.

    Its logging name is its name in the metrics.
    """

    _queue_class = InTurn

    def connect(self) -> PoolProxiedConnection:
        """Get a connection."""
        started = time.perf_counter()
        try:
            return super().connect()
        finally:
            metrics.POOL_WAIT.labels(self.logging_name).observe(time.perf_counter() - started)


class Statements:
    """Times the statements of one engine, and traces those that belong to a request.

    OpenTelemetry's instrumentation of SQLAlchemy knows no SQLAlchemy 2.1, and puts the texts of errors, which quote
    values, into its spans.
    """

    def __init__(self, engine: Engine, pool: str, tracer: Tracer) -> None:
        self.answered_at = float("-inf")
        self._seconds = metrics.STATEMENT.labels(pool)
        self._tracer = tracer
        self._attributes = {
            "db.system.name": "postgresql",
            "db.namespace": engine.url.database or "",
            "db.client.connection.pool.name": pool,
        }
        event.listen(engine, "do_execute", self._execute)
        event.listen(engine, "do_executemany", self._execute_many)

    def _execute(self, cursor: Any, statement: str, parameters: Any, _: object) -> bool:
        with self._observed(statement):
            cursor.execute(statement, parameters)
        return True  # It is done; the dialect need not do it.

    def _execute_many(self, cursor: Any, statement: str, parameters: Any, _: object) -> bool:
        with self._observed(statement):
            cursor.executemany(statement, parameters)
        return True

    @contextmanager
    def _observed(self, statement: str) -> Iterator[None]:
        span = None
        if trace.get_current_span().is_recording():
            operation = statement.split(None, 1)[0].upper()
            span = self._tracer.start_span(
                operation,
                kind=SpanKind.CLIENT,
                attributes={**self._attributes, "db.operation.name": operation, "db.query.text": statement},
            )
        started = time.perf_counter()
        try:
            yield
            self.answered_at = time.monotonic()
        except BaseException as error:
            if span is not None:
                # The code only: the message may quote what a caller sent.
                span.set_attribute("error.type", getattr(error, "sqlstate", None) or type(error).__name__)
                span.set_status(StatusCode.ERROR)
            raise
        finally:
            self._seconds.observe(time.perf_counter() - started)
            if span is not None:
                span.end()
