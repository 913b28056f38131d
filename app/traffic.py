"""The requests that this process serves, and how it comes to take no more."""

import time
from dataclasses import dataclass

import structlog

logger = structlog.get_logger(__name__)


@dataclass(slots=True)
class Traffic:
    """State of one process: the middleware writes it, probes and metrics read it."""

    limit: int
    """Requests in flight beyond which more are refused."""

    in_flight: int = 0
    shed: int = 0
    """Requests refused so far."""

    draining: bool = False
    """The stop has begun: not ready, and every answer closes its connection."""


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
