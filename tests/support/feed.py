"""Consumers of the feed, over HTTP."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import Any

import httpx2
import uvicorn
from fastapi import FastAPI

from app.lifespan import listen

JSON = dict[str, Any]


class _Server(uvicorn.Server):
    """uvicorn beside the test, which keeps its own signals."""

    async def serve(self, sockets: Any = None) -> None:
        await self._serve(sockets)


@asynccontextmanager
async def serving(app: FastAPI) -> AsyncIterator[str]:
    """The address of an application that is started already: an in-process transport would keep a stream to its end."""
    listener = listen("127.0.0.1", 0, "PORT")
    config = uvicorn.Config(app, lifespan="off", log_config=None, access_log=False, timeout_graceful_shutdown=1)
    server = _Server(config)
    task = asyncio.create_task(server.serve([listener]))
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        await task


@asynccontextmanager
async def events(
    client: httpx2.AsyncClient, after: int, *, last_event_id: str | None = None, **parameters: object
) -> AsyncIterator[AsyncIterator[JSON]]:
    """The events of a stream, parsed as a browser does; comments as ``{"comment": ...}``."""

    async def parsed(answer: httpx2.Response) -> AsyncGenerator[JSON]:
        fields: JSON = {}
        async for line in answer.aiter_lines():
            name, _, content = line.partition(":")
            if line == "":
                if fields:
                    yield fields
                fields = {}
            elif name == "":
                fields["comment"] = content
            else:
                fields[name] = content.removeprefix(" ")

    headers = {"accept": "text/event-stream"} | ({"last-event-id": last_event_id} if last_event_id else {})
    query: JSON = {"after": after, **parameters}
    async with client.stream("GET", "/v1/changes", params=query, headers=headers) as answer:
        assert answer.status_code == 200, await answer.aread()
        assert answer.headers["content-type"].startswith("text/event-stream")
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["x-accel-buffering"] == "no"
        async with aclosing(parsed(answer)) as stream:
            assert 1000 <= int((await anext(stream))["retry"]) <= 3000
            yield stream
