"""Whether reads go to the replica: for a moment after each proof that it keeps up with the primary.

The replica is what ``DATABASE_READ_URL`` leads to, a server that PostgreSQL streams the primary's ledger to, or several
of them behind one address. The follower proves again and again that the server on its own connection has what the
primary had a moment ago. Nothing else is trusted: a replica that is away, silent, behind or of another ledger gives no
proof, and neither does one whose primary cannot be asked. The other connections may lead to other servers, so each
is asked now and then for a change that was proved.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any
from weakref import WeakSet

import asyncpg
import structlog
from sqlalchemy import text
from sqlalchemy.engine import URL
from sqlalchemy.ext.asyncio import AsyncSession

from app import primary
from app.database_address import display_url
from app.feed_position import Position

logger = structlog.get_logger(__name__)

_HAS = text("SELECT seq, (SELECT at FROM changes WHERE changes.seq = :seq) AS at FROM ledger")
_ASKED_AT = "pricebook.asked_at"


class NotOnReplicaError(Exception):
    """The replica could not answer, or does not know what was asked about: the primary has to be asked."""


class Replica:
    """The connections of one process to the replica, and what was last proved of it."""

    def __init__(self, url: URL, *, lag_seconds: float, silence_seconds: float) -> None:
        """Make one of which nothing is proved yet.

        :param lag_seconds: how far it may be behind.
        :param silence_seconds: how long a connection may be without a sign of life before it is asked for one, and so
            long again before it is given up.
        """
        self.url = url
        self.lag_seconds = lag_seconds
        self.proved_at = float("-inf")
        """On the monotonic clock: it has every change that was committed before then."""
        self._silence_seconds = silence_seconds
        self._position = self._milestone = Position(0, None)
        self._milestone_at = float("-inf")
        self._connections: WeakSet[asyncpg.Connection] = WeakSet()
        self._asking: set[asyncio.Timeout] = set()
        self._said_in_use: bool | None = None

    @property
    def in_use(self) -> bool:
        """Whether reads go there."""
        return time.monotonic() - self.proved_at <= self.lag_seconds

    def may_have(self, min_seq: int | None) -> bool:
        """Whether an answer with this change, or with any, is to be looked for there."""
        return self.in_use and (min_seq is None or min_seq <= self._position.seq)

    def prove(self, position: Position, at: float) -> None:
        """It has this change of the primary's ledger, and with it all that were committed before ``at``."""
        self._position, self.proved_at = position, at
        if at - self._milestone_at > self.lag_seconds / 2:
            self._milestone, self._milestone_at = position, at
        if not self._said_in_use:
            self._said_in_use = True
            logger.info("reads go to the replica", replica=display_url(self.url), seq=position.seq)

    def leave(self, reason: str) -> None:
        """Send reads to the primary, those too that wait for the replica, until it is proved to keep up again."""
        self.proved_at = self._milestone_at = float("-inf")
        self.close()
        asking, self._asking = self._asking, set()
        for limit in asking:
            limit.reschedule(asyncio.get_running_loop().time())
        if self._said_in_use is not False:
            self._said_in_use = False
            logger.warning("reads go to the primary", replica=display_url(self.url), reason=reason)

    def close(self) -> None:
        """End every connection, those too that were given up while they were made."""
        for connection in list(self._connections):
            if not connection.is_closed():
                connection.terminate()

    @asynccontextmanager
    async def asking(self) -> AsyncIterator[None]:
        """Ask the replica during the block, which ends when it is left, whatever it waits for.

        :raises TimeoutError: if it is left.
        """
        async with asyncio.timeout(None) as limit:
            self._asking.add(limit)
            try:
                yield
            finally:
                self._asking.discard(limit)

    async def connect(self, **options: Any) -> asyncpg.Connection:
        """Open a connection for a pool; see :func:`app.primary.connect`."""
        connection = await primary.connect(**options)
        primary.keep_alive(connection, idle_seconds=self._silence_seconds, probe_seconds=self._silence_seconds)
        self._connections.add(connection)
        return connection

    async def is_fit(self, session: AsyncSession, min_seq: int | None) -> bool:
        """Whether the server that the session leads to keeps up, too, and has the change ``min_seq``.

        It is asked if it was not for a while. With ``min_seq`` it always is, and then the whole session sees one
        snapshot: behind a pooler, its next statement may go to another server.
        """
        connection = await session.connection(
            execution_options={} if min_seq is None else {"isolation_level": "REPEATABLE READ"}
        )
        now, milestone = time.monotonic(), self._milestone
        if min_seq is None and now - connection.info.get(_ASKED_AT, float("-inf")) <= self.lag_seconds / 2:
            return True
        seq, at = (await connection.execute(_HAS, {"seq": milestone.seq})).one()
        if not _is_same(at, milestone.at):
            # The next connection may lead to another server.
            await connection.invalidate()
            return False
        connection.info[_ASKED_AT] = now
        return min_seq is None or seq >= min_seq


def _is_same(at: datetime | None, proved: datetime | None) -> bool:
    return at is not None and at == proved
