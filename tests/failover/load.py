"""Writers, readers and consumers that go on through whatever happens to the database, and note what is wrong."""

import asyncio
import itertools
import json
import random
import time
from decimal import Decimal
from typing import Any

import httpx2

from tests.support.processes import Service

_PAUSE_SECONDS = 0.1


class Load:
    """What all of them know, and the list of what must not be."""

    def __init__(self, service: Service) -> None:
        self.violations: list[str] = []
        self.written: dict[str, int] = {}
        """The seq of each acknowledged item, by its sku."""
        self.feeds: dict[str, list[dict[str, Any]]] = {}
        """What each consumer received."""
        self.refused = 0
        self._api = service.api
        self._client = httpx2.AsyncClient(timeout=60)
        self._numbers = itertools.count(1)

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def write(self) -> None:
        """Record items, and send each request again until it is answered: with its key it is done once."""
        while True:
            number = next(self._numbers)
            sku = f"SKU-{number}"
            item = {"name": f"Item {number}", "sku": sku, "price": {"amount": str(number)}}
            answer = await self._until_answered("POST", "/v1/items", json=item, headers={"Idempotency-Key": sku})
            if answer.status_code == 201:
                self.written[sku] = int(answer.headers["Pricebook-Seq"])
            else:
                self.violations.append(f"{sku}: {answer.status_code} {answer.text}")

    async def read(self) -> None:
        """Ask for what was acknowledged: it is there, or the database is not."""
        while True:
            if not self.written:
                await asyncio.sleep(_PAUSE_SECONDS)
                continue
            sku = random.choice(list(self.written))  # noqa: S311 - not a secret
            answer = await self._until_answered("GET", f"/v1/items/sku:{sku}/price")
            if answer.status_code != 200 or Decimal(answer.json()["amount"]) != int(sku.removeprefix("SKU-")):
                self.violations.append(f"{sku} was acknowledged: {answer.status_code} {answer.text}")
            await asyncio.sleep(_PAUSE_SECONDS / 10)

    async def poll(self, name: str) -> None:
        """Follow the feed by long polls."""
        feed = self.feeds.setdefault(name, [])
        while True:
            answer = await self._until_answered("GET", "/v1/changes", params={"after": len(feed), "wait": 5})
            if answer.status_code != 200:
                self.violations.append(f"{name} at {len(feed)}: {answer.status_code} {answer.text}")
                return
            for change in answer.json()["changes"]:
                self._take(name, change)

    async def stream(self, name: str) -> None:
        """Follow the feed by events, and connect again whenever the stream ends."""
        feed = self.feeds.setdefault(name, [])
        headers = {"Accept": "text/event-stream"}
        while True:
            url = f"{self._api}/v1/changes"
            try:
                async with self._client.stream("GET", url, params={"after": len(feed)}, headers=headers) as answer:
                    async for line in answer.aiter_lines():
                        if line.startswith("data:") and "seq" in (change := json.loads(line.removeprefix("data:"))):
                            self._take(name, change)
            except httpx2.TransportError:
                pass
            await asyncio.sleep(_PAUSE_SECONDS)

    def _take(self, name: str, change: dict[str, Any]) -> None:
        feed = self.feeds[name]
        if change["seq"] != len(feed) + 1:
            self.violations.append(f"{name}: {change['seq']} comes after {len(feed)}")
        feed.append(change)

    async def _until_answered(self, method: str, path: str, **request: Any) -> httpx2.Response:
        while True:
            try:
                answer = await self._client.request(method, f"{self._api}{path}", **request)
            except httpx2.TransportError as error:
                self.violations.append(f"{method} {path}: {error!r}")
            else:
                again = answer.status_code == 503 or answer.json().get("type") == "/problems/request-in-progress"
                if not again:
                    return answer
                self.refused += 1
                if int(answer.headers.get("retry-after", 0)) < 1:
                    self.violations.append(f"{method} {path}: {answer.text} without Retry-After")
            await asyncio.sleep(_PAUSE_SECONDS)


def record(client: httpx2.Client, name: str) -> None:
    """Record an item with a price, once, however often that takes."""
    deadline = time.monotonic() + 60
    document, headers = {"name": name, "price": {"amount": "1"}}, {"Idempotency-Key": f'"{name}"'}
    while (answer := client.post("/v1/items", json=document, headers=headers)).status_code != 201:
        assert answer.status_code == 503, answer.text
        assert time.monotonic() < deadline, answer.text
        time.sleep(0.1)


def position(client: httpx2.Client) -> dict[str, Any]:
    """Where a consumer is that has all changes."""
    page = client.get("/v1/changes", params={"limit": 1000}).json()
    assert page["next_after"] == page["head"]
    return {"after": page["next_after"], "after_at": page["next_after_at"]}
