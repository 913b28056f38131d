"""Requests in flight are counted and bounded, and a process that stops says so in every answer."""

import asyncio

import httpx2
from fastapi import FastAPI
from starlette.types import Message

from app.main import create_app
from app.settings import Settings
from app.traffic import Traffic


def client_of(app: FastAPI) -> httpx2.AsyncClient:
    return httpx2.AsyncClient(transport=httpx2.ASGITransport(app=app), base_url="http://pricebook.test")


async def test_a_request_beyond_the_limit_is_refused_and_counted(settings: Settings) -> None:
    app = create_app(settings.model_copy(update={"max_concurrent_requests": 1}))
    traffic: Traffic = app.state.traffic
    arrived, release = asyncio.Event(), asyncio.Event()

    @app.get("/slow")
    async def slow() -> None:
        arrived.set()
        await release.wait()

    async with client_of(app) as client:
        first = asyncio.create_task(client.get("/slow"))
        await arrived.wait()
        assert (traffic.in_flight, traffic.shed) == (1, 0)
        refused = await client.get("/slow")
        assert (traffic.in_flight, traffic.shed) == (1, 1)
        release.set()
        assert (await first).status_code == 200
    assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
    assert refused.json()["type"] == "/problems/overloaded"
    assert refused.json()["request_id"] == refused.headers["x-request-id"]
    assert traffic.in_flight == 0


async def test_exports_take_a_quarter_of_the_places(settings: Settings) -> None:
    app = create_app(settings.model_copy(update={"max_concurrent_requests": 8}))
    traffic: Traffic = app.state.traffic
    release, never = asyncio.Event(), asyncio.Event()
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": "/v1/export",
        "raw_path": b"/v1/export",
        "query_string": b"",
        "root_path": "",
        "headers": [],
        "client": ("192.0.2.1", 1),
        "server": ("pricebook.test", 80),
    }

    async def receive() -> Message:
        await never.wait()
        raise AssertionError

    async def send(message: Message) -> None:
        if message["type"] == "http.response.body":
            await release.wait()

    async with client_of(app) as client, app.router.lifespan_context(app):
        slow = [asyncio.create_task(app({**scope}, receive, send)) for _ in range(2)]
        while traffic.exports < 2:  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.01)
        refused = await client.get("/v1/export")
        assert (refused.status_code, refused.json()["type"]) == (503, "/problems/overloaded")
        assert "2 exports" in refused.json()["detail"]
        assert (await client.get("/v1/items")).status_code == 200
        release.set()
        await asyncio.gather(*slow)
        assert (traffic.exports, traffic.in_flight, traffic.shed) == (0, 0, 1)
        assert (await client.get("/v1/export")).status_code == 200


async def test_a_defect_leaves_no_request_in_flight(settings: Settings) -> None:
    app = create_app(settings)

    @app.get("/defect")
    async def defect() -> None:
        raise RuntimeError

    async with client_of(app) as client:
        assert (await client.get("/defect")).status_code == 500
    assert app.state.traffic.in_flight == 0


async def test_every_answer_of_a_drain_closes_its_connection(settings: Settings) -> None:
    app = create_app(settings.model_copy(update={"max_concurrent_requests": 1}))
    traffic: Traffic = app.state.traffic

    @app.get("/defect")
    async def defect() -> None:
        raise RuntimeError

    requests = [("GET", "/problems"), ("GET", "/nowhere"), ("DELETE", "/problems"), ("GET", "/defect")]
    async with client_of(app) as client:
        before = [await client.request(method, path) for method, path in requests]
        traffic.draining = True
        after = [await client.request(method, path) for method, path in requests]
        traffic.in_flight = traffic.limit
        after.append(await client.get("/problems"))
    assert [answer.status_code for answer in after] == [200, 404, 405, 500, 503]
    assert {answer.headers.get("connection") for answer in before} == {None}
    assert {answer.headers.get("connection") for answer in after} == {"close"}
