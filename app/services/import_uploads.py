"""Uploads: a price list comes as a file, and is compared with the ledger."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import asdict, dataclass, replace
from datetime import date, datetime, timedelta
from decimal import Decimal
from functools import partial
from typing import Any, Literal, Protocol
from uuid import UUID

import structlog
from sqlalchemy import RowMapping, delete, func, insert, select, update
from starlette.requests import ClientDisconnect

from app import import_columns, money
from app.database import Database, WriteSession
from app.errors import (
    DatabaseUnavailable,
    FieldError,
    ImportConflict,
    ImportHasErrors,
    InvalidRequest,
    ProblemError,
    UnreadableFile,
)
from app.import_columns import MappingError
from app.import_files import FileError
from app.models import Book, ImportRecord
from app.observability.metrics import IMPORT_ROWS, IMPORT_SECONDS, IMPORTS, ImportResult, ImportStep
from app.schemas import import_run as schemas
from app.schemas.import_run import ImportState, RowStatus
from app.services import books, import_apply, import_plan, import_staging, imports, ledger
from app.services.import_reading import Format, Staged
from app.services.stored_answers import AnsweredBefore

logger = structlog.get_logger(__name__)

_CLOSE_ATTEMPTS = 2
_LONGEST_UPLOAD = timedelta(hours=1)
"""What takes longer has probably lost its process."""

_BOOK = select(Book.id, Book.time_zone, Book.tax_included)


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


class Once(Protocol):
    """Keeps a request that is sent again from being done again. Both raise to undo the transaction."""

    async def look(self, session: WriteSession) -> None:
        """Go on if the request was not answered before; the file has been read, and nobody else plans it."""

    async def settle(self, session: WriteSession, document: schemas.ImportRun, *, is_new: bool) -> None:
        """Store the answer, at the end of the last transaction."""


async def upload(
    database: Database,
    body: AsyncIterator[bytes],
    file: Upload,
    *,
    digest: bytes | None,
    limits: Limits,
    actor: str,
    may_correct: bool,
    still_admitted: Callable[[], Coroutine[None, None, None]],
    once: Once,
) -> Outcome:
    """Read a file, compare it with the ledger, and apply it if its mode says so.

    No connection is held while the body is waited for.

    :param digest: SHA-256 of the whole body, if the caller knows it.
    :param still_admitted: raises if the caller is not admitted any more. The body may take long, and so may the rest.
    :raises UnknownBook: if there is no such book.
    :raises UnreadableFile: if the file cannot be read as a whole, or is not the one that was sent.
    :raises ImportHasErrors: if it is to be applied whole and rows have errors.
    :raises ImportConflict: if prices moved between plan and apply.
    :raises AnsweredBefore: if the same request was.
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
                expires_at=func.now() + _LONGEST_UPLOAD,
            )
            .returning(ImportRecord.id)
        )
    assert import_id is not None  # noqa: S101 - the statement returns it
    try:
        how = Format(file.format, file.charset, file.decimal, sources, book.time_zone, limits.most_rows)
        with IMPORT_SECONDS.labels(ImportStep.READ).time():
            staged = await import_staging.stage(database, import_id, body, how)
        _check_digest(staged, digest)
        await still_admitted()
        with IMPORT_SECONDS.labels(ImportStep.COMPARE).time():
            outcome = await _plan(database, import_id, staged, book.time_zone, limits, once)
    except FileError as error:
        where = f"line/{error.line}" if error.line else "body"
        problem = UnreadableFile(
            f"The file {error.message}." if not error.line else f"Line {error.line} {error.message}.",
            [FieldError(where, error.code, error.message)],
        )
        await _give_up(database, import_id, problem)
        raise problem from None
    except AnsweredBefore:
        async with database.writing() as session:
            await _withdraw(session, import_id)
        raise
    except ProblemError as error:
        await _give_up(database, import_id, error)
        raise
    except BaseException as error:
        # Housekeeping does it if there is no time.
        await asyncio.shield(_give_up(database, import_id, error))
        raise
    if not _to_be_applied(file.mode, outcome.document):
        return outcome
    await still_admitted()
    try:
        settle = partial(once.settle, is_new=outcome.is_new)
        applied = await imports.apply(
            database, outcome.document.id, actor=actor, may_correct=may_correct, settle=settle
        )
        return replace(outcome, document=applied)
    except ImportHasErrors as error:
        await imports.close(database, outcome.document.id, ImportState.FAILED, error.detail)
        raise


def _check_digest(staged: Staged, digest: bytes | None) -> None:
    if digest is not None and staged.digest.digest() != digest:
        raise FileError("digest-mismatch", "is not the one that Content-Digest describes; send it again")


def _to_be_applied(mode: str, document: schemas.ImportRun) -> bool:
    # A file that was sent for a preview may be sent again to be applied, so the import's own mode says nothing.
    return mode == "apply" and document.state is ImportState.PREVIEWED


async def _withdraw(session: WriteSession, import_id: UUID) -> None:
    """Undo the beginning of an upload that is not needed."""
    await import_plan.clear(session, import_id)
    await session.execute(delete(ImportRecord).where(ImportRecord.id == import_id))


async def _plan(
    database: Database, import_id: UUID, staged: Staged, time_zone: str, limits: Limits, once: Once
) -> Outcome:
    sha256 = staged.digest.hexdigest()
    async with database.importing() as session:
        await import_plan.know_rows(session, staged.rows)
    async with database.importing() as session:
        # The same file, sent twice at once, makes one import.
        await session.execute(select(func.pg_advisory_xact_lock(func.hashtextextended(sha256, 0))))
        # First, so that what changes from here on is a change after it.
        head = await ledger.head(session)
        record = await imports.locked(session, import_id)
        if record["state"] != ImportState.STAGED:
            raise imports.not_open(record)
        same = await _same(session, record, sha256)
        # After it, because it waits for one that is just being applied.
        await once.look(session)
        if same is not None:
            await _withdraw(session, import_id)
            return await _planned(session, once, record["mode"], Outcome(imports.document(same), is_new=False))
        if record["time_zone"] != time_zone:
            raise ImportConflict(
                f"Book {record['book']} got another time zone while the file was read, and its dates would begin at "
                "other instants. Send it again.",
                [FieldError("book", "book-changed", "has another time zone than when the upload began")],
            )
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
            "expires_at": (await _now(session, head)) + timedelta(hours=limits.preview_hours),
            "base_seq": head.seq,
            "planned_at": planned_at,
            "counts": counts,
            "header": staged.header,
            "delimiter": staged.delimiter,
            "file_sha256": sha256,
            "file_bytes": staged.bytes,
        }
        await session.execute(update(ImportRecord).where(ImportRecord.id == import_id).values(values))
        outcome = await _planned(
            session, once, record["mode"], Outcome(imports.document(record, **values), is_new=True)
        )
    async with database.importing() as session:
        await import_plan.know_rows(session, staged.rows, "import_rows")
    IMPORTS.labels(ImportResult.PREVIEWED).inc()
    for status in RowStatus:
        IMPORT_ROWS.labels(status).inc(counts[status] or 0)
    return outcome


async def _planned(session: WriteSession, once: Once, mode: str, outcome: Outcome) -> Outcome:
    if not _to_be_applied(mode, outcome.document):
        await once.settle(session, outcome.document, is_new=outcome.is_new)
    return outcome


async def _now(session: WriteSession, head: ledger.Stamp) -> datetime:
    """Now, but never before the newest change."""
    now: datetime = (await session.execute(select(func.clock_timestamp()))).scalar_one()
    return max(now, head.recorded_at)


async def _same(session: WriteSession, record: RowMapping, sha256: str) -> RowMapping | None:
    """An import that this one would repeat. A preview that no longer holds is expired instead."""
    statement = (
        imports.LOCK.where(ImportRecord.file_sha256 == sha256, ImportRecord.book_id == record["book_id"])
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
    if not await import_apply.moved(session, imports.plan_of(same), before_seq=head.seq + 1, at=at):
        return same
    await session.execute(update(ImportRecord).where(ImportRecord.id == same["id"]).values(state=ImportState.EXPIRED))
    return None


async def _give_up(database: Database, import_id: UUID, error: BaseException) -> None:
    """Close an upload that led to nothing, as far as the database lets us; housekeeping does the rest."""
    if isinstance(error, ProblemError):
        reason = error.detail
    elif isinstance(error, asyncio.CancelledError | ClientDisconnect):
        reason = "The upload was cut off, by its client or by the stop of this process."
    else:
        reason = "The service failed; its log says how."
    for attempt in range(_CLOSE_ATTEMPTS):
        try:
            await imports.close(database, import_id, ImportState.FAILED, reason)
        except ProblemError as problem:
            # What cut the upload may have cut this connection, too; the next one is new.
            if attempt == _CLOSE_ATTEMPTS - 1:
                logger.warning("import left open", import_id=str(import_id), reason=problem.detail)
        else:
            return
