"""Whether this process may be sent requests."""

import structlog
from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError

from app import migrations
from app.database import Database
from app.errors import ProblemError

logger = structlog.get_logger(__name__)


class Readiness:
    """Latched: once the database was reached with the right schema, only the stop makes the process unready.

    A database that goes away later must not empty the load balancer: every replica shares it, and each can still say
    so in a clear 503.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._reached = False
        self._stopping = False

    def stop(self) -> None:
        """From now on, not ready."""
        self._stopping = True

    async def reason_not_ready(self) -> str | None:
        """Why no requests should come, in one sentence, or ``None`` if they should."""
        if self._stopping:
            return "The process is stopping."
        if self._reached:
            return None
        try:
            reason = await schema_fault(self._database)
        except (ProblemError, SQLAlchemyError, OSError) as error:
            return f"The database cannot be reached: {migrations.explain(error.__cause__ or error)}"
        self._reached = reason is None
        return reason


async def schema_fault(database: Database) -> str | None:
    """What is wrong with the database's schema, in one sentence that says what to do, or ``None``."""

    def fault(connection: Connection) -> str | None:
        current = migrations.current_revision(connection)
        if current is None:
            return "The database has no schema yet. Run: pricebook migrate"
        if current in migrations.revisions()[1:]:
            return f"The database's schema {current} is older than this version needs. Run: pricebook migrate"
        # A schema from a newer release is fine: migrations only expand what this one reads.
        return None

    async with database.reading() as session:
        connection = await session.connection()
        return await connection.run_sync(fault)
