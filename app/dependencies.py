"""What request handlers ask for, as annotated aliases."""

from collections.abc import AsyncIterator
from typing import Annotated
from uuid import UUID

from fastapi import Depends, Header, Path, Query, Request

from app.database import Database, ReadSession, WriteSession
from app.errors import UnknownItem
from app.models import ItemKey
from app.pagination import Cursors
from app.schemas.base import BookKey, Moment, Quantity

ANONYMOUS = "anonymous"

# Coroutines, even where nothing is awaited: FastAPI would send a plain function to a thread and back.


async def _database(request: Request) -> Database:
    database: Database = request.app.state.database
    return database


async def _read_session(database: Annotated[Database, Depends(_database)]) -> AsyncIterator[ReadSession]:
    async with database.reading() as session:
        yield session


async def _write_session(database: Annotated[Database, Depends(_database)]) -> AsyncIterator[WriteSession]:
    async with database.writing() as session:
        yield session


# Function scope ends these before the answer is sent: a commit that fails is never answered with success.
Reading = Annotated[ReadSession, Depends(_read_session, scope="function")]
Writing = Annotated[WriteSession, Depends(_write_session, scope="function")]


async def _actor() -> str:
    return ANONYMOUS


Actor = Annotated[str, Depends(_actor)]
"""Who writes, as the ledger records it."""


async def _cursors(request: Request) -> Cursors:
    cursors: Cursors = request.app.state.cursors
    return cursors


CursorCodec = Annotated[Cursors, Depends(_cursors)]


async def _item_key(
    item: Annotated[str, Path(description="Item id, or `sku:` followed by the sku", examples=["sku:FR-R92B"])],
) -> ItemKey:
    if item.startswith("sku:") and "\0" not in item:
        return ItemKey(None, item.removeprefix("sku:"))
    try:
        return ItemKey(UUID(item), None)
    except ValueError:
        raise UnknownItem("The address names no item: use its id, or sku: followed by its sku.") from None


ItemAddress = Annotated[ItemKey, Depends(_item_key)]
IfMatch = Annotated[str | None, Header(description="ETag of the version that the change is based on")]
IfNoneMatch = Annotated[str | None, Header(description="ETag of the copy at hand; answers 304 if it is current")]
At = Annotated[Moment | None, Query(description="The instant asked about; default: now")]
BookQuery = Annotated[BookKey, Query(description="Key of the book")]
QuantityQuery = Annotated[Quantity, Query(description="Number of units")]
