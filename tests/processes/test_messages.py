"""What an operator gets wrong is said in the last line of the log, with the remedy: Kubernetes shows that line."""

import asyncio
import json
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import asyncpg
import httpx2
import pytest
from sqlalchemy.engine import URL

from app.migrations import head, migrate
from tests.conftest import make_settings
from tests.support import postgres
from tests.support.processes import SECRET, run, started

ROLE = "pricebook_outsider"
PASSWORD = "only-for-tests"  # noqa: S105 - of a role on a throw-away server


@pytest.fixture
def outsider_url(server: URL, fresh_url: URL) -> Iterator[URL]:
    """The new database for a role that may log in with a password, and no more."""
    postgres.execute(server, f"DROP ROLE IF EXISTS {ROLE}", f"CREATE ROLE {ROLE} LOGIN PASSWORD '{PASSWORD}'")
    yield fresh_url.set(username=ROLE, password=PASSWORD)
    postgres.execute(fresh_url, f"DROP OWNED BY {ROLE}", f"DROP ROLE {ROLE}")


def newer_schema(url: URL, compatible_from: str) -> None:
    """Make the database what a later release would make of it."""
    asyncio.run(migrate(make_settings(url, serving_role=postgres.SERVING_ROLE)))
    values = f"version_num = '9999', release = '9.9.0', compatible_from = '{compatible_from}'"
    postgres.execute(url, f"UPDATE alembic_version SET {values}")  # noqa: S608 - our own words


def migration_fails(directory: Path, url: URL, **settings: object) -> str:
    """The last line of a migration that fails."""
    ended = run("migrate", directory=directory, database_url=postgres.text(url), **settings)
    assert (ended.returncode, ended.stdout) == (1, "")
    assert "Traceback" not in ended.stderr
    assert "hunter2" not in ended.stderr
    return ended.stderr.splitlines()[-1]


def serving_waits(directory: Path, url: URL, **settings: object) -> str:
    """The last line of a service that does not get ready, and lives on."""
    with started("serve", directory, database_url=postgres.text(url), secret_key=SECRET, **settings) as service:
        deadline = time.monotonic() + 60
        reason = None
        while reason is None:
            assert time.monotonic() < deadline, service.log.read_text()
            try:
                answer = httpx2.get(f"{service.admin}/readyz", timeout=10)
                assert answer.status_code == 503
                reason = str(answer.json()["reason"])
            except httpx2.TransportError:
                time.sleep(0.1)
        time.sleep(0.5)
        assert httpx2.get(f"{service.admin}/livez").status_code == 200
        assert httpx2.get(f"{service.admin}/readyz", timeout=10).status_code == 503
        lines = service.log.read_text().splitlines()
        service.process.terminate()
        assert service.process.wait(timeout=20) == 0
    assert "hunter2" not in "".join(lines)
    assert "Traceback" not in "".join(lines)
    last = json.loads(lines[-1])
    assert (last["event"], last["reason"]) == ("not ready", reason)
    return reason


def unknown_role(url: URL) -> URL:
    return url.set(username="nobody_here", password="hunter2")  # noqa: S106 - looked for above


def nowhere(url: URL) -> URL:
    return url.set(host="127.0.0.1", port=1, query={}, password="hunter2")  # noqa: S106 - looked for above


def no_database(url: URL) -> URL:
    return url.set(database="missing_here")


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        (unknown_role, r"nobody_here.* Check user and password in DATABASE_URL"),
        (nowhere, r"127\.0\.0\.1:1/.* cannot be used: \[Errno 111\].* Check the address in DATABASE_URL"),
        (no_database, r'"missing_here" does not exist\. Create the database, or name another one in DATABASE_URL'),
    ],
)
def test_a_database_that_lets_nobody_in(
    fresh_url: URL, tmp_path: Path, where: Callable[[URL], URL], expected: str
) -> None:
    url = where(fresh_url)
    for line in (migration_fails(tmp_path, url, migration_wait_seconds=0), serving_waits(tmp_path, url)):
        assert re.search(expected, line), line


def test_a_wrong_password(server: URL, outsider_url: URL, tmp_path: Path) -> None:
    postgres.ask_for_password(server, ROLE)
    line = migration_fails(tmp_path, outsider_url.set(password="hunter2"))  # noqa: S106 - looked for above
    assert re.search(rf'password authentication failed for user "{ROLE}"\. Check user and password', line), line


def test_a_host_without_an_address(fresh_url: URL, tmp_path: Path) -> None:
    url = fresh_url.set(host="db.invalid", port=5432, query={})
    line = migration_fails(tmp_path, url, migration_wait_seconds=0)
    assert re.search(r"db\.invalid:5432/.* Check the address in DATABASE_URL", line), line


def test_a_database_without_a_schema(fresh_url: URL, tmp_path: Path) -> None:
    assert serving_waits(tmp_path, fresh_url) == "The database has no schema yet. Run: pricebook migrate"


def test_a_schema_that_this_version_cannot_run_on(fresh_url: URL, tmp_path: Path) -> None:
    newer_schema(fresh_url, compatible_from="9998")
    line = migration_fails(tmp_path, fresh_url)
    assert line.startswith("The database has schema 9999, made by Pricebook 9.9.0, and this version (")
    assert "Use Pricebook 9.9.0 or newer" in line
    assert serving_waits(tmp_path, postgres.as_serving_role(fresh_url)) == line


def test_after_a_rollback_the_older_version_migrates_nothing_and_serves(fresh_url: URL, tmp_path: Path) -> None:
    newer_schema(fresh_url, compatible_from=head())
    ended = run("migrate", directory=tmp_path, database_url=postgres.text(fresh_url))
    assert (ended.returncode, ended.stdout) == (0, "The schema is at 9999.\n")
    warning = json.loads(ended.stderr.splitlines()[-1])
    assert (warning["level"], warning["schema"], warning["made_by"]) == ("warning", "9999", "9.9.0")
    url = postgres.text(postgres.as_serving_role(fresh_url))
    checked = run("check", directory=tmp_path, database_url=url, secret_key=SECRET)
    assert checked.returncode == 0, checked.stdout


def test_a_role_that_may_not_make_the_schema_is_told_what_to_grant(
    outsider_url: URL, server: URL, tmp_path: Path
) -> None:
    line = migration_fails(tmp_path, outsider_url)
    assert f"The role {ROLE} may not make a schema in the database {outsider_url.database}" in line
    grants = re.findall(r"GRANT [^;]*;", line)
    assert len(grants) == 2
    postgres.execute(server.set(database=outsider_url.database), *grants)
    ended = run("migrate", directory=tmp_path, database_url=postgres.text(outsider_url))
    assert ended.returncode == 0, ended.stderr


def test_a_role_that_may_not_change_the_schema_is_told_whose_it_is(
    outsider_url: URL, fresh_url: URL, tmp_path: Path
) -> None:
    asyncio.run(migrate(make_settings(fresh_url, serving_role=ROLE)))
    postgres.execute(fresh_url, "UPDATE alembic_version SET version_num = '0001'")
    line = migration_fails(tmp_path, outsider_url)
    owner = asyncio.run(current_user(fresh_url))
    assert f"The role {ROLE} may not change the schema, which belongs to {owner}" in line
    assert f"connect as {owner}" in line


async def current_user(url: URL) -> str:
    connection = await asyncpg.connect(postgres.text(url))
    try:
        user: str = await connection.fetchval("SELECT current_user::regrole::text")
    finally:
        await connection.close()
    return user


def test_a_serving_role_without_rights_is_told_what_it_lacks(outsider_url: URL, fresh_url: URL, tmp_path: Path) -> None:
    asyncio.run(migrate(make_settings(fresh_url, serving_role=ROLE)))
    postgres.execute(fresh_url, f"REVOKE INSERT ON changes FROM {ROLE}", f"REVOKE ALL ON items FROM {ROLE}")
    reason = serving_waits(tmp_path, outsider_url)
    assert (
        f"The role {ROLE} lacks rights that serving needs: SELECT ON items, INSERT ON items, UPDATE ON items, "
        in reason
    )
    assert f"SERVING_ROLE={ROLE}" in reason


def test_a_role_that_may_not_connect(outsider_url: URL, fresh_url: URL, tmp_path: Path) -> None:
    postgres.execute(fresh_url, f'REVOKE CONNECT ON DATABASE "{fresh_url.database}" FROM public')
    for line in (migration_fails(tmp_path, outsider_url), serving_waits(tmp_path, outsider_url)):
        assert re.search(r"permission denied for database .* Grant the role what it lacks", line), line


@pytest.mark.parametrize("command", ["serve", "migrate"])
def test_missing_settings_end_the_process(tmp_path: Path, command: str) -> None:
    ended = run(command, directory=tmp_path, **({"database_url": "postgresql://x/x"} if command == "serve" else {}))
    missing = "SECRET_KEY" if command == "serve" else "DATABASE_URL"
    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr.splitlines()[-1].startswith(f"{missing}: is not set. (")


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "prices.example"])  # noqa: S104 - it is refused
def test_development_without_keys_stays_on_this_machine(tmp_path: Path, host: str) -> None:
    done = run("dev", directory=tmp_path, host=host, database_url="postgresql://nobody@127.0.0.1:1/nowhere")
    assert done.returncode != 0
    assert f"HOST: {host} can be reached from elsewhere" in done.stderr
    assert "AUTH_REQUIRED=true" in done.stderr
