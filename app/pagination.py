"""Opaque keyset cursors: signed, and bound to the filters they were made for."""

import base64
import binascii
import hashlib
import hmac
import json
from collections.abc import Mapping
from typing import Any

from app.errors import InvalidRequest

_SIGNATURE_BYTES = 16


class Cursors:
    """Makes and reads cursors. The key keeps them from being forged and is derived from the service's secret."""

    def __init__(self, secret_key: str, previous: str | None = None) -> None:
        """Make it.

        :param previous: a secret whose cursors are still read.
        """
        self._key = _key(secret_key)
        self._keys = [self._key] if previous is None else [self._key, _key(previous)]

    def encode(self, position: Mapping[str, Any], filters: Mapping[str, Any]) -> str:
        """A cursor for the page after ``position``. Both mappings hold strings, numbers, booleans and nulls."""
        payload = json.dumps(position, separators=(",", ":"), sort_keys=True).encode()
        return base64.urlsafe_b64encode(_sign(self._key, payload, filters) + payload).decode().rstrip("=")

    def decode(self, cursor: str, filters: Mapping[str, Any]) -> dict[str, Any]:
        """The position in a cursor.

        :raises InvalidRequest: if it was not made by this service, or for other filters.
        """
        try:
            raw = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
        except (binascii.Error, ValueError):
            raw = b""
        signature, payload = raw[:_SIGNATURE_BYTES], raw[_SIGNATURE_BYTES:]
        if not any(hmac.compare_digest(signature, _sign(key, payload, filters)) for key in self._keys):
            raise InvalidRequest.at(
                "query/cursor",
                "wrong-cursor",
                "is not a cursor of this list with these filters; start again without it",
            )
        position: dict[str, Any] = json.loads(payload)
        return position


def _key(secret: str) -> bytes:
    return hashlib.sha256(b"pricebook cursors\0" + secret.encode()).digest()


def _sign(key: bytes, payload: bytes, filters: Mapping[str, Any]) -> bytes:
    bound = json.dumps(filters, sort_keys=True, default=str).encode()
    return hmac.digest(key, bound + b"\0" + payload, "sha256")[:_SIGNATURE_BYTES]
