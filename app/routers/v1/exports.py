"""Exports: whole price lists as files."""

from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Annotated

from fastapi import Query, Request, Response
from fastapi.responses import StreamingResponse

from app import instants
from app.access import Scope
from app.dependencies import At, BookQuery, Connections, KnownSeq, RequestPlace, StillAdmitted
from app.errors import InvalidRequest, UnknownBook, UnknownSeq, UpgradeRequired
from app.exact_json import requires
from app.problems import responses
from app.routers.caching import BY_KEY, IMMUTABLE
from app.routers.files import CSV, NDJSON, FileRoute
from app.routers.headers import CACHE_CONTROL, CONTENT_DISPOSITION, RECORDED_AT, SEQ, answer
from app.routing import Router
from app.schemas import examples
from app.services import exports
from app.services.exports import Format
from app.traffic import Place

_FILES = {
    Format.CSV: (f"{CSV}; charset=utf-8; header=present", "{book}-{seq}.csv"),
    Format.NDJSON: (NDJSON, "{book}-{seq}.ndjson"),
    Format.SNAPSHOT: (NDJSON, "{book}-{seq}-snapshot.ndjson"),
}


router = Router(tag="price lists", route_class=FileRoute)


@router.get(
    "/export",
    summary="A whole price list",
    dependencies=[requires(Scope.ITEMS_READ, Scope.PRICES_READ)],
    response_class=StreamingResponse,
    responses={
        **responses(UnknownBook, UnknownSeq, InvalidRequest, UpgradeRequired),
        200: {
            "description": "The file. One that ends in a cut connection is not whole.",
            "content": {
                CSV: {"schema": {"type": "string"}, "example": examples.EXPORT_CSV},
                NDJSON: {
                    "schema": {"type": "string"},
                    "examples": {
                        "ndjson": {"summary": "A line of the list", "value": examples.EXPORT_NDJSON},
                        "snapshot": {"summary": "A line of a snapshot", "value": examples.EXPORT_SNAPSHOT},
                    },
                },
            },
            **answer(SEQ, RECORDED_AT, CONTENT_DISPOSITION),
        },
    },
)
async def export(
    connections: Connections,
    place: RequestPlace,
    still_admitted: StillAdmitted,
    request: Request,
    form: Annotated[
        Format,
        Query(alias="format", description="The list as `csv` or `ndjson`; `snapshot`: items with all their documents"),
    ] = Format.CSV,
    book: BookQuery = "default",
    at: Annotated[At, Query(description="Only rows that answer at this instant; default: those of all times")] = None,
    known_seq: KnownSeq = None,
) -> Response:
    """Streamed from one consistent state of knowledge, whose seq is in the header `Pricebook-Seq`.

    The list has a line for each price row in force of each item that is not archived, past and scheduled ones
    included; an import reads it back. A snapshot has a line for each item: its document, and those of its price rows in
    force, as the feed has them. Pinned with `known_seq`, the answer never changes.
    """
    if request.scope["http_version"] == "1.0":
        raise UpgradeRequired(
            "An export is sent in chunks, and HTTP/1.0 has none. Ask by HTTP/1.1, and let a proxy on the way do so "
            "(nginx: proxy_http_version 1.1)."
        )
    place.export()
    begun = await exports.begin(connections, form, book=book, at=at, known_seq=known_seq)
    media_type, name = _FILES[form]
    headers = {
        SEQ: str(begun.known_seq),
        RECORDED_AT: instants.text(begun.recorded_at),
        CONTENT_DISPOSITION: f'attachment; filename="{name.format(book=book, seq=begun.known_seq)}"',
        CACHE_CONTROL: "no-store",
    }
    if known_seq is not None:
        headers |= {CACHE_CONTROL: IMMUTABLE, **BY_KEY}
    return StreamingResponse(_sent(begun.chunks, place, still_admitted), headers=headers, media_type=media_type)


async def _sent(
    chunks: AsyncIterator[bytes], place: Place, still_admitted: Callable[[], Coroutine[None, None, None]]
) -> AsyncIterator[bytes]:
    # The answer is there with its head and first batch; how long the rest takes is a matter of its size and the client.
    with place.waiting():
        async for chunk in chunks:
            await still_admitted()
            yield chunk
