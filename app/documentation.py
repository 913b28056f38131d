"""Interactive documentation that needs no internet access: Swagger UI and ReDoc from an installed package."""

import base64
import hashlib
import re

from fastapi import FastAPI, Request, Response
from fastapi.openapi.docs import get_redoc_html, get_swagger_ui_html
from fastapi.responses import HTMLResponse
from starlette.staticfiles import StaticFiles

_ASSETS = "/docs-assets"

DESCRIPTION = """
One service answers what an item costs, with tax, at any instant: now, on a past date, or as scheduled.

* **Money** travels as decimal strings (`"19.99"`); requests may also use JSON numbers, which are read digit for digit.
  The plain form under `/items/` uses JSON numbers throughout.
* **Time** is RFC 3339 with an offset, answered in UTC. A bare date is the start of that day in the book's time zone.
  Intervals are half-open: a price holds from `valid_from` until just before `valid_to`.
* **Every write** answers `Pricebook-Seq`, the number of the change in the one order of all changes.
* **Every error** is a problem document (RFC 9457); its `type` leads to a description.
"""


def install(app: FastAPI) -> None:
    """Serve ``/docs`` and ``/redoc``."""
    app.mount(_ASSETS, StaticFiles(packages=[("fastapi_offline", "static")]), name="docs-assets")

    @app.get("/docs", include_in_schema=False)
    async def swagger_ui(request: Request) -> Response:
        root = request.scope.get("root_path", "")
        return _with_policy(
            get_swagger_ui_html(
                openapi_url=f"{root}{app.openapi_url}",
                title=f"{app.title} - Swagger UI",
                swagger_js_url=f"{root}{_ASSETS}/swagger-ui-bundle.js",
                swagger_css_url=f"{root}{_ASSETS}/swagger-ui.css",
                swagger_favicon_url=f"{root}{_ASSETS}/favicon.png",
                oauth2_redirect_url=None,
            )
        )

    @app.get("/redoc", include_in_schema=False)
    async def redoc(request: Request) -> Response:
        root = request.scope.get("root_path", "")
        return _with_policy(
            get_redoc_html(
                openapi_url=f"{root}{app.openapi_url}",
                title=f"{app.title} - ReDoc",
                redoc_js_url=f"{root}{_ASSETS}/redoc.standalone.js",
                redoc_favicon_url=f"{root}{_ASSETS}/favicon.png",
                with_google_fonts=False,
            )
        )


def _with_policy(page: HTMLResponse) -> HTMLResponse:
    """Let the page load what it needs from here: its own inline scripts by their digests, and no others."""
    scripts = re.findall(rb"<script>(.*?)</script>", bytes(page.body), re.DOTALL)
    digests = " ".join(f"'sha256-{base64.b64encode(hashlib.sha256(script).digest()).decode()}'" for script in scripts)
    page.headers["Content-Security-Policy"] = (
        f"default-src 'none'; script-src 'self' {digests}; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
        "font-src 'self' data:; connect-src 'self'; worker-src blob:; base-uri 'none'; frame-ancestors 'none'"
    )
    return page
