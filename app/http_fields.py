"""Header fields as they stand in a message."""

from collections.abc import Iterable


def lines(fields: Iterable[tuple[bytes, bytes]]) -> bytes:
    """The lines of these fields, each with its end."""
    return b"".join([b"%b: %b\r\n" % field for field in fields])
