"""Every place that takes an instant reads dates in one way: bare ones in the book's zone, others by their offset."""

from collections import defaultdict
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import httpx2
import pytest

Client = httpx2.AsyncClient

MICROSECOND = timedelta(microseconds=1)
LONG_AGO = "1900-01-01T00:00:00Z"

# Zone of the book, what is sent, and the instant that it means.
INSTANTS = [
    # Winter, summer, and both clock changes: the day of the change starts by the clock before it.
    ("Europe/Berlin", "2024-01-15", "2024-01-14T23:00:00Z"),
    ("Europe/Berlin", "2024-07-15", "2024-07-14T22:00:00Z"),
    ("Europe/Berlin", "2024-03-31", "2024-03-30T23:00:00Z"),
    ("Europe/Berlin", "2024-04-01", "2024-03-31T22:00:00Z"),
    ("Europe/Berlin", "2024-10-27", "2024-10-26T22:00:00Z"),
    ("Europe/Berlin", "2024-10-28", "2024-10-27T23:00:00Z"),
    # Midnight comes twice, and the first one starts the day; in spring it is skipped, and the jump does.
    ("America/Havana", "2024-11-03", "2024-11-03T04:00:00Z"),
    ("America/Havana", "2024-11-04", "2024-11-04T05:00:00Z"),
    ("America/Havana", "2024-03-10", "2024-03-10T05:00:00Z"),
    ("Africa/Cairo", "2024-04-26", "2024-04-25T22:00:00Z"),
    ("Africa/Cairo", "2024-04-27", "2024-04-26T21:00:00Z"),
    ("Africa/Cairo", "2024-11-01", "2024-10-31T22:00:00Z"),
    # A day that a zone skipped starts where the next one does.
    ("Pacific/Apia", "2011-12-30", "2011-12-30T10:00:00Z"),
    ("Pacific/Apia", "2011-12-31", "2011-12-30T10:00:00Z"),
    # Leap days and the turn of the year, furthest ahead and furthest behind.
    ("UTC", "2024-02-29", "2024-02-29T00:00:00Z"),
    ("UTC", "2000-02-29", "2000-02-29T00:00:00Z"),
    ("Europe/Berlin", "2024-03-01", "2024-02-29T23:00:00Z"),
    ("UTC", "2024-01-01", "2024-01-01T00:00:00Z"),
    ("Europe/Berlin", "2024-01-01", "2023-12-31T23:00:00Z"),
    ("Pacific/Kiritimati", "2024-01-01", "2023-12-31T10:00:00Z"),
    ("Pacific/Honolulu", "2024-01-01", "2024-01-01T10:00:00Z"),
    # With an offset, the zone of the book is of no importance.
    ("Europe/Berlin", "2024-07-15T00:00:00Z", "2024-07-15T00:00:00Z"),
    ("Europe/Berlin", "2024-07-15t00:00:00z", "2024-07-15T00:00:00Z"),
    ("Europe/Berlin", "2024-07-15 00:00:00+00:00", "2024-07-15T00:00:00Z"),
    ("America/Havana", "2024-11-03T00:00:00-05:00", "2024-11-03T05:00:00Z"),
    ("Europe/Berlin", "2024-12-31T23:59:59.999999-12:00", "2025-01-01T11:59:59.999999Z"),
    ("Europe/Berlin", "2024-02-29T00:00:00.5+14:00", "2024-02-28T10:00:00.500000Z"),
    ("Europe/Berlin", "2024-03-31T02:30:00+01:00", "2024-03-31T01:30:00Z"),
]

# Zone of the book, and what is no instant in it.
FAULTS = [
    ("Europe/Berlin", "2024-07-15T00:00:00"),
    ("Europe/Berlin", "2024-07-15T00:00:00 01:00"),
    ("Europe/Berlin", "2024-07-15T00:00Z"),
    ("Europe/Berlin", "2024-07-15T00:00:00+0100"),
    ("Europe/Berlin", "2024-07-15T00:00:00[Europe/Berlin]"),
    ("Europe/Berlin", "2024-07-15T00:00:00.1234567Z"),
    ("Europe/Berlin", "2024-06-30T23:59:60Z"),
    ("Europe/Berlin", "2024-07-15T25:00:00Z"),
    ("Europe/Berlin", "2023-02-29"),
    ("Europe/Berlin", "1900-02-29"),
    ("Europe/Berlin", "2023-02-29T00:00:00Z"),
    ("Europe/Berlin", "2024-04-31"),
    ("Europe/Berlin", "2024-13-01"),
    ("Europe/Berlin", "2024-7-15"),
    ("Europe/Berlin", "20240715"),
    ("Europe/Berlin", "15.07.2024"),
    ("Europe/Berlin", "2024-W29-1"),
    ("Europe/Berlin", "10000-01-01"),
    ("Europe/Berlin", "0000-01-01"),
    ("Europe/Berlin", "now"),
    ("Europe/Berlin", "1721001600"),
    # In the calendar, but not in UTC's.
    ("Asia/Tokyo", "0001-01-01"),
    ("UTC", "0001-01-01T00:00:00+00:01"),
    ("UTC", "9999-12-31T23:59:59-00:01"),
]


async def shop(client: Client, time_zone: str) -> str:
    """A book in the zone, and an item that always had a price in it; the item's address."""
    body = {"key": "shop", "name": "Shop", "currency": "EUR", "time_zone": time_zone}
    assert (await client.post("/v1/books", json=body)).status_code == 201
    answer = await client.post("/v1/items", json={"name": "Frame", "sku": "A"})
    address: str = answer.headers["location"]
    await record(client, address, valid_from=LONG_AGO)
    return address


async def record(client: Client, address: str, amount: str = "1", **fields: Any) -> dict[str, Any]:
    answer = await client.post(f"{address}/prices", json={"book": "shop", "amount": amount, **fields})
    assert answer.status_code == 201, answer.text
    row: dict[str, Any] = answer.json()
    return row


async def get(client: Client, path: str, **query: Any) -> dict[str, Any]:
    answer = await client.get(path, params={"book": "shop", **query})
    assert answer.status_code == 200, answer.text
    document: dict[str, Any] = answer.json()
    return document


@pytest.mark.parametrize(("zone", "text", "instant"), INSTANTS)
async def test_a_date_means_the_same_instant_everywhere(client: Client, zone: str, text: str, instant: str) -> None:
    address = await shop(client, zone)
    lookup = {"book": "shop", "at": text, "lines": [{"item": "sku:A"}]}
    created = {"name": "x", "sku": "B", "price": {"book": "shop", "amount": "1", "valid_from": text}}
    looked_up = await client.post("/v1/prices:lookup", json=lookup)
    assert (await client.post("/v1/items", json=created)).status_code == 201
    (recorded,) = (await get(client, "/v1/items/sku:B/prices", rows=True))["rows"]
    found = {
        "at": (await get(client, f"{address}/price", at=text))["at"],
        "at of a list": (await get(client, "/v1/items", at=text))["items"][0]["price"]["at"],
        "at of a lookup": looked_up.json()["at"],
        "from": (await get(client, f"{address}/prices", **{"from": text}))["from"],
        "to": (await get(client, f"{address}/prices", to=text))["to"],
        "reduced_at": (await get(client, f"{address}/prior-price", reduced_at=text))["reduced_at"],
        "valid_from of a first price": recorded["valid_from"],
        "valid_from": (await record(client, address, "2", valid_from=text))["valid_from"],
        "valid_to": (await record(client, address, "3", valid_from=LONG_AGO, valid_to=text))["valid_to"],
    }
    assert found == dict.fromkeys(found, instant)
    # The window of the schedule is not echoed: the item changes at that very instant.
    assert [each["at"] for each in (await get(client, "/v1/schedule", **{"from": text}))["boundaries"]] == [instant] * 2
    before = (await get(client, "/v1/schedule", **{"from": LONG_AGO}, to=text))["boundaries"]
    assert [each["at"] for each in before] == [LONG_AGO]


@pytest.mark.parametrize(("zone", "text"), FAULTS)
async def test_what_is_no_instant_is_refused_everywhere(
    client: Client, owner: asyncpg.Connection, zone: str, text: str
) -> None:
    address = await shop(client, zone)
    seq = await owner.fetchval("SELECT seq FROM ledger")
    reads = [
        (f"{address}/price", "at"),
        (f"{address}/price", "known_at"),
        ("/v1/items", "at"),
        (f"{address}/prices", "from"),
        (f"{address}/prices", "to"),
        (f"{address}/prices", "known_at"),
        ("/v1/schedule", "from"),
        ("/v1/schedule", "to"),
        (f"{address}/prior-price", "reduced_at"),
    ]
    answers: defaultdict[str, list[httpx2.Response]] = defaultdict(list)
    for path, name in reads:
        answers[f"query/{name}"].append(await client.get(path, params={"book": "shop", name: text}))
    lookup = {"book": "shop", "at": text, "lines": [{"item": "sku:A"}]}
    answers["/at"].append(await client.post("/v1/prices:lookup", json=lookup))
    for name in ("valid_from", "valid_to"):
        body = {"book": "shop", "amount": "1", name: text}
        answers[f"/{name}"].append(await client.post(f"{address}/prices", json=body))
    assert len(answers) == 8
    for pointer, group in answers.items():
        for answer in group:
            assert answer.status_code == 422, answer.text
            faults = [(fault["pointer"], fault["code"]) for fault in answer.json()["errors"]]
            assert faults == [(pointer, "not-an-instant")]
    assert await owner.fetchval("SELECT seq FROM ledger") == seq


@pytest.mark.parametrize(
    ("zone", "text", "instant"),
    [
        ("Europe/Berlin", "2090-01-15", "2090-01-14T23:00:00Z"),
        ("Europe/Berlin", "2090-07-15", "2090-07-14T22:00:00Z"),
        ("Pacific/Kiritimati", "2090-01-01", "2089-12-31T10:00:00Z"),
        ("UTC", "2096-02-29", "2096-02-29T00:00:00Z"),
        ("Europe/Berlin", "2090-01-15T00:00:00.000001-05:00", "2090-01-15T05:00:00.000001Z"),
    ],
)
async def test_knowledge_begins_at_the_same_instant(
    client: Client, owner: asyncpg.Connection, zone: str, text: str, instant: str
) -> None:
    """``known_at`` is not echoed: a change is recorded at that very instant, one after and one before it."""
    address = await shop(client, zone)
    moment = datetime.fromisoformat(instant)
    try:
        await owner.execute("UPDATE ledger SET recorded_at = $1", moment)
        rows = [await record(client, address, amount, valid_from=LONG_AGO) for amount in ("10", "11", "12")]
        for row, at in zip(rows, (moment - MICROSECOND, moment, moment + MICROSECOND), strict=True):
            async with owner.transaction():
                await owner.execute("SET LOCAL session_replication_role = replica")
                await owner.execute("UPDATE price_rows SET recorded_at = $2 WHERE seq = $1", row["seq"], at)
                await owner.execute("UPDATE changes SET at = $2 WHERE seq = $1", row["seq"], at)
        query = {"at": "2024-01-01T00:00:00Z"}
        found = await get(client, f"{address}/price", **query, known_at=text)
        assert (found["amount"], found["known_seq"]) == ("11.00", rows[1]["seq"])
        assert (await get(client, f"{address}/prices", known_at=text))["known_seq"] == rows[1]["seq"]
        assert (await get(client, f"{address}/price", **query))["amount"] == "12.00"
    finally:
        await owner.execute("UPDATE ledger SET recorded_at = $1", datetime.now(UTC))


async def test_an_interval_of_one_microsecond_is_exact_at_both_edges(client: Client) -> None:
    address = await shop(client, "Europe/Berlin")
    start, end = "2024-02-29T12:00:00.123456Z", "2024-02-29T12:00:00.123457Z"
    row = await record(client, address, "2", valid_from=start, valid_to=end)
    assert (row["valid_from"], row["valid_to"]) == (start, end)

    async def found(at: str) -> tuple[str, str | None]:
        price = await get(client, f"{address}/price", at=at)
        return price["amount"], price["effective_until"]

    assert await found("2024-02-29T12:00:00.123455Z") == ("1.00", start)
    assert await found(start) == ("2.00", end)
    assert await found("2024-02-29T13:00:00.123456+01:00") == ("2.00", end)
    assert await found(end) == ("1.00", None)

    steps = (await get(client, f"{address}/prices", **{"from": start}, to="2024-03-01"))["steps"]
    assert [(step["from"], step["to"], step["amount"]) for step in steps] == [
        (start, end, "2.00"),
        (end, "2024-02-29T23:00:00Z", "1.00"),
    ]
    only = (await get(client, "/v1/schedule", **{"from": start}, to=end))["boundaries"]
    assert [(each["at"], each["after"]["amount"]) for each in only] == [(start, "2.00")]
    prior = await get(client, f"{address}/prior-price", reduced_at=end, days=1)
    assert (prior["amount"], prior["from"], prior["to"]) == ("1.00", "2024-02-28T12:00:00.123457Z", start)
    refused = await client.post(
        f"{address}/prices", json={"book": "shop", "amount": "1", "valid_from": end, "valid_to": start}
    )
    assert (refused.status_code, refused.json()["errors"][0]["code"]) == (422, "empty-interval")


async def test_a_day_of_the_clock_change_is_as_long_as_it_is(client: Client) -> None:
    """A sale "on that day", from its date until the next one, lasts 23 or 25 hours."""
    address = await shop(client, "Europe/Berlin")
    for day, following, hours in [
        ("2024-03-31", "2024-04-01", 23),
        ("2024-10-27", "2024-10-28", 25),
        ("2024-02-29", "2024-03-01", 24),
    ]:
        row = await record(client, address, "2", valid_from=day, valid_to=following)
        start, end = (datetime.fromisoformat(row[name]) for name in ("valid_from", "valid_to"))
        assert end - start == timedelta(hours=hours)
        for moment, amount in [
            (start - MICROSECOND, "1.00"),
            (start, "2.00"),
            (end - MICROSECOND, "2.00"),
            (end, "1.00"),
        ]:
            assert (await get(client, f"{address}/price", at=moment.isoformat()))["amount"] == amount


async def test_a_prior_price_at_the_edge_of_the_calendar_is_refused(client: Client) -> None:
    address = await shop(client, "UTC")
    answer = await client.get(f"{address}/prior-price", params={"book": "shop", "reduced_at": "0001-01-15"})
    assert answer.status_code == 422
    assert [(fault["pointer"], fault["code"]) for fault in answer.json()["errors"]] == [
        ("query/reduced_at", "not-an-instant")
    ]
