"""One task that follows the changes of all processes, for everybody in this process who waits for some."""

import asyncio
import functools
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, nullcontext
from typing import NamedTuple

import structlog

from app.database import Database, ReadSession
from app.database_errors import explain
from app.errors import SeqNotReached
from app.feed_position import Position
from app.feed_window import FeedWindow, Page, Question, RenderedChange
from app.keyring import KeyRing
from app.observability import metrics
from app.observability.metrics import WokenBy
from app.replica_follower import ReplicaFollower
from app.response_cache import ResponseCache
from app.services import changes, ledger
from app.settings import Settings
from app.traffic import Traffic

logger = structlog.get_logger(__name__)

_AT_ONCE = 200
"""Changes read and rendered without a pause: some milliseconds, in which the process does nothing else."""

_LEAST_SECONDS = 0.01
"""Between two looks: of many writes at once one tells of all, and each look costs as much as a write."""

_HEARD_WITHIN_SECONDS = 0.1
"""Of the commit, as a rule. Whoever knows of a change that was not heard of asks the primary after that time."""

_MOST_CHANGES = 10_000
_MOST_BYTES = 16 * 2**20


class _Look(NamedTuple):
    """What the primary had, and when it was asked, on the monotonic clock."""

    head: int
    at: float


class Follower:
    """Holds the newest changes and wakes those who wait for the next.

    It listens for notifications on a connection of its own, outside of the pools, and looks by itself every
    ``FEED_POLL_SECONDS``: a notification may be lost on its way, behind a pooler all of them. That connection is to the
    primary, which alone can be listened to; the changes come from the replica, if there is one that keeps up.
    """

    def __init__(
        self, database: Database, settings: Settings, traffic: Traffic, keys: KeyRing, responses: ResponseCache
    ) -> None:
        self.window = FeedWindow(_MOST_CHANGES, _MOST_BYTES)
        self.live = False
        """Connected, and told of everything up to the last look."""
        self._database = database
        self._traffic = traffic
        self._keys = keys
        self._responses = responses
        self.caught_up_at = float("-inf")
        """On the monotonic clock: it has every change that was committed before then."""
        self._poll_seconds = settings.feed_poll_seconds
        self._woken = asyncio.Event()
        self._replica = (
            ReplicaFollower(database, database.replica, position=lambda: self._position, wake=self._woken.set)
            if database.replica is not None
            else None
        )
        if database.replica is not None:
            # Each look proves anew that the replica keeps up.
            self._poll_seconds = min(self._poll_seconds, database.replica.lag_seconds / 2)
        self._head = 0
        """The last change that the primary is known to have."""
        self._reaching: dict[asyncio.Future[None], int] = {}
        self._notified = False
        self._behind_since: float | None = None
        self._away_since: float | None = None
        self._unreadable_seq: int | None = None
        self._begun = False
        self._waiters: set[asyncio.Future[None]] = set()
        self.moves = 0
        """How many times it has waked those who wait. Whoever looks for news counts before he looks."""

    @property
    def seq(self) -> int:
        """The last change that it has."""
        return self.window.seq

    @property
    def _position(self) -> Position:
        return Position(self.seq, self.window.at)

    @property
    def lag_seconds(self) -> float:
        """How long it has known of changes that it does not have; 0 if it has all that it knows of."""
        return 0.0 if self._behind_since is None else time.monotonic() - self._behind_since

    def heard_of(self, seq: int) -> None:
        """Somebody else saw this change: a follower that does not come to it is behind, whatever it thinks itself."""
        if seq > self.seq and self._behind_since is None:
            self._behind_since = time.monotonic()

    def page(self, question: Question) -> Page | None:
        """The answer from memory, or ``None`` if the database has to be asked."""
        return self.window.page(question) if self.live else None

    async def news(self, moves: int, *, seconds: float, unless: asyncio.Task[None] | None = None) -> None:
        """Wait until there may be something that was not there at so many ``moves``, but no longer than that.

        Seqs would not tell: those of a ledger that was replaced may be the greater ones.

        :param unless: ends the wait when it is done.
        """
        if self.moves != moves:
            return
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.add(waiter)
        if unless is not None:
            unless.add_done_callback(wake := functools.partial(_wake, waiter))
        try:
            async with asyncio.timeout(seconds):
                await waiter
        except TimeoutError:
            pass
        finally:
            self._waiters.discard(waiter)
            if unless is not None:
                unless.remove_done_callback(wake)

    async def reach(self, seq: int, *, seconds: float) -> None:
        """Wait until the primary is known to have this change, or for so long; and then ask it a last time.

        :raises SeqNotReached: if it has not.
        """
        if seq <= self._head:
            return
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._reaching[waiter] = seq
        soon = min(_HEARD_WITHIN_SECONDS, seconds)
        try:
            for patience in (soon, seconds - soon) if soon < seconds else (seconds,):
                heard, _ = await asyncio.wait([waiter], timeout=patience)
                # It may be waiting for a replica that gives no answer, or told of nothing behind a pooler.
                if heard or seq <= (head := await self._primary_head()):
                    return
        finally:
            del self._reaching[waiter]
        raise SeqNotReached(f"There are changes up to {head}, and no {seq} (Pricebook-Min-Seq).", retry_after_seconds=1)

    async def _primary_head(self) -> int:
        async with self._database.reading() as session:
            return (await ledger.head(session)).seq

    def _hear_of(self, head: int) -> None:
        """The primary has changes up to this one."""
        self._head = head
        for waiter, seq in self._reaching.items():
            if seq <= head:
                _wake(waiter)

    def wake_all(self) -> None:
        """Let everybody who waits look again."""
        self.moves += 1
        waiters, self._waiters = self._waiters, set()
        for waiter in waiters:
            _wake(waiter)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Follow during the block."""
        async with self._replica.running() if self._replica is not None else nullcontext():
            task = asyncio.create_task(self._follow(), name="follower")
            try:
                yield
            finally:
                task.cancel()
                await asyncio.wait([task])

    async def _follow(self) -> None:
        while True:
            started = time.monotonic()
            try:
                async with self._database.listening(
                    ledger.CHANNEL, notified=self._hear, lost=self._woken.set
                ) as session:
                    await self._serve(session)
            except changes.UnreadableChange as error:
                if error.seq != self._unreadable_seq:
                    self._unreadable_seq = error.seq
                    logger.exception("follower stopped by a change that cannot be rendered", seq=error.seq)
            except Exception as error:  # Whatever it is, it goes on.
                self._away(started, error)
            finally:
                self.live = False
            await asyncio.sleep(self._poll_seconds)

    async def _serve(self, session: ReadSession) -> None:
        if not self._begun:
            await self._start(session)
            self._begun = True
            if self._replica is not None:
                self._replica.begin()
        while True:
            self._woken.clear()
            looked_at = time.monotonic()
            await self._catch_up(session)
            self._back()
            try:
                async with asyncio.timeout(self._poll_seconds):
                    await self._woken.wait()
            except TimeoutError:
                pass
            await asyncio.sleep(looked_at + _LEAST_SECONDS - time.monotonic())

    def _hear(self) -> None:
        self._notified = True
        self._woken.set()
        if self._behind_since is None:
            self._behind_since = time.monotonic()

    async def _catch_up(self, session: ReadSession) -> None:
        cause = WokenBy.NOTIFICATION if self._notified else WokenBy.POLL
        self._notified = False
        began: _Look | None = None
        while True:
            looked_at = time.monotonic()
            replica = self._replica if self._replica is not None and self._replica.found else None
            question = Question(self.seq, _AT_ONCE if replica is None else 0)
            page, after_at, floor, key_version = await changes.read(session, question)
            self._hear_of(page.head)
            began = began or _Look(page.head, looked_at)
            await self._keys.confirm(session, key_version, looked_at)
            if after_at != self.window.at:
                logger.warning("the ledger was replaced", followed_to=self.seq, head=page.head)
                if replica is not None:
                    # Before the answers of the ledger that is gone are forgotten, lest there be new ones.
                    replica.leave("the primary has another ledger")
                await self._start(session)
            elif self.seq < floor or (page.head - self.seq > _MOST_CHANGES and not any(self._traffic.waiting.values())):
                # Forgotten, or more than there is room for, and nobody to read it along the way.
                await self._start(session)
            else:
                if replica is not None:
                    page = await replica.read(session, page, looked_at, limit=_AT_ONCE)
                if page.changes:
                    self._take(page.changes)
                    metrics.FEED_CATCH_UPS.labels(cause).inc()
                if replica is not None:
                    self.caught_up_at = max(self.caught_up_at, replica.proved_at)
            if self.seq >= page.head:
                self._behind_since = None
                self.caught_up_at = looked_at
                return
            if replica is not None and self.seq >= began.head:
                # Where one write follows the other, a replica never has the last one. What it lacks is newer than that.
                self._behind_since = began.at
                self._woken.set()
                return
            # Others get their turn between two batches; and while the replica comes to it, the primary its rest.
            await asyncio.sleep(0 if replica is None else _LEAST_SECONDS)

    def _take(self, news: Sequence[RenderedChange]) -> None:
        self.window.extend(news)
        for change in news:
            self._responses.touch(ledger.touches(change.type, change.item_id, change.book), change.seq)
        self.live = True
        self.wake_all()

    async def _start(self, session: ReadSession) -> None:
        """Go on after the newest change, at first or again."""
        self.window.start_at(await changes.newest(session))
        self._responses.start_again(self.seq)
        self.wake_all()

    def _away(self, since: float, error: Exception) -> None:
        if self._away_since is None:
            self._away_since = since
            logger.warning("follower cut off", reason=explain(error, self._database.url))

    def _back(self) -> None:
        self.live = True
        if self._away_since is not None:
            logger.info("follower back", seconds=round(time.monotonic() - self._away_since, 1))
            self._away_since = None


def _wake(waiter: asyncio.Future[None], *_: object) -> None:
    if not waiter.done():
        waiter.set_result(None)
