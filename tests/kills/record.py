"""What the callers were told, for the audit; and how they ask."""

import asyncio
import json
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import httpx2

from tests.kills.fleet import Server

GRACE_SECONDS = 5.0
"""After everything is ready again, for answers that were on their way, and for connections found dead at first use."""


@dataclass
class Attempt:
    """A single write. ``token`` is in its document, so that it can be found whatever was answered."""

    token: str
    kind: str
    seq: int | None = None
    """As answered; ``None``: no answer, or one that leaves it open."""
    refused: bool = False
    """The answer said that nothing was written."""


@dataclass
class Applied:
    """An import that was answered as applied."""

    id: str
    first_seq: int | None
    last_seq: int | None
    records: int


@dataclass
class Record:
    """Shared by all callers."""

    attempts: list[Attempt] = field(default_factory=list)
    applied: list[Applied] = field(default_factory=list)
    not_applied: set[str] = field(default_factory=set)
    """Imports that were answered as closed without effect."""
    counts: Counter[str] = field(default_factory=Counter)
    violations: list[str] = field(default_factory=list)
    _trouble: list[tuple[float, str]] = field(default_factory=list)
    _windows: list[list[float]] = field(default_factory=list)

    def violation(self, what: str) -> None:
        """Something that must not be."""
        self.violations.append(what)
        print(f"VIOLATION: {what}", flush=True)

    def trouble(self, what: str) -> None:
        """Something that may be around a kill, and only then."""
        self._trouble.append((time.monotonic(), what))

    def kill_begins(self) -> None:
        """From now on trouble is expected."""
        self._windows.append([time.monotonic(), float("inf")])

    def kill_is_over(self) -> None:
        """Everything is ready again."""
        self._windows[-1][1] = time.monotonic() + GRACE_SECONDS

    def judge_trouble(self) -> None:
        """Name the trouble that no kill explains."""
        for at, what in self._trouble:
            if not any(begin <= at <= end for begin, end in self._windows):
                self.violation(f"in calm times: {what}")
        self._trouble.clear()


class Caller:
    """Asks a server, and sorts the answers: a missing one and a 503 are trouble, any other 5xx is a violation."""

    def __init__(self, record: Record) -> None:
        self.record = record
        self._client = httpx2.AsyncClient(timeout=httpx2.Timeout(90))

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
