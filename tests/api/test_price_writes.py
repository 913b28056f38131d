"""Prices that arrive together: each is recorded, or refused, as it would have been alone."""

import asyncio
from collections import Counter
from collections.abc import Sequence
from decimal import Decimal
from typing import Any
from uuid import UUID

import asyncpg
import httpx2
import pytest
from fastapi import FastAPI
from sqlalchemy import event
from sqlalchemy.engine import URL

from app.access import Scope
from app.errors import Busy, InvalidRequest
from app.main import create_app
from app.models import ItemKey
from app.schemas.price import PriceCreate
from app.services import price_recording, prices
from app.services.price_recording import NotTogetherError, Recording
from app.services.price_writes import PriceWrites
from tests.api.test_trouble import client_of, slug
from tests.conftest import make_settings
from tests.observability.test_metrics import increases, samples
from tests.support import postgres
from tests.support.access import ADMIN_KEY, bearer, make_key

NOBODY = "01a20537-de50-7ff8-9c93-02db0b06a11c"
ITEMS = 12

type Write = tuple[str, dict[str, Any]]
"""What an item's address ends with, and the body."""


async def items(client: httpx2.AsyncClient, prefix: str) -> list[dict[str, Any]]:
    """Some with a price; the last is archived."""
    found = []
    for number in range(ITEMS):
        fields = {"name": "Frame", "sku": f"{prefix}-{number}", "price": {"amount": "9", "valid_from": "2026-01-01"}}
        created = await client.post("/v1/items", json=fields)
        assert created.status_code == 201, created.text
        found.append(created.json())
    archived = await client.delete(f"/v1/items/{found[-1]['id']}", headers={"If-Match": "*"})
    assert archived.status_code == 200
    return found


async def rows_of(client: httpx2.AsyncClient, item: str) -> list[dict[str, Any]]:
    answer = await client.get(f"/v1/items/{item}/prices?rows=true")
    assert answer.status_code == 200, answer.text
    rows: list[dict[str, Any]] = answer.json()["rows"]
    return rows


async def test_each_of_many_gets_its_own_row_and_change(client: httpx2.AsyncClient) -> None:
    all_items = (await items(client, "many"))[:-1]
    head = (await client.get("/v1/changes?after=0&limit=1")).json()["head"]
    addresses = [item["id"] if number % 2 else f"sku:{item['sku']}" for number, item in enumerate(all_items)] * 5
    bodies = [{"amount": f"{number}.25", "reason": str(number)} for number in range(len(addresses))]
    answers = await asyncio.gather(
        *(
            client.post(f"/v1/items/{address}/prices", json=body)
            for address, body in zip(addresses, bodies, strict=True)
        )
    )
    assert {answer.status_code for answer in answers} == {201}
    recorded = {answer.json()["seq"]: answer.json() for answer in answers}
    assert sorted(recorded) == list(range(head + 1, head + 1 + len(answers))), "a number for each, without a gap"
    assert len({row["recorded_at"] for row in recorded.values()}) < len(answers) / 4, "recorded together"
    for answer, body, item in zip(answers, bodies, all_items * 5, strict=True):
        row = answer.json()
        assert (row["reason"], row["amount"], row["item_id"]) == (body["reason"], body["amount"], item["id"])
        assert answer.headers["pricebook-seq"] == str(row["seq"])
        assert row["valid_from"] == row["recorded_at"], "valid from the instant of recording"
    for item in all_items:
        kept = {row["seq"]: row for row in await rows_of(client, item["id"])}
        for row in recorded.values():
            if row["item_id"] == item["id"]:
                assert kept[row["seq"]] == row
    feed = (await client.get(f"/v1/changes?after={head}&limit=1000")).json()["changes"]
    assert [(change["seq"], change["after"]) for change in feed] == sorted(recorded.items())


def writes(known: Sequence[dict[str, Any]], taken: Sequence[str]) -> list[Write]:
    """Some that are recorded, and some of every kind that is refused.

    :param taken: rows of the first item that were superseded before.
    """
    good = [(item["id"], {"amount": f"{number}.5"}) for number, item in enumerate(known[:-1])]
    by_sku = [(f"sku:{item['sku']}", {"amount": "7", "tax_rate": "19"}) for item in known[:-1]]
    first, last = known[0]["id"], known[-1]["id"]
    return [
        *good,
        *by_sku,
        (NOBODY, {"amount": "1"}),
        ("sku:nobody", {"amount": "1"}),
        (last, {"amount": "1"}),
        (first, {"amount": "1", "book": "nowhere"}),
        (first, {"amount": "1", "supersedes": NOBODY}),
        (first, {"amount": "1", "supersedes": taken[0]}),
        # Only when it is recorded does it show when it begins.
        (first, {"amount": "1", "valid_to": "2026-02-01"}),
        (f"sku:{known[1]['sku']}", {"amount": "1", "valid_to": "2026-02-01"}),
        (first, {"amount": "1", "valid_from": "2026-02-01"}),
        (first, {"amount": "1", "tax": "2", "tax_included": True}),
        (first, {"amount": "-1"}),
    ]


async def test_what_is_refused_at_once_leaves_the_others_together(client: httpx2.AsyncClient) -> None:
    known = await items(client, "mixed")
    refused = [NOBODY, known[-1]["id"]]
    addresses = [address for item in known[:-1] for address in (item["id"], *refused)]
    answers = await asyncio.gather(
        *(client.post(f"/v1/items/{address}/prices", json={"amount": "3"}) for address in addresses)
    )
    recorded = [answer.json() for answer in answers if answer.status_code == 201]
    assert Counter(answer.status_code for answer in answers) == {201: len(known) - 1, 404: 11, 409: 11}
    assert len({row["recorded_at"] for row in recorded}) < len(recorded) / 2


async def superseded(client: httpx2.AsyncClient, item: str) -> str:
    """A row of it that another one has taken the place of."""
    (row,) = await rows_of(client, item)
    body = {"amount": "8", "supersedes": row["id"], "valid_from": "2026-01-02"}
    done = await client.post(f"/v1/items/{item}/prices", json=body, headers=bearer(ADMIN_KEY))
    assert done.status_code == 201, done.text
    found: str = row["id"]
    return found


def outcome(answer: httpx2.Response) -> tuple[int, Any]:
    """What was answered, without what is of this request or item alone."""
    body = answer.json()
    if answer.status_code != 201:
        return answer.status_code, (body["type"], body.get("errors"))
    return 201, {name: body[name] for name in ("amount", "tax_rate", "tax_included", "valid_to", "book", "recorded_by")}


@pytest.mark.parametrize("named", [False, True])
@pytest.mark.parametrize("first", range(2))
async def test_what_is_refused_is_refused_as_alone_and_spoils_nothing(
    own_url: URL, monkeypatch: pytest.MonkeyPatch, first: int, named: bool
) -> None:
    app = create_app(make_settings(postgres.as_serving_role(own_url), auth_required=True, admin_key=ADMIN_KEY))
    async with client_of(app) as client:
        client.headers.update(bearer(ADMIN_KEY))
        key = (await make_key(client, "manager", [Scope.PRICES_WRITE, Scope.PRICES_READ]))["key"]
        twins = [await items(client, prefix) for prefix in ("alone", "together")]
        taken = [await superseded(client, known[0]["id"]) for known in twins]
        alone, together = (writes(known, [row]) for known, row in zip(twins, taken, strict=True))
        client.headers.update(bearer(key))

        async def post(write: Write, name: str) -> httpx2.Response:
            item, body = write
            headers = {"Idempotency-Key": name} if named else {}
            return await client.post(f"/v1/items/{item}/prices", json=body, headers=headers)

        with monkeypatch.context() as patched:
            patched.setattr(price_recording, "record_together", never_together)
            expected = [outcome(await post(write, f"alone-{number}")) for number, write in enumerate(alone)]
        assert Counter(status for status, _ in expected) == {201: 22, 404: 3, 409: 2, 403: 1, 422: 5}
        # In another order each time: which of them come together matters.
        order = [*range(first, len(together)), *range(first)]
        answers = await asyncio.gather(*(post(together[place], f"together-{place}") for place in order))
        assert [outcome(answer) for answer in answers] == [expected[place] for place in order]
        for one, other in zip(*twins, strict=True):
            found = [await rows_of(client, item["id"]) for item in (one, other)]
            amounts = [Counter((row["amount"], row["tax_rate"], row["void"]) for row in rows) for rows in found]
            assert amounts[0] == amounts[1]
        if named:
            again = await asyncio.gather(*(post(together[place], f"together-{place}") for place in order))
            assert [outcome(answer) for answer in again] == [expected[place] for place in order]
            replayed = [answer.headers.get("idempotency-replayed") for answer in again]
            assert replayed == ["true" if answer.status_code == 201 else None for answer in answers]
            assert [new.content for new in again if new.is_success] == [
                old.content for old in answers if old.is_success
            ]


async def never_together(*_: object) -> None:
    raise NotTogetherError


async def test_of_two_that_supersede_the_same_row_one_does(client: httpx2.AsyncClient) -> None:
    known = (await items(client, "same"))[:-1]
    firsts = {item["id"]: (await rows_of(client, item["id"]))[0]["id"] for item in known}
    bodies = [
        (item, {"amount": amount, "supersedes": row, "valid_from": "2026-01-02"})
        for amount in ("1", "2")
        for item, row in firsts.items()
    ]
    answers = await asyncio.gather(*(client.post(f"/v1/items/{item}/prices", json=body) for item, body in bodies))
    assert Counter(answer.status_code for answer in answers) == {201: len(known), 409: len(known)}
    for item, first in firsts.items():
        mine = [answer for answer, (of, _) in zip(answers, bodies, strict=True) if of == item]
        refused = next(answer for answer in mine if answer.status_code == 409)
        assert slug(refused) == (409, "already-superseded")
        assert refused.json()["errors"][0]["pointer"] == "/supersedes"
        assert [row["supersedes"] for row in await rows_of(client, item) if row["id"] != first] == [first]


async def test_an_item_that_somebody_holds_keeps_only_its_own_prices_waiting(
    client: httpx2.AsyncClient, owner: asyncpg.Connection
) -> None:
    known = (await items(client, "held"))[:-1]
    async with owner.transaction():
        await owner.execute("SELECT FROM items WHERE id = $1 FOR UPDATE", known[0]["id"])
        tasks = [
            asyncio.create_task(client.post(f"/v1/items/{item['id']}/prices", json={"amount": "3"})) for item in known
        ]
        done, waiting = await asyncio.wait(tasks[1:], timeout=10)
        assert not waiting, "they do not wait for the item of another price"
        assert {task.result().status_code for task in done} == {201}
        assert not tasks[0].done()
    assert (await tasks[0]).status_code == 201


async def test_a_book_that_somebody_holds_is_waited_for(client: httpx2.AsyncClient, owner: asyncpg.Connection) -> None:
    known = (await items(client, "book"))[:-1]
    async with owner.transaction():
        await owner.execute("SELECT FROM books WHERE key = 'default' FOR UPDATE")
        tasks = [
            asyncio.create_task(client.post(f"/v1/items/{item['id']}/prices", json={"amount": "3"})) for item in known
        ]
        assert not (await asyncio.wait(tasks, timeout=0.3))[0]
    assert {answer.status_code for answer in await asyncio.gather(*tasks)} == {201}


async def test_a_price_is_answered_from_when_it_was_acknowledged(client: httpx2.AsyncClient) -> None:
    known = (await items(client, "read"))[:-1]
    for number in range(3):
        before = await asyncio.gather(*(client.get(f"/v1/items/{item['id']}/price") for item in known))
        assert {answer.status_code for answer in before} == {200}, "now in memory"
        writes = [
            client.post(f"/v1/items/{item['id']}/prices", json={"amount": f"{number}.{place:02}"})
            for place, item in enumerate(known)
        ]
        assert {answer.status_code for answer in await asyncio.gather(*writes)} == {201}
        after = await asyncio.gather(*(client.get(f"/v1/items/{item['id']}/price") for item in known))
        assert [answer.json()["amount"] for answer in after] == [f"{number}.{place:02}" for place in range(len(known))]


async def test_of_two_for_one_item_at_the_same_instant_the_later_number_answers(client: httpx2.AsyncClient) -> None:
    item = (await items(client, "twice"))[0]["id"]
    answers = await asyncio.gather(
        *(client.post(f"/v1/items/{item}/prices", json={"amount": f"{number}.00"}) for number in range(1, 6))
    )
    rows = sorted((answer.json() for answer in answers), key=lambda row: row["seq"])
    assert len({row["valid_from"] for row in rows}) < len(rows)
    now = (await client.get(f"/v1/items/{item}/price")).json()
    assert (now["price_id"], now["amount"]) == (rows[-1]["id"], rows[-1]["amount"])
    for row in rows:
        known = (await client.get(f"/v1/items/{item}/price?known_seq={row['seq']}&at={now['at']}")).json()
        assert known["price_id"] == row["id"]


async def test_one_who_gives_up_takes_nothing_from_the_others(client: httpx2.AsyncClient) -> None:
    known = (await items(client, "gone"))[:-1]
    tasks = [asyncio.create_task(client.post(f"/v1/items/{item['id']}/prices", json={"amount": "3"})) for item in known]
    await asyncio.sleep(0.002)
    tasks[0].cancel()
    answers = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(answers[0], asyncio.CancelledError)
    assert {answer.status_code for answer in answers[1:] if isinstance(answer, httpx2.Response)} == {201}


async def test_what_nobody_thought_of_is_said_to_the_one_whose_it_is(
    client: httpx2.AsyncClient, app: FastAPI, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = (await items(client, "thought"))[:-1]
    head = (await client.get("/v1/changes?after=0&limit=1")).json()["head"]
    whole = prices.columns_of

    def broken(data: PriceCreate, *others: Any) -> dict[str, Any]:
        if data.reason == "broken":
            raise KeyError(data.reason)
        return whole(data, *others)

    monkeypatch.setattr(prices, "columns_of", broken)
    writes: PriceWrites = app.state.price_writes
    # The schema refuses what the database does: this one gets past it.
    reasons = ["broken", "no\0text", *(f"number {number}" for number in range(40))]
    before = await samples(app)
    outcomes = await asyncio.gather(
        *(
            writes.record(
                Recording(
                    ItemKey(UUID(known[number % len(known)]["id"]), None),
                    PriceCreate(amount=Decimal(number)).model_copy(update={"reason": reason}),
                    "manager",
                    may_correct=True,
                )
            )
            for number, reason in enumerate(reasons)
        ),
        return_exceptions=True,
    )
    assert isinstance(outcomes[0], KeyError)
    assert isinstance(outcomes[1], InvalidRequest)
    recorded = [outcome for outcome in outcomes[2:] if not isinstance(outcome, BaseException)]
    assert [row["reason"] for row in recorded] == reasons[2:]
    assert sorted(row["seq"] for row in recorded) == list(range(head + 1, head + 41)), "what was undone left no gap"
    after = await samples(app)
    assert increases(before, after, "pricebook_changes_total") == {"price.recorded": 40}


async def test_nobody_waits_for_ever_for_those_before_it(
    client: httpx2.AsyncClient, app: FastAPI, owner: asyncpg.Connection
) -> None:
    item = ItemKey(UUID((await items(client, "wait"))[0]["id"]), None)
    writes = PriceWrites(app.state.database, most_seconds=0.1)
    async with owner.transaction():
        await owner.execute("SELECT FROM ledger FOR UPDATE")
        tasks = [
            asyncio.create_task(writes.record(Recording(item, PriceCreate(amount=Decimal(1)), "manager", True)))
            for _ in range(250)
        ]
        await asyncio.sleep(0.5)
    outcomes = Counter(type(outcome) for outcome in await asyncio.gather(*tasks, return_exceptions=True))
    assert outcomes == {dict: 200, Busy: 50}
    assert len(await rows_of(client, str(item.id))) == 201


async def test_a_database_that_goes_away_fails_all_and_records_none_twice(
    client: httpx2.AsyncClient, app: FastAPI, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = (await items(client, "away"))[:-1]
    whole = price_recording.record_together
    sizes = []

    async def broken(session: Any, recordings: Sequence[price_recording.Recording]) -> Any:
        await whole(session, recordings)
        sizes.append(len(recordings))
        raise ConnectionResetError

    monkeypatch.setattr(price_recording, "record_together", broken)
    answers = await asyncio.gather(
        *(client.post(f"/v1/items/{item['id']}/prices", json={"amount": "3"}) for item in known)
    )
    assert {slug(answer) for answer in answers} == {(503, "database-unavailable")}
    assert max(sizes) > 1
    monkeypatch.setattr(price_recording, "record_together", whole)
    for item in known:
        assert len(await rows_of(client, item["id"])) == 1


async def test_a_commit_that_breaks_off_is_told_to_each_and_not_done_again(
    client: httpx2.AsyncClient, app: FastAPI
) -> None:
    known = (await items(client, "commit"))[:-1]
    commits: list[object] = []

    def fail(connection: object) -> None:
        commits.append(connection)
        raise OSError("the connection broke")

    engine = app.state.database.writer.sync_engine
    event.listen(engine, "commit", fail)
    try:
        answers = await asyncio.gather(
            *(client.post(f"/v1/items/{item['id']}/prices", json={"amount": "3"}) for item in known)
        )
    finally:
        event.remove(engine, "commit", fail)
    assert {slug(answer) for answer in answers} == {(503, "database-unavailable")}
    assert all("may be there or not" in answer.json()["detail"] for answer in answers)
    assert len(commits) < len(known) / 2, "together, and not tried again"
