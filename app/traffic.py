"""The requests that this process serves, and how it comes to take no more."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum

import structlog

from app.errors import Overloaded

logger = structlog.get_logger(__name__)


class Waiter(StrEnum):
    """How a request waits for changes."""

    POLL = "poll"
    STREAM = "stream"


@dataclass(slots=True)
class Traffic:
    """State of one process: the middleware writes it, probes and metrics read it."""

    limit: int
    """Requests in flight beyond which more are refused."""

    waiters_limit: int
    """Requests that wait for changes beyond which more are refused."""

    connections_limit: int = sys.maxsize
    """Connections beyond which more are refused."""

    in_flight: int = 0
    """Without those that wait for changes."""
    shed: int = 0
    """Requests refused so far, for any of the limits."""
    exports: int = 0
    """Exports among those in flight."""
    waiting: dict[Waiter, int] = field(default_factory=lambda: dict.fromkeys(Waiter, 0))

    _draining: bool = False
    _at_drain: list[Callable[[], None]] = field(default_factory=list)

    @property
    def exports_limit(self) -> int:
        """Exports beyond which more are refused: each lasts as long as its client likes, and others need places too."""
        return max(1, self.limit // 4)

    @property
    def draining(self) -> bool:
        """The stop has begun: not ready, and every answer closes its connection."""
        return self._draining

    @draining.setter
    def draining(self, value: bool) -> None:
        self._draining = value
        if value:
            for act in self._at_drain:
                act()

    def at_drain(self, act: Callable[[], None]) -> None:
        """Call this when the stop begins."""
        self._at_drain.append(act)


class Place:
    """One request's place among those that the process serves: in flight first, and waiting for changes maybe later.

    A request that waits stays among those that wait until its end. Else the change that a thousand of them wait for
    would put all of them in flight at once, and the limit would refuse everybody else.
    """

    SCOPE_KEY = "pricebook.place"

    def __init__(self, traffic: Traffic) -> None:
        self._waited_seconds = 0.0
        self._waits_since: float | None = None
        self._traffic = traffic
        self._kind: Waiter | None = None
        self._is_export = False
        traffic.in_flight += 1

    def leave(self) -> None:
        """The request has ended, however it did."""
        if self._kind is None:
            self._traffic.in_flight -= 1
        else:
            self._traffic.waiting[self._kind] -= 1
        if self._is_export:
            self._traffic.exports -= 1

    def export(self) -> None:
        """It is for an export.

        :raises Overloaded: if there are too many.
        """
        traffic = self._traffic
        if traffic.exports >= traffic.exports_limit:
            traffic.shed += 1
            detail = (
                f"{traffic.exports_limit} exports are being sent (a quarter of MAX_CONCURRENT_REQUESTS). Try again."
            )
            raise Overloaded(detail, retry_after_seconds=10)
        self._is_export = True
        traffic.exports += 1

    def wait_as(self, kind: Waiter) -> None:
        """Go over to those that wait.

        :raises Overloaded: if too many do.
        """
        traffic = self._traffic
        if self._kind is not None:
            return
        if sum(traffic.waiting.values()) >= traffic.waiters_limit:
            traffic.shed += 1
            detail = f"{traffic.waiters_limit} requests wait for changes (MAX_FEED_WAITERS). Try again."
            raise Overloaded(detail, retry_after_seconds=1)
        self._kind = kind
        traffic.waiting[kind] += 1
        traffic.in_flight -= 1

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """The time that the block takes is the caller's wish, and no part of how long the service took."""
        self._waits_since = time.perf_counter()
        try:
            yield
        finally:
            self._waited_seconds = self.waited_seconds
            self._waits_since = None

    @property
    def waited_seconds(self) -> float:
        """How long it has waited so far. A stream that is cut off may not have left its block yet."""
        waits = 0.0 if self._waits_since is None else time.perf_counter() - self._waits_since
        return self._waited_seconds + waits


class Drain:
    """The first part of a stop: requests are still taken, while every answer sends its client elsewhere.

    A server that closes an idle connection races with the next request on it, which is then lost. Here a client hears
    ``Connection: close`` in an answer first, so that only connections without a request in all that time are cut.
    """

    def __init__(self, traffic: Traffic, seconds: float) -> None:
        self._traffic = traffic
        self._seconds = seconds
        self._deadline = 0.0

    def begin(self) -> None:
        """At the signal to stop; another one changes nothing."""
        if not self._traffic.draining:
            self._traffic.draining = True
            self._deadline = time.monotonic() + self._seconds
            logger.info("drain begins", seconds=self._seconds)

    def cut_short(self) -> None:
        """At a signal from somebody who does not want to wait."""
        self.begin()
        self._deadline = 0.0

    def is_over(self, connections: int) -> bool:
        """Whether to stop taking requests: the time is up, or no client is left. To be asked until it says so.

        :param connections: how many are open.
        """
        if connections and time.monotonic() < self._deadline:
            return False
        logger.info("drain ends", open_connections=connections)
        return True
