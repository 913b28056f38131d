"""Prices that arrive together: each is recorded, or refused, as it would have been alone."""

import asyncio
from collections import Counter
from collections.abc import Sequence
from typing import Any

import asyncpg
import httpx2
import pytest
from fastapi import FastAPI
from sqlalchemy.engine import URL

from app.access import Scope
from app.main import create_app
from app.services import price_recording
from tests.api.test_trouble import client_of, slug
from tests.conftest import make_settings
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


@pytest.mark.parametrize("rounds", range(3))
async def test_what_is_refused_is_refused_as_alone_and_spoils_nothing(own_url: URL, rounds: int) -> None:
    app = create_app(make_settings(postgres.as_serving_role(own_url), auth_required=True, admin_key=ADMIN_KEY))
    async with client_of(app) as client:
        client.headers.update(bearer(ADMIN_KEY))
        key = (await make_key(client, "manager", [Scope.PRICES_WRITE, Scope.PRICES_READ]))["key"]
        twins = [await items(client, prefix) for prefix in ("alone", "together")]
        taken = [await superseded(client, known[0]["id"]) for known in twins]
        alone, together = (writes(known, [row]) for known, row in zip(twins, taken, strict=True))
        client.headers.update(bearer(key))
        # One that is named is recorded in a transaction of its own, with its answer.
        expected = [
            outcome(
                await client.post(
                    f"/v1/items/{item}/prices", json=body, headers={"Idempotency-Key": f"{rounds}-{number}"}
                )
            )
            for number, (item, body) in enumerate(alone)
        ]
        assert Counter(status for status, _ in expected) == {201: 22, 404: 3, 409: 2, 403: 1, 422: 5}
        # In another order each time: which of them come together matters.
        order = [*range(rounds, len(together)), *range(rounds)]
        answers = await asyncio.gather(
            *(client.post(f"/v1/items/{together[place][0]}/prices", json=together[place][1]) for place in order)
        )
        assert [outcome(answer) for answer in answers] == [expected[place] for place in order]
        for one, other in zip(*twins, strict=True):
            found = [await rows_of(client, item["id"]) for item in (one, other)]
            amounts = [Counter((row["amount"], row["tax_rate"], row["void"]) for row in rows) for rows in found]
            assert amounts[0] == amounts[1]


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
