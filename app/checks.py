"""`pricebook check`: are the settings right, and is the database fit to serve?"""

from collections.abc import AsyncIterator
from dataclasses import dataclass

from sqlalchemy import text

from app.database import DATABASE_ERRORS, Database, display_url, explain
from app.errors import ProblemError
from app.readiness import schema_fault
from app.settings import Settings


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
    except (ProblemError, *DATABASE_ERRORS) as error:
        yield Finding(passed=False, line=explain(error, database.url))
    finally:
        await database.close()
