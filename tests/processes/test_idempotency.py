"""A server is killed between a commit and its answer: the request, sent again to the next one, is not done twice."""

import asyncio
import signal
from pathlib import Path
from typing import Any

import asyncpg
import httpx2
import pytest
from sqlalchemy.engine import URL

from tests.support import postgres
from tests.support.processes import SECRET, running, started, wait_until_ready

pytestmark = pytest.mark.long

GATE = 7
# Of the database itself: it is passed within the commit, when all has been said and nothing has been answered.
GATE_IN_THE_COMMIT = f"""
CREATE FUNCTION pass_the_gate() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN PERFORM pg_advisory_xact_lock_shared({GATE}); RETURN NULL; END $$;
CREATE CONSTRAINT TRIGGER gate AFTER INSERT ON changes DEFERRABLE INITIALLY DEFERRED
FOR EACH ROW EXECUTE FUNCTION pass_the_gate()
"""
AT_THE_GATE = f"SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = {GATE} AND NOT granted"  # noqa: S608 - a number

ITEM: dict[str, Any] = {"url": "/v1/items", "json": {"name": "Frame", "sku": "FR", "price": {"amount": "19.99"}}}
LIST: dict[str, Any] = {
    "url": "/v1/imports?mode=apply",
    "content": b"sku,name,amount\nFR,Frame,19.99\n",
    "headers": {"Content-Type": "text/csv"},
}


async def until(owner: asyncpg.Connection, question: str) -> None:
    async with asyncio.timeout(60):
        while not await owner.fetchval(question):  # noqa: ASYNC110 - PostgreSQL tells nobody
            await asyncio.sleep(0.01)


@pytest.mark.parametrize(("kind", "sent"), [("gunicorn", ITEM), ("uvicorn", LIST)])
async def test_a_server_that_is_killed_before_it_answers(
    own_url: URL, own_owner: asyncpg.Connection, tmp_path: Path, kind: str, sent: dict[str, Any]
) -> None:
    url = postgres.text(postgres.as_serving_role(own_url))
    settings = {"server": kind, "database_url": url, "secret_key": SECRET}
    settings |= {"database_lock_timeout_milliseconds": "60000"}
    sent = sent | {"headers": sent.get("headers", {}) | {"Idempotency-Key": "once"}}
    await own_owner.execute(GATE_IN_THE_COMMIT)
    await own_owner.fetchval("SELECT pg_advisory_lock($1)", GATE)
    with started("serve", tmp_path, **settings) as service:
        await asyncio.to_thread(wait_until_ready, service)
        async with httpx2.AsyncClient(base_url=service.api, timeout=60) as client:
            answer = asyncio.create_task(client.post(**sent))
            await until(own_owner, AT_THE_GATE)
            service.signal_all(signal.SIGSTOP)
            await own_owner.fetchval("SELECT pg_advisory_unlock($1)", GATE)
            await until(own_owner, "SELECT count(*) FROM price_rows")
            service.signal_all(signal.SIGKILL)
            with pytest.raises(httpx2.TransportError):
                await answer
    for _ in range(2):
        # The second one comes after a stop in order.
        with running("serve", tmp_path, **settings) as service:
            async with httpx2.AsyncClient(base_url=service.api, timeout=60) as client:
                again = await client.post(**sent)
                assert (again.status_code, again.headers["Idempotency-Replayed"]) == (201, "true")
    rows = await own_owner.fetch(
        "SELECT i.sku, trim_scale(p.amount)::text FROM items AS i LEFT JOIN price_rows AS p ON p.item_id = i.id"
    )
    assert [tuple(row) for row in rows] == [("FR", "19.99")]
