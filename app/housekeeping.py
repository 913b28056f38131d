"""What a service does by itself every few minutes: it removes what nobody needs any more."""

import asyncio
import functools
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import structlog
from sqlalchemy import func, select

from app.database import Database, WriteSession
from app.database_errors import explain
from app.services import changes, imports, stored_answers
from app.settings import Settings

logger = structlog.get_logger(__name__)

_ADVISORY_LOCK = 7_742_309_002
"""Held by the one transaction that tidies: several processes come to it at once."""

_BETWEEN_SECONDS = 0.1
"""Between two pieces of work, because writers wait for each to end."""

Job = Callable[[WriteSession], Awaitable[bool]]
"""Does a bounded piece of work in one transaction, and says whether there is more."""


def jobs(settings: Settings) -> dict[str, Job]:
    """What there is to do, by name."""
    jobs: dict[str, Job] = {
        "expire imports": imports.expire,
        "forget staged rows": imports.forget_staged,
        "forget answers": functools.partial(stored_answers.forget, hours=settings.idempotency_hours),
        "forget rows of imports": functools.partial(imports.forget_rows, report_days=settings.import_report_days),
    }
    if settings.feed_retention_days:
        jobs["forget changes"] = functools.partial(changes.forget, retention_days=settings.feed_retention_days)
    return jobs


class Housekeeping:
    """Runs jobs, one after the other and each until nothing is left to do, every ``HOUSEKEEPING_SECONDS``.

    Of several processes one works at a time; the others find nothing left.
    """

    def __init__(self, database: Database, settings: Settings) -> None:
        self._database = database
        self._pause_seconds = settings.housekeeping_seconds
        self._jobs = jobs(settings)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Keep house during the block."""
        task = asyncio.create_task(self._run(), name="housekeeping")
        try:
            yield
        finally:
            task.cancel()
            await asyncio.wait([task])

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(self._pause_seconds)
            for name, job in self._jobs.items():
                if self._database.circuit.open:
                    break  # It is known, and said, that the database is away.
                try:
                    while await self._do(job):  # noqa: ASYNC110 - a pause, and no waiting for anything
                        await asyncio.sleep(_BETWEEN_SECONDS)
                except Exception as error:  # Whatever it is, the next time comes.
                    logger.warning("housekeeping failed", job=name, reason=explain(error, self._database.url))

    async def _do(self, job: Job) -> bool:
        async with self._database.writing() as session:
            # Of the transaction, so that no pooler can part it from its work, and no crash leave it behind.
            alone = await session.scalar(select(func.pg_try_advisory_xact_lock(_ADVISORY_LOCK)))
            return bool(alone) and await job(session)
