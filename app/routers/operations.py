"""The admin port: probes, metrics and version, apart from the API so that neither can starve or expose the other."""

from importlib.metadata import version

from prometheus_client import CollectorRegistry
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from app import migrations
from app.observability import metrics
from app.problems import handle_http
from app.readiness import Readiness


def create_operations_app(readiness: Readiness, registry: CollectorRegistry) -> Starlette:
    """The application of the admin port."""

    async def livez(_: Request) -> Response:
        """The event loop answers. Never looks at a dependency: a restart would not mend the database."""
        return JSONResponse({"status": "alive"})

    async def readyz(_: Request) -> Response:
        """Ready once the database was reached with a schema new enough, and until the stop begins."""
        if (reason := await readiness.reason_not_ready()) is not None:
            return JSONResponse({"status": "not ready", "reason": reason}, status_code=503)
        return JSONResponse({"status": "ready"})

    async def show_version(_: Request) -> Response:
        return JSONResponse({"version": version("pricebook"), "schema": migrations.head()})

    def show_metrics(request: Request) -> Response:
        """Not a coroutine, so Starlette runs it in a thread: writing it all out takes longer than many a request."""
        return metrics.exposition(request, registry)

    return Starlette(
        routes=[
            Route("/livez", livez),
            Route("/readyz", readyz),
            Route("/version", show_version),
            Route("/metrics", show_metrics),
        ],
        exception_handlers={HTTPException: handle_http},
    )
