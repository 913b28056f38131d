"""How callers ask, and what of an answer is wrong whatever was asked."""

import asyncio
import json
from typing import Any

import httpx2

from tests.chaos.fleet import Fleet, Server
from tests.chaos.record import Record


class Caller:
    """Asks a server, and sorts the answers: a missing one and a 503 are trouble, any other 5xx is a violation."""

    def __init__(self, fleet: Fleet, record: Record) -> None:
        self.record = record
        self._client = httpx2.AsyncClient(timeout=httpx2.Timeout(90), headers=fleet.headers)

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def ask(self, server: Server, method: str, path: str, **options: Any) -> httpx2.Response | None:
        """The answer, or ``None`` if there is none. A 503 is an answer, too."""
        try:
            answer = await self._client.request(method, f"{server.address}{path}", **options)
        except httpx2.TimeoutException as error:
            self.record.violation(f"{method} {path} is not answered by {server.name} ({type(error).__name__})")
            return None
        except httpx2.TransportError as error:
            self.lost(f"{server.name}: {method} {path}: {type(error).__name__}")
            return None
        self.check(server, answer, f"{method} {path}")
        return answer

    def lost(self, what: str) -> None:
        """A connection ended, or there was none."""
        self.record.counts["connections lost or refused"] += 1
        self.record.trouble(what)

    def check(self, server: Server, answer: httpx2.Response, what: str) -> None:
        """Count an answer that is not a success."""
        if answer.status_code < 500:
            return
        if answer.status_code != 503 or answer.headers["content-type"] != "application/problem+json":
            self.record.violation(f"{server.name}: {what}: {answer.status_code} {answer.text[:500]}")
            return
        if int(answer.headers.get("retry-after", 0)) < 1:
            self.record.violation(f"{server.name}: {what}: 503 without Retry-After: {answer.text[:500]}")
        self.record.counts["answers 503"] += 1
        self.record.trouble(f"{server.name}: {what}: 503 {answer.text[:300]}")


def slug(answer: httpx2.Response) -> str:
    """The kind of a problem, or an empty string."""
    if not answer.headers.get("content-type", "").startswith("application/problem+json"):
        return ""
    return str(json.loads(answer.text)["type"]).rpartition("/")[2]


async def pause(seconds: float = 0.1) -> None:
    """Before the next attempt."""
    await asyncio.sleep(seconds)
