"""Imports: price lists that were compared with the ledger are applied at one instant or not at all."""

from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any
from uuid import UUID

import structlog
from sqlalchemy import RowMapping, Text, Uuid, any_, bindparam, delete, exists, func, literal_column, select, update

from app.database import Database, ReadSession, WriteSession
from app.errors import FieldError, ImportConflict, ImportHasErrors, ImportNotOpen, UnknownImport
from app.models import STAGING, Book, ImportRecord, PlannedRow
from app.observability.metrics import IMPORT_SECONDS, IMPORTS, ImportResult, ImportStep
from app.pagination import Cursors
from app.schemas import import_run as schemas
from app.schemas.import_run import ImportState, RowStatus
from app.services import import_apply, import_plan
from app.services.import_apply import Plan

logger = structlog.get_logger(__name__)

_SELECT = select(
    *ImportRecord.__table__.c, Book.key.label("book"), Book.currency, Book.time_zone, Book.tax_included
).join(Book, Book.id == ImportRecord.book_id)
LOCK = _SELECT.with_for_update(of=ImportRecord)
"""Imports with the key and terms of their books, to be narrowed down; whoever changes one has locked it before."""
_MOST_NAMED = 100
_NAMELESS = select(
    exists().where(
        PlannedRow.import_id == bindparam("import_id", type_=Uuid()),
        PlannedRow.status == RowStatus.ERROR,
        PlannedRow.item_id.is_(None),
        ~PlannedRow.errors.contains([{"code": "unknown-item"}]),
    )
)
"""Whether a row with errors may be about an item that the plan takes for missing."""


type Settle = Callable[[WriteSession, schemas.ImportRun], Awaitable[None]]


async def apply(
    database: Database, import_id: UUID, *, actor: str, may_correct: bool, settle: Settle | None = None
) -> schemas.ImportRun:
    """Apply a preview: all of it at one instant, or nothing. One that is applied already is answered as it is.

    :param settle: does what belongs to the same transaction, at its end.
    :raises UnknownImport: if there is none.
    :raises ImportNotOpen: if it cannot be applied any more.
    :raises ImportHasErrors: if it is to be applied whole and rows have errors.
    :raises Forbidden: if rows begin in the past and may not.
    :raises ImportConflict: if prices moved since the preview; the import is closed then.
    """
    try:
        async with database.importing() as session:
            record = await locked(session, import_id)
            if record["state"] == ImportState.APPLIED:
                if settle is not None:
                    await settle(session, document(record))
                return document(record)
            if record["state"] != ImportState.PREVIEWED:
                raise not_open(record)
            if record["expires_at"] < await session.scalar(select(func.now())):
                raise not_open(record, ImportState.EXPIRED)
            if record["counts"]["error"] and record["options"]["on_error"] == "abort":
                raise await _has_errors(session, record, "so nothing was written (on_error=abort)")
            plan, effective_at = plan_of(record), record["effective_at"]
            if plan.end_missing and await session.scalar(_NAMELESS, {"import_id": import_id}):
                why = "some so that nobody can tell which items they name, and which are missing. Nothing was written"
                raise await _has_errors(session, record, why)
            with IMPORT_SECONDS.labels(ImportStep.APPLY).time():
                block = await import_apply.write(
                    session, plan, effective_at=effective_at, actor=actor, may_correct=may_correct
                )
            wrote = block.last_seq >= block.first_seq
            values = {
                "state": ImportState.APPLIED,
                "first_seq": block.first_seq if wrote else None,
                "last_seq": block.last_seq if wrote else None,
                "effective_at": effective_at,
                "applied_at": block.recorded_at,
                "expires_at": None,
            }
            await session.execute(update(ImportRecord).where(ImportRecord.id == import_id).values(values))
            if settle is not None:
                await settle(session, document(record, **values))
    except ImportConflict as error:
        await close(database, import_id, ImportState.CONFLICT, error.detail)
        raise
    IMPORTS.labels(ImportResult.APPLIED).inc()
    logger.info(
        "import applied",
        import_id=str(import_id),
        book=record["book"],
        **record["counts"],
        **{name: values[name] for name in ("first_seq", "last_seq")},
    )
    return document(record, **values)


async def cancel(session: WriteSession, import_id: UUID) -> schemas.ImportRun:
    """Give up a preview. One that is over already is answered as it is. Its rows go with the next housekeeping.

    :raises UnknownImport: if there is none.
    :raises ImportNotOpen: if it is applied, or its file is still being read.
    """
    record = await locked(session, import_id)
    if record["state"] in (ImportState.APPLIED, ImportState.STAGED):
        raise not_open(record)
    if record["state"] != ImportState.PREVIEWED:
        return document(record)
    values = {"state": ImportState.EXPIRED, "expires_at": None}
    await session.execute(update(ImportRecord).where(ImportRecord.id == import_id).values(values))
    return document(record, **values)


async def expire(session: WriteSession) -> bool:
    """Close previews and uploads whose time is up; there are no more then."""
    over = ImportRecord.state.in_((ImportState.STAGED, ImportState.PREVIEWED)) & (ImportRecord.expires_at < func.now())
    closing = update(ImportRecord).where(over).values(state=ImportState.EXPIRED, expires_at=None)
    for import_id in (await session.execute(closing.returning(ImportRecord.id))).scalars():
        logger.info("import expired", import_id=str(import_id))
    return False


_UPLOADS = select(ImportRecord.id).where(ImportRecord.state == ImportState.STAGED)
_place = literal_column("import_staging.ctid", Text())
_LEFT_BEHIND = delete(STAGING).where(
    # PostgreSQL's own word for the place of a row, because these have no key.
    _place
    == any_(func.array(select(_place).where(STAGING.c.import_id.not_in(_UPLOADS)).limit(10_000).scalar_subquery()))
)
_FORGET_AT_ONCE = 10_000


async def forget_staged(session: WriteSession) -> bool:
    """Delete staged rows of uploads that are over, as a crash leaves them, and say whether there may be more."""
    deleted: Any = await session.execute(_LEFT_BEHIND)
    return bool(deleted.rowcount)


async def forget_rows(session: WriteSession, *, report_days: float) -> bool:
    """Delete rows of previews that expired and of old reports, and say whether there may be more.

    :param report_days: how long the rows of a report are kept.
    """
    old = ImportRecord.created_at < func.now() - timedelta(days=report_days)
    closed = ImportRecord.state.not_in((ImportState.STAGED, ImportState.PREVIEWED))
    first = select(func.min(PlannedRow.number)).where(PlannedRow.import_id == ImportRecord.id).scalar_subquery()
    gone = (
        select(ImportRecord.id, first.label("first"))
        .where((ImportRecord.state == ImportState.EXPIRED) | (old & closed), first.is_not(None))
        .limit(1)
    )
    found = (await session.execute(gone)).one_or_none()
    if found is None:
        return False
    await session.execute(
        delete(PlannedRow).where(PlannedRow.import_id == found.id, PlannedRow.number < found.first + _FORGET_AT_ONCE)
    )
    return True


async def read(session: ReadSession, import_id: UUID) -> schemas.ImportRun:
    """The import.

    :raises UnknownImport: if there is none.
    """
    return document(await find(session, import_id))


async def find(session: ReadSession, import_id: UUID) -> RowMapping:
    """The record of an import and the key and terms of its book. Raises as :func:`read`."""
    record = (await session.execute(_SELECT.where(ImportRecord.id == import_id))).mappings().one_or_none()
    if record is None:
        raise _unknown(import_id)
    return record


async def list_all(
    session: ReadSession,
    *,
    book: str | None,
    state: ImportState | None,
    limit: int,
    cursor: str | None,
    cursors: Cursors,
) -> schemas.ImportList:
    """A page of imports, the newest first.

    :raises InvalidRequest: if the cursor belongs to another list.
    """
    filters = {"list": "imports", "book": book, "state": state}
    statement = _SELECT.order_by(ImportRecord.id.desc()).limit(limit + 1)
    if book is not None:
        statement = statement.where(Book.key == book)
    if state is not None:
        statement = statement.where(ImportRecord.state == state)
    if cursor is not None:
        statement = statement.where(ImportRecord.id < UUID(cursors.decode(cursor, filters)["after"]))
    found = [document(record) for record in (await session.execute(statement)).mappings()]
    following = None
    if len(found) > limit:
        found.pop()
        following = cursors.encode({"after": str(found[-1].id)}, filters)
    return schemas.ImportList(items=found, next=following)


async def locked(session: WriteSession, import_id: UUID) -> RowMapping:
    """The record of an import for somebody who changes it. Raises as :func:`read`."""
    record = (await session.execute(LOCK.where(ImportRecord.id == import_id))).mappings().one_or_none()
    if record is None:
        raise _unknown(import_id)
    return record


def _unknown(import_id: UUID) -> UnknownImport:
    return UnknownImport(f"There is no import {import_id}.")


def not_open(record: RowMapping, state: ImportState | None = None) -> ImportNotOpen:
    """The problem of an import that is in the wrong state.

    :param state: what it will be as soon as housekeeping comes by.
    """
    state = state or ImportState(record["state"])
    return ImportNotOpen(f"Import {record['id']} is {state}. {_NEXT_STEPS[state]}")


_NEXT_STEPS = {
    ImportState.STAGED: "Its file is still being read; wait for the answer to its upload.",
    ImportState.PREVIEWED: "It can be applied or cancelled.",
    ImportState.APPLIED: "What it recorded can be corrected, but not cancelled.",
    ImportState.CONFLICT: "Prices moved since its preview; send the file again.",
    ImportState.FAILED: "Correct the file and send it again.",
    ImportState.EXPIRED: "Send the file again.",
}


async def _has_errors(session: WriteSession, record: RowMapping, why: str) -> ImportHasErrors:
    statement = (
        select(PlannedRow.line, PlannedRow.errors)
        .where(PlannedRow.import_id == record["id"], PlannedRow.status == RowStatus.ERROR)
        .order_by(PlannedRow.number)
        .limit(_MOST_NAMED)
    )
    faults = [
        FieldError("/".join(filter(None, (f"line/{line}", fault["column"]))), fault["code"], fault["message"])
        for line, errors in await session.execute(statement)
        for fault in errors
    ]
    count, rows = record["counts"]["error"], record["counts"]["rows"]
    return ImportHasErrors(
        f"{count} of {rows} rows have errors, {why}. The report of import {record['id']} has them all: "
        "rows?status=error; and with format=file it is the file to correct.",
        faults[:_MOST_NAMED],
    )


async def close(database: Database, import_id: UUID, state: ImportState, reason: str) -> None:
    """End an import that led to nothing, unless it has ended already. Its staged rows go, too."""
    ending = (
        update(ImportRecord)
        .where(ImportRecord.id == import_id, ImportRecord.state.in_((ImportState.STAGED, ImportState.PREVIEWED)))
        .values(state=state, failure=reason, expires_at=None)
    )
    # Not among the imports, so that nobody waits for their work to hear of this.
    async with database.writing() as session:
        ended: Any = await session.execute(ending)
        await import_plan.clear(session, import_id)
    if ended.rowcount:
        IMPORTS.labels(ImportResult(state)).inc()
        logger.warning("import closed", import_id=str(import_id), state=state, reason=reason)


def plan_of(record: RowMapping) -> Plan:
    """What is to be applied."""
    return Plan(
        record["id"],
        record["book_id"],
        record["base_seq"],
        record["planned_at"],
        end_missing=record["options"]["missing"] == "end",
    )


def document(record: RowMapping, **changes: Any) -> schemas.ImportRun:
    """The import as it is answered, with what was just changed in it."""
    values = {**record, **changes}
    return schemas.ImportRun(**{name: values[name] for name in schemas.ImportRun.model_fields})
