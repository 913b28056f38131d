"""Everybody who uses the service meanwhile."""

import asyncio
from contextlib import suppress
from pathlib import Path

from tests.chaos.consumers import Consumer, Listener, PageReader, Poller
from tests.chaos.copy_keeper import CopyKeeper
from tests.chaos.fleet import Fleet
from tests.chaos.importers import Importer
from tests.chaos.readers import PinnedReader, PriceReader, QuoteReader
from tests.chaos.record import Record
from tests.chaos.rude_clients import RudeClient
from tests.chaos.writers import KeyedWriter, Writer

_FINISH_SECONDS = 120
_CATCH_UP_SECONDS = 90


class Load:
    """Writers, readers, importers and rude clients; and the consumers of the feed, who stay until they have it all."""

    def __init__(self, fleet: Fleet, record: Record, directory: Path, seed: str, *, most_rows: int) -> None:
        self.importers = [Importer(name, fleet, record, f"{seed} {name}", most_rows=most_rows) for name in ("L0", "L1")]
        self.consumers: list[Consumer] = [
            kind(fleet, record, f"{seed} {kind.name}") for kind in (PageReader, Poller, Listener)
        ]
        self.keeper = CopyKeeper(fleet, record, directory, f"{seed} copy")
        keyed = [KeyedWriter(name, fleet, record, f"{seed} {name}") for name in ("k0", "k1")]
        self._users = [
            *keyed,
            *(Writer(name, fleet, record, f"{seed} {name}") for name in ("w0", "w1")),
            *(
                kind(fleet, record, f"{seed} {kind.__name__}", keyed)
                for kind in (PriceReader, QuoteReader, PinnedReader)
            ),
            RudeClient(fleet, record, f"{seed} rude"),
        ]
        self._record = record
        self._importing: list[asyncio.Task[None]] = []
        self._using: list[asyncio.Task[None]] = []
        self._following: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Start all."""
        self.keeper.start()
        self._using = [asyncio.create_task(user.run()) for user in self._users]
        self._importing = [asyncio.create_task(importer.run()) for importer in self.importers]
        self._following = [asyncio.create_task(consumer.run()) for consumer in self.consumers]

    def look(self) -> None:
        """Nobody may have given up."""
        for tasks in (self._using, self._importing, self._following):
            for task in [task for task in tasks if task.done()]:
                tasks.remove(task)
                self._record.violation(f"a caller ended: {task.exception()!r}")

    async def finish(self) -> None:
        """Let each come to an end with what it does; importers are cut off."""
        for user in self._users:
            user.stopping = True
        await _cancel(self._importing)
        _, late = await asyncio.wait(self._using, timeout=_FINISH_SECONDS)
        if late:
            self._record.violation(f"{len(late)} callers do not come to an end")
        for task in self._using:
            if task not in late and (error := task.exception()):
                self._record.violation(f"a caller ended: {error!r}")
        await _cancel(self._using)

    async def catch_up(self, head: int) -> None:
        """Let the consumers come to the head, and end."""
        deadline = asyncio.get_running_loop().time() + _CATCH_UP_SECONDS
        while any(consumer.seq < head for consumer in self.consumers) and asyncio.get_running_loop().time() < deadline:
            self.look()
            await asyncio.sleep(0.1)
        await _cancel(self._following)
        for consumer in self.consumers:
            if consumer.seq != head:
                self._record.violation(f"{consumer.name} has {consumer.seq} changes of {head}")

    async def stop(self) -> None:
        """End whatever still runs."""
        await _cancel([*self._using, *self._importing, *self._following])
        self.keeper.stop()


async def _cancel(tasks: list[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
        with suppress(asyncio.CancelledError, Exception):
            await task
    tasks.clear()
