"""Single writes: items with a first price, prices, voids, changes of items."""

import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import httpx2

from tests.chaos.caller import Caller, pause, slug
from tests.chaos.fleet import Fleet, Server
from tests.chaos.record import Attempt, Record

_REFUSED = {"busy", "overloaded"}
"""Their texts say that nothing was written."""


@dataclass
class Item:
    """An item that a writer made."""

    id: str
    prices: list[str] = field(default_factory=list)
    """Those that nobody tried to void."""
    amounts: list[str] = field(default_factory=list)
    """All that were sent, in this order, before they were sent."""
    answers: list[tuple[float, int]] = field(default_factory=list)
    """For each that was answered: when, on the monotonic clock, and the seq."""

    def took(self, answer: httpx2.Response) -> None:
        """The last amount was answered."""
        self.answers.append((time.monotonic(), int(answer.headers["pricebook-seq"])))


class Writer:
    """Writes one after the other, to any server, and remembers what it was told of each."""

    kinds: tuple[str, ...] = ("create", "price", "void", "change")

    def __init__(self, name: str, fleet: Fleet, record: Record, seed: str) -> None:
        self.items: list[Item] = []
        self.stopping = False
        self._name = name
        self._fleet = fleet
        self._record = record
        self._caller = Caller(fleet, record)
        self._dice = random.Random(seed)
        self._writes = 0
        self._seen = 0
        """The last seq that was answered."""

    async def run(self) -> None:
        """Write until it is to stop, or cancelled."""
        try:
            while not self.stopping:
                await self._write()
                await pause(self._dice.uniform(0, 0.05))
        finally:
            await self._caller.close()

    async def _write(self) -> None:
        self._writes += 1
        attempt = Attempt(f"{self._name}-{self._writes}", self._dice.choice(self.kinds))
        if attempt.kind == "create" or not self.items:
            attempt.kind = "create"
            await self._create(attempt)
        elif attempt.kind == "price":
            await self._price(attempt, self._dice.choice(self.items))
        elif attempt.kind == "void":
            await self._void(attempt, self._dice.choice(self.items))
        else:
            await self._change(attempt, self._dice.choice(self.items))

    async def _send(self, attempt: Attempt, method: str, path: str, **options: Any) -> httpx2.Response | None:
        self._record.attempts.append(attempt)
        answer = await self._caller.ask(self._fleet.any(self._dice), method, path, **options)
        if answer is None:
            await pause(0.5)
            return None
        if answer.is_success:
            attempt.seq = self._seen = int(answer.headers["pricebook-seq"])
            return answer
        attempt.refused = answer.status_code < 500 or slug(answer) in _REFUSED
        if answer.status_code == 412:
            # A change whose server was killed may be committed a moment after the item was read again.
            self._record.trouble(f"{method} {path}: 412")
        elif answer.status_code < 500:
            self._record.violation(f"{method} {path}: {answer.status_code} {answer.text[:500]}")
        await pause(0.5)
        return None

    async def _create(self, attempt: Attempt) -> None:
        price = {"amount": self._amount(), "tax_rate": "19", "reason": attempt.token}
        # Without a sku only the key keeps a second item from being made.
        document = {"name": attempt.token, "price": price} | ({"sku": attempt.token} if "void" in self.kinds else {})
        if answer := await self._send(attempt, "POST", "/v1/items", json=document):
            created = answer.json()
            item = Item(created["id"], [created["price"]["price_id"]], [price["amount"]])
            item.took(answer)
            self.items.append(item)

    async def _price(self, attempt: Attempt, item: Item) -> None:
        document = {"amount": self._amount(), "tax_rate": "19", "reason": attempt.token}
        item.amounts.append(document["amount"])
        if answer := await self._send(attempt, "POST", f"/v1/items/{item.id}/prices", json=document):
            item.prices.append(answer.json()["id"])
            item.took(answer)

    async def _void(self, attempt: Attempt, item: Item) -> None:
        if item.prices:
            attempt.token = item.prices.pop()
            await self._send(attempt, "DELETE", f"/v1/prices/{attempt.token}")

    async def _change(self, attempt: Attempt, item: Item) -> None:
        seen = {"pricebook-min-seq": str(self._seen)}
        current = await self._caller.ask(self._fleet.any(self._dice), "GET", f"/v1/items/{item.id}", headers=seen)
        if current is not None and current.is_success:
            headers = {"if-match": current.headers["etag"]}
            await self._send(attempt, "PATCH", f"/v1/items/{item.id}", json={"name": attempt.token}, headers=headers)

    def _amount(self) -> str:
        return f"{self._dice.randint(1, 99_999) / 100:.2f}"


class KeyedWriter(Writer):
    """Sends each request again, with its ``Idempotency-Key`` and to any server, until the answer is final.

    Nobody else prices its items, and it voids nothing, so that readers know what the current prices are.
    """

    kinds = ("create", "price", "price")

    async def _send(self, attempt: Attempt, method: str, path: str, **options: Any) -> httpx2.Response | None:
        return await insist(self._caller, attempt, lambda: self._fleet.any(self._dice), path, **options)


async def insist(
    caller: Caller, attempt: Attempt, server: Callable[[], Server], path: str, **options: Any
) -> httpx2.Response | None:
    """Send a POST again until its answer is final, each time to a server that is asked for anew."""
    attempt.insisted = True
    caller.record.attempts.append(attempt)
    headers = {"idempotency-key": f'"{attempt.token}"'}
    while True:
        answer = await caller.ask(server(), "POST", path, headers=headers, **options)
        if answer is not None and answer.status_code != 503 and slug(answer) != "request-in-progress":
            break
        caller.record.counts["requests sent again with their key"] += 1
        await pause()
    if not answer.is_success:
        caller.record.violation(f"POST {path}: {answer.status_code} {answer.text[:500]}")
        return None
    caller.record.counts["answers replayed for their key"] += answer.headers.get("idempotency-replayed") == "true"
    attempt.seq = int(answer.headers["pricebook-seq"])
    return answer
