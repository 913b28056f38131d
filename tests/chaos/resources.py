"""What the servers hold on to: memory, and connections to the database. In calm times both are back at their level."""

import os
from collections import defaultdict
from pathlib import Path

import asyncpg

from tests.chaos.fleet import MOST_CONNECTIONS, Fleet
from tests.chaos.record import Record

_MOST_GROWTH = 1.25
_MOST_GROWTH_MIB = 30
_CONNECTIONS = "SELECT usename, count(*) FROM pg_stat_activity WHERE usename = ANY($1) GROUP BY 1"
_AT_WORK = """
    SELECT usename, state, now() - state_change AS since, left(query, 200) AS query FROM pg_stat_activity
    WHERE usename = ANY($1) AND state LIKE 'idle in transaction%' AND state_change < now() - interval '10 s'
"""


class Resources:
    """Of each server, in MiB: at first, when it is warm, and whenever it is looked at."""

    def __init__(self) -> None:
        self.warm: dict[str, float] = {}
        self.seen: defaultdict[str, list[float]] = defaultdict(list)

    def level(self, fleet: Fleet) -> None:
        """Take what the servers hold now for their level."""
        self.warm = {server.name: resident_mib(server.processes) for server in fleet.servers}

    async def look(self, connection: asyncpg.Connection, fleet: Fleet, record: Record) -> None:
        """Nothing may have grown."""
        for server in fleet.servers:
            mib = resident_mib(server.processes)
            self.seen[server.name].append(mib)
            if mib > self.warm[server.name] * _MOST_GROWTH + _MOST_GROWTH_MIB:
                record.violation(f"{server.name} has {mib:.0f} MiB, and had {self.warm[server.name]:.0f}")
        names = [server.name for server in fleet.servers]
        for name, count in await connection.fetch(_CONNECTIONS, names):
            if count > MOST_CONNECTIONS:
                record.violation(f"{name} has {count} connections to the database, and may have {MOST_CONNECTIONS}")
        if left := await connection.fetch(_AT_WORK, names):
            record.violation(f"transactions were left open: {[dict(row) for row in left]}")


def resident_mib(processes: list[int]) -> float:
    """Memory that is in use by these, with what they share counted for each."""
    pages = sum(int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in processes)
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20
