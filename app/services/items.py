"""Items: creating, reading, listing, changing and archiving them."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from functools import cache
from typing import Any, Literal, NamedTuple
from uuid import UUID

from sqlalchemy import Executable, Integer, Select, Subquery, Text, bindparam, insert, or_, select, true, update
from sqlalchemy.exc import IntegrityError

from app import http_cache
from app.database import ReadSession, WriteSession
from app.database_errors import violated_constraint
from app.errors import (
    DuplicateGtin,
    DuplicateSku,
    FieldError,
    InvalidRequest,
    NoPrice,
    NotForSale,
    UnknownItem,
)
from app.models import DEFAULT_BOOK, Book, ChangeType, Item, ItemKey, Ledger
from app.observability.metrics import PriceRead
from app.pagination import Cursors
from app.schemas import item as schemas
from app.schemas.base import Document
from app.services import answers, books, ledger, prices, questions
from app.services.answers import AnswerRow
from app.services.ledger import Written
from app.services.questions import Moment

_ITEM_COLUMNS = tuple(Item.__table__.c)
_SELECT = select(*_ITEM_COLUMNS)
_ANSWER = len(AnswerRow._fields)
_OWN = tuple(name for name in schemas.Item.model_fields if name not in {"id", "sku"})
"""What of an item is not in a row that answers what it costs."""
_HEAD = select(Ledger.seq).scalar_subquery().label("head")
_INSERT = insert(Item).returning(*_ITEM_COLUMNS)
_UPDATE = update(Item).returning(*_ITEM_COLUMNS)
_BOOK_TERMS = (
    select(Book.id, Book.key, Book.currency, Book.time_zone, Book.tax_included)
    .where(Book.key == bindparam("book"))
    .with_for_update(read=True, key_share=True)
)
_ONE = Decimal(1)

Archived = Literal["false", "true", "any"]


@dataclass(frozen=True, slots=True)
class Listing:
    """What a list of items asks for. ``at`` is when to price them: now if it is ``None``."""

    limit: int
    cursor: str | None = None
    book: str = DEFAULT_BOOK
    at: datetime | date | None = None
    q: str | None = None
    sku: str | None = None
    gtin: str | None = None
    archived: Archived = "false"

    @property
    def filters(self) -> dict[str, Any]:
        """What a cursor is bound to."""
        return {
            "book": self.book,
            "at": self.at.isoformat() if self.at else None,
            "q": self.q,
            "sku": self.sku,
            "gtin": self.gtin,
            "archived": self.archived,
        }


async def create(
    session: WriteSession, data: schemas.ItemCreate, *, actor: str, may_correct: bool
) -> Written[schemas.PricedItem]:
    """Create an item, with its first price if one is given.

    :param may_correct: whether that price may begin in the past.
    :raises DuplicateSku: if another item has the sku.
    :raises DuplicateGtin: if another item has the gtin.
    :raises UnknownBook: if the price names a book that does not exist.
    :raises InvalidRequest: if the price's interval is empty.
    :raises Forbidden: if the price begins in the past and may not.
    """
    book = columns = None
    if data.price is not None:
        found = (await session.execute(_BOOK_TERMS, {"book": data.price.book})).one_or_none()
        if found is None:
            raise books.unknown(data.price.book, "/price/book")
        book = prices.BookTerms(*found)
        columns = prices.columns_of(data.price, book, "/price")
    stamp, *others = await ledger.advance(session, 1 if book is None else 2)
    values = data.model_dump(exclude={"price"}) | {
        "version": 1,
        "created_at": stamp.recorded_at,
        "updated_at": stamp.recorded_at,
    }
    item = await _write(session, _INSERT.values(values))
    after = item.model_dump(mode="json")
    await ledger.log(session, stamp, ChangeType.ITEM_CREATED, actor, item_id=item.id, after=after)
    answer = None
    if book is not None and columns is not None:
        (stamp,) = others
        if not may_correct:
            prices.refuse_correction(columns["valid_from"], stamp.recorded_at, "/price/valid_from")
        await prices.write_first(session, stamp, columns, item_id=item.id, book=book, actor=actor)
        answer = await _price_now(session, item.id, book.key)
    return Written(schemas.PricedItem.model_validate({**dict(item), "price": answer}), stamp.seq)


async def _price_now(session: WriteSession, item_id: UUID, book: str) -> Document | None:
    try:
        return await answers.find(session, ItemKey(item_id, None), book=book, moment=Moment(), quantity=_ONE)
    except (NoPrice, NotForSale):
        return None


async def read(session: ReadSession, key: ItemKey) -> tuple[schemas.Item, int]:
    """The item, and the newest change that it can know of.

    :raises UnknownItem: if there is none.
    """
    statement = _SELECT.add_columns(_HEAD).where(key.condition)
    row = (await session.execute(statement, {"item": key.parameter})).mappings().one_or_none()
    if row is None:
        raise UnknownItem(f"There is no item {key}.")
    return schemas.Item(**{name: row[name] for name in schemas.Item.model_fields}), row["head"]


async def read_priced(session: ReadSession, key: ItemKey) -> Document:
    """The item and its price now in the book `default`, archived or not: a ``PricedItem``.

    :raises UnknownItem: if there is none.
    """
    parameters = _question(DEFAULT_BOOK, None) | {"item": key.parameter}
    row = (await session.columns(_one_priced(by_sku=key.sku is not None), parameters)).one()
    if AnswerRow._make(row[:_ANSWER]).item_id is None:
        answers.count(PriceRead.UNKNOWN_ITEM)
        raise UnknownItem(f"There is no item {key}.")
    item = _priced_item(row)
    answers.count(PriceRead.NO_PRICE if item["price"] is None else PriceRead.ANSWERED)
    return item


class Page(NamedTuple):
    """A page of a list, and what it depends on."""

    items: list[Document]
    """Each a ``PricedItem``."""
    following: str | None
    """The cursor of the next page."""
    known_seq: int
    """The newest change that it can know of."""
    at: datetime
    """The instant at which it is priced."""
    until: datetime | None
    """When the first of its prices changes by itself; ``None``: none is known."""


async def list_priced(session: ReadSession, listing: Listing, cursors: Cursors) -> Page:
    """A page of items in the order of their ids, each with its price.

    One SQL statement; a bare date costs another, for the book's time zone.

    :raises UnknownBook: if there is no such book.
    :raises InvalidRequest: if the cursor belongs to another list.
    """
    at = await books.instant(session, listing.book, listing.at, pointer="query/at")
    parameters = _question(listing.book, at) | {"limit": listing.limit + 1, "sku": listing.sku, "gtin": listing.gtin}
    if listing.cursor is not None:
        parameters["after"] = UUID(cursors.decode(listing.cursor, listing.filters)["after"])
    if listing.q is not None:
        # An index of trigrams finds three letters anywhere, but fewer only at the beginning.
        anywhere = "%" if len(listing.q) >= 3 else ""
        parameters["pattern"] = anywhere + re.sub(r"([\\%_])", r"\\\1", listing.q) + "%"
    statement = _page_of(
        frozenset(name for name in ("cursor", "q", "sku", "gtin") if getattr(listing, name) is not None),
        listing.archived,
    )
    rows = (await session.columns(statement, parameters)).all()
    priced = [AnswerRow._make(row[:_ANSWER]) for row in rows]
    first = priced[0]
    if first.book is None:
        raise books.unknown(listing.book)
    found = [] if first.item_id is None else [_priced_item(row) for row in rows[: listing.limit]]
    following = None
    if len(rows) > listing.limit:
        following = cursors.encode({"after": str(found[-1]["id"])}, listing.filters)
    until = min((row.effective_until for row in priced if row.effective_until is not None), default=None)
    return Page(found, following, first.known_seq, first.at, until)


@cache
def _page_of(filters: frozenset[str], archived: Archived) -> Select[Any]:
    """The statement of a list that has these filters. To build it takes ten times as long as to answer with it."""
    matching = _SELECT.order_by(Item.id).limit(bindparam("limit", type_=Integer))
    if "cursor" in filters:
        matching = matching.where(Item.id > bindparam("after"))
    if "q" in filters:
        pattern = bindparam("pattern", type_=Text)
        matching = matching.where(or_(Item.name.ilike(pattern), Item.sku.ilike(pattern)))
    if "sku" in filters:
        matching = matching.where(Item.sku == bindparam("sku"))
    if "gtin" in filters:
        matching = matching.where(Item.gtin == bindparam("gtin"))
    if archived != "any":
        matching = matching.where(Item.archived_at.is_not(None) if archived == "true" else Item.archived_at.is_(None))
    page = matching.subquery("page")
    return _priced(page).order_by(page.c.id)


@cache
def _one_priced(*, by_sku: bool) -> Select[Any]:
    return _priced(_SELECT.where(ItemKey.any(by_sku=by_sku).condition).subquery("page"))


def _question(book: str, at: datetime | None) -> dict[str, Any]:
    return {"book": book, "at": at, "quantity": _ONE}


def _priced(page: Subquery) -> Select[Any]:
    """The answers for a page of items, with the items' own columns behind them."""
    subject = questions.subject_of(page)
    row, selected = answers.columns(subject)
    own = [page.c[name].label(f"item_{name}") for name in _OWN]
    return subject.select(*selected, *own).outerjoin(row, true())


def _priced_item(row: Sequence[Any]) -> Document:
    answer = AnswerRow._make(row[:_ANSWER])
    own = zip(_OWN, row[_ANSWER:], strict=True)
    return {"id": answer.item_id, "sku": answer.sku, **dict(own), "price": answers.document(answer)}


async def change(
    session: WriteSession, key: ItemKey, patch: schemas.ItemPatch, *, if_match: str | None, actor: str
) -> Written[schemas.Item]:
    """Apply a merge patch. One that changes nothing writes nothing and takes no seq.

    :raises UnknownItem: if there is no such item.
    :raises PreconditionRequired: without ``if_match``.
    :raises PreconditionFailed: if the item is at another version.
    :raises DuplicateSku: if another item has the sku.
    :raises DuplicateGtin: if another item has the gtin.
    """
    before = await _lock(session, key, if_match)
    values = patch.model_dump(exclude_unset=True)
    if "attributes" in values:
        merged = before.attributes | values["attributes"]
        values["attributes"] = {name: value for name, value in merged.items() if value is not None}
        if len(values["attributes"]) > schemas.MOST_ATTRIBUTES:
            raise InvalidRequest.at("/attributes", "too-many-attributes", "leads to too many attributes")
    # As JSON: in Python, 1 equals true.
    current = before.model_dump(mode="json")
    changed = {name: value for name, value in values.items() if json.dumps(current[name]) != json.dumps(value)}
    if not changed:
        return Written(before, None)
    (stamp,) = await ledger.advance(session)
    return await _update(session, before, changed, stamp, ChangeType.ITEM_UPDATED, actor)


async def archive(session: WriteSession, key: ItemKey, *, if_match: str | None, actor: str) -> Written[schemas.Item]:
    """Archive the item: it leaves the lists and takes no new prices; its prices stay readable.

    :raises UnknownItem: if there is no such item.
    :raises PreconditionRequired: without ``if_match``.
    :raises PreconditionFailed: if the item is at another version.
    """
    before = await _lock(session, key, if_match)
    if before.archived_at is not None:
        return Written(before, None)
    (stamp,) = await ledger.advance(session)
    changed = {"archived_at": stamp.recorded_at}
    return await _update(session, before, changed, stamp, ChangeType.ITEM_ARCHIVED, actor)


async def _lock(session: WriteSession, key: ItemKey, if_match: str | None) -> schemas.Item:
    statement = _SELECT.where(key.condition).with_for_update()
    row = (await session.execute(statement, {"item": key.parameter})).mappings().one_or_none()
    if row is None:
        raise UnknownItem(f"There is no item {key}.")
    http_cache.require_match(if_match, row["version"])
    return schemas.Item(**row)


async def _update(
    session: WriteSession,
    before: schemas.Item,
    changed: Mapping[str, Any],
    stamp: ledger.Stamp,
    kind: ChangeType,
    actor: str,
) -> Written[schemas.Item]:
    values = {**changed, "version": before.version + 1, "updated_at": stamp.recorded_at}
    after = await _write(session, _UPDATE.values(values).where(Item.id == before.id))
    await ledger.log(
        session,
        stamp,
        kind,
        actor,
        item_id=before.id,
        before=before.model_dump(mode="json"),
        after=after.model_dump(mode="json"),
    )
    return Written(after, stamp.seq)


async def _write(session: WriteSession, statement: Executable) -> schemas.Item:
    try:
        row = (await session.execute(statement)).mappings().one()
    except IntegrityError as error:
        match violated_constraint(error):
            case "uq_items_sku":
                raise DuplicateSku(
                    "Another item has this sku, perhaps an archived one. Find it with GET items?archived=any&sku=...",
                    [FieldError("/sku", "duplicate", "is the sku of another item")],
                ) from None
            case "uq_items_gtin":
                raise DuplicateGtin(
                    "Another item has this gtin, perhaps an archived one. Find it with GET items?archived=any&gtin=...",
                    [FieldError("/gtin", "duplicate", "is the gtin of another item")],
                ) from None
            case _:
                raise
    return schemas.Item(**row)
