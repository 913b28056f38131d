"""The follower's way to the replica: what it follows there, and the proof that the replica keeps up.

Changes are read from the replica and compared with the primary by the instant of the last one before anybody learns of
them: two ledgers that part do not come to the same instant by chance.
"""

import asyncio
import dataclasses
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import NamedTuple

from app.database import Database, ReadSession
from app.database_errors import DATABASE_ERRORS, first_line, sqlstate
from app.feed_position import Position
from app.feed_window import Page, Question
from app.replica import Replica
from app.services import changes

_AGAIN_SECONDS = 0.5
"""Between two tries to get to a replica that keeps up."""

_CANCELLED = {"40001", "57014"}
"""SQLSTATEs of statements that were in the way of what the standby replays, or ended by somebody for another reason."""

_LEAST_PATIENCE_SECONDS = 0.2
"""So long it has for an answer at the least, whatever it was that took the time before."""

_PAUSE_SECONDS, _MOST_PAUSE_SECONDS = 0.005, 0.1
"""Between two looks at a replica that lacks what the primary has: at first, and twice as long each time up to this."""


class _Awaited(NamedTuple):
    """A change that the primary had at an instant of the monotonic clock."""

    seq: int
    at: float


class ReplicaFollower:
    """Finds a replica that keeps up, for the follower to read, until it does not."""

    def __init__(
        self, database: Database, replica: Replica, *, position: Callable[[], Position], wake: Callable[[], object]
    ) -> None:
        """Make it.

        :param position: how far the follower is.
        :param wake: lets the follower look again.
        """
        self._database = database
        self._replica = replica
        self._position = position
        self._wake = wake
        self._session: ReadSession | None = None
        self._ended = asyncio.Event()
        self._begun = asyncio.Event()
        self._sought_since = float("inf")
        self._awaited: _Awaited | None = None
        self._pause_seconds = _PAUSE_SECONDS

    @property
    def proved_at(self) -> float:
        """When the primary had what it is proved to have, on the monotonic clock."""
        return self._replica.proved_at

    @property
    def found(self) -> bool:
        """Whether there is one to be read."""
        return self._session is not None

    def begin(self) -> None:
        """The follower has a position, from which the replica can be judged."""
        self._begun.set()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Look for one during the block, whenever there is none."""
        task = asyncio.create_task(self._find(), name="replica")
        try:
            yield
        finally:
            task.cancel()
            await asyncio.wait([task])

    async def read(self, primary: ReadSession, ahead: Page, looked_at: float, *, limit: int) -> Page:
        """What the replica has after the follower's position; nothing, after a pause, if it has to come to that yet.

        :param ahead: what the primary has there, read with a limit of 0.
        :param looked_at: when that was read, on the monotonic clock, before the statement was sent.
        """
        session, position = self._session, self._position()
        assert session is not None  # noqa: S101 - the follower asks whether one is found
        awaited = self._awaited = self._awaited or _Awaited(ahead.head, looked_at)
        try:
            async with asyncio.timeout(max(_LEAST_PATIENCE_SECONDS, self._lag_seconds - self._seconds_since(awaited))):
                page, after_at, *_ = await changes.read(session, Question(position.seq, limit))
        except DATABASE_ERRORS as error:
            if sqlstate(error) in _CANCELLED and self._seconds_since(awaited) <= self._lag_seconds:
                return await self._rest(ahead)
            return self._leave(ahead, f"it gives no answer: {first_line(error)}")
        taken = page.changes
        is_proved = False
        if after_at == position.at:
            reached = Position(taken[-1].seq, taken[-1].at) if taken else position
            if taken and reached.at != await self._instant(primary, ahead, reached.seq):
                return self._leave(ahead, _another_ledger(reached.seq))
            if is_proved := reached.seq >= awaited.seq:
                self._replica.prove(reached, awaited.at)
                self._awaited = None
        elif page.head >= position.seq:
            return self._leave(ahead, _another_ledger(position.seq))
        else:
            taken = []
        if page.head < awaited.seq and (lag := self._seconds_since(awaited)) > self._lag_seconds:
            return self._leave(ahead, f"it is behind by {lag:.1f} s: it has change {page.head}, and not {awaited.seq}")
        if not taken and not is_proved:
            return await self._rest(ahead)
        self._pause_seconds = _PAUSE_SECONDS
        return dataclasses.replace(ahead, changes=taken)

    def leave(self, reason: str) -> None:
        """Read it no more, and neither does anybody else, until it is found again."""
        self._session = None
        self._sought_since = time.monotonic()
        self._ended.set()
        self._replica.leave(reason)

    async def _rest(self, ahead: Page) -> Page:
        await asyncio.sleep(self._pause_seconds)
        self._pause_seconds = min(2 * self._pause_seconds, _MOST_PAUSE_SECONDS)
        self._wake()
        return ahead

    def _leave(self, ahead: Page, reason: str) -> Page:
        self.leave(reason)
        return ahead

    async def _instant(self, primary: ReadSession, ahead: Page, seq: int) -> object:
        """When the primary recorded this change."""
        if seq == ahead.next_after:
            return ahead.next_after_at
        return (await changes.read(primary, Question(seq, 0))).after_at

    @property
    def _lag_seconds(self) -> float:
        return self._replica.lag_seconds

    def _seconds_since(self, awaited: _Awaited) -> float:
        return time.monotonic() - awaited.at

    async def _find(self) -> None:
        await self._begun.wait()
        self._sought_since = time.monotonic()
        while True:
            try:
                # If it is lost, the follower's next look at it fails, and leaves it.
                async with self._database.following(lost=self._wake) as session:
                    fault = await self._fault(session)
                    if fault is None:
                        self._session, self._ended, self._awaited = session, asyncio.Event(), None
                        self._wake()
                        await self._ended.wait()
                    elif time.monotonic() - self._sought_since > self._lag_seconds:
                        self._replica.leave(fault)
            except Exception as error:  # Whatever it is, the next try comes.
                self._replica.leave(f"it gives no answer: {first_line(error)}")
            await asyncio.sleep(_AGAIN_SECONDS)

    async def _fault(self, session: ReadSession) -> str | None:
        """Why the server is not to be read, unless it has what the follower has, or comes to that soon."""
        position = self._position()
        for pause in (0, _AGAIN_SECONDS):
            await asyncio.sleep(pause)
            async with asyncio.timeout(self._lag_seconds):
                # The follower's own statement: it fails on a replica that lacks the schema of this version.
                page, after_at, *_ = await changes.read(session, Question(position.seq, 0))
            if after_at == position.at:
                return None
        if page.head < position.seq:
            return f"it is behind: it has change {page.head}, and not {position.seq}"
        return _another_ledger(position.seq)


def _another_ledger(seq: int) -> str:
    return f"it has another ledger: change {seq} is not the primary's"
