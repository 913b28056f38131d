"""GTIN: Global Trade Item Numbers of 8, 12, 13 or 14 digits (GS1 General Specifications, section 7.9)."""

import re

_GTIN = re.compile(r"[0-9]{8}|[0-9]{12,14}", re.ASCII)


def is_valid(text: str) -> bool:
    """Whether the text is a GTIN with the right length and check digit."""
    if not _GTIN.fullmatch(text):
        return False
    weighted = 3 * sum(map(int, text[-2::-2])) + sum(map(int, text[::-2]))
    return weighted % 10 == 0
