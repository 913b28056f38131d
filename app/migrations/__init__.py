"""Schema migrations: shipped with the service, run by ``pricebook migrate``."""

import asyncio
import re
import time
from pathlib import Path
from typing import Any

import asyncpg
import structlog
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import NullPool

from app.database import sqlstate
from app.settings import Settings

logger = structlog.get_logger(__name__)

_ADVISORY_LOCK = 7_742_309_001
"""Held by the one migration that runs: several pods may start at once."""

_RETRY_SECONDS = 1.0
_LOCK_NOT_AVAILABLE = "55P03"

# What serving needs. Nothing is ever deleted, and the append-only tables are never updated.
_GRANTS = {
    "alembic_version": "SELECT",
    "books": "SELECT, INSERT, UPDATE",
    "items": "SELECT, INSERT, UPDATE",
    "ledger": "SELECT, UPDATE",
    "price_rows": "SELECT, INSERT",
    "price_retirements": "SELECT, INSERT",
    "changes": "SELECT, INSERT",
}


class MigrationError(Exception):
    """The migration could not run; the message says what to do."""


def config(**attributes: Any) -> Config:
    """Alembic's configuration, the same wherever the package is installed."""
    result = Config()
    result.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    result.attributes.update(attributes)
    return result


def revisions() -> list[str]:
    """The revisions that this version of the service knows, the newest first."""
    return [script.revision for script in ScriptDirectory.from_config(config()).walk_revisions()]


def head() -> str:
    """The newest of :func:`revisions`."""
    return revisions()[0]


async def migrate(settings: Settings) -> str:
    """Bring the schema to :func:`head`, waiting for the database and for other migrations. Returns the revision.

    :raises MigrationError: if the time is up, the role may not change the schema, or a newer version made it.
    """
    engine = create_async_engine(settings.sqlalchemy_url, poolclass=NullPool, hide_parameters=True)
    deadline = time.monotonic() + settings.migration_wait_seconds
    try:
        while True:
            try:
                return await _migrate_once(engine, settings, deadline)
            except (OSError, DBAPIError, asyncpg.PostgresError) as error:
                if not _may_pass(error) or time.monotonic() > deadline:
                    raise MigrationError(explain(error)) from error
                logger.warning("migration waits", reason=explain(error), retry_seconds=_RETRY_SECONDS)
                await asyncio.sleep(_RETRY_SECONDS)
    finally:
        await engine.dispose()


async def _migrate_once(engine: AsyncEngine, settings: Settings, deadline: float) -> str:
    async with engine.connect() as connection:
        await connection.execution_options(isolation_level="AUTOCOMMIT")
        await _check_server(connection)
        while not await connection.scalar(text(f"SELECT pg_try_advisory_lock({_ADVISORY_LOCK})")):
            if time.monotonic() > deadline:
                raise MigrationError("Another migration is running and did not end in time. Look at its log.")
            await asyncio.sleep(_RETRY_SECONDS)
        # The session that holds the lock does nothing else; the changes run on a second one.
        async with engine.connect() as changing:
            await changing.execute(text(f"SET lock_timeout = {settings.migration_lock_timeout_milliseconds}"))
            await changing.commit()
            revision = await changing.run_sync(_upgrade, settings)
            await changing.commit()
            if settings.serving_role:
                await _grant(changing, settings.serving_role)
                await changing.commit()
        return revision


def _upgrade(connection: Connection, settings: Settings) -> str:
    alembic = config(
        connection=connection,
        default_currency=settings.default_currency,
        default_time_zone=settings.default_time_zone,
    )
    current = current_revision(connection)
    if current is not None and current not in revisions():
        raise MigrationError(
            f"The database has schema {current}, which this version does not know (it knows up to {head()}). "
            "Run the version that made it, or a newer one: the schema is never taken back."
        )
    if current != head():
        command.upgrade(alembic, "head")
    return head()


def current_revision(connection: Connection) -> str | None:
    """The schema revision that the database is at, or ``None`` before the first migration."""
    if connection.scalar(text("SELECT to_regclass('alembic_version')")) is None:
        return None
    revision: str | None = connection.scalar(text("SELECT version_num FROM alembic_version"))
    return revision


async def _check_server(connection: AsyncConnection) -> None:
    version = int(await connection.scalar(text("SHOW server_version_num")) or 0)
    if version < 180_000:
        raise MigrationError(f"PostgreSQL {version // 10_000} is too old: Pricebook needs PostgreSQL 18 or later.")


async def _grant(connection: AsyncConnection, role: str) -> None:
    if not await connection.scalar(text("SELECT 1 FROM pg_roles WHERE rolname = :role"), {"role": role}):
        raise MigrationError(f"The role {role} (SERVING_ROLE) does not exist. Create it: CREATE ROLE {role} LOGIN ...")
    await connection.execute(text(f'GRANT USAGE ON SCHEMA public TO "{role}"'))
    for table, privileges in _GRANTS.items():
        await connection.execute(text(f'GRANT {privileges} ON {table} TO "{role}"'))


def _may_pass(error: Exception) -> bool:
    """Whether waiting may help: the server is away or starting, or a table is locked."""
    code = sqlstate(error)
    return (
        isinstance(error, OSError)
        or code == _LOCK_NOT_AVAILABLE
        or code.startswith(("08", "57P", "53"))
        or getattr(error, "connection_invalidated", False)
    )


def explain(error: BaseException) -> str:
    """One line about a database error for the person at the terminal or in the log."""
    cause = error.orig if isinstance(error, DBAPIError) and error.orig is not None else error
    first_line = str(cause).splitlines()[0] if str(cause) else type(cause).__name__
    return re.sub(r"^<class '.*?'>: ", "", first_line)
