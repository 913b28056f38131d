"""Consumers of the feed: their pages, long polls and streams. None of them holds a connection while it waits."""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from functools import partial

import structlog

from app.database import Database
from app.errors import ProblemError
from app.feed_position import Position
from app.feed_window import Page, Question
from app.follower import Follower
from app.services import changes
from app.traffic import Place, Traffic, Waiter

logger = structlog.get_logger(__name__)

HEARTBEAT_SECONDS = 15.0
"""How long a stream is silent at the most, so that neither end nor anything between takes it for dead."""

_READS_AT_ONCE = 2
"""So few connections does the feed take from the pool that serves prices, however many consumers are behind."""

_STREAM_AT_ONCE = 500
_RETRY_MILLISECONDS = (1000, 3000)
"""What a client waits for before it connects again: not as long as all the others that a stop sends elsewhere."""


class Feed:
    """Answers those who wait from the follower's memory where it can, and else from the database."""

    def __init__(self, database: Database, follower: Follower, traffic: Traffic) -> None:
        self._database = database
        self._follower = follower
        self._traffic = traffic
        self._reads = asyncio.Semaphore(_READS_AT_ONCE)
        self._under_way: dict[tuple[Question, int], asyncio.Task[Page]] = {}
        traffic.at_drain(follower.wake_all)

    async def page(self, question: Question) -> Page:
        """The changes after a seq, those included that were committed before this call.

        :raises HistoryDiverged: if the ledger is not the one that was followed.
        :raises UnknownSeq: if the seq is beyond the head.
        :raises FeedTruncated: if changes after the seq were forgotten.
        """
        # Not from memory: the follower may not have heard of the newest ones yet.
        return await self._read(question)

    async def poll(
        self, question: Question, place: Place, *, seconds: float, hung_up: Callable[[], Coroutine[None, None, None]]
    ) -> Page | None:
        """The same, but wait up to so many seconds for one that there is something on, or for the drain.

        :param hung_up: returns when the client has gone, and then there is no page: not every server ends its request.
        :raises Overloaded: if too many wait; and as :meth:`page`.
        """
        deadline = time.monotonic() + seconds
        moves = self._follower.moves
        page = await self._look(question)
        gone: asyncio.Task[None] | None = None
        try:
            while not page.changes:
                left = deadline - time.monotonic()
                if left <= 0 or self._traffic.draining:
                    break
                if page.next_after >= page.head:
                    place.wait_as(Waiter.POLL)
                    gone = gone or asyncio.create_task(hung_up())
                    with place.waiting():
                        await self._follower.news(moves, seconds=left, unless=gone)
                    if gone.done():
                        return None
                moves = self._follower.moves
                page = await self._look(question.following(page))
        finally:
            if gone is not None:
                gone.cancel()
        return page

    async def stream(self, question: Question, place: Place) -> AsyncIterator[bytes]:
        """Begin a stream of server-sent events, which ends with the drain, or when it cannot go on.

        :raises Overloaded: if too many wait; and as :meth:`page`.
        """
        question = question._replace(limit=_STREAM_AT_ONCE)
        place.wait_as(Waiter.STREAM)
        moves = self._follower.moves
        return self._events(question, await self._look(question), moves, place)

    async def _events(self, question: Question, page: Page, moves: int, place: Place) -> AsyncIterator[bytes]:
        with place.waiting():
            yield b"retry: %d\n\n" % random.randint(*_RETRY_MILLISECONDS)  # noqa: S311 - spreads requests
            sent_at, told = time.monotonic(), question.after
            while not self._traffic.draining:
                if page.changes:
                    yield page.events
                    sent_at, told = time.monotonic(), page.changes[-1].seq
                elif time.monotonic() - sent_at >= HEARTBEAT_SECONDS:
                    yield _heartbeat(told, Position(page.next_after, page.next_after_at))
                    sent_at, told = time.monotonic(), page.next_after
                    # While that was sent, the drain may have begun.
                    continue
                elif page.next_after >= page.head:
                    left = sent_at + HEARTBEAT_SECONDS - time.monotonic()
                    await self._follower.news(moves, seconds=left)
                question, moves = question.following(page), self._follower.moves
                try:
                    page = await self._look(question)
                except ProblemError as problem:
                    # The client connects again, and is told by an answer of its own.
                    logger.warning("stream ends", after=question.after, problem=problem.slug)
                    return

    async def _look(self, question: Question) -> Page:
        """What there is, from memory or the database. One read serves all who wait and ask the same meanwhile."""
        if (page := self._follower.page(question)) is not None:
            return page
        # One that began before the follower's last move may not have what that told of, and it is told of once.
        key = question, self._follower.moves
        if (read := self._under_way.get(key)) is None:
            # A task of its own: who asked first may go away, and the others still want it.
            read = self._under_way[key] = asyncio.create_task(self._read(question))
            read.add_done_callback(partial(self._forget, key))
        return await asyncio.shield(read)

    def _forget(self, key: tuple[Question, int], read: asyncio.Task[Page]) -> None:
        del self._under_way[key]
        if not read.cancelled():
            # There may be nobody left to raise it to.
            read.exception()

    async def _read(self, question: Question) -> Page:
        async with self._reads, self._database.reading() as session:
            return await changes.read_page(session, question)


def _heartbeat(told: int, position: Position) -> bytes:
    """A comment; if only changes that are left out came, with where to go on, which is no event without data."""
    return b":\nid: %b\n\n" % position.event_id.encode() if position.seq > told else b":\n\n"
