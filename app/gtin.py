"""GTIN: Global Trade Item Numbers of 8, 12, 13 or 14 digits (GS1 General Specifications, section 7.9)."""

import re

_GTIN = re.compile(r"[0-9]{8}|[0-9]{12,14}", re.ASCII)


def is_valid(text: str) -> bool:
    """Whether the text is a GTIN with the right length and check digit."""
    if not _GTIN.fullmatch(text):
        return False
    weighted = sum(int(digit) * (3 if place % 2 == 0 else 1) for place, digit in enumerate(reversed(text[:-1])))
    return (weighted + int(text[-1])) % 10 == 0
