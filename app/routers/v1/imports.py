"""Imports: whole price lists, previewed and applied."""

import base64
import binascii
import re
from collections.abc import AsyncIterator
from decimal import Decimal
from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import Depends, Header, Path, Query, Request, Response, status
from fastapi.responses import StreamingResponse
from pydantic import Field
from starlette.exceptions import HTTPException

from app import idempotency
from app.access import Scope
from app.dependencies import (
    Actor,
    BookQuery,
    Connections,
    CursorCodec,
    ImportLimits,
    MayCorrect,
    ReadingOnPrimary,
    RequestPlace,
    StillAdmitted,
    Writing,
)
from app.errors import (
    ContentTooLarge,
    FieldError,
    ImportConflict,
    ImportHasErrors,
    ImportNotOpen,
    InvalidRequest,
    UnknownBook,
    UnknownImport,
    UnreadableFile,
    UnsupportedMediaType,
)
from app.exact_json import requires
from app.idempotency import IDEMPOTENT, IDEMPOTENT_UPLOAD
from app.import_columns import COLUMNS
from app.import_files import CHARSETS
from app.problems import POST_PROBLEMS, responses
from app.routers.files import CSV, NDJSON, FileRoute
from app.routers.headers import CACHE_CONTROL, CONTENT_DISPOSITION, LOCATION, SEQ, answer, link, next_page
from app.routing import Router
from app.schemas.base import BookKey, Moment, Rate
from app.schemas.import_run import ImportList, ImportRows, ImportRun, ImportState, RowStatus
from app.services import import_reports, import_uploads, imports
from app.services.import_uploads import Upload

_FORMATS: dict[str, Literal["csv", "ndjson"]] = {
    "text/csv": "csv",
    "text/tab-separated-values": "csv",
    "application/x-ndjson": "ndjson",
    "application/ndjson": "ndjson",
    "application/jsonl": "ndjson",
}

router = Router(prefix="/imports", tag="price lists", route_class=FileRoute)

Id = Annotated[UUID, Path(description="Id of the import")]
Limit = Annotated[int, Query(ge=1, le=1000, description="Most rows of a page")]
Cursor = Annotated[str | None, Query(description="`next` of the page before")]


async def _format(
    # OpenAPI has these with the body.
    content_type: Annotated[str | None, Header(include_in_schema=False)] = None,
    content_encoding: Annotated[str | None, Header(include_in_schema=False)] = None,
) -> tuple[Literal["csv", "ndjson"], str]:
    media_type, *parameters = (part.strip() for part in (content_type or "").lower().split(";"))
    if media_type not in _FORMATS:
        given = f"The file came as {media_type}" if media_type else "The file came without Content-Type"
        raise UnsupportedMediaType(f"{given}. Say what it is: Content-Type: {CSV} or {NDJSON}.")
    if content_encoding is not None and content_encoding.strip().lower() not in ("", "identity"):
        raise UnsupportedMediaType(f"The file came compressed ({content_encoding[:50]}). Send it as it is.")
    charset = next((part[8:].strip('"') for part in parameters if part.startswith("charset=")), "utf-8")
    if charset not in CHARSETS:
        raise UnsupportedMediaType(f"The encoding {charset[:50]} is not read here; these are: {', '.join(CHARSETS)}.")
    return _FORMATS[media_type], charset


async def _digest(
    content_digest: Annotated[
        str | None,
        Header(
            description="RFC 9530, such as `sha-256=:...:`; a file that does not fit it is refused",
            json_schema_extra={"pattern": "^sha-256=:[A-Za-z0-9+/]{43}=:$"},
        ),
    ] = None,
) -> bytes | None:
    for algorithm, value in re.findall(r"([a-z0-9-]+)=:([A-Za-z0-9+/=]*):", content_digest or ""):
        if algorithm == "sha-256":
            try:
                return base64.b64decode(value, validate=True)
            except binascii.Error:
                break
    if content_digest is None:
        return None
    message = "must hold sha-256=:...: with the digest in base64"
    raise InvalidRequest(
        f"header/content-digest {message}.", [FieldError("header/content-digest", "wrong-digest", message)]
    )


_ID = {"import_id": "$response.body#/id"}
_LINKS = {
    "import": link("read_import", _ID),
    "rows": link("read_rows", _ID),
    "apply": link("apply_import", _ID),
    "cancel": link("cancel_import", _ID),
}
_BODY: dict[str, Any] = {
    "requestBody": {
        "description": "The file as it is, without Content-Encoding; with a `charset` if it is not UTF-8",
        "required": True,
        "content": {
            CSV: {
                "schema": {"type": "string"},
                "example": "sku,name,amount,tax_rate\r\nFR-R92B,Frame,1431.50,19\r\n",
            },
            NDJSON: {
                "schema": {"type": "string"},
                "example": '{"sku":"FR-R92B","name":"Frame","amount":"1431.50","tax_rate":"19"}\n',
            },
        },
    }
}


@router.post(
    "",
    status_code=status.HTTP_201_CREATED,
    response_model=ImportRun,
    summary="Import a price list",
    dependencies=[requires(Scope.IMPORTS), IDEMPOTENT_UPLOAD],
    responses={
        **responses(
            UnknownBook, InvalidRequest, UnreadableFile, ImportHasErrors, ImportConflict, ImportNotOpen, *POST_PROBLEMS
        ),
        201: answer(LOCATION, sometimes=[SEQ], links=_LINKS),
        200: {
            "model": ImportRun,
            "description": "The same file for the same book and instant: that import",
            **answer(LOCATION, sometimes=[SEQ], links=_LINKS),
        },
    },
    openapi_extra=_BODY,
)
async def create_import(
    request: Request,
    database: Connections,
    limits: ImportLimits,
    place: RequestPlace,
    actor: Actor,
    may_correct: MayCorrect,
    still_admitted: StillAdmitted,
    what: Annotated[tuple[Literal["csv", "ndjson"], str], Depends(_format)],
    digest: Annotated[bytes | None, Depends(_digest)],
    book: BookQuery = "default",
    effective_at: Annotated[
        Moment | None, Query(description="When its prices begin, unless a row says otherwise; default: when applied")
    ] = None,
    mode: Annotated[Literal["preview", "apply"], Query(description="Only compare, or apply at once")] = "preview",
    on_error: Annotated[
        Literal["abort", "skip"], Query(description="Rows with errors stop the whole, or are left out")
    ] = "abort",
    missing: Annotated[
        Literal["ignore", "end"],
        Query(description="Items with a price in the book that the file does not name stay, or stop being for sale"),
    ] = "ignore",
    create: Annotated[bool, Query(description="Whether unknown items are created, or are errors")] = True,
    max_change_percent: Annotated[
        Rate, Query(description="A price that changes by more is an error: it stops a slipped decimal point")
    ] = Decimal(50),
    decimal: Annotated[Literal[".", ","], Query(description="The sign before the decimals in a CSV file")] = ".",
    mapping: Annotated[
        list[Annotated[str, Field(json_schema_extra={"pattern": f"^({'|'.join(COLUMNS)})(:[^\\x00-\\x1f\\x7f]+)?$"})]],
        Query(
            description="`field:column`, repeated; several for one field are tried in turn. `sku:{a} {b}` joins "
            "columns. With a mapping, only what it names is read",
            max_length=50,
        ),
    ] = [],  # noqa: B006 - FastAPI copies it
) -> Response:
    """Send a price list as the body, CSV or NDJSON, of any size that the service takes.

    Each row is compared with the price that stands at its beginning. The answer counts what the rows do; `rows` has
    each of them with the old and the new price. Nothing is written before the import is applied.
    """
    name, charset = what
    file = Upload(
        book=book,
        effective_at=effective_at,
        mode=mode,
        format=name,
        charset=charset,
        on_error=on_error,
        missing=missing,
        create=create,
        max_change_percent=max_change_percent,
        decimal=decimal,
        mapping=mapping,
    )

    def answer(document: ImportRun, is_new: bool) -> Response:
        code = status.HTTP_201_CREATED if is_new else status.HTTP_200_OK
        response = Response(document.model_dump_json(), code, media_type="application/json")
        response.headers[LOCATION] = f"{request.url.path}/{document.id}"
        _answered(response, document)
        return response

    with place.waiting():
        outcome = await import_uploads.upload(
            database,
            _body(request),
            file,
            digest=digest,
            limits=limits,
            actor=actor,
            may_correct=may_correct,
            still_admitted=still_admitted,
            once=idempotency.UploadOnce(request, answer),
        )
    return answer(outcome.document, outcome.is_new)


async def _body(request: Request) -> AsyncIterator[bytes]:
    try:
        async for chunk in request.stream():
            yield chunk
    except HTTPException as error:
        if error.status_code != status.HTTP_413_CONTENT_TOO_LARGE:
            raise
        raise ContentTooLarge("The file is larger than this service accepts (MAX_IMPORT_BYTES).") from None


def _answered(response: Response, document: ImportRun) -> ImportRun:
    if document.last_seq is not None:
        response.headers[SEQ] = str(document.last_seq)
    return document


@router.get(
    "",
    summary="List the imports",
    dependencies=[requires(Scope.IMPORTS)],
    responses=responses(InvalidRequest) | {200: answer(links=next_page("list_imports"))},
)
async def list_imports(
    session: ReadingOnPrimary,
    cursors: CursorCodec,
    book: Annotated[BookKey | None, Query(description="Only those for this book")] = None,
    state: Annotated[ImportState | None, Query(description="Only those in this state")] = None,
    limit: Limit = 100,
    cursor: Cursor = None,
) -> ImportList:
    """The newest first."""
    return await imports.list_all(session, book=book, state=state, limit=limit, cursor=cursor, cursors=cursors)


@router.post(
    "/{import_id:segment}:apply",
    summary="Apply a preview",
    dependencies=[requires(Scope.IMPORTS), IDEMPOTENT],
    responses=responses(UnknownImport, ImportNotOpen, ImportConflict, ImportHasErrors, InvalidRequest, *POST_PROBLEMS)
    | {200: answer(sometimes=[SEQ])},
)
async def apply_import(
    import_id: Id, database: Connections, place: RequestPlace, actor: Actor, may_correct: MayCorrect, response: Response
) -> ImportRun:
    """All of it, in one transaction at one instant, or nothing.

    If prices of its items moved since the preview, it is refused. Rows that begin in the past are corrections, which
    need the scope `prices:correct`. Applying it again answers what was done.
    """
    with place.waiting():
        document = await imports.apply(database, import_id, actor=actor, may_correct=may_correct)
    return _answered(response, document)


@router.get(
    "/{import_id:segment}/rows",
    summary="What the rows of an import do",
    dependencies=[requires(Scope.IMPORTS)],
    response_model=ImportRows,
    responses={
        **responses(UnknownImport, InvalidRequest),
        200: {
            **answer(sometimes=[CONTENT_DISPOSITION], links=next_page("read_rows")),
            "content": {
                CSV: {
                    "schema": {"type": "string"},
                    "example": "sku,amount,import_errors\r\nFR-R92B,x,amount must be a number in plain notation\r\n",
                },
                NDJSON: {
                    "schema": {"type": "string"},
                    "example": '{"sku":"FR-R92B","import_errors":"amount is required"}\n',
                },
            },
        },
    },
)
async def read_rows(
    import_id: Id,
    request: Request,
    session: ReadingOnPrimary,
    database: Connections,
    cursors: CursorCodec,
    status: Annotated[RowStatus | None, Query(description="Only rows of this status")] = None,
    order: Annotated[
        Literal["line", "change"], Query(description="As in the file, or the greatest changes first")
    ] = "line",
    format: Annotated[  # noqa: A002 - the parameter's name
        Literal["json", "file"],
        Query(description="`file`, with `status=error`: the rows to correct, as they were sent"),
    ] = "json",
    limit: Limit = 100,
    cursor: Cursor = None,
) -> Response | ImportRows:
    """Each row with the price that stands, the price that it states, and what is wrong with it.

    With `status=error&format=file`, the answer is a file like the one that was sent, of those rows alone, and with one
    column more that says what is wrong with each. Correct them and send it again: that column is passed over.
    """
    if format == "json":
        return await import_reports.page(
            session, import_id, status=status, order=order, limit=limit, cursor=cursor, cursors=cursors
        )
    if pages := {"limit", "cursor", "order"} & set(request.query_params):
        raise InvalidRequest.at(
            f"query/{min(pages)}", "whole-file", "must be left out: a file is whole, and in its order"
        )
    if status is not RowStatus.ERROR:
        raise InvalidRequest.at("query/status", "only-errors", "must be error for a file to correct")
    record = await imports.find(session, import_id)
    kind = record["options"]["format"]
    return StreamingResponse(
        import_reports.error_file(database, record),
        media_type=CSV if kind == "csv" else NDJSON,
        headers={
            CONTENT_DISPOSITION: f'attachment; filename="{import_id}-errors.{kind}"',
            CACHE_CONTROL: "no-store",
        },
    )


@router.get(
    "/{import_id:segment}",
    summary="Read an import",
    dependencies=[requires(Scope.IMPORTS)],
    responses=responses(UnknownImport, InvalidRequest) | {200: answer(sometimes=[SEQ], links=_LINKS)},
)
async def read_import(import_id: Id, session: ReadingOnPrimary, response: Response) -> ImportRun:
    """Where it stands, and how many rows do what."""
    return _answered(response, await imports.read(session, import_id))


@router.delete(
    "/{import_id:segment}",
    summary="Cancel an import",
    dependencies=[requires(Scope.IMPORTS)],
    responses=responses(UnknownImport, ImportNotOpen, InvalidRequest),
)
async def cancel_import(import_id: Id, session: Writing) -> ImportRun:
    """Give up a preview. It is `expired` then, as it would have become by itself in time."""
    return await imports.cancel(session, import_id)
