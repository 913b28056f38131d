"""What a database in trouble raises, and what it means in words."""

import re
from collections.abc import Iterator
from functools import cache

import asyncpg
from sqlalchemy.engine import URL
from sqlalchemy.exc import DBAPIError, IntegrityError

from app.database_address import display_url
from app.errors import ProblemError

DATABASE_ERRORS = (OSError, DBAPIError, asyncpg.PostgresError, asyncpg.InterfaceError)
"""What a database in trouble raises. Connecting fails with errors that SQLAlchemy does not wrap."""


def sqlstate(error: BaseException | None) -> str:
    """PostgreSQL's five-character code of an error, or an empty string."""
    if isinstance(error, DBAPIError):
        error = error.orig
    return getattr(error, "sqlstate", None) or ""


def violated_constraint(error: IntegrityError) -> str | None:
    """Name of the constraint that a write broke."""
    return getattr(error.orig.__cause__, "constraint_name", None) if error.orig else None


def explain(error: BaseException, url: URL) -> str:
    """What is wrong with the database, in one line that says what to do, for the log or the terminal.

    :param error: what it raised, or the problem that was made of that.
    """
    if isinstance(error, ProblemError) and error.__cause__ is not None:
        error = error.__cause__
    code = sqlstate(error)
    remedy = next((remedy for start, remedy in _REMEDIES.items() if code.startswith(start)), None)
    if isinstance(error, OSError):
        remedy = "Check the address in DATABASE_URL, that the server runs, and that nothing on the way stops it"
    what = f"The database {display_url(url)} cannot be used: {first_line(error)}."
    return f"{what} {remedy}." if remedy else what


_REMEDIES = {
    "28": "Check user and password in DATABASE_URL, and whom the server lets in (pg_hba.conf)",
    "3D": "Create the database, or name another one in DATABASE_URL",
    "42501": "Grant the role what it lacks, or use another role in DATABASE_URL",
    "53300": "Raise the server's max_connections, or lower DATABASE_POOL_SIZE",
}


def first_line(error: BaseException) -> str:
    """What the error says, or its kind, without the driver's decoration."""
    cause = error.orig if isinstance(error, DBAPIError) and error.orig is not None else error
    if isinstance(cause, TimeoutError) and not str(cause):
        return "no answer in time"
    text = re.sub(r"^<class '.*?'>: ", "", str(cause))
    code = sqlstate(error)
    # The driver's own errors, which have no code, quote what it could not send.
    if code.startswith("22") or (not code and isinstance(error, DBAPIError)):
        text = without_values(text)
    return (text.splitlines()[0] if text else type(cause).__name__).rstrip(".")


@cache
def value_errors() -> frozenset[str]:
    """Names of the errors whose first line quotes what was sent to the database, and of those that wrap them."""

    def names(kind: type[Exception]) -> Iterator[str]:
        yield kind.__name__
        for special in kind.__subclasses__():
            yield from names(special)

    return frozenset((*names(asyncpg.DataError), *(kind.__name__ for kind in DBAPIError.__mro__[:2]), "Error"))


def without_values(text: str) -> str:
    """The message of such an error without what it quotes: callers' data, which are nobody's who reads the log."""
    message, sql, statement = re.sub(r"<class '([\w.]+)'>", r"<\1>", text).partition("\n[SQL:")
    return re.sub(r"""["'].*["']""", '"***"', message, flags=re.DOTALL) + sql + statement
