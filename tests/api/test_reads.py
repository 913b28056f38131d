"""Reading prices in every way: steps, rows, lookups, schedules, prior prices, explanations, searches; and voiding."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx2
import pytest

from app.settings import Settings

Client = httpx2.AsyncClient

NOBODY = "01a20537-de50-7ff8-9c93-02db0b06a11c"


async def item(client: Client, **fields: Any) -> str:
    answer = await client.post("/v1/items", json={"name": "Frame", **fields})
    assert answer.status_code == 201, answer.text
    return f"/v1/items/{answer.json()['id']}"


async def record(client: Client, address: str, amount: str | None, **fields: Any) -> dict[str, Any]:
    answer = await client.post(f"{address}/prices", json={"amount": amount, **fields})
    assert answer.status_code == 201, answer.text
    row: dict[str, Any] = answer.json()
    return row


async def amount(client: Client, address: str, at: str, **query: Any) -> str:
    """The amount at an instant, or the slug of the problem."""
    answer = await client.get(f"{address}/price", params={"at": at, **query})
    document = answer.json()
    return str(document["amount"] if answer.status_code == 200 else document["type"].rsplit("/")[-1])


async def get(client: Client, path: str, **query: Any) -> dict[str, Any]:
    answer = await client.get(path, params=query)
    assert answer.status_code == 200, answer.text
    document: dict[str, Any] = answer.json()
    return document


def day(text: str) -> str:
    """The start of a day in UTC, as answers write it."""
    return f"{text}T00:00:00Z"


# Steps and rows


async def steps(client: Client, address: str, **query: Any) -> list[tuple[str | None, str | None, str | None]]:
    """The steps as (from, to, amount), without the time of midnights."""
    document = await get(client, f"{address}/prices", **query)

    def short(instant: str | None) -> str | None:
        return instant and instant.removesuffix("T00:00:00Z")

    return [(short(step["from"]), short(step["to"]), step["amount"]) for step in document["steps"]]


async def history(client: Client) -> str:
    """A list price, a sale that outlasts a new list price, a gap in sight of a bounded row, and an end of selling."""
    address = await item(client, sku="A")
    await record(client, address, "10", valid_from="2024-01-01", valid_to="2024-03-01")
    await record(client, address, "12", valid_from="2024-04-01")
    await record(client, address, "7", valid_from="2024-06-01", valid_to="2024-06-15")
    await record(client, address, "13", valid_from="2024-06-10")
    await record(client, address, None, valid_from="2024-09-01")
    return address


HISTORY = [
    (None, "2024-01-01", None),
    ("2024-01-01", "2024-03-01", "10.00"),
    ("2024-03-01", "2024-04-01", None),
    ("2024-04-01", "2024-06-01", "12.00"),
    ("2024-06-01", "2024-06-15", "7.00"),
    ("2024-06-15", "2024-09-01", "13.00"),
    ("2024-09-01", None, None),
]


async def test_steps_resolve_all_overlaps(client: Client) -> None:
    address = await history(client)
    assert await steps(client, address) == HISTORY
    assert await steps(client, "/v1/items/sku:A") == HISTORY
    for start, _, expected in HISTORY[1:]:
        assert start is not None
        found = await amount(client, address, start)
        assert found == expected if expected else found in {"no-price", "not-for-sale"}


async def test_a_step_says_what_the_price_read_says(client: Client) -> None:
    address = await history(client)
    document = await get(client, f"{address}/prices")
    gap, unsold, sale = document["steps"][2], document["steps"][6], document["steps"][4]
    assert {name for name, value in gap.items() if value is not None} == {"from", "to"}
    # Not for sale is a statement of a row; a gap is the absence of one.
    assert unsold["price_id"] is not None
    assert (unsold["amount"], unsold["display"], unsold["valid_from"]) == (None, None, day("2024-09-01"))
    price = await get(client, f"{address}/price", at="2024-06-10")
    assert {name: value for name, value in sale.items() if name not in {"from", "to"}} == {
        name: price[name] for name in sale if name not in {"from", "to"}
    }
    head = {name: value for name, value in document.items() if name != "steps"}
    assert head == {
        "item_id": address.rsplit("/")[-1],
        "book": "default",
        "currency": "EUR",
        "from": None,
        "to": None,
        "known_seq": 7,
    }


@pytest.mark.parametrize(
    ("start", "end", "expected"),
    [
        ("2024-05-01", "2024-06-12", [("2024-05-01", "2024-06-01", "12.00"), ("2024-06-01", "2024-06-12", "7.00")]),
        ("2024-06-01", "2024-06-15", [("2024-06-01", "2024-06-15", "7.00")]),
        ("2024-03-05", "2024-03-06", [("2024-03-05", "2024-03-06", None)]),
        ("2024-06-15", None, [("2024-06-15", "2024-09-01", "13.00"), ("2024-09-01", None, None)]),
        (None, "2024-01-02", [(None, "2024-01-01", None), ("2024-01-01", "2024-01-02", "10.00")]),
        ("2030-01-01", None, [("2030-01-01", None, None)]),
    ],
)
async def test_steps_are_cut_to_the_window(
    client: Client, start: str | None, end: str | None, expected: list[tuple[str | None, str | None, str | None]]
) -> None:
    address = await history(client)
    query = {name: value for name, value in (("from", start), ("to", end)) if value is not None}
    assert await steps(client, address, **query) == expected


async def test_steps_know_corrections_voids_and_quantities(client: Client) -> None:
    address = await item(client)
    wrong = await record(client, address, "100", valid_from="2024-01-01")
    await record(client, address, "10", valid_from="2024-02-01", supersedes=wrong["id"])
    void = await record(client, address, "1", valid_from="2024-03-01", valid_to="2024-04-01")
    await client.delete(f"/v1/prices/{void['id']}")
    await record(client, address, "9", valid_from="2024-05-01", min_quantity="2.5")
    one = [(None, "2024-02-01", None), ("2024-02-01", None, "10.00")]
    assert await steps(client, address) == one
    assert await steps(client, address, quantity="2.499999999999") == one
    assert await steps(client, address, quantity="2.5") == [
        (None, "2024-02-01", None),
        ("2024-02-01", "2024-05-01", "10.00"),
        ("2024-05-01", None, "9.00"),
    ]
    assert await steps(client, await item(client)) == [(None, None, None)]


async def test_an_empty_window_is_refused(client: Client) -> None:
    address = await item(client)
    for path in (f"{address}/prices", "/v1/schedule"):
        answer = await client.get(path, params={"from": "2024-02-01", "to": "2024-02-01"})
        assert answer.status_code == 422
        assert [(fault["pointer"], fault["code"]) for fault in answer.json()["errors"]] == [
            ("query/to", "empty-interval")
        ]


async def test_rows_are_what_was_recorded(client: Client) -> None:
    address = await item(client)
    first = await record(client, address, "3", valid_from="2024-05-01", tax_rate="7", reason="list", per="10")
    second = await record(client, address, "1", valid_from="2024-01-01", supersedes=first["id"])
    third = await record(client, address, None, valid_from="2024-03-01", valid_to="2024-04-01")
    await client.delete(f"/v1/prices/{third['id']}")
    document = await get(client, f"{address}/prices", rows=True)
    # In the order of seq, superseded and voided rows included.
    assert document["rows"] == [first, second, {**third, "void": True}]
    assert [row["supersedes"] for row in document["rows"]] == [None, first["id"], None]
    assert document["known_seq"] == 6
    assert (await get(client, f"{await item(client)}/prices", rows=True))["rows"] == []


# Lookups


async def look_up(client: Client, lines: list[dict[str, Any]], **fields: Any) -> httpx2.Response:
    return await client.post("/v1/prices:lookup", json={"lines": lines, **fields})


async def test_a_lookup_answers_each_line_in_its_place(client: Client) -> None:
    a = await item(client, sku="A", price={"amount": "10", "valid_from": "2024-01-01"})
    await record(client, a, "8", valid_from="2024-01-01", min_quantity="100")
    b = await item(client, sku="sku:B", price={"amount": "2", "valid_from": "2024-01-01", "tax_rate": "19"})
    await item(client, sku="later", price={"amount": "2", "valid_from": "2024-06-01"})
    await item(client, sku="stopped", price={"amount": None, "valid_from": "2024-01-01"})
    a_id, b_id = a.rsplit("/")[-1], b.rsplit("/")[-1]
    lines: list[dict[str, Any]] = [
        {"item": "sku:stopped"},
        {"item": b_id},
        {"item": "sku:A", "quantity": "100"},
        {"item": "sku:later"},
        {"item": a_id, "quantity": "99.999"},
        {"item": "sku:none"},
        {"item": a_id, "quantity": 100},
        {"item": "A"},
        {"item": "sku:sku:B"},
        {"item": NOBODY},
        {"item": "sku:A", "quantity": "100"},
        {"item": "sku:A", "quantity": "0.5"},
        {"item": "sku:"},
    ]
    answer = await look_up(client, lines, at="2024-05-01")
    assert answer.status_code == 200, answer.text
    document = answer.json()
    assert {name: value for name, value in document.items() if name != "prices"} == {
        "book": "default",
        "currency": "EUR",
        "at": day("2024-05-01"),
        "known_seq": 10,
    }
    assert len(document["prices"]) == len(lines)
    for line, found in zip(lines, document["prices"], strict=True):
        query = {"at": day("2024-05-01"), "quantity": str(line.get("quantity", "1"))}
        alone = await client.get(f"/v1/items/{line['item']}/price", params=query)
        if alone.status_code == 200:
            assert found == alone.json()
        else:
            assert found == {"item": line["item"], "error": alone.json()["type"].removeprefix("/problems/")}
    assert [found.get("amount") or found["error"] for found in document["prices"]] == [
        "not-for-sale",
        "2.00",
        "8.00",
        "no-price",
        "10.00",
        "unknown-item",
        "8.00",
        "unknown-item",
        "2.00",
        "unknown-item",
        "8.00",
        "no-price",
        "unknown-item",
    ]


async def test_a_lookup_takes_a_thousand_lines_and_no_more(client: Client) -> None:
    addresses = [
        await item(client, sku=f"S{number}", price={"amount": str(number), "valid_from": "2024-01-01"})
        for number in range(40)
    ]
    names = [f"sku:S{number % 40}" if number % 3 else addresses[number % 40].rsplit("/")[-1] for number in range(1000)]
    answer = await look_up(client, [{"item": name} for name in names])
    assert answer.status_code == 200
    assert [price["sku"] for price in answer.json()["prices"]] == [f"S{number % 40}" for number in range(1000)]
    assert len({price["at"] for price in answer.json()["prices"]}) == 1, "one instant for all lines"
    for count in (0, 1001):
        refused = await look_up(client, [{"item": "sku:S1"}] * count)
        assert (refused.status_code, refused.json()["errors"][0]["pointer"]) == (422, "/lines")


async def test_a_lookup_names_the_faulty_line(client: Client) -> None:
    lines: list[dict[str, Any]] = [
        {"item": "sku:A"},
        {"item": "sku:A", "quantity": 0},
        {"item": ""},
        {"item": "sku:A", "price": 1},
    ]
    refused = await look_up(client, lines)
    assert refused.status_code == 422
    assert [(fault["pointer"], fault["code"]) for fault in refused.json()["errors"]] == [
        ("/lines/1/quantity", "not-positive"),
        ("/lines/2/item", "too-short"),
        ("/lines/3/price", "extra-forbidden"),
    ]
    unknown = await look_up(client, [{"item": "sku:A"}], book="none")
    assert (unknown.status_code, unknown.json()["errors"][0]["pointer"]) == (404, "/book")


# Schedules


async def schedule(client: Client, **query: Any) -> list[tuple[str, str | None, str, str]]:
    """The boundaries as (day, sku, before, after)."""
    document = await get(client, "/v1/schedule", **query)
    assert document["next"] is None

    def side(price: dict[str, Any] | None) -> str:
        return "no price" if price is None else price["amount"] or "not for sale"

    return [
        (boundary["at"].removesuffix("T00:00:00Z"), boundary["sku"], side(boundary["before"]), side(boundary["after"]))
        for boundary in document["boundaries"]
    ]


async def test_the_schedule_holds_real_changes_only(client: Client) -> None:
    await history(client)
    b = await item(client, sku="B")
    await record(client, b, "5", valid_from="2024-06-01")
    # Twice the same start, a row for larger quantities, a void and a row hidden behind a longer sale.
    await record(client, b, "6", valid_from="2024-06-01")
    await record(client, b, "1", valid_from="2024-02-01", min_quantity="2")
    void = await record(client, b, "2", valid_from="2024-02-01", valid_to="2024-02-03")
    await client.delete(f"/v1/prices/{void['id']}")
    await record(client, b, "4", valid_from="2024-07-01", valid_to="2024-07-20")
    await record(client, b, "3", valid_from="2024-06-25", valid_to="2024-07-10", min_quantity="0.5")
    expected = [
        ("2024-01-01", "A", "no price", "10.00"),
        ("2024-03-01", "A", "10.00", "no price"),
        ("2024-04-01", "A", "no price", "12.00"),
        ("2024-06-01", "A", "12.00", "7.00"),
        ("2024-06-01", "B", "no price", "6.00"),
        ("2024-06-15", "A", "7.00", "13.00"),
        ("2024-06-25", "B", "6.00", "3.00"),
        ("2024-07-01", "B", "3.00", "4.00"),
        ("2024-07-20", "B", "4.00", "6.00"),
        ("2024-09-01", "A", "13.00", "not for sale"),
    ]
    assert await schedule(client, **{"from": "2000-01-01"}) == expected
    # The window is half-open.
    window = {"from": "2024-03-01", "to": "2024-06-15"}
    assert await schedule(client, **window) == expected[1:5]
    assert await schedule(client, **{"from": "2024-06-15", "to": "2024-06-15T00:00:00.000001Z"}) == expected[5:6]
    assert await schedule(client, **{"from": "2024-06-15T00:00:00.000001Z", "to": "2024-06-25"}) == []
    # By default from now on, and nothing is scheduled after now.
    assert await schedule(client) == []
    await record(client, b, "9", valid_from="2999-01-01")
    assert await schedule(client) == [("2999-01-01", "B", "6.00", "9.00")]


async def test_a_boundary_says_what_the_price_reads_say(client: Client) -> None:
    address = await history(client)
    document = await get(client, "/v1/schedule", **{"from": "2024-06-15", "to": "2024-06-16"})
    (boundary,) = document["boundaries"]
    before = await get(client, f"{address}/price", at="2024-06-14T23:59:59.999999Z")
    after = await get(client, f"{address}/price", at="2024-06-15")
    assert boundary["before"] == {name: before[name] for name in boundary["before"]}
    assert boundary["after"] == {name: after[name] for name in boundary["after"]}
    assert (boundary["item_id"], boundary["book"]) == (address.rsplit("/")[-1], "default")
    assert before["effective_until"] == boundary["at"]


@pytest.mark.parametrize("limit", [1, 2, 3, 7])
async def test_pages_of_the_schedule_join_without_a_seam(client: Client, limit: int) -> None:
    for number in range(5):
        address = await item(client, sku=f"S{number}")
        # All items change at the same instants.
        await record(client, address, "1", valid_from="2024-01-01")
        await record(client, address, "2", valid_from="2024-02-01", valid_to="2024-02-02")
    query = {"from": "2024-01-01", "to": "2025-01-01"}
    whole = (await get(client, "/v1/schedule", **query))["boundaries"]
    assert len(whole) == 15
    pages = [await get(client, "/v1/schedule", **query, limit=limit)]
    while pages[-1]["next"] is not None:
        pages.append(await get(client, "/v1/schedule", **query, limit=limit, cursor=pages[-1]["next"]))
    assert [boundary for page in pages for boundary in page["boundaries"]] == whole
    assert {len(page["boundaries"]) for page in pages[:-1]} == {limit}
    assert 0 < len(pages[-1]["boundaries"]) <= limit
    other = await client.get("/v1/schedule", params={"from": "2024-01-02", "cursor": pages[0]["next"]})
    assert (other.status_code, other.json()["errors"][0]["code"]) == (422, "wrong-cursor")


# Prior prices


async def prior(client: Client, address: str, **query: Any) -> Any:
    """The prior price as (amount, from, to), or the status and the slug of the problem."""
    answer = await client.get(f"{address}/prior-price", params=query)
    document = answer.json()
    if answer.status_code != 200:
        return answer.status_code, document["type"].removeprefix("/problems/")
    return document["amount"], *(document[name].removesuffix("T00:00:00Z") for name in ("from", "to"))


async def test_the_prior_price_is_the_lowest_of_the_thirty_days_before_the_reduction(client: Client) -> None:
    address = await item(client)
    await record(client, address, "10", valid_from="2024-01-01")
    await record(client, address, "8", valid_from="2024-04-20", valid_to="2024-05-02")
    await record(client, address, "9", valid_from="2024-05-02", valid_to="2024-05-03")
    # Neither a price for larger quantities nor one that was voided was offered to everybody.
    await record(client, address, "1", valid_from="2024-05-01", min_quantity="2")
    void = await record(client, address, "2", valid_from="2024-05-01")
    await client.delete(f"/v1/prices/{void['id']}")
    reduced = await record(client, address, "7", valid_from="2024-06-01", valid_to="2999-01-01")
    expected = ("9.00", "2024-05-02", "2024-05-03")
    assert await prior(client, address, reduced_at="2024-06-01") == expected
    assert await prior(client, address) == expected, "by default the reduction is the price in force now"
    assert await prior(client, address, days=31) == ("8.00", "2024-05-01", "2024-05-02")
    assert await prior(client, address, days=29) == ("10.00", "2024-05-03", "2024-06-01")
    assert await prior(client, address, reduced_at="2024-05-02", days=5) == ("8.00", "2024-04-27", "2024-05-02")
    # A moment of the sale counts.
    assert await prior(client, address, reduced_at="2024-05-31T23:59:59.999999Z") == (
        "8.00",
        "2024-05-01T23:59:59.999999Z",
        "2024-05-02",
    )
    document = await get(client, f"{address}/prior-price")
    assert document == {
        "item_id": address.rsplit("/")[-1],
        "book": "default",
        "currency": "EUR",
        "reduced_at": reduced["valid_from"],
        "days": 30,
        "amount": "9.00",
        "per": "1",
        "tax_rate": None,
        "tax": None,
        "tax_included": False,
        "from": day("2024-05-02"),
        "to": day("2024-05-03"),
        "price_id": document["price_id"],
    }


async def test_a_history_that_is_too_short_is_no_prior_price(client: Client) -> None:
    address = await item(client)
    await record(client, address, "10", valid_from="2024-05-02T00:00:00.000001Z")
    await record(client, address, "7", valid_from="2024-06-01")
    assert await prior(client, address, reduced_at="2024-06-01") == (409, "history-too-short")
    exactly = await prior(client, address, reduced_at="2024-06-01T00:00:00.000001Z")
    assert exactly[0] == "7.00", "the reduced price was in force for a microsecond"
    assert (await prior(client, address, reduced_at="2024-06-01", days=29))[0] == "10.00"


async def test_a_time_without_a_price_does_not_count(client: Client) -> None:
    address = await item(client)
    await record(client, address, "5", valid_from="2024-01-01", valid_to="2024-02-01")
    await record(client, address, None, valid_from="2024-03-01")
    await record(client, address, "4", valid_from="2024-05-01")
    assert await prior(client, address, reduced_at="2024-05-01") == (404, "no-price")
    assert await prior(client, address, reduced_at="2024-05-01", days=91) == ("5.00", "2024-01-31", "2024-02-01")
    stopped = await item(client, price={"amount": "5", "valid_from": "2024-01-01", "valid_to": "2024-02-01"})
    assert await prior(client, stopped) == (404, "no-price")
    assert await prior(client, await item(client), reduced_at="2024-05-01") == (409, "history-too-short")


@pytest.mark.parametrize(
    ("lower", "higher"),
    [
        # A consumer pays 119.00 against 120.19.
        (
            {"amount": "119", "tax_rate": "19", "tax_included": True},
            {"amount": "101", "tax_rate": "19", "tax_included": False},
        ),
        # 120.00 against 125.00: a tax may be an amount.
        ({"amount": "120", "tax_included": True}, {"amount": "100", "tax": "25", "tax_included": False}),
        # 10.00 against 11.00 for one unit.
        ({"amount": "100", "per": "10"}, {"amount": "11"}),
        # Less by a third of a cent for one unit.
        ({"amount": "10", "per": "3"}, {"amount": "3.3334"}),
        # 121.00 against 122.00: both exclusive, at different rates.
        ({"amount": "110", "tax_rate": "10"}, {"amount": "100", "tax_rate": "22"}),
    ],
)
async def test_prior_prices_are_compared_gross_and_for_one_unit(
    client: Client, lower: dict[str, Any], higher: dict[str, Any]
) -> None:
    for first, second in ((lower, higher), (higher, lower)):
        address = await item(client)
        recorded = [
            await record(client, address, **first, valid_from="2024-01-01"),
            await record(client, address, **second, valid_from="2024-02-01"),
        ]
        found = await get(client, f"{address}/prior-price", reduced_at="2024-02-15")
        expected = recorded[0 if first is lower else 1]
        assert found["price_id"] == expected["id"]
        terms = ("amount", "per", "tax_rate", "tax", "tax_included")
        assert {name: found[name] for name in terms} == {name: expected[name] for name in terms}


# Explanations


async def test_an_explanation_says_why_each_row_lost(client: Client) -> None:
    address = await item(client)
    sale = {"min_quantity": "5", "valid_from": "2024-06-01", "valid_to": "2024-07-01"}
    rows = {
        "open-ended": await record(client, address, "1", valid_from="2024-06-05", min_quantity="9"),
        "earlier-seq": await record(client, address, "2", **sale),
        "earlier-valid-from": await record(client, address, "3", **{**sale, "valid_from": "2024-05-01"}),
        "smaller-min-quantity": await record(client, address, "4", **{**sale, "min_quantity": "4.9"}),
        "superseded": await record(client, address, "5", **sale),
    }
    rows["answers"] = await record(client, address, "6", **sale, supersedes=rows["superseded"]["id"])
    rows["voided"] = await record(client, address, "7", **sale)
    await client.delete(f"/v1/prices/{rows['voided']['id']}")
    rows["quantity-too-small"] = await record(client, address, "8", **{**sale, "min_quantity": "10.000000000001"})
    rows["not-yet-valid"] = await record(client, address, "9", valid_from="2024-06-15T00:00:00.000001Z")
    rows["ended"] = await record(client, address, "10", valid_from="2024-06-01", valid_to="2024-06-15")

    answer = await get(client, f"{address}/price", at="2024-06-15", quantity="10", explain=True)
    assert answer["amount"] == "6.00"
    outcomes = [
        # Those in force in the order of the rule, then the others, the latest first.
        "answers",
        "earlier-seq",
        "earlier-valid-from",
        "smaller-min-quantity",
        "open-ended",
        "ended",
        "not-yet-valid",
        "quantity-too-small",
        "voided",
        "superseded",
    ]
    shown = ("seq", "amount", "per", "min_quantity", "valid_from", "valid_to")
    assert answer["explain"] == [
        {"price_id": rows[outcome]["id"], **{name: rows[outcome][name] for name in shown}, "outcome": outcome}
        for outcome in outcomes
    ]
    plain = await get(client, f"{address}/price", at="2024-06-15", quantity="10")
    assert {**answer, "explain": None} == plain

    # As known before the correction, the row it corrects answers, and later rows are not there yet.
    known = rows["superseded"]["seq"]
    earlier = await get(client, f"{address}/price", at="2024-06-15", quantity="10", explain=True, known_seq=known)
    assert [(line["seq"], line["outcome"]) for line in earlier["explain"]] == [
        (known, "answers"),
        (rows["earlier-seq"]["seq"], "earlier-seq"),
        (rows["earlier-valid-from"]["seq"], "earlier-valid-from"),
        (rows["smaller-min-quantity"]["seq"], "smaller-min-quantity"),
        (rows["open-ended"]["seq"], "open-ended"),
    ]


# Searches


@pytest.mark.parametrize(
    ("q", "found"),
    [
        ("frame", ["FR-1", "fr_2", "FRX2"]),
        ("FRAME", ["FR-1", "fr_2", "FRX2"]),
        ("fr-1", ["FR-1"]),
        ("r_2", ["fr_2"]),
        ("RX2", ["FRX2"]),
        ("50%", ["50%"]),
        # Of one or two letters, the beginning counts.
        ("5", ["50%"]),
        ("fr", ["FR-1", "fr_2", "FRX2", "fruit"]),
        ("f_", []),
        ("%", []),
        ("_", []),
        ("\\", []),
        ("K\\S", ["back\\slash"]),
        ("%%", []),
        ("äpfel", ["fruit"]),
        ("ÄPFEL", ["fruit"]),
        ("'; --", []),
        ("apfel", []),
    ],
)
async def test_a_search_finds_parts_of_names_and_skus(client: Client, q: str, found: list[str]) -> None:
    names = {
        "FR-1": "Frame one",
        "fr_2": "frame two",
        "FRX2": "A FRAME",
        "50%": "Half off",
        "back\\slash": "Path",
        "fruit": "Äpfel",
    }
    for sku, name in names.items():
        await item(client, sku=sku, name=name, price={"amount": "3", "valid_from": "2024-01-01"})
    document = await get(client, "/v1/items", q=q, at="2024-01-01")
    assert [each["sku"] for each in document["items"]] == found
    assert all(each["price"]["amount"] == "3.00" for each in document["items"])


async def test_a_search_goes_on_over_pages(client: Client) -> None:
    for number in range(6):
        await item(client, name="Frame" if number % 2 else "Wheel", sku=str(number))
    first = await get(client, "/v1/items", q="fram", limit=2)
    second = await get(client, "/v1/items", q="fram", limit=2, cursor=first["next"])
    assert [each["sku"] for each in first["items"] + second["items"]] == ["1", "3", "5"]
    assert second["next"] is None
    other = await client.get("/v1/items", params={"q": "wheel", "cursor": first["next"]})
    assert (other.status_code, other.json()["errors"][0]["code"]) == (422, "wrong-cursor")


# Caching


def max_age(answer: httpx2.Response) -> int:
    """How many seconds a cache may keep the answer."""
    assert answer.status_code == 200, answer.text
    control = answer.headers["cache-control"]
    if control == "no-cache":
        return 0
    name, _, seconds = control.partition("=")
    assert name == "max-age"
    return int(seconds)


async def test_no_cache_keeps_a_price_beyond_its_boundary(client: Client, settings: Settings) -> None:
    most = settings.price_max_age_seconds
    assert most == 5
    steady = await item(client, price={"amount": "1"})
    assert max_age(await client.get(f"{steady}/price")) == most

    for seconds in (0.9, 2.5, 3600):
        until = datetime.now(UTC) + timedelta(seconds=seconds)
        ending = await item(client, price={"amount": "1", "valid_from": "2024-01-01", "valid_to": until.isoformat()})
        changing = await item(client, price={"amount": "1", "valid_from": "2024-01-01"})
        await record(client, changing, "2", valid_from=until.isoformat())
        for address in (ending, changing):
            asked = datetime.now(UTC)
            answer = await client.get(f"{address}/price")
            assert datetime.fromisoformat(answer.json()["effective_until"]) == until
            assert max_age(answer) <= min(most, (until - asked).total_seconds())
            # At a given instant the price changes by a write only.
            assert max_age(await client.get(f"{address}/price", params={"at": asked.isoformat()})) == most
    assert max_age(answer) == most, "the last boundary is an hour away"


async def test_only_answers_pinned_on_both_axes_are_immutable(client: Client) -> None:
    address = await item(client, price={"amount": "1", "valid_from": "2024-01-01"})
    at, seq, instant = {"at": "2024-06-01T00:00:00Z"}, {"known_seq": 3}, {"known_at": "2999-01-01T00:00:00Z"}
    queries: list[tuple[str, dict[str, Any], bool]] = [
        ("price", {}, False),
        ("price", at, False),
        ("price", seq, False),
        ("price", instant, False),
        ("price", at | instant, False),
        ("price", at | seq, True),
        ("price", at | seq | {"explain": True}, True),
        ("prices", {}, False),
        ("prices", instant, False),
        ("prices", seq, True),
        ("prices", seq | {"rows": True}, True),
        ("prices", {"rows": True}, False),
    ]
    for path, query, immutable in queries:
        answer = await client.get(f"{address}/{path}", params=query)
        assert answer.status_code == 200, answer.text
        assert ("immutable" in answer.headers["cache-control"]) is immutable, (path, query)
        assert answer.headers["vary"] == "Authorization", "a cache that others use, too, keeps it for this key only"
        if not immutable:
            assert 0 < max_age(answer) <= 5
    for query in (at | {"known_seq": 4}, {"at": "2023-01-01T00:00:00Z"} | seq):
        problem = await client.get(f"{address}/price", params=query)
        assert problem.is_error
        assert problem.headers["cache-control"] == "no-store"


async def test_a_pinned_answer_is_not_sent_twice(client: Client) -> None:
    address = await item(client, price={"amount": "1", "valid_from": "2024-01-01"})
    for path in ("price", "prices"):
        query: dict[str, Any] = {"known_seq": 3} | ({"at": "2024-06-01"} if path == "price" else {})
        answer = await client.get(f"{address}/{path}", params=query)
        tag = answer.headers["etag"]
        assert tag.startswith('"'), "strong"
        for given in (tag, f'"other", {tag}', f"W/{tag}", "*"):
            again = await client.get(f"{address}/{path}", params=query, headers={"If-None-Match": given})
            assert (again.status_code, again.content) == (304, b"")
            assert again.headers["etag"] == tag
            assert again.headers["cache-control"] == answer.headers["cache-control"]
            assert again.headers["vary"] == "Authorization"
        changed = await client.get(f"{address}/{path}", params=query, headers={"If-None-Match": '"other"'})
        assert (changed.status_code, changed.content) == (200, answer.content)
    other = await client.get(f"{address}/price", params={"at": "2024-06-01", "known_seq": 3, "quantity": 2})
    assert (
        other.headers["etag"]
        != (await client.get(f"{address}/price", params={"at": "2024-06-01", "known_seq": 3})).headers["etag"]
    )


# Voids


async def test_a_void_row_answers_no_more(client: Client) -> None:
    address = await item(client)
    usual = await record(client, address, "10", valid_from="2024-01-01")
    sale = await record(client, address, "7", valid_from="2024-06-01", valid_to="2999-01-01")
    assert await amount(client, address, "2024-06-02") == "7.00"
    answer = await client.delete(f"/v1/prices/{sale['id']}")
    assert answer.status_code == 200
    assert answer.json() == {**sale, "void": True}, "the row itself stays as it was recorded"
    assert answer.headers["pricebook-seq"] == str(sale["seq"] + 1)
    assert await amount(client, address, "2024-06-02") == "10.00"
    assert (await get(client, f"{address}/price"))["price_id"] == usual["id"]

    again = await client.delete(f"/v1/prices/{sale['id']}")
    assert (again.status_code, again.json()["type"]) == (409, "/problems/already-superseded")
    assert sale["id"] in again.json()["detail"]
    unknown = await client.delete(f"/v1/prices/{NOBODY}")
    assert (unknown.status_code, unknown.json()["type"]) == (404, "/problems/unknown-price")
    no_id = await client.delete("/v1/prices/seven")
    assert (no_id.status_code, no_id.json()["errors"][0]["pointer"]) == (422, "path/price_id")

    last = await client.delete(f"/v1/prices/{usual['id']}")
    assert last.headers["pricebook-seq"] == str(sale["seq"] + 2), "what was refused took no seq"
    assert await amount(client, address, "2024-06-02") == "no-price"


async def test_neither_superseded_nor_void_rows_can_be_retired_again(client: Client) -> None:
    address = await item(client)
    first = await record(client, address, "1", valid_from="2024-01-01")
    second = await record(client, address, "2", valid_from="2024-01-01", supersedes=first["id"])
    superseded = await client.delete(f"/v1/prices/{first['id']}")
    assert (superseded.status_code, superseded.json()["type"]) == (409, "/problems/already-superseded")
    await client.delete(f"/v1/prices/{second['id']}")
    void = await client.post(f"{address}/prices", json={"amount": "3", "supersedes": second["id"]})
    assert (void.status_code, void.json()["type"]) == (409, "/problems/already-superseded")
    assert await amount(client, address, "2024-06-01") == "no-price"


async def test_of_many_who_retire_a_row_at_once_one_succeeds(client: Client) -> None:
    address = await item(client)
    for _ in range(5):
        row = await record(client, address, "1", valid_from="2024-01-01")
        correction = {"amount": "2", "valid_from": "2024-01-01", "supersedes": row["id"]}
        answers = await asyncio.gather(
            *(client.delete(f"/v1/prices/{row['id']}") for _ in range(4)),
            *(client.post(f"{address}/prices", json=correction) for _ in range(4)),
        )
        assert sorted(answer.status_code for answer in answers)[1:] == [409] * 7
        (winner,) = [answer for answer in answers if answer.is_success]
        assert int(winner.headers["pricebook-seq"]) == row["seq"] + 1, "those who lost took no seq"
