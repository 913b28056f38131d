"""Whose turn it is to get a connection of a pool: that of whoever has waited longest."""

import asyncio
from collections import deque
from typing import Any

from sqlalchemy.util import await_only
from sqlalchemy.util.queue import AsyncAdaptedQueue, Empty


class InTurn(AsyncAdaptedQueue[Any]):
    """A pool's free connections, each of which is handed to the one who has waited longest.

    SQLAlchemy's queue only wakes him. Whoever comes before he looks takes the connection, and he waits again, behind
    all others: among 32 clients some waited for seconds, until they were refused, and most not at all.
    """

    def __init__(self, maxsize: int = 0, use_lifo: bool = False) -> None:
        super().__init__(maxsize, use_lifo)
        self._waiting: deque[asyncio.Future[Any]] = deque()

    def put_nowait(self, item: Any) -> None:
        """Hand a connection on, or keep it."""
        while self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.done():
                waiter.set_result(item)
                return
        super().put_nowait(item)

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        """A connection: one that is free, or the next that is.

        :raises Empty: if there is none in time.
        """
        if not block or not self.empty():
            return self.get_nowait()
        try:
            return await_only(self._next(seconds=timeout))
        except TimeoutError:
            raise Empty from None

    async def _next(self, *, seconds: float | None) -> Any:
        waiter: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiting.append(waiter)
        try:
            async with asyncio.timeout(seconds):
                return await waiter
        except BaseException:
            if waiter in self._waiting:
                self._waiting.remove(waiter)
            elif not waiter.cancelled():
                # It was handed over in the moment in which the wait ended.
                self.put_nowait(waiter.result())
            raise
