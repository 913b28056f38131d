"""The schema: made from nothing, equal to the models, safe to change under load, and without DDL rights to serve."""

import asyncio
import socket
import subprocess
import sys
from importlib.metadata import version
from io import StringIO
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import Script, ScriptDirectory
from sqlalchemy import Connection, event
from sqlalchemy.engine import URL
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine

from app import migrations
from app.migrations import MigrationError, Schema, migrate
from app.models import Base
from tests.conftest import make_settings
from tests.support import postgres
from tests.support.tcp_proxy import TcpProxy

_ROOT = Path(__file__).parents[2]


def scripts() -> list[Script]:
    """The migrations, the oldest first."""
    return list(ScriptDirectory.from_config(migrations.config()).walk_revisions())[::-1]


async def connect(url: URL) -> asyncpg.Connection:
    return await asyncpg.connect(postgres.text(url))


async def test_models_and_migrations_agree(owner_url: URL) -> None:
    def differences(connection: Connection) -> list[object]:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
        return list(compare_metadata(context, Base.metadata))

    engine = create_async_engine(owner_url.set(drivername="postgresql+asyncpg"))
    async with engine.connect() as connection:
        assert await connection.run_sync(differences) == []
    await engine.dispose()


def test_the_revisions_that_serving_knows_are_those_that_alembic_runs() -> None:
    assert list(migrations.revisions()) == [script.revision for script in reversed(scripts())]


async def test_the_first_migration_takes_the_settings_of_the_default_book(fresh_url: URL) -> None:
    settings = make_settings(fresh_url, default_currency="JPY", default_time_zone="Asia/Tokyo")
    assert await migrate(settings) == migrations.head()
    connection = await connect(fresh_url)
    book = await connection.fetchrow("SELECT key, currency, time_zone FROM books")
    change = await connection.fetchrow("SELECT seq, type, after ->> 'currency' AS currency FROM changes")
    await connection.close()
    assert tuple(book) == ("default", "JPY", "Asia/Tokyo")
    assert tuple(change) == (1, "book.created", "JPY")


async def test_many_may_migrate_at_once_and_again(fresh_url: URL) -> None:
    settings = make_settings(fresh_url)
    assert set(await asyncio.gather(*(migrate(settings) for _ in range(5)))) == {migrations.head()}
    connection = await connect(fresh_url)
    assert await connection.fetchval("SELECT count(*) FROM books") == 1
    await connection.close()
    assert await migrate(settings) == migrations.head()


async def test_with_nothing_to_do_it_waits_for_nobody(owner_url: URL) -> None:
    done = make_settings(owner_url, serving_role=postgres.SERVING_ROLE, migration_wait_seconds=0)
    connection = await connect(owner_url)
    await connection.fetchval("SELECT pg_advisory_lock($1)", migrations._ADVISORY_LOCK)
    assert await migrate(done) == migrations.head()
    await connection.execute(f"REVOKE INSERT ON items FROM {postgres.SERVING_ROLE}")
    with pytest.raises(MigrationError, match="Another migration is running"):
        await migrate(done)
    await connection.close()
    assert await migrate(done) == migrations.head()
    assert await missing(owner_url) == []


async def missing(url: URL) -> list[str]:
    engine = create_async_engine(url.set(drivername="postgresql+asyncpg"))
    async with engine.connect() as connection:
        lacks = await connection.run_sync(migrations.missing_grants, postgres.SERVING_ROLE)
    await engine.dispose()
    return lacks


LATER = """
import sqlalchemy as sa
from alembic import op

revision = "{revision}"
down_revision = "{down_revision}"
compatible_from = "0001"


def upgrade() -> None:
    {upgrade}
"""


async def test_each_migration_is_a_transaction_of_its_own_and_may_leave_it(
    fresh_url: URL, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = {
        "9998": "with op.get_context().autocommit_block():\n"
        '        op.execute("CREATE INDEX CONCURRENTLY later ON items (name)")',
        "9999": 'op.execute("SELECT 1 / 0")',
    }
    before = migrations.head()
    for revision, upgrade in steps.items():
        text = LATER.format(revision=revision, down_revision=before, upgrade=upgrade)
        (tmp_path / f"{revision}.py").write_text(text)
        before = revision
    shipped = migrations.config

    def config(**attributes: Any) -> Config:
        result = shipped(**attributes)
        result.set_main_option("path_separator", "os")
        result.set_main_option("version_locations", f"{Path(migrations.__file__).parent / 'versions'}:{tmp_path}")
        return result

    monkeypatch.setattr(migrations, "config", config)
    with pytest.raises(MigrationError, match="division by zero"):
        await migrate(make_settings(fresh_url))
    connection = await connect(fresh_url)
    assert await connection.fetchval("SELECT version_num FROM alembic_version") == "9998"
    assert await connection.fetchval("SELECT indisvalid FROM pg_index WHERE indexrelid = 'later'::regclass")
    await connection.close()


async def test_both_ends_of_a_migration_notice_when_the_other_is_gone(
    fresh_url: URL, monkeypatch: pytest.MonkeyPatch
) -> None:
    ends: list[int] = []

    async def keep_alive(connection: AsyncConnection) -> None:
        await kept_alive(connection)
        driver: Any = (await connection.get_raw_connection()).driver_connection
        end = driver._transport.get_extra_info("socket")
        ends.append(end.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE))

    kept_alive = migrations._keep_alive
    monkeypatch.setattr(migrations, "_keep_alive", keep_alive)
    with TcpProxy(fresh_url).open() as proxy:
        await migrate(make_settings(proxy.url))
        # The connection that holds the lock, and the one that changes the schema.
        assert ends == [1, 1]
        engine = create_async_engine(proxy.url.set(drivername="postgresql+asyncpg"))
        async with engine.connect() as connection:
            statements: list[str] = []
            event.listen(engine.sync_engine, "before_cursor_execute", lambda *seen: statements.append(seen[2]))
            await kept_alive(connection)
            assert statements == [f"SET tcp_keepalives_{name}" for name in ("idle = 30", "interval = 10", "count = 3")]
        await engine.dispose()


async def test_a_server_that_falls_silent_is_given_up(fresh_url: URL) -> None:
    with TcpProxy(fresh_url).open() as proxy:
        proxy.silence()
        with pytest.raises(MigrationError, match="no answer in time"):
            await migrate(make_settings(proxy.url, migration_wait_seconds=0, database_connect_timeout_seconds=0.5))


async def test_the_schema_says_who_made_it_and_who_can_run_on_it(fresh_url: URL) -> None:
    await migrate(make_settings(fresh_url))
    connection = await connect(fresh_url)
    row = await connection.fetchrow("SELECT version_num, compatible_from, release FROM alembic_version")
    await connection.close()
    assert tuple(row) == (migrations.head(), scripts()[-1].module.compatible_from, version("pricebook"))


def test_every_migration_says_from_where_on_it_is_compatible() -> None:
    known = [script.revision for script in scripts()]
    for place, script in enumerate(scripts()[1:], start=1):
        assert script.module.compatible_from in known[:place], script.revision


async def test_an_older_schema_is_brought_up_to_date(fresh_url: URL) -> None:
    engine = create_async_engine(fresh_url.set(drivername="postgresql+asyncpg"))
    async with engine.begin() as connection:
        await connection.run_sync(lambda bare: command.upgrade(migrations.config(connection=bare), "0001"))
        assert await connection.run_sync(migrations.current_schema) == Schema("0001", None, None)
    await engine.dispose()
    assert await migrate(make_settings(fresh_url)) == migrations.head()


async def test_a_newer_schema_is_left_alone(fresh_url: URL) -> None:
    await migrate(make_settings(fresh_url))
    connection = await connect(fresh_url)
    await connection.execute(
        "UPDATE alembic_version SET version_num = '9999', compatible_from = '9998', release = '9.9'"
    )
    with pytest.raises(MigrationError, match=r"9999, made by Pricebook 9\.9, .* cannot run on it\. Use Pricebook 9\.9"):
        await migrate(make_settings(fresh_url))
    await connection.execute("UPDATE alembic_version SET compatible_from = NULL, release = NULL")
    with pytest.raises(MigrationError, match=r"9999, made by another version, .* Use the version that made it"):
        await migrate(make_settings(fresh_url))
    await connection.execute("UPDATE alembic_version SET compatible_from = $1", migrations.head())
    assert await migrate(make_settings(fresh_url)) == "9999"
    assert await connection.fetchval("SELECT version_num FROM alembic_version") == "9999"
    await connection.close()


async def test_an_unreachable_database_is_named(fresh_url: URL) -> None:
    nowhere = fresh_url.set(host="127.0.0.1", port=1, query={}, password="hunter2")  # noqa: S106 - looked for below
    with pytest.raises(MigrationError, match=r"127\.0\.0\.1") as refusal:
        await migrate(make_settings(nowhere, migration_wait_seconds=0))
    assert "hunter2" not in str(refusal.value)


async def test_a_missing_serving_role_is_named(fresh_url: URL) -> None:
    with pytest.raises(MigrationError, match=r"nobody_here.*CREATE ROLE"):
        await migrate(make_settings(fresh_url, serving_role="nobody_here"))


async def test_a_role_without_rights_is_told(server: URL, owner_url: URL, fresh_url: URL) -> None:
    with pytest.raises(MigrationError, match="permission denied"):
        await migrate(make_settings(postgres.as_serving_role(fresh_url)))


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE TABLE x ()",
        "DROP TABLE items",
        "ALTER TABLE items ADD COLUMN x text",
        "TRUNCATE changes",
        "DELETE FROM items",
        "DELETE FROM price_rows",
        "UPDATE price_rows SET amount = 0",
        "UPDATE changes SET actor = 'x'",
        "INSERT INTO ledger (seq, recorded_at) VALUES (1, now())",
        "UPDATE alembic_version SET version_num = 'x'",
    ],
)
async def test_the_serving_role_can_neither_change_the_schema_nor_rewrite_history(
    owner_url: URL, statement: str
) -> None:
    connection = await connect(postgres.as_serving_role(owner_url))
    try:
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.execute(statement)
    finally:
        await connection.close()


def test_squawk_finds_no_statement_that_blocks_a_running_service(tmp_path: Path) -> None:
    files = []
    for script in scripts():
        configuration = migrations.config()
        configuration.output_buffer = output = StringIO()
        command.upgrade(configuration, f"{script.down_revision or 'base'}:{script.revision}", sql=True)
        files.append(tmp_path / f"{script.revision}.sql")
        files[-1].write_text(output.getvalue())
    squawk = Path(sys.executable).with_name("squawk")
    run = subprocess.run(
        [squawk, "--config", _ROOT / ".squawk.toml", *files], capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stdout + run.stderr
