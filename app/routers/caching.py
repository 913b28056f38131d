"""Answers that HTTP caches may keep: strong ETags over the bytes, and a life that ends at the next boundary."""

import hashlib
from datetime import UTC, datetime

from fastapi import Response, status
from pydantic import BaseModel

from app import http_cache
from app.routers.headers import CACHE_CONTROL, ETAG, VARY

IMMUTABLE = "max-age=31536000, immutable"

BY_KEY = {VARY: "Authorization"}
"""For answers that may be kept: not for somebody who sends another key, or none. What nobody may keep needs no more."""


def max_age(most_seconds: int, until: datetime | None) -> str:
    """Cache-Control for an answer that changes by itself at ``until`` and, by a write, at any time."""
    if until is not None:
        most_seconds = min(most_seconds, int((until - datetime.now(UTC)).total_seconds()))
    return f"max-age={most_seconds}" if most_seconds > 0 else "no-cache"


def cacheable(document: BaseModel, cache_control: str, if_none_match: str | None) -> Response:
    """The document, or 304 if the client has these very bytes."""
    body = document.model_dump_json().encode()
    tag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
    headers = {ETAG: tag, CACHE_CONTROL: cache_control, **BY_KEY}
    if http_cache.is_fresh(if_none_match, tag):
        return Response(status_code=status.HTTP_304_NOT_MODIFIED, headers=headers)
    return Response(body, headers=headers, media_type="application/json")
