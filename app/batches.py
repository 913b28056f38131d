"""Questions that arrive together, asked together.

Each question belongs to a group, and those of one group can be put as one. What arrives while as many batches as there
may be are under way waits, and goes with the next ones; who asks what somebody else asks already, and was not sent
yet, shares the answer. A question that was sent before is not shared: its answer may be older than what the one who
comes now has seen. What has waited too long to be sent is not sent.
"""

import asyncio
import contextvars
from collections.abc import Awaitable, Callable, Hashable, Sequence
from dataclasses import dataclass, field


class NotSentError(Exception):
    """The batches before took so long that the question was not sent."""


@dataclass(slots=True)
class _Asked[Answer]:
    """Those who wait for one answer."""

    since: float
    """When the first of them asked, by the clock of the loop."""

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
        most_seconds: float,
    ) -> None:
        """Make it.

        :param put: answers different questions of one group, in their order. What it raises, all who asked get.
        :param most_under_way: batches at the same time.
        :param most_questions: in one batch.
        :param most_seconds: that a question may wait before it is sent.
        """
        self._put = put
        self._most_under_way = most_under_way
        self._most_questions = most_questions
        self._most_seconds = most_seconds
        self._waiting: dict[Group, dict[Question, _Asked[Answer]]] = {}
        self._under_way: set[asyncio.Task[None]] = set()
        self._is_to_send = False

    async def ask(self, group: Group, question: Question) -> Answer:
        """The answer to a question that is sent after this call.

        :raises NotSentError: if it was not, for too long.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Answer] = loop.create_future()
        questions = self._waiting.setdefault(group, {})
        if question not in questions:
            questions[question] = _Asked(loop.time(), contextvars.copy_context())
        questions[question].futures.append(future)
        if not self._is_to_send and len(self._under_way) < self._most_under_way:
            # What arrived in the same moment comes by here before that is called.
            self._is_to_send = True
            loop.call_soon(self._send)
        return await future

    def _send(self) -> None:
        self._is_to_send = False
        earliest = asyncio.get_running_loop().time() - self._most_seconds
        while self._waiting and len(self._under_way) < self._most_under_way:
            # The group that has waited longest. What it has too many of goes to the end of the row.
            group = next(iter(self._waiting))
            questions = self._waiting.pop(group)
            batch: dict[Question, _Asked[Answer]] = {}
            while questions and len(batch) < self._most_questions:
                question = next(iter(questions))
                asked = questions.pop(question)
                if asked.since < earliest:
                    asked.settle(None, NotSentError())
                elif not all(future.done() for future in asked.futures):  # Somebody still waits for it.
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
