"""A limit to the size of request bodies, announced or not."""

from collections.abc import Mapping

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.errors import ContentTooLarge
from app.problems import problem_response


class BodyLimitMiddleware:
    """Answers 413 as soon as a body is known to be larger than ``max_bytes``, without reading the rest of it.

    Starlette's own limit answers in plain text, whatever the application would say.
    """

    def __init__(self, app: ASGIApp, max_bytes: int, larger: Mapping[str, int]) -> None:
        """Make it.

        :param larger: the limits of paths that take more.
        """
        self._app = app
        self._max_bytes = max_bytes
        self._larger = larger

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        max_bytes = self._larger.get(scope["path"], self._max_bytes)
        for name, value in scope["headers"]:
            if name == b"content-length" and int(value) > max_bytes:
                error = ContentTooLarge(f"The body may have at most {max_bytes} bytes.")
                await problem_response(error)(scope, receive, send)
                return
        received = 0

        async def receive_within_limit() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > max_bytes:
                # FastAPI lets this kind pass while it reads a body; the problem handlers know it.
                raise HTTPException(413)
            return message

        await self._app(scope, receive_within_limit, send)
