"""What the servers hold on to: memory, files, and connections to the database. In calm times all are at their level."""

import os
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

import asyncpg

from tests.chaos.fleet import MOST_CONNECTIONS, Fleet, Server
from tests.chaos.record import Record

_MOST_GROWTH = 1.25
_MOST_MORE = 30
"""MiB, or open files."""

_CONNECTIONS = "SELECT usename, count(*) FROM pg_stat_activity WHERE usename = ANY($1) GROUP BY 1"
_LEFT_OPEN = """
    SELECT usename, state, now() - state_change AS since, left(query, 200) AS query FROM pg_stat_activity
    WHERE usename = ANY($1) AND state LIKE 'idle in transaction%' AND state_change < now() - interval '10 s'
"""


class Held(NamedTuple):
    """By all processes of a server."""

    mib: float
    """Resident; what they share is counted for each."""
    files: int
    """Open ones, sockets among them."""


class Resources:
    """Of each server: when it is warm, and whenever it is looked at."""

    def __init__(self) -> None:
        self.warm: dict[str, Held] = {}
        self.seen: defaultdict[str, list[Held]] = defaultdict(list)

    def level(self, fleet: Fleet) -> None:
        """Take what the servers hold now for their level."""
        self.warm = {server.name: _held(server) for server in fleet.servers}

    async def look(self, connection: asyncpg.Connection, fleet: Fleet, record: Record) -> None:
        """Nothing may have grown."""
        for server in fleet.servers:
            held, warm = _held(server), self.warm[server.name]
            self.seen[server.name].append(held)
            if any(now > before * _MOST_GROWTH + _MOST_MORE for now, before in zip(held, warm, strict=True)):
                record.violation(f"{server.name} holds {held}, and held {warm}")
        names = [server.name for server in fleet.servers]
        for name, count in await connection.fetch(_CONNECTIONS, names):
            if count > MOST_CONNECTIONS:
                record.violation(f"{name} has {count} connections to the database, and may have {MOST_CONNECTIONS}")
        if left := await connection.fetch(_LEFT_OPEN, names):
            record.violation(f"transactions were left open: {[dict(row) for row in left]}")


def _held(server: Server) -> Held:
    places = [Path(f"/proc/{pid}") for pid in server.processes]
    pages = sum(int((place / "statm").read_text().split()[1]) for place in places)
    files = sum(len(list((place / "fd").iterdir())) for place in places)
    return Held(pages * os.sysconf("SC_PAGE_SIZE") / 2**20, files)
