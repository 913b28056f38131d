"""Schema migrations: shipped with the service, run by ``pricebook migrate``."""

import asyncio
import functools
import json
import random
import re
import time
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import structlog
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import NullPool

from app import primary
from app.database_errors import DATABASE_ERRORS, explain, first_line, sqlstate
from app.failure import Failure
from app.settings import Settings

# What serves asks this package what schema it finds, and migrates nothing: Alembic, which takes a fifth of a second and
# some megabytes, is imported where it migrates.
if TYPE_CHECKING:
    from alembic.config import Config

logger = structlog.get_logger(__name__)

_ADVISORY_LOCK = 7_742_309_001
"""Held by the one migration that runs: several pods may start at once."""

_RETRY_SECONDS = 1.0
_LOCK_POLL_SECONDS = (0.1, 0.3)
"""How long to wait, at random, before looking again whether the migration before has ended."""

_IDLE_SECONDS, _PROBE_SECONDS, _PROBES = 30, 10, 3
"""A schema change may take hours, so no time limit can tell it from a server that is gone: the network has to."""

_LOCK_NOT_AVAILABLE = "55P03"
_INSUFFICIENT_PRIVILEGE = "42501"
_FILE_NAME = re.compile(r"(\d{4}_\d{2}_\d{2}_)?(?P<revision>\d{4})_\w+\.py")
_ROLE_EXISTS = text("SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = :role)")

# What serving needs. The append-only tables are never updated; of the log of changes, a trigger guards what must stay.
_GRANTS = {
    "alembic_version": "SELECT",
    "books": "SELECT, INSERT, UPDATE",
    "items": "SELECT, INSERT, UPDATE",
    "ledger": "SELECT, UPDATE",
    "price_rows": "SELECT, INSERT",
    "price_retirements": "SELECT, INSERT",
    "changes": "SELECT, INSERT, DELETE",
    "imports": "SELECT, INSERT, UPDATE, DELETE",
    "import_staging": "SELECT, INSERT, DELETE, MAINTAIN",
    "import_rows": "SELECT, INSERT, DELETE, MAINTAIN",
    "api_keys": "SELECT, INSERT, UPDATE",
    "api_key_state": "SELECT, UPDATE",
    "stored_answers": "SELECT, INSERT, UPDATE, DELETE",
}


class MigrationError(Failure):
    """The migration could not run; the message says what to do."""


def config(**attributes: Any) -> "Config":
    """Alembic's configuration, the same wherever the package is installed."""
    from alembic.config import Config

    result = Config()
    result.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    result.attributes.update(attributes)
    return result


@functools.cache
def revisions() -> tuple[str, ...]:
    """The revisions that this version of the service knows, the newest first: by the names of their files."""
    names = (_FILE_NAME.match(file.name) for file in (Path(__file__).parent / "versions").glob("*.py"))
    return tuple(sorted((name["revision"] for name in names if name), reverse=True))


def head() -> str:
    """The newest of :func:`revisions`."""
    return revisions()[0]


@dataclass(frozen=True, slots=True)
class Schema:
    """What the database says about its schema."""

    revision: str
    compatible_from: str | None
    """The oldest revision whose release can still run on this one."""
    release: str | None
    """The version of Pricebook that made it."""

    @property
    def is_newer(self) -> bool:
        """Whether this version of the service does not know it."""
        return self.revision not in revisions()

    @property
    def fault(self) -> str | None:
        """Why this version of the service cannot run on the schema, in words that say what to do, or ``None``."""
        known = revisions()
        if self.revision in known[1:]:
            return f"The database's schema {self.revision} is older than this version needs. Run: pricebook migrate"
        if self.revision == known[0] or self.compatible_from in known:
            return None
        made_by = f"Pricebook {self.release}" if self.release else "another version"
        remedy = f"Use Pricebook {self.release} or newer" if self.release else "Use the version that made it"
        return (
            f"The database has schema {self.revision}, made by {made_by}, and this version ({version('pricebook')}, "
            f"schema {known[0]}) cannot run on it. {remedy}: the schema is never taken back."
        )


def current_schema(connection: Connection) -> Schema | None:
    """The schema that the database has, or ``None`` before the first migration."""
    if connection.scalar(text("SELECT to_regclass('alembic_version')")) is None:
        return None
    found = text(
        # By way of JSON, because the first revision does not have these columns.
        "SELECT version_num, to_jsonb(v) ->> 'compatible_from', to_jsonb(v) ->> 'release' FROM alembic_version AS v"
    )
    row = connection.execute(found).one_or_none()
    return Schema(*row) if row else None


def missing_grants(connection: Connection, role: str | None = None) -> list[str]:
    """What a role, by default this connection's, may not do although serving needs it, such as ``SELECT ON items``."""
    needed = [
        {"table": table, "privilege": privilege}
        for table, privileges in _GRANTS.items()
        for privilege in privileges.split(", ")
    ]
    missing = text(
        "SELECT privilege || ' ON ' || \"table\" "
        'FROM jsonb_to_recordset(CAST(:needed AS jsonb)) AS needed ("table" text, privilege text) '
        'WHERE NOT has_table_privilege(coalesce(CAST(:role AS name), current_user), to_regclass("table"), privilege)'
    )
    return list(connection.scalars(missing, {"needed": json.dumps(needed), "role": role}))


async def migrate(settings: Settings) -> str:
    """Bring the schema to :func:`head`, waiting for the database and for other migrations. Returns the revision.

    A newer schema stays as it is, if this version can run on it: so it is after a release was rolled back.

    :raises MigrationError: if the time is up, the role may not change the schema, or the schema is too new.
    """
    engine = create_async_engine(
        settings.sqlalchemy_url,
        poolclass=NullPool,
        connect_args={"timeout": settings.database_connect_timeout_seconds, "async_creator_fn": primary.connect},
        hide_parameters=True,
    )
    deadline = time.monotonic() + settings.migration_wait_seconds
    try:
        while True:
            try:
                return await _migrate_once(engine, settings, deadline)
            except DATABASE_ERRORS as error:
                reason = explain(error, settings.sqlalchemy_url)
                if not _may_pass(error) or time.monotonic() > deadline:
                    raise MigrationError(reason) from error
                logger.warning("migration waits", reason=reason, retry_seconds=_RETRY_SECONDS)
                await asyncio.sleep(_RETRY_SECONDS)
    finally:
        await engine.dispose()


async def _migrate_once(engine: AsyncEngine, settings: Settings, deadline: float) -> str:
    async with engine.connect() as connection:
        await connection.execution_options(isolation_level="AUTOCOMMIT")
        async with asyncio.timeout(settings.database_connect_timeout_seconds):
            await _check_server(connection)
            # Most pods find all done. They wait for nobody, neither for one another nor for a lock left behind.
            if revision := await connection.run_sync(_revision_if_done, settings):
                return revision
        await _keep_alive(connection)
        while not await connection.scalar(text(f"SELECT pg_try_advisory_lock({_ADVISORY_LOCK})")):
            if time.monotonic() > deadline:
                raise MigrationError("Another migration is running and did not end in time. Look at its log.")
            await asyncio.sleep(random.uniform(*_LOCK_POLL_SECONDS))  # noqa: S311 - not a secret
        # The session that holds the lock changes nothing; the changes run on a second one.
        try:
            async with engine.connect() as changing:
                await _keep_alive(changing)
                await changing.execute(text(f"SET lock_timeout = {settings.migration_lock_timeout_milliseconds}"))
                await changing.commit()
                revision = await changing.run_sync(_upgrade, settings)
                if settings.serving_role:
                    await _grant(changing, settings.serving_role)
                    await changing.commit()
        except DBAPIError as error:
            if sqlstate(error) == _INSUFFICIENT_PRIVILEGE:
                raise MigrationError(await _missing_right(connection, error)) from error
            if _may_pass(error):
                raise
            raise MigrationError(
                f"A migration failed: {first_line(error)}. Nothing of it stays, and what serves goes on serving. "
                "This version needs it: use the version before, or mend what the message says and migrate again."
            ) from error
        return revision


async def _keep_alive(connection: AsyncConnection) -> None:
    """Let each end notice within a minute that the other is gone: this one to end, the server to give up its locks."""
    for name, value in {"idle": _IDLE_SECONDS, "interval": _PROBE_SECONDS, "count": _PROBES}.items():
        await connection.execute(text(f"SET tcp_keepalives_{name} = {value}"))
    driver: Any = (await connection.get_raw_connection()).driver_connection
    primary.keep_alive(driver, idle_seconds=_IDLE_SECONDS, probe_seconds=_PROBE_SECONDS * _PROBES)


def _revision_if_fit(connection: Connection) -> str | None:
    """The schema's revision if no migration is needed.

    :raises MigrationError: if this version cannot run on the schema.
    """
    schema = current_schema(connection)
    if schema is None or not (schema.is_newer or schema.revision == head()):
        return None
    if schema.fault:
        raise MigrationError(schema.fault)
    if schema.is_newer:
        logger.warning("the schema is newer, and fit for this version", schema=schema.revision, made_by=schema.release)
    return schema.revision


def _revision_if_done(connection: Connection, settings: Settings) -> str | None:
    """The same if the role that serves has its rights, too: then nothing is to be done."""
    revision, role = _revision_if_fit(connection), settings.serving_role
    if revision is None or role is None:
        return revision
    known = connection.scalar(_ROLE_EXISTS, {"role": role})
    return revision if known and not missing_grants(connection, role) else None


def _upgrade(connection: Connection, settings: Settings) -> str:
    from alembic import command

    alembic = config(
        connection=connection,
        default_currency=settings.default_currency,
        default_time_zone=settings.default_time_zone,
    )
    revision = _revision_if_fit(connection)
    # In a transaction that is open already, Alembic would run all migrations as one, and none could leave it.
    connection.rollback()
    if revision is None:
        command.upgrade(alembic, "head")
    return revision or head()


async def _missing_right(connection: AsyncConnection, error: DBAPIError) -> str:
    """Whom the schema belongs to, or what to grant so that it can be made."""
    found = text(
        "SELECT current_user, current_database(), relowner::regrole::text "
        "FROM (SELECT to_regclass('alembic_version')) AS t (id) LEFT JOIN pg_class ON oid = id"
    )
    role, database, owner = (await connection.execute(found)).one()
    if owner not in (None, role):
        return (
            f"The role {role} may not change the schema, which belongs to {owner}: {first_line(error)}. "
            f"Let `pricebook migrate` connect as {owner} (DATABASE_URL)."
        )
    return (
        f"The role {role} may not make a schema in the database {database}: {first_line(error)}. Let `pricebook "
        f'migrate` connect as the owner of the database (DATABASE_URL), or run: GRANT CREATE ON DATABASE "{database}" '
        f'TO "{role}"; GRANT CREATE ON SCHEMA public TO "{role}";'
    )


async def _check_server(connection: AsyncConnection) -> None:
    number = int(await connection.scalar(text("SHOW server_version_num")) or 0)
    if number < 180_000:
        raise MigrationError(f"PostgreSQL {number // 10_000} is too old: Pricebook needs PostgreSQL 18 or later.")


async def _grant(connection: AsyncConnection, role: str) -> None:
    if not await connection.scalar(_ROLE_EXISTS, {"role": role}):
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
