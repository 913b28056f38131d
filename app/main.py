"""The application: settings in, an ASGI application out."""

import contextlib
import functools
from collections.abc import AsyncIterator
from importlib.metadata import version

import structlog
from fastapi import FastAPI

from app import documentation, migrations, problems
from app.database import Database, WriteSession
from app.feed import Feed
from app.follower import Follower
from app.housekeeping import Housekeeping
from app.idempotency import Idempotency
from app.keyring import KeyRing
from app.lifespan import admin_server
from app.lookup_memory import LookupMemory
from app.middleware.answer_headers import AnswerHeadersMiddleware
from app.middleware.body_limit import BodyLimitMiddleware
from app.middleware.front import Front
from app.middleware.price_reads import PriceReadMiddleware
from app.middleware.request_context import RequestContextMiddleware
from app.middleware.response_cache import Limits, Memory, ResponseCacheMiddleware
from app.middleware.traffic import AdmissionMiddleware, ConnectionCloseMiddleware
from app.observability import http_metrics, metrics, tracing
from app.observability.ledger_watch import LedgerWatch
from app.observability.state import StateCollector
from app.openapi import DocumentedApplication, operation_id
from app.pagination import Cursors
from app.readiness import Readiness
from app.response_cache import Clocks, ResponseCache
from app.routers import items as plain_items
from app.routers import problem_types
from app.routers.operations import create_operations_app
from app.routers.v1 import books, changes, exports, imports, items, prices, quotes
from app.routers.v1 import keys as keys_router
from app.services import import_uploads
from app.services.price_reads import PriceReads
from app.services.price_writes import PriceWrites
from app.settings import Settings
from app.traffic import Traffic

logger = structlog.get_logger(__name__)


def create_app(settings: Settings, *, with_admin_port: bool = False) -> FastAPI:
    """Build the application. Its lifespan opens the admin port, if asked to, and closes the connections at the end."""
    traces = tracing.from_environment()
    database = Database(settings, traces.tracer)
    traffic = Traffic(
        limit=settings.max_concurrent_requests,
        waiters_limit=settings.max_feed_waiters,
        connections_limit=settings.max_connections,
    )
    readiness = Readiness(database, traffic)
    keys = KeyRing(database, settings)
    responses = ResponseCache(settings.response_cache_bytes)
    follower = Follower(database, settings, traffic, keys, responses)
    database.committed = functools.partial(_touch, responses)
    watch = LedgerWatch(database, settings, heard_of=follower.heard_of)
    housekeeping = Housekeeping(database, settings)

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with contextlib.AsyncExitStack() as stack:
            stack.push_async_callback(traces.close)
            stack.push_async_callback(database.close)
            stack.push_async_callback(keys.close)
            if with_admin_port:
                await stack.enter_async_context(admin_server(app.state.operations, settings))
            logger.info("started", port=settings.port, admin_port=settings.admin_port)
            if not settings.auth_required:
                logger.warning(
                    "no keys are asked for: whoever reaches the port can read and write", AUTH_REQUIRED=False
                )
            await stack.enter_async_context(database.circuit.running())
            await readiness.reason_not_ready()
            for task in (watch, follower, housekeeping):
                await stack.enter_async_context(task.running())
            yield
            # The servers said so at the signal; here for those that have no signal, such as tests.
            traffic.draining = True

    app = DocumentedApplication(
        title="Pricebook",
        summary="What does it cost: now, on a past date, from next Monday?",
        description=documentation.DESCRIPTION,
        version=version("pricebook"),
        license_info={"name": "Apache-2.0", "identifier": "Apache-2.0"},
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        telemetry=traces.for_fastapi,
        generate_unique_id_function=operation_id,
    )
    app.state.database = database
    app.state.readiness = readiness
    app.state.watch = watch
    app.state.follower = follower
    app.state.feed = Feed(database, follower, traffic)
    app.state.traffic = traffic
    app.state.price_max_age_seconds = settings.price_max_age_seconds
    app.state.min_seq_wait_seconds = settings.min_seq_wait_seconds
    app.state.clocks = clocks = Clocks()
    app.state.lookup_memory = LookupMemory(responses, follower, clocks, settings.response_cache_lag_seconds)
    app.state.import_limits = import_uploads.Limits(settings.max_import_rows, settings.import_preview_hours)
    app.state.keys = keys
    app.state.price_writes = PriceWrites(database, settings.database_pool_timeout_seconds)
    app.state.idempotency = Idempotency(database, settings.idempotency_hours, settings.database_pool_timeout_seconds)
    previous = settings.secret_key_previous
    app.state.cursors = Cursors(
        settings.secret_key.get_secret_value(), previous.get_secret_value() if previous else None
    )

    # The addresses of an item may hold slashes (skus do), so the longer ones come first.
    v1 = f"/{settings.api_version}"
    prices.router.add_to(app, prefix=v1)
    books.router.add_to(app, prefix=v1)
    quotes.router.add_to(app, prefix=v1)
    imports.router.add_to(app, prefix=v1)
    changes.router.add_to(app, prefix=v1)
    exports.router.add_to(app, prefix=v1)
    keys_router.router.add_to(app, prefix=v1)
    items.router.add_to(app, prefix=v1)
    plain_items.router.add_to(app)
    problem_types.router.add_to(app)
    documentation.install(app)
    problems.install(app)

    # The last one added is the outermost: what the limits refuse is counted and logged too.
    app.add_middleware(
        BodyLimitMiddleware,
        max_bytes=settings.max_body_bytes,
        larger={f"{v1}/imports": settings.max_import_bytes},
        seconds=settings.body_timeout_seconds,
    )
    app.add_middleware(AdmissionMiddleware, traffic=traffic)
    registry = metrics.registry()
    request_metrics = http_metrics.instrument(app, registry)
    info = {"version": app.version, "schema": migrations.head(), "server": settings.server}
    registry.register(StateCollector(info, readiness, traffic, database, watch, follower, keys, responses))
    app.state.operations = create_operations_app(readiness, registry)
    app.add_middleware(RequestContextMiddleware, traffic=traffic, hidden=settings.hidden)
    app.add_middleware(AnswerHeadersMiddleware)
    app.add_middleware(ConnectionCloseMiddleware, traffic=traffic)
    front = Front(traffic, request_metrics, settings.hidden)
    put_before = app.add_middleware if traces.on else app.put_before  # With traces, inside of the request's span.
    put_before(
        functools.partial(
            PriceReadMiddleware,
            reads=PriceReads(database, settings.database_pool_timeout_seconds),
            keys=keys,
            front=front,
            version=settings.api_version,
            most_seconds=settings.price_max_age_seconds,
        )
    )
    app.state.memory = None
    if settings.response_cache_bytes:
        memory = Memory(
            cache=responses,
            prefix=f"{v1}/items",
            limits=Limits(settings.response_cache_lag_seconds, settings.stale_if_error_seconds),
            clocks=clocks,
            follower=follower,
            circuit=database.circuit,
            keys=keys,
            front=front,
        )
        put_before(functools.partial(ResponseCacheMiddleware, memory=memory))
        if not traces.on:
            # The servers' connections ask it. What is traced goes the long way, on which its span begins.
            app.state.memory = memory
    return app


def _touch(responses: ResponseCache, session: WriteSession) -> None:
    """Forget what a write of this process has changed, so that whoever sent it reads it here."""
    if session.last_seq is None:
        return
    if session.touched:
        responses.touch(session.touched, session.last_seq)
    else:
        responses.touch_all(session.last_seq)
