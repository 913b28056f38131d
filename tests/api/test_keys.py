"""Keys: made, listed, revoked, expired, rotated; and what they may correct."""

import asyncio
import hmac
import io
import logging
import re
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import asyncpg
import httpx2
import pytest
from sqlalchemy.engine import URL

from app import keyring
from app.access import Scope
from app.database import ReadSession
from app.key_token import KeyToken
from app.keyring import KeyRing
from app.observability import logs
from app.routers.v1 import changes
from app.services import keys
from app.settings import Settings
from tests.conftest import make_settings
from tests.support import postgres
from tests.support.access import ADMIN_KEY, Guarded, bearer, guarded, make_key

ADMIN = bearer(ADMIN_KEY)
OTHER_SECRET = "of no use outside of the tests either, and also long"  # noqa: S105 - as it says


@pytest.fixture
async def guard(settings: Settings, client: httpx2.AsyncClient) -> AsyncIterator[Guarded]:
    async with guarded(settings) as result:
        yield result


async def whoami(client: httpx2.AsyncClient, key: str) -> int:
    return (await client.get("/v1/whoami", headers=bearer(key))).status_code


async def eventually(client: httpx2.AsyncClient, key: str, status: int) -> float:
    """Seconds until it answers that; no longer than somebody would wait."""
    began = time.monotonic()
    while await whoami(client, key) != status:
        assert time.monotonic() - began < 20, f"never {status}"
        await asyncio.sleep(0.02)
    return time.monotonic() - began


async def test_a_key_is_shown_once_and_only_a_digest_is_kept(guard: Guarded, owner: asyncpg.Connection) -> None:
    made = await guard.post("/v1/keys", json={"name": "till", "scopes": ["prices:read", "items:read"]}, headers=ADMIN)
    key = made.json()
    assert made.headers["Location"] == f"/v1/keys/{key['id']}"
    assert made.headers["Cache-Control"] == "no-store"
    assert re.fullmatch(rf"pb_{key['id']}_[\w-]{{43}}", key["key"])
    assert key["scopes"] == ["items:read", "prices:read"]
    assert key["created_by"] == "admin"
    read = (await guard.get(made.headers["Location"], headers=ADMIN)).json()
    assert read == {name: value for name, value in key.items() if name != "key"}
    assert (await guard.get("/v1/keys", headers=ADMIN)).json() == {"keys": [read], "next": None}
    secret = key["key"].rpartition(f"{key['id']}_")[2]
    assert secret not in str(dict(await owner.fetchrow("SELECT * FROM api_keys")))
    me = (await guard.get("/v1/whoami", headers=bearer(key["key"]))).json()
    assert me == {
        "id": key["id"],
        "name": "till",
        "scopes": ["items:read", "prices:read"],
        "expires_at": None,
        "auth_required": True,
    }


async def test_the_ledger_says_who(guard: Guarded) -> None:
    key = await make_key(guard, "buyer", ["items:write", "prices:write"])
    done = await guard.post("/v1/items", json={"name": "A", "price": {"amount": "1"}}, headers=bearer(key["key"]))
    assert done.status_code == 201, done.text
    page = (await guard.get("/v1/changes?after=1", headers=ADMIN)).json()
    assert {change["actor"] for change in page["changes"]} == {"buyer"}


async def test_the_first_price_of_an_item_needs_the_scope_for_prices(guard: Guarded) -> None:
    key = bearer((await make_key(guard, "items", ["items:write"]))["key"])
    assert (await guard.post("/v1/items", json={"name": "A"}, headers=key)).status_code == 201
    refused = await guard.post("/v1/items", json={"name": "A", "price": {"amount": "1"}}, headers=key)
    assert refused.status_code == 403
    assert "prices:write" in refused.json()["detail"]


@pytest.mark.parametrize(
    ("document", "slug"),
    [
        ({"name": "admin", "scopes": ["quotes"]}, "invalid-request"),
        ({"name": "Till", "scopes": ["quotes"]}, "invalid-request"),
        ({"name": "till", "scopes": []}, "invalid-request"),
        ({"name": "till", "scopes": ["prices"]}, "invalid-request"),
        ({"name": "till", "scopes": ["quotes"], "expires_at": "2020-01-01T00:00:00Z"}, "invalid-request"),
        ({"name": "till", "scopes": ["quotes"], "expires_at": "2030-01-01"}, "invalid-request"),
        ({"name": "till", "scopes": ["quotes"], "expires_at": 1900000000}, "invalid-request"),
        ({"name": "till", "scopes": ["quotes"], "expires_at": "9999-12-31T23:59:59-12:00"}, "invalid-request"),
        ({"name": "taken", "scopes": ["quotes"]}, "duplicate-key-name"),
    ],
)
async def test_keys_that_cannot_be(guard: Guarded, document: dict[str, Any], slug: str) -> None:
    await make_key(guard, "taken", ["quotes"])
    refused = await guard.post("/v1/keys", json=document, headers=ADMIN)
    assert refused.json()["type"] == f"/problems/{slug}"


async def test_a_name_is_free_again_after_its_key_was_revoked(guard: Guarded) -> None:
    first = await make_key(guard, "till", ["quotes"])
    for _ in range(2):
        gone = await guard.delete(f"/v1/keys/{first['id']}", headers=ADMIN)
        assert gone.status_code == 200
        assert gone.json()["revoked_by"] == "admin"
    second = await make_key(guard, "till", ["quotes"])
    listed = {
        word: [key["id"] for key in (await guard.get(f"/v1/keys?revoked={word}", headers=ADMIN)).json()["keys"]]
        for word in ("false", "true", "any")
    }
    assert listed == {"false": [second["id"]], "true": [first["id"]], "any": [first["id"], second["id"]]}
    assert (await guard.delete("/v1/keys/0000000000000000", headers=ADMIN)).json()["type"] == "/problems/unknown-key"


async def test_pages_of_keys(guard: Guarded) -> None:
    made = [(await make_key(guard, f"key-{number}", ["quotes"]))["id"] for number in range(5)]
    found, cursor = [], None
    while True:
        params: dict[str, Any] = {"limit": 2} | ({"cursor": cursor} if cursor else {})
        page = (await guard.get("/v1/keys", params=params, headers=ADMIN)).json()
        found += [key["id"] for key in page["keys"]]
        if (cursor := page["next"]) is None:
            break
    assert found == made


@pytest.mark.parametrize("follower", ["listens", "hears nothing and sleeps"])
async def test_every_process_refuses_a_revoked_key_within_two_seconds(
    settings: Settings, client: httpx2.AsyncClient, follower: str
) -> None:
    slow = {} if follower == "listens" else {"feed_poll_seconds": 60.0}
    async with guarded(settings) as here, guarded(settings, **slow) as there:
        if follower != "listens":
            there.app.state.follower._hear = lambda: None
        key = await make_key(here, "till", ["quotes"])
        await eventually(there, key["key"], 200)
        await here.delete(f"/v1/keys/{key['id']}", headers=ADMIN)
        # Generous for a machine that does other things, too; what it takes is in docs/proofs.md.
        assert await eventually(there, key["key"], 401) < 4
        assert await eventually(here, key["key"], 401) < 4


async def test_a_stream_ends_with_its_key(guard: Guarded) -> None:
    key = await make_key(guard, "consumer", ["changes:read"])
    assert await whoami(guard, key["key"]) == 200
    keys: KeyRing = guard.app.state.keys
    caller = await keys.caller([f"Bearer {key['key']}"])

    async def events() -> AsyncIterator[bytes]:
        yield b"before"
        await guard.delete(f"/v1/keys/{key['id']}", headers=ADMIN)
        await eventually(guard, key["key"], 401)
        yield b"after"

    # The test client takes answers as a whole, and no stream.
    assert [event async for event in changes._while_admitted(events(), partial(keys.still, caller))] == [b"before"]


async def test_a_long_poll_that_waited_over_the_end_of_its_key_is_refused(guard: Guarded) -> None:
    key = await make_key(guard, "consumer", ["changes:read"])
    head = (await guard.get("/v1/changes", headers=ADMIN)).json()["head"]
    poll = asyncio.create_task(guard.get(f"/v1/changes?after={head}&wait=30", headers=bearer(key["key"])))
    traffic = guard.app.state.traffic
    while not any(traffic.waiting.values()):  # noqa: ASYNC110 - it tells nobody
        await asyncio.sleep(0.01)
    await guard.delete(f"/v1/keys/{key['id']}", headers=ADMIN)
    await eventually(guard, key["key"], 401)
    await guard.post("/v1/items", json={"name": "A"}, headers=ADMIN)
    assert (await poll).status_code == 401


async def test_a_key_that_is_revoked_while_its_body_arrives_writes_nothing(guard: Guarded) -> None:
    scopes = ["items:write", "prices:write", "imports"]

    async def body(key: dict[str, Any], *parts: bytes) -> AsyncIterator[bytes]:
        yield parts[0]
        await guard.delete(f"/v1/keys/{key['id']}", headers=ADMIN)
        await eventually(guard, key["key"], 401)
        yield parts[1]

    for path, kind, parts in (
        ("/v1/items", "application/json", (b'{"name": "A", ', b'"price": {"amount": "1"}}')),
        ("/v1/imports?mode=apply", "text/csv", (b"sku,name,amount\n", b"B,B,1\n")),
    ):
        key = await make_key(guard, "late", scopes)
        headers = bearer(key["key"]) | {"Content-Type": kind}
        refused = await guard.post(path, content=body(key, *parts), headers=headers)
        assert refused.status_code == 401, refused.text
    assert (await guard.get("/v1/items", headers=ADMIN)).json()["items"] == []


async def test_who_revokes_a_key_waits_for_no_writer(guard: Guarded, owner: asyncpg.Connection) -> None:
    key = await make_key(guard, "till", ["quotes"])
    async with owner.transaction():
        await owner.execute("SELECT FROM ledger FOR UPDATE")
        assert (await guard.delete(f"/v1/keys/{key['id']}", headers=ADMIN)).status_code == 200
        await eventually(guard, key["key"], 401)


async def test_a_key_expires_by_itself(guard: Guarded) -> None:
    soon = datetime.now(UTC) + timedelta(seconds=3)
    key = await make_key(guard, "guest", ["quotes"], expires_at=soon.isoformat())
    assert await whoami(guard, key["key"]) == 200
    await eventually(guard, key["key"], 401)
    assert datetime.now(UTC) >= soon


async def test_the_secret_key_is_changed_without_losing_a_key(
    settings: Settings, client: httpx2.AsyncClient, owner: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = "the-first-secret-key-of-this-test-0123456789", "the-second-secret-key-of-this-test-0123456789"
    async with guarded(settings, secret_key=old) as app:
        used = (await make_key(app, "used", ["quotes"]))["key"]
        idle = (await make_key(app, "idle", ["quotes"]))["key"]
    async with (
        guarded(settings, secret_key=old, secret_key_previous=new) as before,
        guarded(settings, secret_key=new, secret_key_previous=old) as app,
    ):
        # While both run, both accept it, and neither stores a digest that the other would store back.
        for _ in range(2):
            assert await whoami(app, used) == await whoami(before, used) == 200
        assert await owner.fetchval("SELECT count(DISTINCT secret_key_id) FROM api_keys") == 1
        monkeypatch.setattr(keyring, "RENEW_AFTER_SECONDS", 0.0)
        assert await whoami(app, used) == 200
        made = (await make_key(app, "made", ["quotes"]))["key"]
    async with guarded(settings, secret_key=new) as app:
        assert await whoami(app, used) == 200
        assert await whoami(app, made) == 200
        assert await whoami(app, idle) == 401
    assert await owner.fetchval("SELECT count(DISTINCT secret_key_id) FROM api_keys") == 2


async def test_the_admin_key_needs_no_database(settings: Settings) -> None:
    async with guarded(settings, database_url="postgresql://nobody@127.0.0.1:1/nowhere") as app:
        assert (await app.get("/v1/whoami", headers=ADMIN)).json()["scopes"] == ["admin"]
        unchecked = await app.get("/v1/whoami", headers=bearer(str(KeyToken.new())))
        assert (unchecked.status_code, unchecked.json()["type"]) == (503, "/problems/database-unavailable")
        assert "Retry-After" in unchecked.headers


async def test_keys_are_compared_in_constant_time(guard: Guarded, monkeypatch: pytest.MonkeyPatch) -> None:
    key = await make_key(guard, "till", ["quotes"])
    compared: list[tuple[int, int]] = []
    compare = hmac.compare_digest

    def spied(one: bytes, other: bytes) -> bool:
        compared.append((len(one), len(other)))
        return compare(one, other)

    monkeypatch.setattr(hmac, "compare_digest", spied)
    # One for the admin key, and one for the key, whether there is one with this id or not.
    for text in (f"pb_{key['id']}_{'x' * 43}", str(KeyToken.new())):
        compared.clear()
        assert await whoami(guard, text) == 401
        assert compared == [(32, 32), (32, 32)]
    compared.clear()
    assert await whoami(guard, f"{ADMIN_KEY}x") == 401
    assert compared == [(32, 32)]


class TestCorrections:
    """A key without ``prices:correct`` cannot change what was answered in the past."""

    @pytest.fixture
    async def buyer(self, guard: Guarded) -> dict[str, str]:
        scopes: list[Scope] = [Scope.ITEMS_WRITE, Scope.PRICES_WRITE, Scope.PRICES_READ, Scope.IMPORTS]
        return bearer((await make_key(guard, "buyer", scopes))["key"])

    @staticmethod
    async def item(guard: Guarded, **price: Any) -> str:
        done = await guard.post(
            "/v1/items", json={"name": "A", "sku": "A", "price": {"amount": "1", **price}}, headers=ADMIN
        )
        assert done.status_code == 201, done.text
        return str(done.json()["id"])

    async def test_a_price_from_the_past(self, guard: Guarded, buyer: dict[str, str]) -> None:
        item = await self.item(guard)
        past = {"amount": "2", "valid_from": "2020-01-01T00:00:00Z"}
        refused = await guard.post(f"/v1/items/{item}/prices", json=past, headers=buyer)
        assert refused.status_code == 403
        assert refused.json()["errors"][0]["pointer"] == "/valid_from"
        assert (await guard.post(f"/v1/items/{item}/prices", json=past, headers=ADMIN)).status_code == 201
        now = {"amount": "2", "valid_from": datetime.now(UTC).isoformat()}
        assert (await guard.post(f"/v1/items/{item}/prices", json=now, headers=buyer)).status_code == 201
        first = {"name": "B", "price": past}
        assert (await guard.post("/v1/items", json=first, headers=buyer)).status_code == 403
        assert (await guard.get("/v1/items?limit=9", headers=ADMIN)).json()["items"][1:] == []

    async def test_superseding_and_voiding(self, guard: Guarded, buyer: dict[str, str]) -> None:
        item = await self.item(guard, valid_from="2020-01-01T00:00:00Z")
        (row,) = (await guard.get(f"/v1/items/{item}/prices?rows=true", headers=ADMIN)).json()["rows"]
        changed = {"amount": "2", "supersedes": row["id"]}
        assert (await guard.post(f"/v1/items/{item}/prices", json=changed, headers=buyer)).status_code == 403
        assert (await guard.delete(f"/v1/prices/{row['id']}", headers=buyer)).status_code == 403
        future = {"amount": "3", "valid_from": "2090-01-01T00:00:00Z"}
        scheduled = (await guard.post(f"/v1/items/{item}/prices", json=future, headers=buyer)).json()["id"]
        moved = await guard.post(f"/v1/items/{item}/prices", json=future | {"supersedes": scheduled}, headers=buyer)
        assert moved.status_code == 201
        assert (await guard.delete(f"/v1/prices/{moved.json()['id']}", headers=buyer)).status_code == 200
        assert (await guard.delete(f"/v1/prices/{row['id']}", headers=ADMIN)).status_code == 200

    async def test_days_and_rounding_of_a_book_with_prices(self, guard: Guarded, buyer: dict[str, str]) -> None:
        await self.item(guard)
        for change in ({"time_zone": "Europe/Berlin"}, {"rounding": {"mode": "down"}}):
            refused = await guard.patch("/v1/books/default", json=change, headers=buyer | {"If-Match": "*"})
            assert refused.status_code == 403, refused.text
            assert refused.json()["errors"][0]["code"] == "needs-prices-correct"
        renamed = await guard.patch("/v1/books/default", json={"name": "B"}, headers=buyer | {"If-Match": "*"})
        assert renamed.status_code == 200, renamed.text

    async def test_an_import(self, guard: Guarded, buyer: dict[str, str]) -> None:
        rows = b"sku,name,amount,valid_from\nP,P,1,2020-01-01T00:00:00Z\nQ,Q,1,\n"
        text = {"Content-Type": "text/csv"}
        preview = (await guard.post("/v1/imports", content=rows, headers=buyer | text)).json()
        refused = await guard.post(f"/v1/imports/{preview['id']}:apply", headers=buyer)
        assert refused.status_code == 403
        assert refused.json()["detail"].startswith("1 of its rows begin in the past")
        assert (await guard.post(f"/v1/imports/{preview['id']}:apply", headers=ADMIN)).json()["state"] == "applied"
        plain = b"sku,name,amount\nR,R,1\n"
        done = await guard.post("/v1/imports?mode=apply", content=plain, headers=buyer | text)
        assert done.json()["state"] == "applied"


async def test_no_key_is_logged(guard: Guarded) -> None:
    printed = io.StringIO()
    handler = logging.StreamHandler(printed)
    handler.setFormatter(logs.formatter("json", [ADMIN_KEY]))
    root = logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    try:
        key = await make_key(guard, "till", ["quotes"])
        secret = key["key"].rpartition(f"{key['id']}_")[2]
        wrong = f"pb_{key['id']}_{secret[::-1]}"
        for text in (key["key"], wrong, ADMIN_KEY):
            await guard.get("/v1/whoami", headers=bearer(text))
            await guard.get(f"/v1/keys/{text}", headers=ADMIN)
            await guard.get("/v1/whoami", params={"key": text}, headers=bearer(text))
            await guard.post("/v1/keys", json={"name": text}, headers=bearer(text))
    finally:
        root.removeHandler(handler)
        root.setLevel(level)
    assert f"/v1/keys/pb_{key['id']}_***" in printed.getvalue()
    for word in (secret, secret[::-1], ADMIN_KEY):
        assert word not in printed.getvalue()


async def test_a_follower_that_falls_silent_while_it_reads_the_keys_delays_nobody(
    settings: Settings, guard: Guarded, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = (await make_key(guard, "till", ["quotes"]))["key"]
    ring = KeyRing(guard.app.state.database, settings)
    live = keys.live
    speaks = asyncio.Event()

    async def silent(session: ReadSession) -> dict[str, Any]:
        await speaks.wait()
        return {}

    monkeypatch.setattr(keys, "live", silent)
    async with guard.app.state.database.reading() as session:
        follower = asyncio.create_task(ring.confirm(session, await keys.version(session), time.monotonic()))
        await asyncio.sleep(0)
        monkeypatch.setattr(keys, "live", live)
        async with asyncio.timeout(30):
            assert (await ring.caller([f"Bearer {key}"])).name == "till"
        speaks.set()
        await follower
    # What it saw is older than what the request did.
    assert len(ring) == 1


async def test_a_service_that_nobody_can_get_into_says_so_once_and_what_to_do(
    own_url: URL, caplog: pytest.LogCaptureFixture
) -> None:
    settings = make_settings(postgres.as_serving_role(own_url))

    async def said(**changes: Any) -> list[str]:
        caplog.clear()
        async with guarded(settings, feed_poll_seconds=0.05, **changes) as client:
            async with asyncio.timeout(30):
                # It knows the keys by then, and has looked at them again and again.
                while not client.app.state.follower.live:  # noqa: ASYNC110 - it has no event to wait for
                    await asyncio.sleep(0.02)
            assert (await client.get("/v1/items")).status_code == (401 if changes.get("auth_required", True) else 200)
            await whoami(client, "pb_0123456789ab_" + 43 * "x")
        records: list[Any] = [record.msg for record in caplog.records if record.name == "app.keyring"]
        return [record["remedy"] for record in records if record["event"].startswith("nobody can get in")]

    (remedy,) = await said(admin_key=None)
    assert "Set ADMIN_KEY, and make keys with it: pricebook keys create." in remedy
    assert await said(admin_key=None, auth_required=False) == []
    assert await said() == []
    async with guarded(settings) as client:
        expires_at = datetime.now(UTC) + timedelta(seconds=2)
        await make_key(client, "short", ["admin"], expires_at=expires_at.isoformat())
        await asyncio.sleep(max(0, (expires_at - datetime.now(UTC)).total_seconds()) + 0.1)
    assert len(await said(admin_key=None)) == 1, "a key that expired lets nobody in"
    async with guarded(settings) as client:
        await make_key(client, "till", ["quotes"])
    assert await said(admin_key=None) == []
    assert len(await said(admin_key=None, secret_key=OTHER_SECRET)) == 1
