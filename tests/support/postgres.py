"""Databases for tests: made on one server, each with an owner who migrates it and a serving role without DDL rights."""

import asyncio
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import asyncpg
from sqlalchemy.engine import URL, make_url

from app.embedded import embedded_postgres

SERVING_ROLE = "pricebook_serving"
_SERVING_PASSWORD = "only-for-tests"  # noqa: S105 - of a role on a throw-away server
_EMBEDDED_DATA = Path(__file__).parents[2] / ".data" / "test-postgres"


@contextmanager
def test_server() -> Iterator[URL]:
    """The server in ``TEST_DATABASE_URL`` (a superuser's), or the embedded one, which forgoes durability for speed."""
    if given := os.environ.get("TEST_DATABASE_URL"):
        yield make_url(given).set(drivername="postgresql")
        return
    with embedded_postgres(_EMBEDDED_DATA) as url:
        server = make_url(url)
        execute(
            server,
            "ALTER SYSTEM SET fsync = off",
            "ALTER SYSTEM SET synchronous_commit = off",
            "ALTER SYSTEM SET full_page_writes = off",
            "SELECT pg_reload_conf()",
        )
        yield server


def execute(url: URL, *statements: str) -> None:
    """Run statements one by one, outside of any transaction."""

    async def run() -> None:
        connection = await asyncpg.connect(text(url))
        try:
            for statement in statements:
                await connection.execute(statement)
        finally:
            await connection.close()

    asyncio.run(run())


def answer(url: URL, question: str) -> object:
    """The single value of a query."""

    async def run() -> object:
        connection = await asyncpg.connect(text(url), timeout=10)
        try:
            return await connection.fetchval(question)
        finally:
            await connection.close()

    return asyncio.run(run())


@contextmanager
def database(server: URL, name: str, *, like: URL | None = None) -> Iterator[URL]:
    """A new database, dropped afterwards: empty, or a copy of one that nobody is connected to."""
    template = "" if like is None else f' TEMPLATE "{like.database}"'
    execute(server, f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)', f'CREATE DATABASE "{name}"{template}')
    yield server.set(database=name)
    execute(server, f'DROP DATABASE "{name}" WITH (FORCE)')


def create_serving_role(server: URL) -> None:
    """Create the role once for all test processes."""
    execute(
        server,
        f"""
        DO $$ BEGIN
            PERFORM pg_advisory_xact_lock(20261122);
            IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '{SERVING_ROLE}') THEN
                CREATE ROLE {SERVING_ROLE} LOGIN PASSWORD '{_SERVING_PASSWORD}';
            END IF;
        END $$
        """,
    )


def as_serving_role(url: URL) -> URL:
    """The same database for the role that serves."""
    return url.set(username=SERVING_ROLE, password=_SERVING_PASSWORD)


def text(url: URL) -> str:
    """The URL with its password, as asyncpg and the settings take it."""
    return url.render_as_string(hide_password=False)


def ask_for_password(server: URL, role: str) -> None:
    """Let the embedded server ask this role for its password; other servers do so of themselves."""
    if not os.environ.get("TEST_DATABASE_URL"):
        rules = _EMBEDDED_DATA / "pg_hba.conf"
        rule = f"local all {role} scram-sha-256\n"
        if rule not in rules.read_text():
            rules.write_text(rule + rules.read_text())
        execute(server, "SELECT pg_reload_conf()")


def as_owner(data: Path) -> dict[str, Any]:
    """Options of a process that is to belong to the data's owner: PostgreSQL refuses to be root."""
    owner = data.stat()
    return {"user": owner.st_uid, "group": owner.st_gid, "extra_groups": []} if os.geteuid() == 0 else {}


def back_up(program: Path, url: URL, data: Path, copy: Path, *options: str) -> None:
    """Make a base backup of a server that runs.

    :param program: its ``postgres``.
    :param url: its superuser's address.
    :param data: its directory.
    :param copy: the directory that the backup makes.
    """
    copy.mkdir(mode=0o700)
    owner = data.stat()
    os.chown(copy, owner.st_uid, owner.st_gid)
    command = [str(program.with_name("pg_basebackup")), "-d", text(url), "-D", str(copy), "--checkpoint=fast", *options]
    subprocess.run(command, cwd="/", check=True, timeout=60, **as_owner(data))
