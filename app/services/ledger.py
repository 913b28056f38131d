"""The logical clock: numbers for changes, and the log they are written to."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import BigInteger, ColumnElement, ScalarSelect, bindparam, case, func, insert, select, text, update
from sqlalchemy.orm import aliased

from app.database import ReadSession, WriteSession
from app.models import Change, ChangeType, Ledger
from app.response_cache import ALL_ITEMS, Tag

CHANNEL = "pricebook_changes"
"""Each commit that changes something notifies it, without a word: what there is to know is in the log."""

ADVANCE = (
    update(Ledger)
    .values(
        seq=Ledger.seq + bindparam("count", type_=BigInteger),
        # Strictly later than any change before, even if the clock was set back meanwhile. By how much is left to chance
        # then: a ledger that was restored to here, and goes on, must not come to the instants of the one that was lost.
        recorded_at=case(
            (func.clock_timestamp() > Ledger.recorded_at, func.clock_timestamp()),
            else_=Ledger.recorded_at + text("(1 + floor(random() * 10000)) * interval '1 microsecond'"),
        ),
    )
    # It is delivered with the commit, and costs no round trip of its own.
    .returning(Ledger.seq, Ledger.recorded_at, func.pg_notify(CHANNEL, "").label("notified"))
)
"""Takes the next ``count`` numbers: see :func:`advance_block`."""
_LOG = insert(Change)
_HEAD = select(Ledger.seq, Ledger.recorded_at)


@dataclass(frozen=True, slots=True)
class Stamp:
    """The number of a change and the instant it is recorded at (UTC)."""

    seq: int
    recorded_at: datetime


class Block(NamedTuple):
    """Numbers of changes that one transaction makes, both included, all recorded at one instant (UTC)."""

    first_seq: int
    last_seq: int
    recorded_at: datetime


class Written[Document](NamedTuple):
    """The outcome of a write: the document as it is now, and the seq of its last change, if anything changed."""

    document: Document
    seq: int | None


def instant_of(seq: ColumnElement[int]) -> ScalarSelect[datetime]:
    """When a change was recorded, for statements; null if it is beyond the head.

    A change that was forgotten shares its instant with the next one that is left: the last one of each instant stays.
    """
    change = aliased(Change)
    return select(change.at).where(change.seq >= seq).order_by(change.seq).limit(1).scalar_subquery()


async def head(session: ReadSession | WriteSession) -> Stamp:
    """The last change."""
    return Stamp(*(await session.execute(_HEAD)).one())


async def advance_block(session: WriteSession, count: int) -> Block:
    """Take the next ``count`` numbers, all recorded at one instant, so that no reader can ask for half a transaction.

    Call it once, and last: every other writer waits from here until this transaction ends. Locks on items come before
    it, never after, so writers cannot deadlock. A rollback gives the numbers back, and no reader ever sees them.
    """
    row = (await session.columns(ADVANCE, {"count": count})).one()
    session.last_seq = row.seq
    return Block(row.seq - count + 1, row.seq, row.recorded_at)


async def advance(session: WriteSession, count: int = 1) -> list[Stamp]:
    """The numbers of :func:`advance_block`, one by one."""
    block = await advance_block(session, count)
    return [Stamp(seq, block.recorded_at) for seq in range(block.first_seq, block.last_seq + 1)]


async def log(
    session: WriteSession,
    stamp: Stamp,
    kind: ChangeType,
    actor: str,
    *,
    item_id: UUID | None = None,
    book_id: int | None = None,
    price_id: UUID | None = None,
    before: Mapping[str, Any] | None = None,
    after: Mapping[str, Any] | None = None,
) -> None:
    """Write a change to the log. Items and books bring their documents; a price row brings its id."""
    await session.columns(
        _LOG,
        {
            "seq": stamp.seq,
            "at": stamp.recorded_at,
            "actor": actor,
            "type": kind,
            "item_id": item_id,
            "book_id": book_id,
            "price_id": price_id,
            "before": before,
            "after": after,
        },
    )
    logged(session, kind, item_id, None if after is None else after.get("key"))


def logged(session: WriteSession, kind: ChangeType, item_id: UUID | None, book: str | None = None) -> None:
    """Remember what metrics and caches of this process must know of a change once it is committed."""
    session.changes[kind] += 1
    session.touched |= touches(kind, item_id, book)


def touches(kind: str, item_id: UUID | None, book: str | None) -> set[Tag]:
    """What answers depend on that a change of this kind makes different.

    One of an item, of its prices too, what tells of that item; one of a book, what tells of the book.
    """
    if item_id is None:
        return set() if book is None else {book}
    return {item_id, ALL_ITEMS} if kind in _OF_ITEMS else {item_id}


_OF_ITEMS = frozenset({ChangeType.ITEM_CREATED, ChangeType.ITEM_UPDATED, ChangeType.ITEM_ARCHIVED})
