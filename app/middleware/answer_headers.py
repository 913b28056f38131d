"""Headers that every answer has, for browsers that come upon it, and redirects that stay with the client's scheme."""

from urllib.parse import urlsplit

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_ALWAYS = [(b"x-content-type-options", b"nosniff"), (b"referrer-policy", b"no-referrer")]
_POLICY = (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'")

SECURITY_HEADERS = [*_ALWAYS, _POLICY]
"""For answers that do not come from the application."""


class AnswerHeadersMiddleware:
    """Adds security headers, and makes redirects relative.

    A page that needs more than nothing sends a Content-Security-Policy of its own. The framework's redirect names the
    scheme that reached this process, which behind an ingress that ends TLS is not the client's.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = [*message["headers"], *_ALWAYS]
                if not any(name == _POLICY[0] for name, _ in headers):
                    headers.append(_POLICY)
                message["headers"] = headers
                if message["status"] == 307:
                    _make_relative(MutableHeaders(scope=message))
            await send(message)

        await self._app(scope, receive, send_with_headers)


def _make_relative(headers: MutableHeaders) -> None:
    target = urlsplit(headers["location"])
    # Two slashes at the beginning would name another host.
    path = "/" + target.path.lstrip("/")
    headers["location"] = f"{path}?{target.query}" if target.query else path
