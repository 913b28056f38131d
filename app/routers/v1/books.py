"""Books."""

from typing import Annotated

from fastapi import Path, Request, Response, status

from app import http_cache
from app.access import Scope
from app.dependencies import Actor, IfMatch, IfNoneMatch, MayCorrect, ReadingOnPrimary, Writing
from app.errors import (
    CurrencyFixed,
    DuplicateBook,
    InvalidRequest,
    PreconditionFailed,
    PreconditionRequired,
    UnknownBook,
)
from app.exact_json import ExactJsonRoute, requires
from app.idempotency import IDEMPOTENT
from app.problems import BODY_PROBLEMS, POST_PROBLEMS, responses
from app.routers.headers import ETAG, LOCATION, SEQ, answer, link
from app.routing import Router
from app.schemas.base import BookKey
from app.schemas.book import Book, BookCreate, BookList, BookPatch
from app.services import books

router = Router(prefix="/books", tag="books", route_class=ExactJsonRoute)

Key = Annotated[BookKey, Path(description="Key of the book", examples=["default"])]

_LINKS = {
    "book": link("read_book", {"key": "$response.body#/key"}),
    "change": link("change_book", {"key": "$response.body#/key", "header.if-match": "$response.header.ETag"}),
    "export": link("export", {"book": "$response.body#/key"}),
    "schedule": link("read_schedule", {"book": "$response.body#/key"}),
}


@router.post(
    "",
    status_code=status.HTTP_201_CREATED,
    summary="Create a book",
    dependencies=[requires(Scope.PRICES_WRITE), IDEMPOTENT],
    responses=responses(DuplicateBook, InvalidRequest, *POST_PROBLEMS)
    | {201: answer(LOCATION, ETAG, SEQ, links=_LINKS)},
)
async def create_book(data: BookCreate, session: Writing, actor: Actor, request: Request, response: Response) -> Book:
    """A price list in one currency."""
    written = await books.create(session, data, actor=actor)
    response.headers[LOCATION] = f"{request.url.path}/{written.document.key}"
    response.headers[ETAG] = http_cache.version_tag(written.document.version)
    response.headers[SEQ] = str(written.seq)
    return written.document


@router.get("", summary="List the books", dependencies=[requires(Scope.PRICES_READ)], responses=responses())
async def list_books(session: ReadingOnPrimary) -> BookList:
    """All of them, by key; `default` always exists."""
    return await books.list_all(session)


@router.get(
    "/{key}",
    summary="Read a book",
    dependencies=[requires(Scope.PRICES_READ)],
    responses=responses(UnknownBook, InvalidRequest) | {200: answer(ETAG, links=_LINKS)},
)
async def read_book(key: Key, session: ReadingOnPrimary, response: Response, if_none_match: IfNoneMatch = None) -> Book:
    """Currency, time zone, tax default and rounding policy."""
    book = await books.read(session, key)
    tag = http_cache.version_tag(book.version)
    if http_cache.is_fresh(if_none_match, tag):
        return Response(status_code=status.HTTP_304_NOT_MODIFIED, headers={ETAG: tag})  # type: ignore[return-value]  # no body
    response.headers[ETAG] = tag
    return book


@router.patch(
    "/{key}",
    summary="Change a book",
    dependencies=[requires(Scope.PRICES_WRITE)],
    responses=responses(
        UnknownBook, CurrencyFixed, PreconditionFailed, PreconditionRequired, InvalidRequest, *BODY_PROBLEMS
    )
    | {200: answer(ETAG, sometimes=[SEQ], links=_LINKS)},
)
async def change_book(
    key: Key,
    data: BookPatch,
    session: Writing,
    actor: Actor,
    may_correct: MayCorrect,
    response: Response,
    if_match: IfMatch = None,
) -> Book:
    """A JSON merge patch (RFC 7396). The currency can change only while the book has no prices.

    If it has some, another `time_zone` or `rounding` needs the scope `prices:correct`.
    """
    written = await books.change(session, key, data, if_match=if_match, actor=actor, may_correct=may_correct)
    response.headers[ETAG] = http_cache.version_tag(written.document.version)
    if written.seq is not None:
        response.headers[SEQ] = str(written.seq)
    return written.document
