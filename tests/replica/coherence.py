"""Writers and readers that go on through whatever happens to the standby, and what each answer may have been."""

import asyncio
import random
import time
from typing import Any, NamedTuple

import asyncpg

from tests.api.test_response_cache import Replica

ITEMS = ("A", "B", "C")
_LOOKUP = {"lines": [{"item": f"sku:{item}"} for item in ITEMS]}


class Write(NamedTuple):
    """A price that was acknowledged, by the monotonic clock."""

    item: str
    seq: int
    at: float


class Answer(NamedTuple):
    """A price that was answered to a request sent at an instant of the monotonic clock."""

    item: str
    amount: str
    known_seq: int
    min_seq: int
    sent_at: float
    path: str


class Traffic:
    """What was written and answered by several services, from a seed."""

    def __init__(self, clients: list[Replica], seed: int) -> None:
        self.writes: list[Write] = []
        self.answers: list[Answer] = []
        self.refused: list[str] = []
        self._clients = clients
        self._random = random.Random(seed)  # noqa: S311 - not a secret

    async def write(self) -> None:
        """Record prices, now one after the other and now with pauses."""
        while True:
            item = self._random.choice(ITEMS)
            seq = await self._random.choice(self._clients).record(
                str(self._random.randint(1, 10_000)), f"/v1/items/sku:{item}"
            )
            self.writes.append(Write(item, seq, time.monotonic()))
            await asyncio.sleep(self._random.choice((0, 0.01, 0.2)))

    async def read(self) -> None:
        """Ask for prices in several ways, with and without what was seen before."""
        while True:
            client, item = self._random.choice(self._clients), self._random.choice(ITEMS)
            min_seq = self._random.choice((0, *(write.seq for write in self.writes[-2:])))
            headers = {"Pricebook-Min-Seq": str(min_seq)} if min_seq else {}
            path = self._random.choice((f"/v1/items/sku:{item}/price", "/v1/prices:lookup"))
            sent_at = time.monotonic()
            if path == "/v1/prices:lookup":
                answer = await client.post(path, json=_LOOKUP, headers=headers)
            else:
                answer = await client.get(path, headers=headers)
            if answer.status_code != 200:
                self.refused.append(answer.text)
                continue
            document: dict[str, Any] = answer.json()
            for price in document.get("prices", [document]):
                sku, known_seq = price["sku"], price["known_seq"]
                self.answers.append(Answer(sku, price["amount"], known_seq, min_seq, sent_at, path))
            await asyncio.sleep(self._random.choice((0, 0, 0.01)))

    async def faults(self, primary: asyncpg.Connection, lag_seconds: float) -> list[str]:
        """What no answer may be: not the ledger's at its seq, older than asked for, or than the lag allows."""
        rows = await primary.fetch(
            "SELECT items.sku, price_rows.seq, price_rows.amount::text FROM price_rows"
            " JOIN items ON items.id = price_rows.item_id ORDER BY price_rows.seq"
        )
        faults = [f"refused: {text}" for text in self.refused]
        for answer in self.answers:
            known = [row["amount"] for row in rows if row["sku"] == answer.item and row["seq"] <= answer.known_seq]
            if not known or float(known[-1]) != float(answer.amount):
                faults.append(f"not the ledger's: {answer}, but {known[-1:]}")
            if answer.known_seq < answer.min_seq:
                faults.append(f"older than asked for: {answer}")
            old = [write for write in self.writes if write.item == answer.item and write.seq > answer.known_seq]
            if any(write.at < answer.sent_at - lag_seconds for write in old):
                faults.append(f"older than the lag allows: {answer}, but {old[0]}")
        return faults
