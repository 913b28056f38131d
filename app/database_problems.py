"""What becomes of a request that the database fails: problems that say what is the matter, and whether to try again."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import asyncpg
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from app.database_errors import sqlstate
from app.errors import Busy, DatabaseUnavailable, InvalidRequest, RetryCause
from app.observability import metrics
from app.observability.metrics import DatabaseError


@dataclass(slots=True)
class Commit:
    """Whether a transaction has come to its commit."""

    begun: bool = False

    def broken_off(self, detail: str) -> DatabaseUnavailable:
        """The problem of a connection that ended."""
        if self.begun:
            detail = (
                "The database went away during the commit: what was to be written may be there or not. A request with "
                "an Idempotency-Key can be sent again without doing it twice; without one, look first."
            )
        problem = DatabaseUnavailable(detail, retry_after_seconds=2)
        problem.retry_cause = RetryCause.CONNECTION
        problem.may_have_happened = self.begun
        return problem


@contextmanager
def translated(commit: Commit) -> Iterator[None]:
    """Turn what a database in trouble does to a request into problems that say whether to try again.

    :raises Busy: if it took too long, or another write came first.
    :raises DatabaseUnavailable: if the database is away, or refuses what it would otherwise do.
    :raises InvalidRequest: if it cannot store a text.
    """
    try:
        yield
    except PoolTimeoutError:
        _count(DatabaseError.POOL_TIMEOUT)
        raise Busy("No database connection became free in time. Try again.", retry_after_seconds=1) from None
    except OSError as error:
        # Includes time-outs; connecting fails with one of these before there is any SQL.
        _count(DatabaseError.UNAVAILABLE)
        raise commit.broken_off("The database cannot be reached. Try again.") from error
    except (DBAPIError, asyncpg.PostgresError) as error:
        code = sqlstate(error)
        if code in _BUSY:
            _count(DatabaseError.BUSY)
            busy = Busy(f"{_BUSY[code]} Try again.", retry_after_seconds=1)
            busy.retry_cause = _ROLLED_BACK.get(code)
            raise busy from error
        if (refusal := _refusal(code)) is not None:
            _count(DatabaseError.UNAVAILABLE)
            # It is there and would say the same at once, and what it refuses has not happened, not even in a commit.
            raise DatabaseUnavailable(f"{refusal} Try again later.", retry_after_seconds=2) from error
        if code.startswith(_AWAY) or getattr(error, "connection_invalidated", False):
            _count(DatabaseError.UNAVAILABLE)
            raise commit.broken_off("The database went away. Try again.") from error
        if code == "22021":
            raise InvalidRequest("A text holds a character that the database cannot store, such as NUL.") from error
        raise


def _count(kind: DatabaseError) -> None:
    metrics.DATABASE_ERRORS.labels(kind).inc()


_BUSY = {
    "40001": "Another write came first.",
    "40P01": "Another write came first.",
    "55P03": "A write before this one took too long.",
    "57014": "The statement took too long.",
}
_ROLLED_BACK = {"40001": RetryCause.SERIALIZATION, "40P01": RetryCause.DEADLOCK}
"""PostgreSQL has rolled the transaction back, and means it to be tried again."""

_AWAY = (
    "08",  # connection exceptions
    "57P",  # shut down by an operator, crashed, or starting
)

_REFUSALS = {
    "53100": "The database has no room left on its disk.",
    "53200": "The database has no memory left.",
    "53300": "The database has no connection left for the service.",
    "53": "The database is out of something that it needs.",
    "28": "The database refuses the service's credentials.",
    "3D": "The server does not have the service's database.",
    "55000": "The database takes no connections.",
}
"""By how the code begins, the longer first."""


def _refusal(code: str) -> str | None:
    return next((said for start, said in _REFUSALS.items() if code.startswith(start)), None)
