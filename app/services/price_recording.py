"""Recording prices: one, or those that many callers send at the same moment in one transaction.

The rows are numbered, written and logged by one statement, because from the number on every other writer waits: that
costs the database some hundred microseconds, and each round trip of a busy process milliseconds. Answers that are to be
given again are stored by one more.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Row
from sqlalchemy.exc import DBAPIError, IntegrityError

from app.database import WriteSession
from app.database_errors import sqlstate, violated_constraint
from app.errors import FieldError, InvalidRequest, ItemArchived, ProblemError, UnknownBook, UnknownItem
from app.models import ChangeType, ItemKey
from app.schemas.base import Document
from app.schemas.price import PriceCreate
from app.services import books, ledger, price_statements, prices, stored_answers
from app.services.prices import BookTerms
from app.services.stored_answers import Named


@dataclass(frozen=True, slots=True, eq=False)
class Recording:
    """A price that a caller wants to be recorded. Two that say the same are still two."""

    key: ItemKey
    data: PriceCreate
    actor: str
    may_correct: bool
    """Whether it may change what was answered in the past."""
    named: Named | None = None
    """If the caller may send it again."""


@dataclass(frozen=True, slots=True)
class _Checked:
    """A recording with nothing against it, unless its instant is."""

    recording: Recording
    book: BookTerms
    stated: Mapping[str, Any]
    superseded_began: datetime | None

    def refuse_correction(self, now: datetime) -> None:
        """Refuse it if it changes what was answered before ``now``, and may not.

        :raises Forbidden: then.
        """
        if not self.recording.may_correct:
            prices.refuse_correction(self.superseded_began, now, "/supersedes")
            prices.refuse_correction(self.stated["valid_from"], now, "/valid_from")


class NotTogetherError(Exception):
    """One of several recordings has something against it that shows only when they are written: all are rolled back."""


async def record(session: WriteSession, recording: Recording) -> Document:
    """Record a price row, a ``PriceRow``.

    :raises UnknownItem: if there is no such item.
    :raises UnknownBook: if there is no such book.
    :raises ItemArchived: if the item takes no new prices.
    :raises InvalidRequest: if the interval is empty, or ``supersedes`` names no row of this item in this book.
    :raises AlreadySuperseded: if that row was superseded or voided before.
    :raises Forbidden: if it changes what was answered in the past.

    One that is named raises as :func:`app.services.stored_answers.claim` and ``settle`` do, too.
    """
    if recording.named is not None:
        await stored_answers.claim(session, recording.named.question)
    (target,) = await _targets(session, [recording])
    checked = _check(recording, target)
    try:
        (row,) = await _write(session, [checked])
    except IntegrityError as error:
        match violated_constraint(error):
            case "pk_price_retirements":
                raise prices.already_superseded(checked.stated["supersedes"], "/supersedes") from None
            case "ck_price_rows_interval":
                raise prices.empty_interval("") from None
            case _:
                raise
    if recording.named is not None:
        await stored_answers.settle(session, recording.named.question, recording.named.answer(row))
    return row


async def record_together(
    session: WriteSession, recordings: Sequence[Recording]
) -> list[Document | ProblemError | None]:
    """Record those that nothing is said against, all at one instant: for each the ``PriceRow``, or its problem.

    ``None`` is left to :func:`record`, alone: what somebody else holds, what was answered before or is being worked on,
    and what is not known to be a problem. Nothing waits here for items and books, so that nobody waits for those of
    others.

    :param recordings: whose keys are either all ids or all skus.
    :raises NotTogetherError: if one of them spoils it for all, which then have to be recorded alone.
    """
    names = [recording.named.question for recording in recordings if recording.named is not None]
    claims = iter(await stored_answers.claim_together(session, names) if names else ())
    targets = await _targets(session, recordings, wait=False)
    looks = [
        _look(recording, target) if recording.named is None or next(claims) else None
        for recording, target in zip(recordings, targets, strict=True)
    ]
    # Of those that supersede the same row, one can go well.
    taken: set[UUID] = set()
    clean = []
    for look in looks:
        if isinstance(look, _Checked) and (row := look.recording.data.supersedes) not in taken:
            clean.append(look)
            taken |= set() if row is None else {row}
    try:
        rows = await _write(session, clean)
    except (ProblemError, DBAPIError) as error:
        if isinstance(error, DBAPIError) and not sqlstate(error).startswith(_OF_VALUES):
            raise
        raise NotTogetherError from error
    try:
        answered = [
            (named.question, named.answer(row))
            for checked, row in zip(clean, rows, strict=True)
            if (named := checked.recording.named) is not None
        ]
    except Exception as error:  # As in _look.
        raise NotTogetherError from error
    if answered and not await stored_answers.keep_together(session, answered):
        raise NotTogetherError
    documents = {id(checked): row for checked, row in zip(clean, rows, strict=True)}
    return [look if isinstance(look, ProblemError) else documents.get(id(look)) for look in looks]


_OF_VALUES = ("22", "23")
"""Classes of errors that a row is to blame for: data exceptions and violated constraints."""


def _look(recording: Recording, target: Row[Any] | None) -> _Checked | ProblemError | None:
    try:
        return _check(recording, target)
    except (UnknownItem, UnknownBook):
        return None  # Or somebody holds it.
    except ProblemError as problem:
        return problem
    except Exception:  # Whatever it is, it comes again, to the caller whose it is.
        return None


async def _targets(
    session: WriteSession, recordings: Sequence[Recording], *, wait: bool = True
) -> list[Row[Any] | None]:
    """What each of them is about; ``None`` if there is no such item, with a null book if there is no such book.

    The items and books stay as they are until the commit.

    :param wait: for items and books that others are changing. Otherwise those look as if they were not there.
    """
    parameters = {
        "items": [recording.key.parameter for recording in recordings],
        "books": [recording.data.book for recording in recordings],
        "supersedes": [recording.data.supersedes for recording in recordings],
    }
    statement = price_statements.target(by_sku=recordings[0].key.sku is not None, wait=wait)
    found = {row.place: row for row in await session.columns(statement, parameters)}
    return [found.get(place) for place in range(1, len(recordings) + 1)]


def _check(recording: Recording, target: Row[Any] | None) -> _Checked:
    """Raises as :func:`record` does, but for what others do before the number is taken."""
    key, data = recording.key, recording.data
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
        raise prices.already_superseded(data.supersedes, "/supersedes")
    book = BookTerms(target.book_id, data.book, target.currency, target.time_zone, target.tax_included)
    stated = {
        **prices.columns_of(data, book),
        "item_id": target.item_id,
        "book_id": book.id,
        "recorded_by": recording.actor,
    }
    if stated["valid_from"] is None and stated["valid_to"] is not None and stated["valid_to"] <= target.now:
        raise prices.empty_interval("")
    checked = _Checked(recording, book, stated, target.superseded_began)
    checked.refuse_correction(target.now)
    return checked


async def _write(session: WriteSession, all_checked: Sequence[_Checked]) -> list[Document]:
    """Number, write and log the rows by one statement: the lock that comes with the numbers is held for that long only.

    :raises IntegrityError: if one supersedes what another writer has just superseded, or ends before it is recorded.
    :raises Forbidden: if one changes what was answered in the past, and may not.
    """
    if not all_checked:
        return []
    values = {name: [checked.stated[name] for checked in all_checked] for name in price_statements.STATED}
    written = (await session.columns(price_statements.record(), {**values, "count": len(all_checked)})).all()
    session.last_seq = written[-1].seq
    documents = []
    for checked, row in zip(all_checked, written, strict=True):
        item_id: UUID = checked.stated["item_id"]
        ledger.logged(session, ChangeType.PRICE_RECORDED, item_id)
        checked.refuse_correction(row.recorded_at)
        columns = {**checked.stated, **row._asdict(), "import_id": None}
        documents.append(prices.document(columns, book=checked.book.key, currency=checked.book.currency, void=False))
    return documents
