"""Keys as callers send them, ``pb_<id>_<secret>``, and what is kept of them."""

import hashlib
import hmac
import re
import secrets
from collections.abc import Iterable
from typing import NamedTuple, Self

_TOKEN = re.compile(r"pb_([0-9a-f]{16})_([A-Za-z0-9_-]{43})")
_NOBODY = "0" * 16


_SECRET = re.compile(r"(pb_[0-9a-f]{16}_)[A-Za-z0-9_-]{20,}")


def mask(text: str, hidden: Iterable[str] = ()) -> str:
    """The text, with no more of keys in it than their ids, and nothing of what is to be hidden."""
    text = _SECRET.sub(r"\1***", text)
    for secret in hidden:
        text = text.replace(secret, "***")
    return text


class KeyToken(NamedTuple):
    """A key. Its secret is shown once, and never stored or logged."""

    id: str
    secret: str

    @classmethod
    def new(cls) -> Self:
        """A key that nobody can guess: 256 random bits."""
        return cls(secrets.token_hex(8), secrets.token_urlsafe(32))

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """The key that a caller sent, or ``None`` if it is none."""
        match = _TOKEN.fullmatch(text)
        return cls(*match.groups()) if match else None

    def __str__(self) -> str:
        return f"pb_{self.id}_{self.secret}"

    def __repr__(self) -> str:
        return f"KeyToken(id={self.id!r})"


class KeySecret:
    """One ``SECRET_KEY``: makes digests of keys and recognises them."""

    def __init__(self, secret_key: str) -> None:
        self._key = hashlib.sha256(b"pricebook api keys\0" + secret_key.encode()).digest()
        self.id = hashlib.sha256(b"pricebook secret key id\0" + self._key).hexdigest()[:16]
        """Tells secret keys apart, and nothing else of them."""
        self.no_digest = self.digest(KeyToken(_NOBODY, ""))
        """What an unknown key is compared with, so that it takes as long as a known one to be refused."""

    def digest(self, token: KeyToken) -> bytes:
        """What is stored of a key (HMAC-SHA256)."""
        return hmac.digest(self._key, f"{token.id}_{token.secret}".encode(), "sha256")

    def matches(self, token: KeyToken, digest: bytes) -> bool:
        """Whether the digest is the key's, in a time that does not depend on where they differ."""
        return hmac.compare_digest(self.digest(token), digest)
