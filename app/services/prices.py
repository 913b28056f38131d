"""Recording price rows."""

from collections.abc import Mapping
from datetime import date, datetime, timedelta
from functools import cache
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import Select, Uuid, bindparam, insert, select, true
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import aliased

from app import money
from app.access import Scope
from app.database import WriteSession
from app.database_errors import violated_constraint
from app.errors import AlreadySuperseded, FieldError, Forbidden, InvalidRequest, ItemArchived, UnknownItem, UnknownPrice
from app.models import Book, ChangeType, Item, ItemKey, PriceRetirement, PriceRow
from app.schemas import price as schemas
from app.schemas.base import Document
from app.services import answers, books, ledger, price_recording
from app.services.ledger import Written

# The lock that the row's foreign key takes anyway, taken early: the book's currency stays until the commit.
_book = (
    select(Book.id, Book.currency, Book.time_zone, Book.tax_included)
    .where(Book.key == bindparam("book"))
    .with_for_update(read=True, key_share=True)
    .subquery("book")
)
_superseded = aliased(PriceRow, name="superseded")
_TARGET = (
    select(
        Item.id.label("item_id"),
        Item.archived_at,
        _book.c.id.label("book_id"),
        _book.c.currency,
        _book.c.time_zone,
        _book.c.tax_included,
        _superseded.id.label("superseded_id"),
        _superseded.valid_from.label("superseded_began"),
        PriceRetirement.seq.label("retired_seq"),
    )
    .select_from(Item)
    .outerjoin(_book, true())
    .outerjoin(
        _superseded,
        (_superseded.id == bindparam("supersedes", type_=Uuid()))
        & (_superseded.item_id == Item.id)
        & (_superseded.book_id == _book.c.id),
    )
    .outerjoin(PriceRetirement, PriceRetirement.price_id == _superseded.id)
    # Archiving the item waits for this transaction, and the other way round.
    .with_for_update(read=True, of=Item)
)


@cache
def _target(*, by_sku: bool) -> Select[Any]:
    return _TARGET.where(ItemKey.any(by_sku=by_sku).condition)


_ROW_TO_VOID = (
    select(
        PriceRow,
        Book.key.label("book"),
        Book.currency,
        PriceRetirement.seq.label("retired_seq"),
    )
    .join(Book, Book.id == PriceRow.book_id)
    .outerjoin(PriceRetirement, PriceRetirement.price_id == PriceRow.id)
    .where(PriceRow.id == bindparam("price_id", type_=Uuid()))
)
_INSERT_ROW = insert(PriceRow).returning(PriceRow.id)
_RETIRE = insert(PriceRetirement)


CLOCK_TOLERANCE = timedelta(minutes=1)
"""A price that a caller means to begin now may begin a little earlier here: clocks differ, and requests travel."""


class BookTerms(NamedTuple):
    """What a price row needs to know of its book."""

    id: int
    key: str
    currency: str
    time_zone: str
    tax_included: bool


async def record(
    session: WriteSession, key: ItemKey, data: schemas.PriceCreate, *, actor: str, may_correct: bool
) -> Document:
    """Record a price row, a ``PriceRow``.

    :param may_correct: whether it may change what was answered in the past.
    :raises UnknownItem: if there is no such item.
    :raises UnknownBook: if there is no such book.
    :raises ItemArchived: if the item takes no new prices.
    :raises InvalidRequest: if the interval is empty, or ``supersedes`` names no row of this item in this book.
    :raises AlreadySuperseded: if that row was superseded or voided before.
    :raises Forbidden: if it changes what was answered in the past.
    """
    parameters = {"item": key.parameter, "book": data.book, "supersedes": data.supersedes}
    target = (await session.columns(_target(by_sku=key.sku is not None), parameters)).one_or_none()
    if target is None:
        raise UnknownItem(f"There is no item {key}.")
    if target.book_id is None:
        raise books.unknown(data.book, pointer="/book")
    if target.archived_at is not None:
        raise ItemArchived(
            f'Item {key} is archived. PATCH it with {{"archived_at": null}} before recording prices.',
            [FieldError("path/item", "item-archived", "takes no new prices")],
        )
    if data.supersedes is not None and target.superseded_id is None:
        raise InvalidRequest.at("/supersedes", "unknown-price", f"names no price row of this item in book {data.book}")
    if data.supersedes is not None and target.retired_seq is not None:
        raise _already_superseded(data.supersedes, "/supersedes")
    book = BookTerms(target.book_id, data.book, target.currency, target.time_zone, target.tax_included)
    columns = columns_of(data, book)
    row = await _record(session, {**columns, "item_id": target.item_id, "book_id": book.id, "recorded_by": actor})
    if not may_correct:
        refuse_correction(target.superseded_began, row["recorded_at"], "/supersedes")
        refuse_correction(columns["valid_from"], row["recorded_at"], "/valid_from")
    return document(row, book=book.key, currency=book.currency, void=False)


async def _record(session: WriteSession, stated: Mapping[str, Any]) -> Mapping[str, Any]:
    """Number, write and log a row by one statement: the lock that comes with the number is held for that long only."""
    try:
        written = (await session.columns(price_recording.statement(), {**stated, "count": 1})).one()
    except IntegrityError as error:
        match violated_constraint(error):
            case "pk_price_retirements":
                raise _already_superseded(stated["supersedes"], "/supersedes") from None
            case "ck_price_rows_interval":
                raise _empty_interval("") from None
            case _:
                raise
    session.last_seq = written.seq
    ledger.logged(session, ChangeType.PRICE_RECORDED, stated["item_id"])
    return {**stated, **written._asdict(), "import_id": None}


def refuse_correction(began: datetime | None, now: datetime, pointer: str) -> None:
    """Refuse a change to what holds from an instant on, if that is in the past.

    :raises Forbidden: if it is.
    """
    if began is not None and began < now - CLOCK_TOLERANCE:
        raise Forbidden(
            f"It would change what was answered since {began.isoformat()}: a correction, which needs the scope "
            f"{Scope.PRICES_CORRECT}.",
            [FieldError(pointer, "needs-prices-correct", "lies in the past")],
        )


async def void(session: WriteSession, price_id: UUID, *, actor: str, may_correct: bool) -> Written[Document]:
    """Void a price row, a ``PriceRow``: it stops answering from now on.

    :param may_correct: whether it may be a row that has begun.
    :raises UnknownPrice: if there is no such row.
    :raises AlreadySuperseded: if the row was superseded or voided before.
    :raises Forbidden: if it has begun and that is not allowed.
    """
    found = (await session.execute(_ROW_TO_VOID, {"price_id": price_id})).one_or_none()
    if found is None:
        raise UnknownPrice(f"There is no price row {price_id}.")
    if found.retired_seq is not None:
        raise _already_superseded(price_id, "path/price_id")
    row: PriceRow = found.PriceRow
    (stamp,) = await ledger.advance(session)
    if not may_correct:
        refuse_correction(row.valid_from, stamp.recorded_at, "path/price_id")
    try:
        await session.columns(_RETIRE, {"price_id": price_id, "seq": stamp.seq})
    except IntegrityError as error:
        # Another writer retired the row between the check and the number.
        if violated_constraint(error) == "pk_price_retirements":
            raise _already_superseded(price_id, "path/price_id") from None
        raise
    await ledger.log(
        session, stamp, ChangeType.PRICE_VOIDED, actor, item_id=row.item_id, book_id=row.book_id, price_id=price_id
    )
    record = {column.key: getattr(row, column.key) for column in PriceRow.__table__.columns}
    return Written(document(record, book=found.book, currency=found.currency, void=True), stamp.seq)


def document(record: Mapping[str, Any], *, book: str, currency: str, void: bool) -> Document:
    """A ``PriceRow``; ``record`` has the columns of the table."""
    terms = answers.terms(record, money.minor_units(currency))
    return {
        "id": record["id"],
        "item_id": record["item_id"],
        "book": book,
        "currency": currency,
        "amount": terms["amount"],
        "per": terms["per"],
        "min_quantity": terms["min_quantity"],
        "tax_rate": terms["tax_rate"],
        "tax": terms["tax"],
        "tax_included": record["tax_included"],
        "valid_from": record["valid_from"],
        "valid_to": record["valid_to"],
        "supersedes": record["supersedes"],
        "void": void,
        "reason": record["reason"],
        "seq": record["seq"],
        "recorded_at": record["recorded_at"],
        "recorded_by": record["recorded_by"],
        "import_id": record["import_id"],
    }


def columns_of(data: schemas.PriceCreate, book: BookTerms, pointer: str = "") -> dict[str, Any]:
    """The columns that the request decides. A null ``valid_from`` stands for the instant of recording.

    :raises InvalidRequest: if the interval is empty, or the tax is stated twice or exceeds the amount that includes it.
    """

    def instant(moment: datetime | date | None, field: str) -> datetime | None:
        if moment is None or isinstance(moment, datetime):
            return moment
        return books.start_of_day(moment, book.time_zone, f"{pointer}/{field}")

    valid_from = instant(data.valid_from, "valid_from")
    valid_to = instant(data.valid_to, "valid_to")
    if valid_from is not None:
        _check_interval(valid_from, valid_to, pointer)
    if data.tax is not None and data.tax_rate is not None:
        raise InvalidRequest.at(f"{pointer}/tax", "two-taxes", "must not come together with tax_rate")
    tax_included = book.tax_included if data.tax_included is None else data.tax_included
    if tax_included and data.tax is not None and data.amount is not None and data.tax > data.amount:
        raise InvalidRequest.at(f"{pointer}/tax", "tax-exceeds-amount", "must not exceed the amount that includes it")
    return {
        "amount": data.amount,
        "per": data.per,
        "min_quantity": data.min_quantity,
        "tax_rate": data.tax_rate,
        "tax": data.tax,
        "tax_included": tax_included,
        "valid_from": valid_from,
        "valid_to": valid_to,
        "supersedes": data.supersedes,
        "reason": data.reason,
    }


def _check_interval(valid_from: datetime, valid_to: datetime | None, pointer: str) -> None:
    if valid_to is not None and valid_to <= valid_from:
        raise _empty_interval(pointer)


def _empty_interval(pointer: str) -> InvalidRequest:
    return InvalidRequest.at(f"{pointer}/valid_to", "empty-interval", "must be later than valid_from")


def _already_superseded(price_id: UUID, pointer: str) -> AlreadySuperseded:
    return AlreadySuperseded(
        f"Price row {price_id} was superseded or voided before. Read the item again and correct the row in force.",
        [FieldError(pointer, "already-superseded", "names a row that is no longer in force")],
    )


async def write_first(
    session: WriteSession,
    stamp: ledger.Stamp,
    columns: Mapping[str, Any],
    *,
    item_id: UUID,
    book: BookTerms,
    actor: str,
) -> None:
    """Write the first row of a new item, and its change, under a number already taken.

    :raises InvalidRequest: if the row ends before it is recorded and names no earlier start.
    """
    row = {
        **columns,
        "valid_from": columns["valid_from"] or stamp.recorded_at,
        "item_id": item_id,
        "book_id": book.id,
        "seq": stamp.seq,
        "recorded_at": stamp.recorded_at,
        "recorded_by": actor,
    }
    _check_interval(row["valid_from"], row["valid_to"], "/price")
    price_id = (await session.columns(_INSERT_ROW, row)).scalar_one()
    await ledger.log(
        session, stamp, ChangeType.PRICE_RECORDED, actor, item_id=item_id, book_id=book.id, price_id=price_id
    )
