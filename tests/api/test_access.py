"""Each operation lets in whom the table says, and nobody else."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator

import asyncpg
import httpx2
import pytest
from fastapi import FastAPI
from fastapi.routing import APIRoute

from app.access import Scope
from app.settings import Settings
from tests.support.access import ADMIN_KEY, bearer, guarded, make_key

ITEM = "01a20537-de50-7ff8-9c93-02db0b06a11c"
PUBLIC = "public"

# What the specification says, and not what the routes say: one that is missing here fails.
TABLE = {
    "POST /items/": "items:write prices:write",
    "GET /items/": "items:read prices:read",
    "GET /items/{item}": "items:read prices:read",
    "POST /v1/items": "items:write",
    "GET /v1/items": "items:read prices:read",
    "GET /v1/items/{item}": "items:read",
    "PATCH /v1/items/{item}": "items:write",
    "DELETE /v1/items/{item}": "items:write",
    "GET /v1/items/{item}/price": "prices:read",
    "GET /v1/items/{item}/prices": "prices:read",
    "GET /v1/items/{item}/prior-price": "prices:read",
    "POST /v1/items/{item}/prices": "prices:write",
    "DELETE /v1/prices/{price_id}": "prices:write",
    "POST /v1/prices:lookup": "prices:read",
    "GET /v1/schedule": "prices:read",
    "GET /v1/books": "prices:read",
    "POST /v1/books": "prices:write",
    "GET /v1/books/{key}": "prices:read",
    "PATCH /v1/books/{key}": "prices:write",
    "POST /v1/quotes": "quotes",
    "POST /v1/quotes:verify": "quotes",
    "POST /v1/imports": "imports",
    "GET /v1/imports": "imports",
    "GET /v1/imports/{import_id}": "imports",
    "DELETE /v1/imports/{import_id}": "imports",
    "GET /v1/imports/{import_id}/rows": "imports",
    "POST /v1/imports/{import_id}:apply": "imports",
    "GET /v1/export": "items:read prices:read",
    "GET /v1/changes": "changes:read",
    "POST /v1/keys": "admin",
    "GET /v1/keys": "admin",
    "GET /v1/keys/{key_id}": "admin",
    "DELETE /v1/keys/{key_id}": "admin",
    "GET /v1/whoami": "",
    "GET /problems": PUBLIC,
    "GET /problems/{slug}": PUBLIC,
}
PLACES = {"{item}": ITEM, "{price_id}": ITEM, "{import_id}": ITEM, "{key}": "none", "{slug}": "none"}
WRONG = f"pb_{'0' * 16}_{'A' * 43}"


def address(operation: str) -> tuple[str, str]:
    """Method and path of an operation, about something that does not exist."""
    method, path = operation.split(" ")
    for place, value in {**PLACES, "{key_id}": "0" * 16}.items():
        path = path.replace(place, value)
    return method, path


@pytest.fixture
async def guard(settings: Settings, client: httpx2.AsyncClient) -> AsyncIterator[httpx2.AsyncClient]:
    async with guarded(settings) as result:
        yield result


def routes(app: FastAPI) -> Iterator[str]:
    """All operations, as the document lists them and as they are matched."""
    for path, methods in app.openapi()["paths"].items():
        for method in methods:
            yield f"{method.upper()} {path}"


def test_the_table_has_every_operation(app: FastAPI) -> None:
    assert sorted(TABLE) == sorted(routes(app))


async def test_every_operation_with_every_scope(guard: httpx2.AsyncClient, owner: asyncpg.Connection) -> None:
    keys = {str(scope): (await make_key(guard, f"one-{scope.replace(':', '-')}", [scope]))["key"] for scope in Scope}
    revoked = await make_key(guard, "revoked", list(Scope))
    await guard.delete(f"/v1/keys/{revoked['id']}", headers=bearer(ADMIN_KEY))
    expired = await make_key(guard, "expired", list(Scope), expires_at="2100-01-01T00:00:00Z")
    await owner.execute("UPDATE api_keys SET expires_at = now() - interval '1 second' WHERE name = 'expired'")
    await owner.execute("UPDATE api_key_state SET version = version + 1; NOTIFY pricebook_changes")
    refused = ["", "Bearer", f"Bearer {WRONG}", f"Bearer {revoked['key']}", f"Basic {keys['admin']}", "Bearer x y"]
    asked = 0
    for operation, needs in TABLE.items():
        method, path = address(operation)

        async def status(header: str, operation: str = operation, method: str = method, path: str = path) -> int:
            headers = {"Authorization": header} if header else {}
            answer = await guard.request(method, path, headers=headers)
            if answer.status_code == 401:
                assert answer.headers["WWW-Authenticate"].startswith("Bearer"), operation
                assert ("invalid_token" in answer.headers["WWW-Authenticate"]) == bool(header), operation
            assert answer.status_code < 500, (operation, answer.text)
            return answer.status_code

        for header in refused:
            assert (await status(header) == 401) == (needs != PUBLIC), (operation, header)
        needed = set() if needs == PUBLIC else set(needs.split())
        for scope, key in keys.items():
            allowed = scope == "admin" or needed <= {scope}
            found = await status(f"Bearer {key}")
            assert found != 401, (operation, scope)
            assert (found != 403) == allowed, (operation, scope, found)
            asked += 1
        assert await status(f"Bearer {ADMIN_KEY}") not in (401, 403), operation
        if needed:
            both = await _key_for(guard, needed)
            assert await status(f"Bearer {both}") not in (401, 403), operation
    assert asked == len(TABLE) * len(Scope)
    deadline = time.monotonic() + 20
    while (await guard.get("/v1/whoami", headers=bearer(expired["key"]))).status_code != 401:
        # Somebody else made it expire, behind the service's back.
        assert time.monotonic() < deadline, "it is still accepted"
        await asyncio.sleep(0.02)


_KEYS: dict[frozenset[str], str] = {}


async def _key_for(guard: httpx2.AsyncClient, scopes: set[str]) -> str:
    name = "with-" + "-and-".join(sorted(scopes)).replace(":", "-")
    found = await guard.post("/v1/keys", json={"name": name, "scopes": sorted(scopes)}, headers=bearer(ADMIN_KEY))
    if found.status_code == 201:
        _KEYS[frozenset(scopes)] = found.json()["key"]
    return _KEYS[frozenset(scopes)]


async def test_the_document_names_the_scopes(app: FastAPI) -> None:
    document = app.openapi()
    assert document["components"]["securitySchemes"]["key"]["scheme"] == "bearer"
    for operation, needs in TABLE.items():
        method, path = operation.split(" ")
        found = document["paths"][path.replace(":path}", "}")][method.lower()]
        expected = [] if needs == PUBLIC else [{"key": needs.split()}]
        assert found.get("security", []) == expected, operation
        assert ("401" in found["responses"]) == (needs != PUBLIC), operation


def test_a_route_that_names_no_scopes_does_not_come_into_being() -> None:
    from app.exact_json import ExactJsonRoute

    async def handler() -> None: ...

    with pytest.raises(ValueError, match="not enough values"):
        ExactJsonRoute("/open", handler)
    assert issubclass(ExactJsonRoute, APIRoute)


async def test_strangers_learn_nothing_and_nothing_of_theirs_is_read(guard: httpx2.AsyncClient) -> None:
    for request in (
        {"content": b"{not json", "headers": {"Content-Type": "application/json"}},
        {"content": b"x", "headers": {"Content-Type": "text/plain"}},
        {"params": {"unknown": "1"}},
        {"headers": {"Accept": "image/png"}},
    ):
        assert (await guard.post("/v1/items", **request)).status_code == 401


async def test_pages_for_people_need_no_key(guard: httpx2.AsyncClient) -> None:
    for path in ("/docs", "/redoc", "/openapi.json", "/problems"):
        assert (await guard.get(path)).status_code == 200, path
