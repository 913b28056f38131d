"""Readers who know what the answer must be: current prices, quotes, and pinned answers, which never change."""

import random
import time
from collections.abc import Sequence
from decimal import ROUND_HALF_UP, Decimal
from typing import Any

import httpx2

from tests.chaos.caller import Caller, pause
from tests.chaos.fleet import Fleet
from tests.chaos.record import Record
from tests.chaos.writers import Item, KeyedWriter

_CENT = Decimal("0.01")
_MOST_QUESTIONS = 500
_MOST_LAG_SECONDS = 6
"""What an answer may lack: by default memory 3 seconds of what it was read from, and that 3 of the primary."""


class Reader:
    """Asks any server, one question after the other, about the items of some writers."""

    def __init__(self, fleet: Fleet, record: Record, seed: str, writers: Sequence[KeyedWriter]) -> None:
        self.stopping = False
        self._fleet = fleet
        self._record = record
        self._caller = Caller(fleet, record)
        self._dice = random.Random(seed)
        self._writers = writers

    async def run(self) -> None:
        """Read until it is to stop, or cancelled."""
        try:
            while not self.stopping:
                if items := self._dice.choice(self._writers).items:
                    await self._read(items)
                await pause(self._dice.uniform(0, 0.2))
        finally:
            await self._caller.close()

    async def _read(self, items: list[Item]) -> None:
        raise NotImplementedError

    async def _ask(self, method: str, path: str, **options: Any) -> httpx2.Response | None:
        """The answer, unless it is missing or a 503: then another question is as good."""
        answer = await self._caller.ask(self._fleet.any(self._dice), method, path, **options)
        if answer is None or answer.status_code == 503:
            return None
        if answer.status_code != 200:
            self._record.violation(f"{method} {path}: {answer.status_code} {answer.text[:500]}")
            return None
        return answer


class Question:
    """About current prices: which are possible is known when it is asked, and how old the answer says that it may be.

    Half of them name the last change that was acknowledged, and take nothing older; the others allow what is promised.
    """

    def __init__(self, items: Sequence[Item], dice: random.Random) -> None:
        self._exact = dice.random() < 0.5
        self._at = time.monotonic()
        self._answers = [list(item.answers) for item in items]
        self._items = items

    @property
    def headers(self) -> dict[str, str]:
        """What the request says."""
        seen = max(seq for answers in self._answers for _, seq in answers)
        return {"pricebook-min-seq": str(seen)} if self._exact else {}

    def possible(self, answer: httpx2.Response) -> list[set[Decimal]]:
        """For each item, the prices that this answer may have: the last one acknowledged, and all sent after it."""
        age = 0 if self._exact else _MOST_LAG_SECONDS + int(answer.headers.get("pricebook-stale", 0))
        possible = []
        for item, answers in zip(self._items, self._answers, strict=True):
            known = sum(at <= self._at - age for at, _ in answers)
            possible.append({Decimal(amount) for amount in item.amounts[max(known - 1, 0) :]})
        return possible


class PriceReader(Reader):
    """Every answer is a price that is possible."""

    async def _read(self, items: list[Item]) -> None:
        item = self._dice.choice(items)
        question = Question([item], self._dice)
        if answer := await self._ask("GET", f"/v1/items/{item.id}/price", headers=question.headers):
            self._record.counts["current prices read"] += 1
            [possible] = question.possible(answer)
            if Decimal(answer.json()["amount"]) not in possible:
                self._record.violation(f"{item}, asked with {question.headers}: {answer.headers} {answer.text}")


class QuoteReader(Reader):
    """Every quote is of prices that are possible, and its totals are those of its lines."""

    async def _read(self, items: list[Item]) -> None:
        chosen = self._dice.choices(items, k=3)
        quantities = [self._dice.randint(1, 9) for _ in chosen]
        document = {
            "lines": [
                {"item": item.id, "quantity": str(quantity)} for item, quantity in zip(chosen, quantities, strict=True)
            ]
        }
        question = Question(chosen, self._dice)
        answer = await self._ask("POST", "/v1/quotes", json=document, headers=question.headers)
        if answer is None:
            return
        self._record.counts["quotes"] += 1
        quote = answer.json()
        lines = quote["lines"]
        for line, item, quantity, possible in zip(lines, chosen, quantities, question.possible(answer), strict=True):
            price = Decimal(line["unit_price"])
            if price not in possible or Decimal(line["amount"]) != price * quantity:
                self._record.violation(f"{quantity} of {item}, asked with {question.headers}: {line}")
        net = sum((Decimal(line["amount"]) for line in lines), Decimal(0))
        tax = (net * 19 / 100).quantize(_CENT, ROUND_HALF_UP)
        if [Decimal(quote[name]) for name in ("net", "tax", "gross")] != [net, tax, net + tax]:
            self._record.violation(f"a quote is {net} + {tax}, and answered as {answer.text}")


class PinnedReader(Reader):
    """An answer to ``at`` and a state of knowledge is the same for ever, byte for byte."""

    def __init__(self, fleet: Fleet, record: Record, seed: str, writers: Sequence[KeyedWriter]) -> None:
        super().__init__(fleet, record, seed, writers)
        self._answers: dict[str, bytes] = {}

    async def _read(self, items: list[Item]) -> None:
        if len(self._answers) < _MOST_QUESTIONS and self._dice.random() < 0.3:
            await self._pin(self._dice.choice(items))
        elif self._answers:
            path = self._dice.choice(list(self._answers))
            if answer := await self._ask("GET", path):
                self._compare(path, answer)

    async def _pin(self, item: Item) -> None:
        current = await self._ask("GET", f"/v1/items/{item.id}/price")
        if current is None:
            return
        price = current.json()
        path = f"/v1/items/{item.id}/price?at={price['at']}"
        for path_pinned in (f"{path}&known_seq={price['known_seq']}", f"{path}&known_at={price['recorded_at']}"):
            if answer := await self._ask("GET", path_pinned):
                self._compare(path_pinned, answer)

    def _compare(self, path: str, answer: httpx2.Response) -> None:
        self._record.counts["pinned answers read"] += 1
        if self._answers.setdefault(path, answer.content) != answer.content:
            self._record.violation(f"{path} was answered {self._answers[path]!r}, and later {answer.text}")
