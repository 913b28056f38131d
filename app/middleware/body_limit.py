"""Limits to request bodies: their size, announced or not, the time that they take, and how they are encoded."""

import asyncio
from collections.abc import Mapping

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.errors import ContentTooLarge, ProblemError, UnsupportedMediaType
from app.problems import problem_response


class BodyLimitMiddleware:
    """Answers 413 as soon as a body is known to be larger than ``max_bytes``, without reading the rest of it.

    A body that does not arrive in time is answered 408, and one that is compressed 415: nothing here decompresses.

    Starlette's own limit answers in plain text, whatever the application would say.
    """

    def __init__(self, app: ASGIApp, max_bytes: int, larger: Mapping[str, int], seconds: float) -> None:
        """Make it.

        :param larger: the limits of paths that take more.
        :param seconds: how long a body may take; on the paths that take more, each part of it.
        """
        self._app = app
        self._max_bytes = max_bytes
        self._larger = larger
        self._seconds = seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        max_bytes = self._larger.get(scope["path"], self._max_bytes)
        if (error := _refusal(scope, max_bytes)) is not None:
            await problem_response(error)(scope, receive, send)
            return
        received = 0
        ended = False
        loop = asyncio.get_running_loop()
        by_parts = scope["path"] in self._larger
        deadline = loop.time() + self._seconds

        async def receive_within_limit() -> Message:
            nonlocal received, ended
            if ended:
                return await receive()  # Waits for the client to go away, for as long as it stays.
            try:
                async with asyncio.timeout_at(loop.time() + self._seconds if by_parts else deadline):
                    message = await receive()
            except TimeoutError:
                raise HTTPException(408, headers={"Connection": "close"}) from None
            ended = not message.get("more_body", False)
            received += len(message.get("body", b""))
            if received > max_bytes:
                # FastAPI lets this kind pass while it reads a body; the problem handlers know it.
                raise HTTPException(413)
            return message

        await self._app(scope, receive_within_limit, send)


def _refusal(scope: Scope, max_bytes: int) -> ProblemError | None:
    for name, value in scope["headers"]:
        if name == b"content-length" and int(value) > max_bytes:
            return ContentTooLarge(f"The body may have at most {max_bytes} bytes.")
        if name == b"content-encoding" and value.strip().lower() not in {b"", b"identity"}:
            return UnsupportedMediaType(
                "Bodies are read as they are: send it without Content-Encoding, not compressed."
            )
    return None
