"""What consumers received, compared with the feed read at once, and that with the table of changes."""

import json
from collections.abc import Sequence
from typing import Any

import asyncpg
import httpx2

from tests.chaos.consumers import Consumer, digest
from tests.chaos.fleet import Fleet
from tests.chaos.record import Record

_PAGE = 1000
_CHANGES = """
    SELECT seq, type, item_id::text, price_id::text, before, after FROM changes
    WHERE seq > $1 ORDER BY seq LIMIT $2
"""


async def compare(connection: asyncpg.Connection, fleet: Fleet, consumers: Sequence[Consumer], record: Record) -> None:
    """Page by page from the first change to the head, each from another server."""
    after = 0
    async with httpx2.AsyncClient(timeout=60, headers=fleet.headers) as client:
        while rows := await connection.fetch(_CHANGES, after, _PAGE):
            server = fleet.servers[after // _PAGE % len(fleet.servers)]
            answer = await client.get(f"{server.address}/v1/changes", params={"after": after, "limit": _PAGE})
            answer.raise_for_status()
            changes = answer.json()["changes"]
            # A page of large documents ends before its limit.
            if not changes or len(changes) > len(rows):
                record.violation(f"the feed has {len(changes)} changes after {after}, the table {len(rows)}")
                return
            for row, change in zip(rows, changes, strict=False):
                if not _agrees(row, change):
                    record.violation(f"the feed has {change}, the table {dict(row)}")
                for consumer in consumers:
                    mine = consumer.digests[change["seq"] - 1 : change["seq"]]
                    if mine != [digest(change)]:
                        record.violation(f"{consumer.name} received something else as change {change['seq']}")
            after = changes[-1]["seq"]


def _agrees(row: asyncpg.Record, change: dict[str, Any]) -> bool:
    if (row["seq"], row["type"], row["item_id"]) != (change["seq"], change["type"], change["item_id"]):
        return False
    if row["price_id"] is not None:
        return bool(change["after"]["id"] == row["price_id"])
    return all(change[name] == (None if row[name] is None else json.loads(row[name])) for name in ("before", "after"))
