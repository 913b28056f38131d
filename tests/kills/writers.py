"""Single writes: items with a first price, prices, voids, changes of items."""

import random
from dataclasses import dataclass
from typing import Any

import httpx2

from tests.kills.fleet import Fleet
from tests.kills.record import Attempt, Caller, Record, pause, slug

_REFUSED = {"busy", "overloaded"}
"""Their texts say that nothing was written."""


@dataclass
class _Item:
    id: str
    prices: list[str]
    """Those that nobody tried to void."""


class Writer:
    """Writes one after the other, to any server, and remembers what it was told of each."""

    def __init__(self, name: str, fleet: Fleet, record: Record, seed: str) -> None:
        self._name = name
        self._fleet = fleet
        self._record = record
        self._caller = Caller(record)
        self._dice = random.Random(seed)
        self._items: list[_Item] = []

    async def run(self) -> None:
        """Write until cancelled."""
        try:
            while True:
                await self._write()
                await pause(self._dice.uniform(0, 0.05))
        finally:
            await self._caller.close()

    async def _write(self) -> None:
        kind = self._dice.choice(["create", "price", "void", "change"])
        attempt = Attempt(f"{self._name}-{len(self._record.attempts)}", kind)
        if kind == "create" or not self._items:
            attempt.kind = "create"
            await self._create(attempt)
        elif kind == "price":
            await self._price(attempt, self._dice.choice(self._items))
        elif kind == "void":
            await self._void(attempt, self._dice.choice(self._items))
        else:
            await self._change(attempt, self._dice.choice(self._items))

    async def _send(self, attempt: Attempt, method: str, path: str, **options: Any) -> httpx2.Response | None:
        self._record.attempts.append(attempt)
        answer = await self._caller.ask(self._fleet.any(self._dice), method, path, **options)
        if answer is None:
            await pause(0.5)
            return None
        if answer.is_success:
            attempt.seq = int(answer.headers["pricebook-seq"])
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
        document = {"sku": attempt.token, "name": attempt.token, "price": price}
        if answer := await self._send(attempt, "POST", "/v1/items", json=document):
            item = answer.json()
            self._items.append(_Item(item["id"], [item["price"]["price_id"]]))

    async def _price(self, attempt: Attempt, item: _Item) -> None:
        document = {"amount": self._amount(), "tax_rate": "19", "reason": attempt.token}
        if answer := await self._send(attempt, "POST", f"/v1/items/{item.id}/prices", json=document):
            item.prices.append(answer.json()["id"])

    async def _void(self, attempt: Attempt, item: _Item) -> None:
        if item.prices:
            attempt.token = item.prices.pop()
            await self._send(attempt, "DELETE", f"/v1/prices/{attempt.token}")

    async def _change(self, attempt: Attempt, item: _Item) -> None:
        current = await self._caller.ask(self._fleet.any(self._dice), "GET", f"/v1/items/{item.id}")
        if current is not None and current.is_success:
            headers = {"if-match": current.headers["etag"]}
            await self._send(attempt, "PATCH", f"/v1/items/{item.id}", json={"name": attempt.token}, headers=headers)

    def _amount(self) -> str:
        return f"{self._dice.randint(1, 99_999) / 100:.2f}"
