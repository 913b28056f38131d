"""Answers that HTTP caches may keep: strong ETags over the bytes, and a life that ends at the next boundary."""

import hashlib
from datetime import UTC, datetime
from uuid import UUID

from fastapi import Response, status
from pydantic import BaseModel

from app import documents, http_cache
from app.response_cache import Offer, Tag
from app.routers.headers import CACHE_CONTROL, ETAG, VARY
from app.schemas.base import Document
from app.services.questions import Moment

IMMUTABLE = "max-age=31536000, immutable"

BY_KEY = {VARY: "Authorization"}
"""For answers that may be kept: not for somebody who sends another key, or none. What nobody may keep needs no more."""


def max_age(most_seconds: int, until: datetime | None) -> str:
    """Cache-Control for an answer that changes by itself at ``until`` and, by a write, at any time."""
    if until is not None:
        most_seconds = min(most_seconds, int((until - datetime.now(UTC)).total_seconds()))
    return f"max-age={most_seconds}" if most_seconds > 0 else "no-cache"


def rendered(document: Document | BaseModel) -> tuple[bytes, str]:
    """The bytes of the document, and their entity tag."""
    body = documents.encode(document) if isinstance(document, dict) else document.model_dump_json().encode()
    return body, f'"{hashlib.sha256(body).hexdigest()[:32]}"'


def cacheable(document: Document | BaseModel, cache_control: str, if_none_match: str | None) -> Response:
    """The document, or 304 if the client has these very bytes."""
    body, tag = rendered(document)
    headers = {ETAG: tag, CACHE_CONTROL: cache_control, **BY_KEY}
    if http_cache.is_fresh(if_none_match, tag):
        return Response(status_code=status.HTTP_304_NOT_MODIFIED, headers=headers)
    return Response(body, headers=headers, media_type="application/json")


def priced(answer: Document, moment: Moment, most_seconds: int) -> tuple[Offer, str]:
    """What the ``PriceAnswer`` to a question about this moment depends on, and how long caches may keep it."""
    pinned = moment.at is not None and moment.known_seq is not None
    until = answer["effective_until"] if moment.at is None else None
    offer = Offer(
        answer["known_seq"],
        tags(answer["item_id"], answer["book"], moment.known_seq),
        most_seconds=None if pinned else most_seconds,
        at=answer["at"],
        until=until,
        is_price=True,
    )
    return offer, IMMUTABLE if pinned else max_age(most_seconds, until)


def tags(item_id: UUID, book: str, known_seq: int | None) -> tuple[Tag, ...]:
    """What an answer about an item in a book depends on. No change can touch what was known before it."""
    return (item_id, book) if known_seq is None else ()
