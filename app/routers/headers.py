"""Headers that answers carry: their names, and what the documentation says of them."""

from collections.abc import Sequence
from typing import Any

SEQ = "Pricebook-Seq"
RECORDED_AT = "Pricebook-Recorded-At"
ETAG = "ETag"
LOCATION = "Location"
LINK = "Link"
CACHE_CONTROL = "Cache-Control"
VARY = "Vary"
CONTENT_DISPOSITION = "Content-Disposition"
STALE = "Pricebook-Stale"

_DOCUMENTED: dict[str, dict[str, Any]] = {
    SEQ: {"description": "Number of the newest change that the answer tells of", "schema": {"type": "integer"}},
    RECORDED_AT: {
        "description": "When that change was recorded: the feed's `after_at`",
        "schema": {"type": "string", "format": "date-time"},
    },
    ETAG: {"description": "For `If-Match` and `If-None-Match`", "schema": {"type": "string", "pattern": '^"[^"]+"$'}},
    LOCATION: {"description": "Address of what was made", "schema": {"type": "string", "format": "uri-reference"}},
    LINK: {"description": 'The next page, with `rel="next"`', "schema": {"type": "string"}},
    CACHE_CONTROL: {"description": "How long caches may keep it", "schema": {"type": "string"}},
    STALE: {
        "description": "The database is away: for so many seconds nobody knows of changes to this answer",
        "schema": {"type": "integer", "minimum": 1},
    },
    CONTENT_DISPOSITION: {"description": "A name for the file", "schema": {"type": "string"}},
}


def answer(
    *always: str, sometimes: Sequence[str] = (), links: dict[str, dict[str, Any]] | None = None
) -> dict[str, Any]:
    """Part of an OpenAPI response: the headers that it always or sometimes has, and where it leads."""
    headers = {name: {**_DOCUMENTED[name], "required": name in always} for name in (*always, *sometimes)}
    return {"headers": headers} | ({"links": links} if links else {})


def link(operation: str, parameters: dict[str, str], body: dict[str, Any] | str | None = None) -> dict[str, Any]:
    """An OpenAPI link to an operation, by the name of its handler.

    :param parameters: a runtime expression for each, such as ``$response.body#/id``.
    """
    return {"operationId": operation, "parameters": parameters} | ({"requestBody": body} if body else {})


def next_page(operation: str) -> dict[str, dict[str, Any]]:
    """The link of a list to itself. The other parameters stay as they are: a cursor is made for them."""
    return {"next": link(operation, {"cursor": "$response.body#/next"})}
