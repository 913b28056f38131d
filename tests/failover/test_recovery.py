"""Recovery to an instant, with the settings that docs/backup.md shows: the mistake is gone, and consumers are told."""

import asyncio
import re
import shutil
import time
from contextlib import ExitStack
from pathlib import Path

import httpx2
import pytest

from app.migrations import migrate
from tests.conftest import make_settings
from tests.failover import servers
from tests.failover.load import position, record
from tests.support import postgres
from tests.support.processes import SECRET, running

pytestmark = pytest.mark.long

PAGE = (Path(__file__).parents[2] / "docs" / "backup.md").read_text()


def settings(number: int, archive: Path, **values: str) -> dict[str, str]:
    """A block of settings of the page, for an archive at another place, with some values replaced."""
    block = re.findall(r"^```ini\n(.*?)^```$", PAGE, flags=re.DOTALL | re.MULTILINE)[number]
    shown = dict(re.findall(r"^(\w+) = '?(.*?)'?$", block.replace("/archive", str(archive)), flags=re.MULTILINE))
    assert values.keys() <= shown.keys()
    return shown | values


def test_a_mistake_is_undone_by_recovery_to_the_instant_before_it(directory: Path) -> None:
    archive = directory / "archive"
    with ExitStack() as stack:
        old = servers.new_server(directory / "old")
        stack.callback(old.end)
        archive.mkdir()
        shutil.chown(archive, directory.joinpath("old").stat().st_uid)
        old.start(**settings(0, archive))
        asyncio.run(migrate(make_settings(old.url, serving_role=postgres.SERVING_ROLE)))
        base = old.copied(directory / "base")
        with running("serve", directory, database_url=servers.address(old), secret_key=SECRET) as service:
            client = stack.enter_context(httpx2.Client(base_url=service.api, timeout=30))
            record(client, "right")
            exact = position(client)
            instant = postgres.answer(old.url, "SELECT clock_timestamp()::text")
            time.sleep(0.01)
            record(client, "mistake")
            ahead = position(client)
        segment = postgres.answer(old.url, "SELECT pg_walfile_name(pg_switch_wal())")
        old.until(f"SELECT last_archived_wal >= '{segment}' FROM pg_stat_archiver")  # noqa: S608 - its own name
        old.end()

        stack.callback(base.end)
        base.signal_recovery()
        base.start(**settings(1, archive, recovery_target_time=str(instant)))
        base.until("SELECT NOT pg_is_in_recovery()")
        with running("serve", directory, database_url=servers.address(base), secret_key=SECRET) as service:
            client = stack.enter_context(httpx2.Client(base_url=service.api, timeout=30))
            assert [item["name"] for item in client.get("/v1/items").json()["items"]] == ["right"]
            assert position(client) == exact
            for number in range(3):
                record(client, f"after {number}")
            refused = client.get("/v1/changes", params=ahead)
            assert (refused.status_code, refused.json()["type"]) == (409, "/problems/history-diverged")
            assert client.get("/v1/changes", params=exact).json()["changes"][0]["seq"] == exact["after"] + 1
