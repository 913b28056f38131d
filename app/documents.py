"""Writing documents as JSON, the way pydantic writes the models that describe them."""

import msgspec

Written = msgspec.Raw
"""A part of a document that is JSON already."""

_ENCODER = msgspec.json.Encoder()


def encode(document: object) -> bytes:
    """JSON of dicts, lists, texts, integers, UUIDs and instants in UTC, and of what is :data:`Written` already.

    Decimals must be texts already.
    """
    return _ENCODER.encode(document)
