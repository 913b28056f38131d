"""The feed: changes in the order of their seq, with whole documents, and how far back it goes."""

import asyncio
from collections.abc import Mapping
from datetime import datetime
from functools import cache
from typing import Any, NamedTuple

from pydantic import BaseModel
from sqlalchemy import (
    ARRAY,
    BigInteger,
    Integer,
    RowMapping,
    Select,
    Text,
    any_,
    bindparam,
    delete,
    exists,
    func,
    select,
    true,
    update,
)
from sqlalchemy.orm import aliased

from app import documents, instants
from app.database import ReadSession, WriteSession
from app.documents import Written
from app.errors import FeedTruncated, FieldError, HistoryDiverged, UnknownSeq
from app.feed_position import Position
from app.feed_window import PAGE_BYTES, Page, Question, RenderedChange
from app.models import ApiKeyState, Book, Change, ChangeType, Ledger, PriceRow
from app.schemas.base import Document
from app.schemas.book import Book as BookDocument
from app.schemas.item import Item as ItemDocument
from app.services import ledger, prices

_MOST_LOOKED_AT = 10_000
"""Changes that one statement looks at: of a rare type there may be none for millions."""

_RENDERED_AT_ONCE = 200
"""Changes decoded and rendered without a pause: some milliseconds, in which the process does nothing else."""

_GREATEST_SEQ = 2**63 - 1
"""What a column of the database can hold."""

_FORGET_AT_ONCE = 5_000
"""Writers wait for the end of a transaction that raises the floor, so each forgets only so many."""


class UnreadableChange(Exception):
    """A change that the database holds cannot be rendered: a defect, and not a matter of connections."""

    def __init__(self, seq: int) -> None:
        super().__init__(f"change {seq} cannot be rendered")
        self.seq = seq


class Section(NamedTuple):
    """A page, and what holds as of the same snapshot.

    ``after_at`` is when the change asked about was recorded, ``None`` if there is none; after ``floor`` the feed has
    everything; ``key_version`` is the state of the API's keys.
    """

    page: Page
    after_at: datetime | None
    floor: int
    key_version: int


_KEY_VERSION = select(ApiKeyState.version).scalar_subquery()


@cache
def _statement(*, filtered: bool) -> Select[Any]:
    after = bindparam("after", type_=BigInteger)
    until = bindparam("until", type_=BigInteger)
    newest = select(aliased(Ledger).seq).scalar_subquery()
    found = select(Change).where(Change.seq > after, Change.seq <= until)
    if filtered:
        found = found.where(Change.type == any_(bindparam("types", type_=ARRAY(Text))))
    change = found.order_by(Change.seq).limit(bindparam("limit", type_=Integer)).lateral("change")
    row, superseded = aliased(PriceRow, name="price"), aliased(PriceRow, name="superseded")
    recorded = change.c.type == ChangeType.PRICE_RECORDED
    return (
        select(
            Ledger.seq.label("head"),
            Ledger.feed_floor,
            _KEY_VERSION.label("key_version"),
            ledger.instant_of(after).label("after_at"),
            ledger.instant_of(func.least(until, newest)).label("until_at"),
            *change.c,
            Book.key.label("book"),
            Book.currency,
            *(getattr(row, name).label(f"row_{name}") for name in _PRICE_COLUMNS),
            *(getattr(superseded, name).label(f"superseded_{name}") for name in _PRICE_COLUMNS),
        )
        .select_from(Ledger)
        .outerjoin(change, true())
        .outerjoin(Book, Book.id == change.c.book_id)
        .outerjoin(row, row.id == change.c.price_id)
        .outerjoin(superseded, (superseded.id == row.supersedes) & recorded)
        .order_by(change.c.seq)
    )


_PRICE_COLUMNS = tuple(PriceRow.__table__.columns.keys())
_NEWEST = select(Change.seq, Change.at).order_by(Change.seq.desc()).limit(1)


async def read(session: ReadSession, question: Question) -> Section:
    """What there is after a seq, by one SQL statement. The seq may be below the floor or beyond the head.

    With a limit of 0 the page is of what there is to come to: ``next_after`` and ``next_after_at`` alone.
    """
    until = min(question.after + _MOST_LOOKED_AT, _GREATEST_SEQ)
    values: dict[str, Any] = {"after": question.after, "until": until, "limit": question.limit}
    if question.types is not None:
        values["types"] = sorted(question.types)
    found = (await session.columns(_statement(filtered=question.types is not None), values)).mappings()
    changes: list[RenderedChange] = []
    size = head = floor = key_version = 0
    after_at = until_at = None
    while rows := found.fetchmany(_RENDERED_AT_ONCE):
        for row in rows:
            head, floor, key_version = row["head"], row["feed_floor"], row["key_version"]
            after_at, until_at = row["after_at"] if question.after else None, row["until_at"]
            if row["seq"] is not None and size < PAGE_BYTES:
                changes.append(change := _rendered(row))
                size += len(change.document)
        # Others get their turn between two slices.
        await asyncio.sleep(0)
    is_cut = bool(changes) and (len(changes) == question.limit or size >= PAGE_BYTES)
    ends_at = Position(changes[-1].seq, changes[-1].at) if is_cut else Position(min(until, head), until_at)
    return Section(Page(changes, *ends_at, head), after_at, floor, key_version)


async def newest(session: ReadSession) -> Position:
    """The newest change."""
    return Position(*(await session.execute(_NEWEST)).one())


async def read_page(session: ReadSession, question: Question) -> Page:
    """The changes after a seq.

    :raises HistoryDiverged: if the ledger is not the one that recorded the change asked about.
    :raises UnknownSeq: if the seq is beyond the head.
    :raises FeedTruncated: if changes after the seq were forgotten.
    """
    page, after_at, floor, _ = await read(session, question)
    if question.after_at is not None and after_at != question.after_at:
        instead = f"there is no such change: the newest is {page.head}" if after_at is None else instants.text(after_at)
        raise HistoryDiverged(
            f"This is not the ledger that you followed to change {question.after}, recorded at "
            f"{instants.text(question.after_at)}; here {'it was recorded at ' if after_at else ''}{instead}. A backup "
            "was restored, or a standby that lacked changes took over. Take a snapshot (GET export?format=snapshot) "
            "and go on from its Pricebook-Seq and Pricebook-Recorded-At.",
            [FieldError("query/after_at", "history-diverged", "must be the instant of the change `after`")],
        )
    if question.after > page.head:
        raise UnknownSeq(
            f"The newest change is {page.head}; there is no change {question.after}. A consumer that was told of it "
            "follows a ledger that was set back, to a backup perhaps: let it take a snapshot (GET "
            "export?format=snapshot) and go on from its Pricebook-Seq.",
            [FieldError("query/after", "unknown-seq", f"must not be greater than {page.head}")],
        )
    if question.after < floor:
        raise FeedTruncated(
            f"The feed goes back to the changes after {floor}, and no longer to those after {question.after}. Take a "
            "snapshot (GET export?format=snapshot) and go on from its Pricebook-Seq.",
            [FieldError("query/after", "feed-truncated", f"must not be less than {floor}")],
        )
    return page


def _rendered(row: RowMapping) -> RenderedChange:
    try:
        before, after = _documents(row)
        change = {name: row[name] for name in _FIELDS} | {"before": before, "after": after}
        document = documents.encode(change)
    except Exception as error:
        raise UnreadableChange(row["seq"]) from error
    return RenderedChange(row["seq"], row["at"], row["type"], document, row["item_id"], row["book"])


_FIELDS = ("seq", "at", "actor", "type", "item_id", "book")


def _documents(row: RowMapping) -> tuple[Any, Any]:
    if row["price_id"] is None:
        # As the API answered them: jsonb keeps no order of fields.
        model = ItemDocument if row["item_id"] is not None else BookDocument
        return _known(model, row["before"]), _known(model, row["after"])
    if row["type"] == ChangeType.PRICE_VOIDED:
        return _price(row, "row", void=False), _price(row, "row", void=True)
    superseded = None if row["superseded_id"] is None else _price(row, "superseded", void=False)
    return superseded, _price(row, "row", void=False)


def _known(model: type[BaseModel], document: Mapping[str, Any] | None) -> Written | None:
    """The document without what a later release, which writes already, knows beyond this one."""
    if document is None:
        return None
    known = model.model_validate({name: document[name] for name in model.model_fields if name in document})
    return Written(known.model_dump_json())


def _price(row: RowMapping, prefix: str, *, void: bool) -> Document:
    record = {name: row[f"{prefix}_{name}"] for name in _PRICE_COLUMNS}
    return prices.document(record, book=row["book"], currency=row["currency"], void=void)


_later = aliased(Change, name="later")
_aged = (
    select(Change.seq)
    .where(Change.at < func.now() - func.make_interval(0, 0, 0, bindparam("days", type_=Integer)))
    .order_by(Change.at.desc(), Change.seq.desc())
    .limit(1)
    .subquery("aged")
)
# Of a young ledger there is no row at all: to SQL's least() a null would be no limit.
_FLOOR = select(
    Ledger.feed_floor,
    func.least(Ledger.feed_floor + bindparam("most", type_=BigInteger), _aged.c.seq, Ledger.seq).label("next"),
).join(_aged, true())
_FORGET = (
    delete(Change)
    .where(Change.seq > bindparam("floor", type_=BigInteger), Change.seq <= bindparam("next", type_=BigInteger))
    # What pinned reads look up: versions of items and books, and the last change of each instant.
    .where(Change.price_id.is_not(None), exists().where(_later.at == Change.at, _later.seq > Change.seq))
    .execution_options(synchronize_session=False)
)
_RAISE = update(Ledger).values(feed_floor=bindparam("next", type_=BigInteger))


async def forget(session: WriteSession, *, retention_days: int) -> bool:
    """Forget the oldest changes that are older than so many days, and say whether there are more of them.

    The feed ends to go back to them, and what nobody can ask for any more is deleted.
    """
    found = (await session.execute(_FLOOR, {"days": retention_days, "most": _FORGET_AT_ONCE})).one_or_none()
    if found is None or found.next <= found.feed_floor:
        return False
    floor, following = found
    await session.execute(_FORGET, {"floor": floor, "next": following})
    # Last, because every writer waits from here until the commit.
    await session.execute(_RAISE, {"next": following})
    return bool(following == floor + _FORGET_AT_ONCE)
