"""The upper bound: an ASGI application that answers every request with the same JSON, without any framework."""

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

_BODY = b'{"id":1,"name":"Item 1","price":19.99}'
_START = {
    "type": "http.response.start",
    "status": 200,
    "headers": [(b"content-type", b"application/json"), (b"content-length", str(len(_BODY)).encode())],
}


async def app(
    scope: MutableMapping[str, Any],
    _receive: Callable[[], Awaitable[MutableMapping[str, Any]]],
    send: Callable[[MutableMapping[str, Any]], Awaitable[None]],
) -> None:
    """Answer the request. Start and stop of the server ask for nothing."""
    if scope["type"] == "http":
        await send(_START)
        await send({"type": "http.response.body", "body": _BODY})
