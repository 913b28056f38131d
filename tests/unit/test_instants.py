from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app import instants
from app.instants import NotAnInstant


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-12-01T00:00:00Z", datetime(2026, 12, 1, tzinfo=UTC)),
        ("2026-12-01t00:00:00z", datetime(2026, 12, 1, tzinfo=UTC)),
        ("2026-12-01 01:30:00+01:30", datetime(2026, 12, 1, tzinfo=UTC)),
        ("2026-11-30T19:00:00.123456-05:00", datetime(2026, 12, 1, 0, 0, 0, 123456, tzinfo=UTC)),
        ("2028-02-29", date(2028, 2, 29)),
    ],
)
def test_reads_timestamps_and_dates(text: str, expected: datetime | date) -> None:
    assert instants.parse(text) == expected


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("2026-12-01T00:00:00", "offset"),
        ("2027-02-29", "calendar"),
        ("2026-13-01T00:00:00Z", "calendar"),
        ("2026-12-01T24:00:01Z", "calendar"),
        ("2026-12-01T24:00:00Z", "calendar"),
        ("2026-12-01T00:00:60Z", "calendar"),
        ("0001-01-01T00:00:00+14:00", "calendar"),
        ("10000-01-01T00:00:00Z", "timestamp"),
        ("2026-12-01T00:00:00.1234567Z", "timestamp"),
        ("2026-12-01T00:00:00 01:00", "%2B"),
        ("2026-W49-2", "timestamp"),
        ("20261201T000000Z", "timestamp"),
        ("", "timestamp"),
        ("tomorrow", "timestamp"),
    ],
)
def test_refuses_everything_else_with_a_hint(text: str, hint: str) -> None:
    with pytest.raises(NotAnInstant, match=hint):
        instants.parse(text)


@pytest.mark.parametrize(
    ("day", "zone", "start"),
    [
        (date(2026, 7, 1), "UTC", "2026-07-01T00:00:00+00:00"),
        (date(2026, 7, 1), "Europe/Berlin", "2026-06-30T22:00:00+00:00"),
        (date(2026, 1, 1), "Europe/Berlin", "2025-12-31T23:00:00+00:00"),
        # Clocks change at two in the morning: midnight is not touched.
        (date(2026, 3, 29), "Europe/Berlin", "2026-03-28T23:00:00+00:00"),
        (date(2026, 10, 25), "Europe/Berlin", "2026-10-24T22:00:00+00:00"),
        # Midnight happens twice: the day starts at the first.
        (date(2026, 11, 1), "America/Havana", "2026-11-01T04:00:00+00:00"),
        # Midnight is skipped: the day starts at the jump.
        (date(2025, 4, 25), "Africa/Cairo", "2025-04-24T22:00:00+00:00"),
        # The skipped hour begins at half past eleven the evening before.
        (date(1919, 3, 31), "America/Toronto", "1919-03-31T04:30:00+00:00"),
        # Samoa went over the date line and had no 30 December.
        (date(2011, 12, 30), "Pacific/Apia", "2011-12-30T10:00:00+00:00"),
        (date(2011, 12, 31), "Pacific/Apia", "2011-12-30T10:00:00+00:00"),
    ],
)
def test_start_of_day(day: date, zone: str, start: str) -> None:
    assert instants.start_of_day(day, instants.zone(zone)).isoformat() == start


@given(
    st.dates(date(1970, 1, 2), date(2037, 12, 30)),
    st.sampled_from(
        ["Africa/Cairo", "America/Havana", "America/Sao_Paulo", "Asia/Beirut", "Europe/Berlin", "Asia/Amman"]
    ),
)
def test_the_start_of_a_day_is_its_first_instant(day: date, zone: str) -> None:
    tz = ZoneInfo(zone)
    start = instants.start_of_day(day, tz)
    assert start.astimezone(tz).date() == day
    # An oracle that knows nothing of offsets: no earlier minute within two days shows this date.
    minutes = (start - timedelta(minutes=minute) for minute in range(1, 60 * 48, 15))
    assert all(minute.astimezone(tz).date() < day for minute in [start - timedelta(microseconds=1), *minutes])


def test_the_edge_of_the_calendar_has_no_start() -> None:
    with pytest.raises(NotAnInstant, match="edge"):
        instants.start_of_day(date(1, 1, 1), instants.zone("Asia/Tokyo"))


@pytest.mark.parametrize("name", ["Mars/Olympus", "", "../etc/passwd", "Europe"])
def test_unknown_zones(name: str) -> None:
    with pytest.raises(KeyError):
        instants.zone(name)
