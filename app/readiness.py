"""Whether this process may be sent requests."""

import structlog
from sqlalchemy import Connection, text

from app import migrations
from app.database import Database
from app.database_errors import DATABASE_ERRORS, explain
from app.errors import ProblemError
from app.traffic import Traffic

logger = structlog.get_logger(__name__)


class Readiness:
    """Latched: once the database was reached with the right schema, only the stop makes the process unready.

    A database that goes away later must not empty the load balancer: every replica shares it, and each can still say
    so in a clear 503.
    """

    def __init__(self, database: Database, traffic: Traffic) -> None:
        self._database = database
        self._traffic = traffic
        self._reached = False

    @property
    def ready(self) -> bool:
        """Whether requests should come, as far as is known without looking at the database."""
        return self._reached and not self._traffic.draining

    async def reason_not_ready(self) -> str | None:
        """Why no requests should come, in one sentence, or ``None`` if they should.

        Each look at the database is logged, so that the last line of a process that does not get ready says why.
        """
        if self._traffic.draining:
            return "The process is stopping."
        if self._reached:
            return None
        try:
            reason = await schema_fault(self._database)
        except (ProblemError, *DATABASE_ERRORS) as error:
            reason = explain(error, self._database.url)
        if reason is None:
            self._reached = True
            logger.info("ready")
        else:
            logger.warning("not ready", reason=reason)
        return reason


async def schema_fault(database: Database) -> str | None:
    """What is wrong with the database's schema, in one sentence that says what to do, or ``None``."""

    def fault(connection: Connection) -> str | None:
        if missing := migrations.missing_grants(connection):
            role = connection.scalar(text("SELECT current_user"))
            return (
                f"The role {role} lacks rights that serving needs: {', '.join(missing)}. "
                f"Run `pricebook migrate` as the schema's owner with SERVING_ROLE={role}"
            )
        schema = migrations.current_schema(connection)
        return schema.fault if schema else "The database has no schema yet. Run: pricebook migrate"

    async with database.reading() as session:
        connection = await session.connection()
        return await connection.run_sync(fault)
