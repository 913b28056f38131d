"""Questions that arrive together, asked together.

Each question belongs to a group, and those of one group can be put as one. What arrives while as many batches as there
may be are under way waits, and goes with the next ones; who asks what somebody else asks already, and was not sent
yet, shares the answer. A question that was sent before is not shared: its answer may be older than what the one who
comes now has seen.
"""

import asyncio
import contextvars
from collections.abc import Awaitable, Callable, Hashable, Sequence
from dataclasses import dataclass, field


@dataclass(slots=True)
class _Asked[Answer]:
    """Those who wait for one answer."""

    context: contextvars.Context
    """Of the first of them: the batch belongs to the trace of whoever came first."""
    futures: list[asyncio.Future[Answer]] = field(default_factory=list)

    def settle(self, answer: Answer | None, error: Exception | None = None) -> None:
        """Answer those who still wait."""
        for future in self.futures:
            if future.done():
                continue
            if error is not None:
                future.set_exception(error)
            else:
                future.set_result(answer)  # type: ignore[arg-type]  # one of the two is there


class Batches[Group: Hashable, Question: Hashable, Answer]:
    """Puts questions. Whoever stops waiting for an answer takes nothing from the others."""

    def __init__(
        self,
        put: Callable[[Group, Sequence[Question]], Awaitable[Sequence[Answer]]],
        *,
        most_under_way: int,
        most_questions: int,
    ) -> None:
        """Make it.

        :param put: answers different questions of one group, in their order. What it raises, all who asked get.
        :param most_under_way: batches at the same time.
        :param most_questions: in one batch.
        """
        self._put = put
        self._most_under_way = most_under_way
        self._most_questions = most_questions
        self._waiting: dict[Group, dict[Question, _Asked[Answer]]] = {}
        self._under_way: set[asyncio.Task[None]] = set()
        self._is_to_send = False

    async def ask(self, group: Group, question: Question) -> Answer:
        """The answer to a question that is sent after this call."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Answer] = loop.create_future()
        questions = self._waiting.setdefault(group, {})
        if question not in questions:
            questions[question] = _Asked(contextvars.copy_context())
        questions[question].futures.append(future)
        if not self._is_to_send and len(self._under_way) < self._most_under_way:
            # What arrived in the same moment comes by here before that is called.
            self._is_to_send = True
            loop.call_soon(self._send)
        return await future

    def _send(self) -> None:
        self._is_to_send = False
        while self._waiting and len(self._under_way) < self._most_under_way:
            # The group that has waited longest. What it has too many of goes to the end of the row.
            group = next(iter(self._waiting))
            questions = self._waiting.pop(group)
            batch: dict[Question, _Asked[Answer]] = {}
            while questions and len(batch) < self._most_questions:
                question = next(iter(questions))
                asked = questions.pop(question)
                if not all(future.done() for future in asked.futures):  # Somebody still waits for it.
                    batch[question] = asked
            if questions:
                self._waiting[group] = questions
            if batch:
                context = next(iter(batch.values())).context
                task = asyncio.create_task(self._answer(group, batch), name="batch", context=context)
                self._under_way.add(task)
                task.add_done_callback(self._end)

    def _end(self, task: asyncio.Task[None]) -> None:
        self._under_way.discard(task)
        self._send()

    async def _answer(self, group: Group, batch: dict[Question, _Asked[Answer]]) -> None:
        try:
            answers = await self._put(group, list(batch))
            for asked, answer in zip(batch.values(), answers, strict=True):
                asked.settle(answer)
        except Exception as error:
            for asked in batch.values():
                asked.settle(None, error)
        finally:
            # There are some left only if this was cancelled: the process ends.
            for asked in batch.values():
                for future in asked.futures:
                    future.cancel()
