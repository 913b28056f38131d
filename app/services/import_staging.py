"""The rows of a file on their way into the database: by COPY, as they arrive."""

import asyncio
import io
from collections.abc import AsyncIterator, Coroutine
from typing import Any
from uuid import UUID

import asyncpg

from app.database import Database
from app.import_files import Text
from app.models import STAGING
from app.services.import_copy import COLUMNS
from app.services.import_reading import Format, Lines, Staged

_BATCH_BYTES = 1_048_576
"""How much is collected before it is sent to the database: bounds the memory of an import."""


async def stage(database: Database, import_id: UUID, body: AsyncIterator[bytes], how: Format) -> Staged:
    """Write the rows of a body to the staging table, each with what is wrong with it.

    No connection is held while the body is waited for.

    :raises FileError: if the file cannot be read as a whole.
    """
    staged = Staged()
    text = Text(how.charset)
    lines = Lines(import_id, how, staged)
    batch: list[bytes] = []
    size = 0
    async for chunk in body:
        staged.digest.update(chunk)
        staged.bytes += len(chunk)
        for part in text.feed(chunk):
            for some in lines.feed(part):
                batch.append(some)
                size += len(some)
                await asyncio.sleep(0)
        if size > _BATCH_BYTES:
            await _copy(database, batch)
            batch, size = [], 0
    for part in text.feed(b"", final=True):
        batch.extend(lines.feed(part))
    batch.extend(lines.finish())
    await _copy(database, batch)
    return staged


async def _copy(database: Database, batch: list[bytes]) -> None:
    async with database.importing() as session:
        connection = await session.connection()
        driver: Any = (await connection.get_raw_connection()).driver_connection
        try:
            await _unless_lost(
                driver, driver.copy_to_table(STAGING.name, columns=COLUMNS, source=io.BytesIO(b"".join(batch)))
            )
        except Exception as error:
            # From asyncpg or, if it was just writing, from the event loop. asyncpg has no better word for a connection
            # that the server is about to close, and has said so.
            if not driver.is_closed() and not isinstance(error, asyncpg.InternalClientError):
                raise
            # The pool, which this went past, would give it to the next one.
            await connection.invalidate()
            raise ConnectionResetError("connection to the database was closed") from error


async def _unless_lost(driver: Any, work: Coroutine[Any, Any, object]) -> None:
    """Wait for work on a connection, which is cancelled when the connection ends.

    asyncpg waits for its buffer to empty while it copies, also when nobody is there any more to empty it.
    """
    task = asyncio.create_task(work)
    lost = asyncio.Event()
    waiting = asyncio.create_task(lost.wait())

    def end(_: object) -> None:
        lost.set()

    driver.add_termination_listener(end)
    try:
        await asyncio.wait((task, waiting), return_when=asyncio.FIRST_COMPLETED)
    finally:
        driver.remove_termination_listener(end)
        waiting.cancel()
        task.cancel()
        await asyncio.wait((task,))
    if task.cancelled():
        raise ConnectionResetError("connection to the database was closed")
    task.result()
