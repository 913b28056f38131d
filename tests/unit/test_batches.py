"""Questions that are put together are answered as if each had been put alone, whoever gives up or goes wrong."""

import asyncio
import random
from collections.abc import Sequence

import pytest

from app.batches import Batches, NotSentError

MOST_UNDER_WAY, MOST_QUESTIONS = 3, 7


class Oracle:
    """Answers questions, slowly, with the moment in which each batch was put; notes what it was asked."""

    def __init__(self, chance: random.Random) -> None:
        self.put_at: list[tuple[int, str, Sequence[int]]] = []
        self.under_way = self.most_under_way = self.moment = 0
        self._chance = chance

    async def put(self, group: str, questions: Sequence[int]) -> list[tuple[str, int, int]]:
        self.moment += 1
        moment = self.moment
        self.put_at.append((moment, group, questions))
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        try:
            for _ in range(self._chance.randrange(4)):
                await asyncio.sleep(0)
            if group == "broken":
                raise LookupError(group)
            return [(group, question, moment) for question in questions]
        finally:
            self.under_way -= 1


@pytest.mark.parametrize("seed", range(30))
async def test_each_gets_its_own_answer_and_none_that_is_older_than_the_question(seed: int) -> None:
    chance = random.Random(seed)  # noqa: S311 - not for secrets
    oracle = Oracle(chance)
    batches = Batches(oracle.put, most_under_way=MOST_UNDER_WAY, most_questions=MOST_QUESTIONS, most_seconds=60)
    answered = 0

    async def ask(group: str, question: int) -> None:
        nonlocal answered
        for _ in range(chance.randrange(6)):
            await asyncio.sleep(0)
        before = oracle.moment
        if group == "broken":
            with pytest.raises(LookupError):
                await batches.ask(group, question)
        else:
            found = await batches.ask(group, question)
            assert found[:2] == (group, question)
            assert found[2] > before
        answered += 1

    tasks = [
        asyncio.create_task(ask(chance.choice(("a", "b", "broken")), chance.randrange(20)))
        for _ in range(chance.randrange(1, 150))
    ]
    given_up = chance.sample(tasks, len(tasks) // 5)
    for task in given_up:
        await asyncio.sleep(0)
        task.cancel()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert [result for result in results if not isinstance(result, asyncio.CancelledError | None)] == []
    assert answered >= len(tasks) - len(given_up)
    assert oracle.most_under_way <= MOST_UNDER_WAY
    for _, _, questions in oracle.put_at:
        assert 1 <= len(questions) == len(set(questions)) <= MOST_QUESTIONS


async def test_what_arrives_together_is_put_together_and_what_is_the_same_once() -> None:
    oracle = Oracle(random.Random(1))  # noqa: S311
    batches = Batches(oracle.put, most_under_way=1, most_questions=100, most_seconds=60)
    await asyncio.gather(*(batches.ask("a", number % 10) for number in range(50)))
    assert oracle.put_at == [(1, "a", list(range(10)))]


async def test_nothing_is_put_for_those_who_have_gone() -> None:
    oracle = Oracle(random.Random(1))  # noqa: S311
    batches = Batches(oracle.put, most_under_way=1, most_questions=100, most_seconds=60)
    tasks = [asyncio.create_task(batches.ask("a", number)) for number in range(2)]
    later = [asyncio.create_task(batches.ask("b", number)) for number in range(3)]
    await asyncio.sleep(0)
    for gone in (*tasks, later[1]):
        gone.cancel()
    await asyncio.gather(*tasks, *later, return_exceptions=True)
    assert oracle.put_at == [(1, "b", [0, 2])]


async def test_what_waited_too_long_is_not_put() -> None:
    put: list[list[int]] = []
    go_on = asyncio.Event()

    async def slow(_: str, questions: Sequence[int]) -> Sequence[int]:
        put.append(list(questions))
        await go_on.wait()
        return questions

    batches = Batches(slow, most_under_way=1, most_questions=2, most_seconds=0.05)
    tasks = [asyncio.create_task(batches.ask("a", number)) for number in range(5)]
    await asyncio.sleep(0.1)
    late = asyncio.create_task(batches.ask("a", 5))
    await asyncio.sleep(0)
    go_on.set()
    found = await asyncio.gather(*tasks, late, return_exceptions=True)
    assert found[:2] == [0, 1], "what was sent may take its time"
    assert [type(problem) for problem in found[2:5]] == [NotSentError] * 3
    assert found[5] == 5
    assert put == [[0, 1], [5]]
