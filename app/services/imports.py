"""Imports: a price list comes as a file, is compared with the ledger, and is applied at one instant or not at all."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import asdict, dataclass, replace
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any, Literal
from uuid import UUID

import structlog
from sqlalchemy import RowMapping, delete, func, insert, select, update

from app import import_columns, money
from app.database import Database, ReadSession, WriteSession
from app.errors import (
    DatabaseUnavailable,
    FieldError,
    ImportConflict,
    ImportHasErrors,
    ImportNotOpen,
    InvalidRequest,
    ProblemError,
    UnknownImport,
    UnreadableFile,
)
from app.import_columns import MappingError
from app.import_files import FileError
from app.models import STAGING, Book, ImportRecord, PlannedRow
from app.observability.metrics import IMPORT_ROWS, IMPORT_SECONDS, IMPORTS, ImportResult, ImportStep
from app.pagination import Cursors
from app.schemas import import_run as schemas
from app.schemas.import_run import ImportState, RowStatus
from app.services import books, import_apply, import_plan, import_staging, ledger
from app.services.import_apply import Plan

logger = structlog.get_logger(__name__)

_BOOK = select(Book.id, Book.time_zone, Book.tax_included)
_SELECT = select(*ImportRecord.__table__.c, Book.key.label("book"), Book.currency, Book.tax_included).join(
    Book, Book.id == ImportRecord.book_id
)
_LOCK = _SELECT.with_for_update(of=ImportRecord)
_MOST_NAMED = 100


@dataclass(frozen=True, slots=True)
class Limits:
    """What the settings say of imports."""

    most_rows: int
    preview_hours: float


@dataclass(frozen=True, slots=True)
class Upload:
    """What a caller says of a file."""

    book: str
    effective_at: datetime | date | None
    mode: Literal["preview", "apply"]
    format: Literal["csv", "ndjson"]
    charset: str
    on_error: Literal["abort", "skip"]
    missing: Literal["ignore", "end"]
    create: bool
    max_change_percent: Decimal
    decimal: Literal[".", ","]
    mapping: list[str]

    @property
    def options(self) -> dict[str, Any]:
        """As they are kept and answered."""
        names = ("format", "charset", "on_error", "missing", "create", "decimal", "mapping")
        chosen = asdict(self)
        return {name: chosen[name] for name in names} | {"max_change_percent": money.plain(self.max_change_percent)}


@dataclass(frozen=True, slots=True)
class Outcome:
    """An import, and whether it was there before: the same file for the same book and instant is the same import."""

    document: schemas.ImportRun
    is_new: bool


async def upload(
    database: Database, body: AsyncIterator[bytes], file: Upload, *, digest: bytes | None, limits: Limits, actor: str
) -> Outcome:
    """Read a file, compare it with the ledger, and apply it if its mode says so.

    No connection is held while the body is waited for.

    :param digest: SHA-256 of the whole body, if the caller knows it.
    :raises UnknownBook: if there is no such book.
    :raises UnreadableFile: if the file cannot be read as a whole, or is not the one that was sent.
    :raises ImportHasErrors: if it is to be applied whole and rows have errors.
    :raises ImportConflict: if prices moved between plan and apply.
    """
    try:
        sources = import_columns.parse_mapping(file.mapping)
    except MappingError as error:
        raise InvalidRequest.at("query/mapping", "wrong-mapping", f"is wrong: {error}") from None
    async with database.importing() as session:
        book = (await session.execute(_BOOK.where(Book.key == file.book))).one_or_none()
        if book is None:
            raise books.unknown(file.book)
        effective_at = await books.instant(session, file.book, file.effective_at, pointer="query/effective_at")
        import_id = await session.scalar(
            insert(ImportRecord)
            .values(
                book_id=book.id,
                effective_at=effective_at,
                mode=file.mode,
                state=ImportState.STAGED,
                options=file.options,
                created_at=func.now(),
                created_by=actor,
                expires_at=func.now() + timedelta(hours=limits.preview_hours),
            )
            .returning(ImportRecord.id)
        )
    assert import_id is not None  # noqa: S101 - the statement returns it
    try:
        how = import_staging.Format(file.format, file.charset, file.decimal, sources, book.time_zone, limits.most_rows)
        with IMPORT_SECONDS.labels(ImportStep.READ).time():
            staged = await import_staging.stage(database, import_id, body, how)
        _check_digest(staged, digest)
        with IMPORT_SECONDS.labels(ImportStep.COMPARE).time():
            outcome = await _plan(database, import_id, staged)
    except FileError as error:
        where = f"line/{error.line}" if error.line else "body"
        problem = UnreadableFile(
            f"The file {error.message}." if not error.line else f"Line {error.line} {error.message}.",
            [FieldError(where, error.code, error.message)],
        )
        await _give_up(database, import_id, problem)
        raise problem from None
    except ProblemError as error:
        await _give_up(database, import_id, error)
        raise
    except BaseException:
        # The client went away, or this process is about to. Housekeeping does it if there is no time.
        await asyncio.shield(_give_up(database, import_id, None))
        raise
    if file.mode == "preview" or outcome.document.state is not ImportState.PREVIEWED:
        return outcome
    try:
        return replace(outcome, document=await apply(database, outcome.document.id, actor=actor))
    except ImportHasErrors as error:
        await _close(database, outcome.document.id, ImportState.FAILED, error.detail)
        raise


def _check_digest(staged: import_staging.Staged, digest: bytes | None) -> None:
    if digest is not None and staged.digest.digest() != digest:
        raise FileError("digest-mismatch", "is not the one that Content-Digest describes; send it again")


async def _plan(database: Database, import_id: UUID, staged: import_staging.Staged) -> Outcome:
    sha256 = staged.digest.hexdigest()
    async with database.importing() as session:
        await import_plan.know_rows(session, staged.rows)
    async with database.importing() as session:
        # The same file, sent twice at once, makes one import.
        await session.execute(select(func.pg_advisory_xact_lock(func.hashtextextended(sha256, 0))))
        record = await _locked(session, import_id)
        if record["state"] != ImportState.STAGED:
            raise _not_open(record)
        if same := await _same(session, record, sha256):
            await import_plan.clear(session, import_id)
            await session.execute(delete(ImportRecord).where(ImportRecord.id == import_id))
            return Outcome(_document(same), is_new=False)
        head = await ledger.head(session)
        planned_at = record["effective_at"] or await _now(session, head)
        counts = await import_plan.make(
            session,
            import_plan.Terms(
                import_id=import_id,
                book_id=record["book_id"],
                tax_included=record["tax_included"],
                base_seq=head.seq,
                effective_at=record["effective_at"],
                planned_at=planned_at,
                create=record["options"]["create"],
                end_missing=record["options"]["missing"] == "end",
                max_change_percent=money.parse(record["options"]["max_change_percent"]),
            ),
        )
        if counts["rows"] != staged.rows:
            # The staging table is unlogged: a crash of the database empties it, and an upload may go on past that.
            raise DatabaseUnavailable(
                "The database was restarted while the file was read, and forgot rows of it. Nothing was written; send "
                "the file again.",
                retry_after_seconds=2,
            )
        values = {
            "state": ImportState.PREVIEWED,
            "base_seq": head.seq,
            "planned_at": planned_at,
            "counts": counts,
            "header": staged.header,
            "delimiter": staged.delimiter,
            "file_sha256": sha256,
            "file_bytes": staged.bytes,
        }
        await session.execute(update(ImportRecord).where(ImportRecord.id == import_id).values(values))
    IMPORTS.labels(ImportResult.PREVIEWED).inc()
    for status in RowStatus:
        IMPORT_ROWS.labels(status).inc(counts[status])
    return Outcome(_document(record, **values), is_new=True)


async def _now(session: WriteSession, head: ledger.Stamp) -> datetime:
    """Now, but never before the newest change."""
    now: datetime = (await session.execute(select(func.clock_timestamp()))).scalar_one()
    return max(now, head.recorded_at)


async def _same(session: WriteSession, record: RowMapping, sha256: str) -> RowMapping | None:
    """An import that this one would repeat. A preview that no longer holds is expired instead."""
    statement = (
        _LOCK.where(ImportRecord.file_sha256 == sha256, ImportRecord.book_id == record["book_id"])
        .where(ImportRecord.effective_at.is_not_distinct_from(record["effective_at"]))
        .where(ImportRecord.options == record["options"])
        .where(
            (ImportRecord.state == ImportState.APPLIED)
            | ((ImportRecord.state == ImportState.PREVIEWED) & (ImportRecord.expires_at > func.now()))
        )
        .order_by(ImportRecord.created_at.desc())
        .limit(1)
    )
    same = (await session.execute(statement)).mappings().one_or_none()
    if same is None:
        return None
    if same["state"] == ImportState.APPLIED:
        # Without an instant of its own, the list was applied then, and is sent for now.
        return same if same["effective_at"] is not None else None
    head = await ledger.head(session)
    at = same["effective_at"] or await _now(session, head)
    if not await import_apply.moved(session, _plan_of(same), before_seq=head.seq + 1, at=at):
        return same
    await session.execute(update(ImportRecord).where(ImportRecord.id == same["id"]).values(state=ImportState.EXPIRED))
    return None


async def apply(database: Database, import_id: UUID, *, actor: str) -> schemas.ImportRun:
    """Apply a preview: all of it at one instant, or nothing. One that is applied already is answered as it is.

    :raises UnknownImport: if there is none.
    :raises ImportNotOpen: if it cannot be applied any more.
    :raises ImportHasErrors: if it is to be applied whole and rows have errors.
    :raises ImportConflict: if prices moved since the preview; the import is closed then.
    """
    try:
        async with database.importing() as session:
            record = await _locked(session, import_id)
            if record["state"] == ImportState.APPLIED:
                return _document(record)
            if record["state"] != ImportState.PREVIEWED:
                raise _not_open(record)
            if record["expires_at"] < await session.scalar(select(func.now())):
                raise _not_open(record, ImportState.EXPIRED)
            if record["counts"]["error"] and record["options"]["on_error"] == "abort":
                raise await _has_errors(session, record)
            plan, effective_at = _plan_of(record), record["effective_at"]
            with IMPORT_SECONDS.labels(ImportStep.APPLY).time():
                block = await import_apply.write(session, plan, effective_at=effective_at, actor=actor)
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
    except ImportConflict as error:
        await _close(database, import_id, ImportState.CONFLICT, error.detail)
        raise
    IMPORTS.labels(ImportResult.APPLIED).inc()
    logger.info(
        "import applied",
        import_id=str(import_id),
        book=record["book"],
        **record["counts"],
        **{name: values[name] for name in ("first_seq", "last_seq")},
    )
    return _document(record, **values)


async def cancel(database: Database, import_id: UUID) -> schemas.ImportRun:
    """Give up a preview. One that is over already is answered as it is.

    :raises UnknownImport: if there is none.
    :raises ImportNotOpen: if it is applied, or its file is still being read.
    """
    async with database.importing() as session:
        record = await _locked(session, import_id)
        if record["state"] in (ImportState.APPLIED, ImportState.STAGED):
            raise _not_open(record)
        if record["state"] != ImportState.PREVIEWED:
            return _document(record)
        values = {"state": ImportState.EXPIRED, "expires_at": None}
        await session.execute(update(ImportRecord).where(ImportRecord.id == import_id).values(values))
        await session.execute(delete(PlannedRow).where(PlannedRow.import_id == import_id))
    return _document(record, **values)


_OVER = ImportRecord.state.in_((ImportState.STAGED, ImportState.PREVIEWED)) & (ImportRecord.expires_at < func.now())
_UPLOADS = select(ImportRecord.id).where(ImportRecord.state == ImportState.STAGED)
_FORGET_AT_ONCE = 10_000


async def expire(session: WriteSession, *, report_days: float) -> bool:
    """Close previews and uploads whose time is up, forget rows that nobody can ask for, and say whether there are more.

    :param report_days: how long the rows of a report are kept.
    """
    closing = update(ImportRecord).where(_OVER).values(state=ImportState.EXPIRED, expires_at=None)
    for import_id in (await session.execute(closing.returning(ImportRecord.id))).scalars():
        logger.info("import expired", import_id=str(import_id))
    await session.execute(delete(STAGING).where(STAGING.c.import_id.not_in(_UPLOADS)))
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
    return _document(await find(session, import_id))


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
    found = [_document(record) for record in (await session.execute(statement)).mappings()]
    following = None
    if len(found) > limit:
        found.pop()
        following = cursors.encode({"after": str(found[-1].id)}, filters)
    return schemas.ImportList(items=found, next=following)


async def _locked(session: WriteSession, import_id: UUID) -> RowMapping:
    record = (await session.execute(_LOCK.where(ImportRecord.id == import_id))).mappings().one_or_none()
    if record is None:
        raise _unknown(import_id)
    return record


def _unknown(import_id: UUID) -> UnknownImport:
    return UnknownImport(f"There is no import {import_id}.")


def _not_open(record: RowMapping, state: ImportState | None = None) -> ImportNotOpen:
    """:param state: what it will be as soon as housekeeping comes by."""
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


async def _has_errors(session: WriteSession, record: RowMapping) -> ImportHasErrors:
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
        f"{count} of {rows} rows have errors, so nothing was written (on_error=abort). The report of import "
        f"{record['id']} has them all: rows?status=error; and with format=file it is the file to correct.",
        faults[:_MOST_NAMED],
    )


async def _give_up(database: Database, import_id: UUID, problem: ProblemError | None) -> None:
    """Close an upload that led to nothing, as far as the database lets us; housekeeping does the rest."""
    reason = problem.detail if problem else "The upload was cut off."
    try:
        await _close(database, import_id, ImportState.FAILED, reason)
    except ProblemError as error:
        logger.warning("import left open", import_id=str(import_id), reason=error.detail)


async def _close(database: Database, import_id: UUID, state: ImportState, reason: str) -> None:
    async with database.importing() as session:
        await session.execute(
            update(ImportRecord)
            .where(ImportRecord.id == import_id, ImportRecord.state.in_((ImportState.STAGED, ImportState.PREVIEWED)))
            .values(state=state, failure=reason, expires_at=None)
        )
        await import_plan.clear(session, import_id)
    IMPORTS.labels(ImportResult(state)).inc()
    logger.warning("import closed", import_id=str(import_id), state=state, reason=reason)


def _plan_of(record: RowMapping) -> Plan:
    return Plan(
        record["id"],
        record["book_id"],
        record["base_seq"],
        record["planned_at"],
        end_missing=record["options"]["missing"] == "end",
    )


def _document(record: RowMapping, **changes: Any) -> schemas.ImportRun:
    values = {**record, **changes}
    return schemas.ImportRun(**{name: values[name] for name in schemas.ImportRun.model_fields})
