"""Price rows: what a request makes of one, how it is told, and how it is voided."""

from collections.abc import Mapping
from datetime import date, datetime, timedelta
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import Uuid, bindparam, insert, select
from sqlalchemy.exc import IntegrityError

from app import money
from app.access import Scope
from app.database import WriteSession
from app.database_errors import violated_constraint
from app.errors import AlreadySuperseded, FieldError, Forbidden, InvalidRequest, UnknownPrice
from app.models import Book, ChangeType, PriceRetirement, PriceRow
from app.schemas import price as schemas
from app.schemas.base import Document
from app.services import answers, books, ledger
from app.services.ledger import Written

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
        raise already_superseded(price_id, "path/price_id")
    row: PriceRow = found.PriceRow
    (stamp,) = await ledger.advance(session)
    if not may_correct:
        refuse_correction(row.valid_from, stamp.recorded_at, "path/price_id")
    try:
        await session.columns(_RETIRE, {"price_id": price_id, "seq": stamp.seq})
    except IntegrityError as error:
        # Another writer retired the row between the check and the number.
        if violated_constraint(error) == "pk_price_retirements":
            raise already_superseded(price_id, "path/price_id") from None
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
        raise empty_interval(pointer)


def empty_interval(pointer: str) -> InvalidRequest:
    return InvalidRequest.at(f"{pointer}/valid_to", "empty-interval", "must be later than valid_from")


def already_superseded(price_id: UUID, pointer: str) -> AlreadySuperseded:
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
