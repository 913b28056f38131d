"""Writing documents as JSON, the way pydantic writes the models that describe them."""

import msgspec

_ENCODER = msgspec.json.Encoder()


def encode(document: object) -> bytes:
    """JSON of dicts, lists, texts, integers, UUIDs and instants in UTC. Decimals must be texts already."""
    return _ENCODER.encode(document)
