"""Items: creating, reading, changing and archiving them."""

import json
from collections.abc import Mapping
from decimal import Decimal
from typing import Any
from uuid import UUID

from sqlalchemy import Executable, bindparam, insert, select, update
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
from app.models import Book, ChangeType, Item, ItemKey, Ledger
from app.schemas import item as schemas
from app.schemas.base import Document
from app.services import answers, books, ledger, prices
from app.services.ledger import Written
from app.services.questions import Moment

_ITEM_COLUMNS = tuple(Item.__table__.c)
_SELECT = select(*_ITEM_COLUMNS)
_HEAD = select(Ledger.seq).scalar_subquery().label("head")
_INSERT = insert(Item).returning(*_ITEM_COLUMNS)
_UPDATE = update(Item).returning(*_ITEM_COLUMNS)
_BOOK_TERMS = (
    select(Book.id, Book.key, Book.currency, Book.time_zone, Book.tax_included)
    .where(Book.key == bindparam("book"))
    .with_for_update(read=True, key_share=True)
)
_ONE = Decimal(1)


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
