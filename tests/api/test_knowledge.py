"""The second axis: what was known when. Answers pinned to a state of knowledge never change."""

import asyncio
import itertools
import random
from collections import Counter
from datetime import datetime, timedelta
from typing import Any

import asyncpg
import httpx2
import pytest

Client = httpx2.AsyncClient

WRITERS = 8
WRITES = 25
KINDS = ("record", "correct", "void", "rename", "round")
MICROSECOND = timedelta(microseconds=1)


async def item(client: Client, **fields: Any) -> str:
    answer = await client.post("/v1/items", json={"name": "Frame", **fields})
    assert answer.status_code == 201, answer.text
    return f"/v1/items/{answer.json()['id']}"


async def book(client: Client, key: str, **fields: Any) -> int:
    """Create a book; its seq."""
    answer = await client.post("/v1/books", json={"key": key, "name": key, "currency": "EUR", **fields})
    assert answer.status_code == 201, answer.text
    return int(answer.headers["pricebook-seq"])


async def record(client: Client, address: str, amount: str | None, **fields: Any) -> dict[str, Any]:
    answer = await client.post(f"{address}/prices", json={"amount": amount, **fields})
    assert answer.status_code == 201, answer.text
    row: dict[str, Any] = answer.json()
    return row


async def void(client: Client, row: dict[str, Any]) -> int:
    """Void a row; the seq of the void."""
    answer = await client.delete(f"/v1/prices/{row['id']}")
    assert answer.status_code == 200, answer.text
    return int(answer.headers["pricebook-seq"])


async def patch(client: Client, address: str, **changes: Any) -> int:
    answer = await client.patch(address, json=changes, headers={"If-Match": "*"})
    assert answer.status_code == 200, answer.text
    return int(answer.headers["pricebook-seq"])


async def recorded_at(owner: asyncpg.Connection, seq: int) -> datetime:
    instant: datetime = await owner.fetchval("SELECT at FROM changes WHERE seq = $1", seq)
    return instant


async def amount(client: Client, address: str, at: str, **query: Any) -> str:
    """The amount at an instant, or the slug of the problem."""
    answer = await client.get(f"{address}/price", params={"at": at, **query})
    document = answer.json()
    return str(document["amount"] if answer.status_code == 200 else document["type"].rsplit("/")[-1])


async def both_pins(client: Client, owner: asyncpg.Connection, address: str, at: str, seq: int) -> str:
    """The amount as known after a change, asked by its seq and by its instant, and a microsecond before the next."""
    by_seq = await amount(client, address, at, known_seq=seq)
    since = await recorded_at(owner, seq)
    assert await amount(client, address, at, known_at=since.isoformat()) == by_seq
    following: datetime | None = await owner.fetchval("SELECT min(at) FROM changes WHERE seq > $1", seq)
    if following is not None:
        assert await amount(client, address, at, known_at=(following - MICROSECOND).isoformat()) == by_seq
    return by_seq


async def test_a_correction_is_known_from_its_recording_on(client: Client, owner: asyncpg.Connection) -> None:
    address = await item(client)
    wrong = await record(client, address, "100", valid_from="2020-01-01")
    right = await record(client, address, "10", valid_from="2020-01-01", supersedes=wrong["id"])
    assert await both_pins(client, owner, address, "2020-06-01", wrong["seq"] - 1) == "no-price"
    assert await both_pins(client, owner, address, "2020-06-01", wrong["seq"]) == "100.00"
    assert await both_pins(client, owner, address, "2020-06-01", right["seq"]) == "10.00"
    assert await amount(client, address, "2020-06-01") == "10.00"
    # The business axis stays what it is: nothing was in force before 2020, whenever one asks.
    assert await both_pins(client, owner, address, "2019-12-31", wrong["seq"]) == "no-price"


async def test_a_void_is_known_from_its_own_seq_on(client: Client, owner: asyncpg.Connection) -> None:
    address = await item(client)
    usual = await record(client, address, "10", valid_from="2020-01-01")
    sale = await record(client, address, "7", valid_from="2020-01-01", valid_to="2021-01-01")
    voided = await void(client, sale)
    assert voided == sale["seq"] + 1
    assert await both_pins(client, owner, address, "2020-06-01", usual["seq"]) == "10.00"
    assert await both_pins(client, owner, address, "2020-06-01", sale["seq"]) == "7.00"
    assert await both_pins(client, owner, address, "2020-06-01", voided) == "10.00"

    async def voids(seq: int) -> list[bool]:
        answer = await client.get(f"{address}/prices", params={"rows": True, "known_seq": seq})
        return [row["void"] for row in answer.json()["rows"]]

    assert await voids(usual["seq"]) == [False]
    assert await voids(sale["seq"]) == [False, False]
    assert await voids(voided) == [False, True]


async def test_a_superseded_row_stays_hidden_when_its_successor_is_voided(
    client: Client, owner: asyncpg.Connection
) -> None:
    address = await item(client)
    old = await record(client, address, "10", valid_from="2020-01-01")
    wrong = await record(client, address, "8", valid_from="2021-01-01")
    right = await record(client, address, "9", valid_from="2021-01-01", supersedes=wrong["id"])
    voided = await void(client, right)
    found = [
        await both_pins(client, owner, address, "2021-06-01", seq)
        for seq in (old["seq"], wrong["seq"], right["seq"], voided)
    ]
    assert found == ["10.00", "8.00", "9.00", "10.00"]

    again = await client.post(f"{address}/prices", json={"amount": "1", "supersedes": wrong["id"]})
    assert (again.status_code, again.json()["type"]) == (409, "/problems/already-superseded")
    back = await record(client, address, "8", valid_from="2021-01-01")
    assert await both_pins(client, owner, address, "2021-06-01", back["seq"]) == "8.00"
    assert await both_pins(client, owner, address, "2021-06-01", voided) == "10.00"


async def test_steps_follow_the_state_of_knowledge(client: Client) -> None:
    address = await item(client)
    first = await record(client, address, "1", valid_from="2020-01-01")
    await record(client, address, "2", valid_from="2999-01-01")
    correction = await record(client, address, "3", valid_from="2020-02-01", supersedes=first["id"])

    async def steps(**query: Any) -> list[tuple[str | None, str | None]]:
        answer = await client.get(f"{address}/prices", params=query)
        return [(step["from"], step["amount"]) for step in answer.json()["steps"]]

    assert await steps(known_seq=first["seq"]) == [(None, None), ("2020-01-01T00:00:00Z", "1.00")]
    assert await steps(known_at=first["recorded_at"]) == await steps(known_seq=first["seq"])
    assert await steps(known_seq=correction["seq"] - 1) == [
        (None, None),
        ("2020-01-01T00:00:00Z", "1.00"),
        ("2999-01-01T00:00:00Z", "2.00"),
    ]
    assert await steps(known_at=correction["recorded_at"]) == [
        (None, None),
        ("2020-02-01T00:00:00Z", "3.00"),
        ("2999-01-01T00:00:00Z", "2.00"),
    ]
    assert await steps() == await steps(known_seq=correction["seq"])


async def test_a_scheduled_price_is_known_before_it_is_in_force(client: Client, owner: asyncpg.Connection) -> None:
    address = await item(client)
    now = await record(client, address, "1", valid_from="2020-01-01")
    later = await record(client, address, "2", valid_from="2999-01-01")
    assert await both_pins(client, owner, address, "2999-01-01", now["seq"]) == "1.00"
    assert await both_pins(client, owner, address, "2999-01-01", later["seq"]) == "2.00"

    async def until(seq: int) -> str | None:
        answer = await client.get(f"{address}/price", params={"at": "2020-01-01", "known_seq": seq})
        boundary: str | None = answer.json()["effective_until"]
        return boundary

    assert [await until(now["seq"]), await until(later["seq"])] == [None, "2999-01-01T00:00:00Z"]


async def test_a_rename_changes_no_answer_known_before_it(client: Client) -> None:
    address = await item(client, sku="old")
    first = await record(client, address, "1", valid_from="2020-01-01")
    renamed = await patch(client, address, sku="new")
    other = await item(client, sku="old", price={"amount": "5", "valid_from": "2020-01-01"})

    async def sku_and_amount(key: str, **query: Any) -> Any:
        answer = await client.get(f"{key}/price", params={"at": "2020-06-01", **query})
        document = answer.json()
        return (document["sku"], document["amount"]) if answer.status_code == 200 else document["type"]

    before, after = first["seq"], renamed
    assert await sku_and_amount(address, known_seq=before) == ("old", "1.00")
    assert await sku_and_amount("/v1/items/sku:old", known_seq=before) == ("old", "1.00")
    assert await sku_and_amount("/v1/items/sku:old", known_at=first["recorded_at"]) == ("old", "1.00")
    assert await sku_and_amount("/v1/items/sku:new", known_seq=before) == "/problems/unknown-item"
    assert await sku_and_amount(address, known_seq=after) == ("new", "1.00")
    assert await sku_and_amount("/v1/items/sku:new", known_seq=after) == ("new", "1.00")
    assert await sku_and_amount("/v1/items/sku:old", known_seq=after) == "/problems/unknown-item"
    # By now the old sku names another item.
    assert await sku_and_amount("/v1/items/sku:old") == ("old", "5.00")
    assert await sku_and_amount(other, known_seq=after) == "/problems/unknown-item"


async def test_a_new_rounding_policy_changes_no_answer_known_before_it(client: Client) -> None:
    await book(client, "shop", rounding={"mode": "half_up"})
    address = await item(client)
    row = await record(client, address, "0.125", book="shop", valid_from="2020-01-01")
    changed = await patch(client, "/v1/books/shop", rounding={"mode": "half_even"}, name="Shop")

    async def shown(seq: int) -> list[str]:
        query: dict[str, Any] = {"book": "shop", "known_seq": seq}
        price = await client.get(f"{address}/price", params={"at": "2020-06-01", **query})
        steps = await client.get(f"{address}/prices", params=query)
        return [price.json()["display"]["gross"], steps.json()["steps"][1]["display"]["gross"]]

    assert await shown(row["seq"]) == ["0.13", "0.13"]
    assert await shown(changed) == ["0.12", "0.12"]


async def test_nothing_is_known_before_it_existed(client: Client) -> None:
    created = await book(client, "shop")
    address = await item(client, price={"amount": "1", "valid_from": "2020-01-01", "book": "shop"})
    at = "2020-06-01"
    assert await amount(client, address, at, known_seq=created + 2, book="shop") == "1.00"
    assert await amount(client, address, at, known_seq=created + 1, book="shop") == "no-price"
    assert await amount(client, address, at, known_seq=created, book="shop") == "unknown-item"
    early = await client.get("/v1/books/shop")
    before = datetime.fromisoformat(early.json()["created_at"]) - MICROSECOND
    pins: list[dict[str, Any]] = [{"known_seq": created - 1}, {"known_at": before.isoformat()}, {"known_seq": 0}]
    for pin in pins:
        assert (await client.get(f"{address}/price", params={"at": at, "book": "shop", **pin})).status_code == 404
    assert await amount(client, address, f"{at}T00:00:00Z", known_at="1970-01-01T00:00:00Z") == "unknown-item"
    # A bare date asks for the book first.
    assert await amount(client, address, at, known_at="1970-01-01T00:00:00Z") == "unknown-book"


async def test_a_book_is_unknown_before_it_existed(client: Client) -> None:
    address = await item(client)
    created = await book(client, "shop")
    await record(client, address, "1", valid_from="2020-01-01", book="shop")
    assert await amount(client, address, "2020-06-01", known_seq=created - 1, book="shop") == "unknown-book"
    assert await amount(client, address, "2020-06-01", known_seq=created, book="shop") == "no-price"


@pytest.mark.parametrize("path", ["price", "prices", "prices?rows=true"])
async def test_the_future_of_the_ledger_cannot_be_asked(client: Client, path: str) -> None:
    address = await item(client, price={"amount": "1", "valid_from": "2020-01-01"})
    head = 3
    ahead = await client.get(f"{address}/{path}", params={**_query(path), "known_seq": head + 1})
    assert (ahead.status_code, ahead.json()["type"]) == (422, "/problems/unknown-seq")
    assert str(head) in ahead.json()["detail"]
    assert (await client.get(f"{address}/{path}", params={**_query(path), "known_seq": head})).status_code == 200

    pins: dict[str, Any] = {"known_seq": head, "known_at": "2999-01-01T00:00:00Z"}
    twice = await client.get(f"{address}/{path}", params={**_query(path), **pins})
    assert (twice.status_code, twice.json()["type"]) == (422, "/problems/invalid-request")
    assert twice.json()["errors"][0]["code"] == "two-pins"
    # An instant to come is one at which today's knowledge is known.
    later = await client.get(f"{address}/{path}", params={**_query(path), "known_at": "2999-01-01T00:00:00Z"})
    assert (later.status_code, later.json()["known_seq"]) == (200, head)


def _query(path: str) -> dict[str, str]:
    """The query in a path: the client's ``params`` would replace it."""
    return dict(httpx2.QueryParams(path.partition("?")[2]))


async def write(client: Client, address: str, rows: list[dict[str, Any]], done: Counter[str], writer: int) -> None:
    """Change at random all that can change about an item and its book; ``done`` counts what succeeded."""
    chance = random.Random(writer)  # noqa: S311 - not for secrets
    for number in range(WRITES):
        kind = chance.choice(KINDS)
        start = f"{chance.choice((2019, 2020, 2021, 2022))}-0{chance.randint(1, 9)}-01"
        body = {"amount": str(number + 1), "book": "shop", "valid_from": start}
        target = chance.choice(rows)["id"]
        match kind:
            case "record":
                answer = await client.post(f"{address}/prices", json=body)
            case "correct":
                answer = await client.post(f"{address}/prices", json={**body, "supersedes": target})
            case "void":
                answer = await client.delete(f"/v1/prices/{target}")
            case "rename":
                answer = await client.patch(address, json={"sku": f"{writer}-{number}"}, headers={"If-Match": "*"})
            case "round":
                policy = {"rounding": {"mode": chance.choice(("half_up", "half_even", "down", "up"))}}
                answer = await client.patch("/v1/books/shop", json=policy, headers={"If-Match": "*"})
        assert answer.status_code in {200, 201, 409}, answer.text
        if answer.is_success:
            done[kind] += 1
        if answer.status_code == 201:
            rows.append(answer.json())


async def test_pinned_answers_are_identical_byte_for_byte_while_others_write(
    client: Client, owner: asyncpg.Connection
) -> None:
    await book(client, "shop", tax_included=True)
    address = await item(client, sku="first")
    rows = [
        await record(client, address, "10.125", book="shop", tax_rate="19", valid_from="2020-01-01"),
        await record(client, address, "9", book="shop", valid_from="2021-01-01", valid_to="2021-02-01"),
        await record(client, address, "8", book="shop", valid_from="2021-01-01", min_quantity="10"),
        await record(client, address, "7.005", book="shop", valid_from="2022-01-01", supersedes=None),
    ]
    rows.append(await record(client, address, "6.005", book="shop", valid_from="2022-01-01", supersedes=rows[3]["id"]))
    seq = await void(client, rows[1])
    instant = (await recorded_at(owner, seq)).isoformat()

    questions: list[tuple[str, dict[str, Any]]] = []
    pins: list[dict[str, Any]] = [{"known_seq": seq}, {"known_at": instant}]
    for key, pin in itertools.product((address, "/v1/items/sku:first"), pins):
        shared = {"book": "shop", **pin}
        questions += [(f"{key}/price", {**shared, "at": at}) for at in ("2020-06-01T00:00:00Z", "2022-06-01T00:00:00Z")]
        questions.append((f"{key}/price", {**shared, "at": "2021-01-15T00:00:00Z", "quantity": "12", "explain": True}))
        questions.append((f"{key}/prices", shared))
        questions.append((f"{key}/prices", {**shared, "rows": True}))

    async def ask(question: tuple[str, dict[str, Any]]) -> bytes:
        path, query = question
        answer = await client.get(path, params=query)
        assert answer.status_code == 200, answer.text
        return answer.content

    pinned = [await ask(question) for question in questions]
    assert len(set(pinned)) == 5, "however an item and a state of knowledge are named, the answer is the same"
    steps = (await client.get(f"{address}/prices", params={"book": "shop"})).json()["steps"]

    done: Counter[str] = Counter()
    writers = [asyncio.create_task(write(client, address, rows, done, writer)) for writer in range(WRITERS)]
    rounds = 0
    while not all(writer.done() for writer in writers):
        for question, expected in zip(questions, pinned, strict=True):
            assert await ask(question) == expected
        rounds += 1
    await asyncio.gather(*writers)

    assert rounds > 1, "the reader read on while the writers wrote"
    assert set(done) == set(KINDS), done
    assert [await ask(question) for question in questions] == pinned
    later = (await client.get(f"{address}/prices", params={"book": "shop"})).json()["steps"]
    assert later != steps, "the answer that is not pinned has changed"


async def test_a_new_time_zone_changes_no_answer_known_before_it(client: Client) -> None:
    """A bare date in a read pinned to a state of knowledge means the day in the zone that the book had then."""
    await book(client, "shop", time_zone="Europe/Berlin")
    address = await item(client)
    row = await record(client, address, "1", book="shop", valid_from="2020-01-01")
    queries: list[tuple[str, dict[str, Any]]] = [
        ("price", {"at": "2020-06-01", "known_seq": row["seq"]}),
        ("price", {"at": "2020-06-01", "known_at": row["recorded_at"]}),
        ("prices", {"from": "2020-06-01", "to": "2020-07-01", "known_seq": row["seq"]}),
    ]
    before = [await client.get(f"{address}/{path}", params={"book": "shop", **query}) for path, query in queries]
    assert all("2020-05-31T22:00:00Z" in answer.text for answer in before)
    await patch(client, "/v1/books/shop", time_zone="America/New_York")
    after = [await client.get(f"{address}/{path}", params={"book": "shop", **query}) for path, query in queries]
    assert [answer.content for answer in after] == [answer.content for answer in before]
