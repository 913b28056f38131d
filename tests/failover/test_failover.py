"""The primary is lost under load, and a standby takes over: services go on with it, and nothing confirmed is lost."""

import asyncio
import json
import signal
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.failover import servers
from tests.failover.load import Load, position, record
from tests.failover.servers import Pair
from tests.support import postgres
from tests.support.processes import SECRET, Service, run, running

pytestmark = pytest.mark.long

_WRITERS = 4
_MOST_SECONDS = 20
"""From the promotion to writes everywhere; some 2 on a machine that has nothing else to do."""

_ENOUGH = 50
"""Writes acknowledged before the fault, and again after it."""


@pytest.mark.parametrize(
    ("fault", "kind"),
    [(signal.SIGKILL, "gunicorn"), (signal.SIGSTOP, "uvicorn")],
    ids=["the primary is killed", "the primary falls silent"],
)
def test_nothing_confirmed_is_lost_and_nobody_is_restarted(
    directory: Path, fault: signal.Signals, kind: str, record_property: Callable[[str, object], None]
) -> None:
    with ExitStack() as stack:
        pair = stack.enter_context(servers.running(directory))
        migrated = run("migrate", directory=directory, database_url=pair.address(), serving_role=postgres.SERVING_ROLE)
        assert migrated.returncode == 0, migrated.stderr
        pair.commit_on_both()
        service = stack.enter_context(
            running(
                "serve",
                directory,
                server=kind,
                database_url=pair.address(postgres.SERVING_ROLE),
                database_silence_seconds=1,
                database_statement_timeout_milliseconds=600_000,  # It is not this that ends what waits.
                secret_key=SECRET,
                drain_seconds=0,
            )
        )
        load, seconds = asyncio.run(_fail_over(pair, service, fault))
        assert service.process.poll() is None
        audit(load, service)
    assert seconds < _MOST_SECONDS
    record_property("summary", f"failover ({fault.name}): writes go on after {seconds:.1f} s, none lost")


def test_a_standby_that_lacked_changes_is_noticed_by_those_who_had_them(directory: Path) -> None:
    with ExitStack() as stack:
        pair = stack.enter_context(servers.running(directory))
        migrated = run("migrate", directory=directory, database_url=pair.address(), serving_role=postgres.SERVING_ROLE)
        assert migrated.returncode == 0, migrated.stderr
        address = pair.address(postgres.SERVING_ROLE)
        service = stack.enter_context(
            running("serve", directory, database_url=address, secret_key=SECRET, drain_seconds=0)
        )
        client = stack.enter_context(httpx2.Client(base_url=service.api, timeout=30))
        record(client, "both have it")
        seq = client.get("/v1/changes").json()["head"]
        pair.standby.until(f"SELECT seq = {seq} FROM ledger")  # noqa: S608 - a number of ours
        behind = position(client)
        pair.cut_standby_off()
        for number in range(3):
            record(client, f"lost {number}")
        ahead = position(client)
        assert ahead["after"] > behind["after"]
        pair.primary.signal(signal.SIGKILL)
        pair.promote()
        # They take the numbers of those that were lost, and more: by number alone nobody could tell.
        for number in range(5):
            record(client, f"new {number}")
        refused = client.get("/v1/changes", params=ahead)
        assert (refused.status_code, refused.json()["type"]) == (409, "/problems/history-diverged"), refused.text
        went_on = client.get("/v1/changes", params={**behind, "types": "item.created"}).json()["changes"]
        assert [change["after"]["name"] for change in went_on] == [f"new {number}" for number in range(5)]
        # Also from the memory of the process, which outlived the ledger that it had followed.
        assert (
            client.get("/v1/changes", params={"after": behind["after"]}).json()["changes"][0]["at"] == went_on[0]["at"]
        )
        assert service.process.poll() is None


def test_a_primary_that_takes_no_writes_is_passed_over(directory: Path) -> None:
    with ExitStack() as stack:
        pair = stack.enter_context(servers.running(directory))
        migrated = run("migrate", directory=directory, database_url=pair.address(), serving_role=postgres.SERVING_ROLE)
        assert migrated.returncode == 0, migrated.stderr
        seq = postgres.answer(pair.primary.url, "SELECT seq FROM ledger")
        pair.standby.until(f"SELECT seq = {seq} FROM ledger")  # noqa: S608 - a number of ours
        # Fenced off, and still there: both are primaries, and the one that is named first takes no writes.
        pair.promote()
        pair.standby.until("SELECT NOT pg_is_in_recovery()")
        postgres.execute(
            pair.primary.url, "ALTER SYSTEM SET default_transaction_read_only = on", "SELECT pg_reload_conf()"
        )
        pair.primary.until("SELECT reset_val = 'on' FROM pg_settings WHERE name = 'default_transaction_read_only'")
        address = pair.address(postgres.SERVING_ROLE)
        service = stack.enter_context(
            running("serve", directory, database_url=address, secret_key=SECRET, drain_seconds=0)
        )
        client = stack.enter_context(httpx2.Client(base_url=service.api, timeout=30))
        record(client, "new")
        assert [item["name"] for item in client.get("/v1/items").json()["items"]] == ["new"]
        connected = "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'pricebook%'"
        assert postgres.answer(pair.primary.url, connected) == 0
        assert postgres.answer(pair.standby.url, f"{connected} HAVING count(*) >= 3"), "reads, writes and the feed"


async def _fail_over(pair: Pair, service: Service, fault: signal.Signals) -> tuple[Load, float]:
    load = Load(service)
    tasks = [
        asyncio.create_task(work)
        for work in (
            *(load.write() for _ in range(_WRITERS)),
            *(load.read() for _ in range(2)),
            load.poll("pages"),
            load.stream("events"),
        )
    ]
    try:
        await _until(lambda: len(load.written) > _ENOUGH, load)
        pair.primary.signal(fault)
        if fault == signal.SIGKILL:
            await _until(lambda: load.refused > 0, load)
        # A silent one may be replaced before anybody has noticed.
        await asyncio.to_thread(pair.promote)
        promoted, before = time.monotonic(), len(load.written)
        await _until(lambda: len(load.written) > before, load)
        seconds = time.monotonic() - promoted
        await _until(lambda: len(load.written) > before + _ENOUGH, load)
        for task in tasks[:_WRITERS]:
            task.cancel()
        head = max(load.written.values())
        await _until(lambda: all(len(feed) >= head for feed in load.feeds.values()), load)
    finally:
        for task in tasks:
            task.cancel()
        ended = await asyncio.gather(*tasks, return_exceptions=True)
        await load.close()
    assert not [error for error in ended if error is not None and not isinstance(error, asyncio.CancelledError)]
    return load, seconds


async def _until(done: Callable[[], bool], load: Load) -> None:
    deadline = time.monotonic() + 60
    while not done():
        assert time.monotonic() < deadline, f"{len(load.written)} written, {load.refused} refused, {load.violations}"
        await asyncio.sleep(0.02)


def audit(load: Load, service: Service) -> None:
    """Compare what was acknowledged and received with what the new primary has, by the feed."""
    assert load.violations == []
    changes: list[dict[str, Any]] = []
    while page := httpx2.get(f"{service.api}/v1/changes", params={"after": len(changes)}).json()["changes"]:
        changes += page
    assert [change["seq"] for change in changes] == list(range(1, len(changes) + 1))
    created = [change for change in changes if change["type"] == "item.created"]
    by_sku = {change["after"]["sku"]: change["seq"] for change in created}
    assert len(by_sku) == len(created), "an item was created twice"
    for sku, seq in load.written.items():
        assert by_sku[sku] <= seq, sku
    for name, feed in load.feeds.items():
        assert feed == changes[: len(feed)], name
    lines = [json.loads(line) for line in service.log.read_text().splitlines()]
    assert [line for line in lines if line["level"] == "error"] == []
