"""Instants: RFC 3339 timestamps, and bare dates that become instants in a time zone.

Pure functions; every instant inside the service is an aware ``datetime`` in UTC with microseconds.
"""

import re
from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", re.ASCII)
_TIMESTAMP = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ][0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,6})?([Zz]|[+-][0-9]{2}:[0-9]{2})",
    re.ASCII,
)
_HINT = "must be a timestamp with an offset (2026-12-01T00:00:00Z) or a date (2026-12-01)"


class NotAnInstant(ValueError):
    """A text that is neither a timestamp with an offset nor a date; the message says what to send instead."""


def parse(text: str) -> datetime | date:
    """Read a timestamp (answered as an instant in UTC) or a bare date (answered as a ``date``).

    Fractions of a second go down to microseconds, the resolution of the ledger; more digits are refused rather
    than cut. Leap seconds (``:60``) do not exist here, as in PostgreSQL's and Python's calendars.
    """
    if not isinstance(text, str):
        raise NotAnInstant(_HINT)
    try:
        if _DATE.fullmatch(text):
            return date.fromisoformat(text)
        # Some versions of Python read 24:00 as the next day; RFC 3339 does not know it.
        if _TIMESTAMP.fullmatch(text) and text[11:13] != "24":
            return datetime.fromisoformat(text.upper()).astimezone(UTC)
    except (ValueError, OverflowError):
        raise NotAnInstant(f"{_HINT}; this one is not in the calendar") from None
    if _TIMESTAMP.fullmatch(text):
        raise NotAnInstant(f"{_HINT}; this one is not in the calendar")
    if re.fullmatch(r".*[0-9] [0-9]{2}:[0-9]{2}", text):
        raise NotAnInstant(f"{_HINT}; write the + of an offset as %2B in a URL")
    raise NotAnInstant(_HINT)


def text(instant: datetime) -> str:
    """An instant in UTC as answers write it: ``2026-12-01T00:00:00Z``, with microseconds if there are any."""
    return instant.isoformat().replace("+00:00", "Z")


def zone(name: str) -> ZoneInfo:
    """The IANA time zone of that name.

    :raises KeyError: if there is none.
    """
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise KeyError(name) from None


def start_of_day(day: date, tz: ZoneInfo) -> datetime:
    """The first instant of a calendar day in a zone, in UTC.

    Where clocks go back over midnight it is the earlier of the two midnights; where midnight is skipped, it is the
    instant of the jump. A day that a zone skipped entirely starts, and ends, at the jump.

    :raises NotAnInstant: for days at the edge of the calendar that have no such instant in UTC.
    """
    try:
        start = datetime.combine(day, time(), tz).astimezone(UTC)
        # Where the skipped hour begins before midnight, the old offset leads past the jump: go back to it.
        while (start - timedelta(microseconds=1)).astimezone(tz).date() >= day:
            start = _jump_before(start, tz)
    except OverflowError:
        raise NotAnInstant(f"{_HINT}; this one is at the edge of the calendar") from None
    return start


def _jump_before(instant: datetime, tz: ZoneInfo) -> datetime:
    """The last instant at or before ``instant`` at which the zone's offset changed, at most a day back."""
    low, high = instant - timedelta(days=1), instant
    offset = high.astimezone(tz).utcoffset()
    while high - low > timedelta(microseconds=1):
        middle = low + (high - low) / 2
        if middle.astimezone(tz).utcoffset() == offset:
            high = middle
        else:
            low = middle
    return high
