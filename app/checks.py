"""`pricebook check`: are the settings right, and is the database fit to serve?"""

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass

from sqlalchemy import text

from app.database import Database
from app.database_address import display_url
from app.database_errors import DATABASE_ERRORS, explain, first_line
from app.errors import ProblemError
from app.feed_window import Question
from app.key_token import KeySecret
from app.readiness import schema_fault
from app.replica import Replica
from app.services import changes, keys
from app.settings import Settings

_PAUSE_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the verdict."""

    passed: bool
    line: str


async def run_checks(settings: Settings) -> AsyncIterator[Finding]:
    """Check what serving needs, in the order in which it would fail. Stops at the first failure."""
    yield Finding(passed=True, line="Settings are complete.")
    database = Database(settings)
    address = display_url(database.url)
    try:
        async with database.reading() as session:
            number, name = (
                await session.execute(
                    text("SELECT current_setting('server_version_num')::integer, current_setting('server_version')")
                )
            ).one()
        yield Finding(passed=True, line=f"Database reached: {address}")
        if number < 180_000:
            yield Finding(passed=False, line=f"PostgreSQL {name} is too old; Pricebook needs 18 or later.")
            return
        yield Finding(passed=True, line=f"PostgreSQL {name}.")
        fault = await schema_fault(database)
        yield Finding(passed=fault is None, line=fault or "The schema is the one this version needs.")
        if fault is None and database.replica is not None:
            finding = await _replica(database, database.replica)
            yield finding
            if not finding.passed:
                return
        if fault is None:
            yield await _keys(database, settings)
    except (ProblemError, *DATABASE_ERRORS) as error:
        yield Finding(passed=False, line=explain(error, database.url))
    finally:
        await database.close()


async def _replica(database: Database, replica: Replica) -> Finding:
    """Whether there is one that comes to the primary's newest change as soon as it has to."""
    address = f"The replica {display_url(replica.url)}"
    deadline = time.monotonic() + replica.lag_seconds
    async with database.reading() as session:
        position = await changes.newest(session)
    try:
        async with database.following(lost=lambda: None) as session:
            while (await changes.read(session, Question(position.seq, 0))).after_at != position.at:
                if time.monotonic() > deadline:
                    return Finding(passed=False, line=f"{address} is behind, or has another ledger.")
                await asyncio.sleep(_PAUSE_SECONDS)
    except DATABASE_ERRORS as error:
        return Finding(passed=False, line=f"{address} cannot be used: {first_line(error)}. Check DATABASE_READ_URL.")
    return Finding(passed=True, line=f"Replica reached: {display_url(replica.url)}")


async def _keys(database: Database, settings: Settings) -> Finding:
    """Whether anybody could call the service, and whether a former secret key may go."""
    if not settings.auth_required:
        return Finding(
            passed=True, line="No keys are asked for (AUTH_REQUIRED): whoever reaches the port can do everything."
        )
    previous = settings.secret_key_previous
    async with database.reading() as session:
        in_force = len(await keys.live(session))
        resting = await keys.resting_on(session, KeySecret(previous.get_secret_value())) if previous else 0
    if not in_force and settings.admin_key is None:
        return Finding(passed=False, line="There are no keys, and no ADMIN_KEY to make some with. Set ADMIN_KEY.")
    line = f"Keys in force: {in_force}."
    if resting:
        line += f" {resting} of them were not used since SECRET_KEY changed: SECRET_KEY_PREVIOUS is still needed."
    elif previous:
        line += " None needs SECRET_KEY_PREVIOUS any more."
    return Finding(passed=True, line=line)
