"""Prometheus metrics of what happened: counted and timed in this process, from its start on.

What is the case now (connections, readiness, the ledger's head) is read at the scrape instead, by
:mod:`app.observability.state`. ``docs/metrics.md`` lists both.
"""

from enum import StrEnum

from prometheus_client import (
    CollectorRegistry,
    Counter,
    GCCollector,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
)
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.openmetrics import exposition as openmetrics
from starlette.requests import Request
from starlette.responses import Response

from app.errors import RetryCause
from app.models import ChangeType

# They would be one more series for each counter and histogram, under names that nobody promised.
disable_created_metrics()  # type: ignore[no-untyped-call]  # the library has no type here

POOLS = ("reader", "writer", "importer")
IMPORT_STATUSES = ("create", "change", "unchanged", "error", "missing")
SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
"""Upper bounds of every histogram's buckets; objectives for latency must be one of them."""

_EVENTS = CollectorRegistry()


class DatabaseError(StrEnum):
    """How the database failed a request."""

    UNAVAILABLE = "unavailable"
    BUSY = "busy"
    POOL_TIMEOUT = "pool_timeout"


class PriceRead(StrEnum):
    """What came of asking for the price of one item."""

    ANSWERED = "answered"
    NO_PRICE = "no_price"
    UNKNOWN_ITEM = "unknown_item"


class CacheRead(StrEnum):
    """What the response cache had for a read whose answer may be kept."""

    HIT = "hit"
    MISS = "miss"
    BYPASSED = "bypassed"
    """There was an answer, and no certainty that it is right now, or new enough for its caller."""
    STALE = "stale"
    """The database is away: an answer that was right when it was last there."""


class ImportResult(StrEnum):
    """What came of an import, or of its preview."""

    PREVIEWED = "previewed"
    APPLIED = "applied"
    CONFLICT = "conflict"
    FAILED = "failed"


class ImportStep(StrEnum):
    """What an import does."""

    READ = "read"
    """The file, as it arrives, into the database."""
    COMPARE = "compare"
    APPLY = "apply"


class QuoteResult(StrEnum):
    """What came of a quote, or of a stored one that was checked."""

    QUOTED = "quoted"
    VERIFIED = "verified"
    DIFFERENT = "different"


class WokenBy(StrEnum):
    """How the follower came to new changes."""

    NOTIFICATION = "notification"
    POLL = "poll"


class AuthFailure(StrEnum):
    """Why a key was not accepted."""

    MISSING = "missing"
    MALFORMED = "malformed"
    UNKNOWN = "unknown"
    """No key in force has this id and secret: it is wrong, revoked, or was made with a ``SECRET_KEY`` that is gone."""
    EXPIRED = "expired"


RETRIES = Counter(
    "pricebook_retries", "Requests tried again after the database failed them.", ["cause"], registry=_EVENTS
)
REPLAYS = Counter("pricebook_replays", "Requests answered as before, by their Idempotency-Key.", registry=_EVENTS)
AUTH_FAILURES = Counter(
    "pricebook_auth_failures", "Requests refused for want of a key that is accepted.", ["reason"], registry=_EVENTS
)
POOL_WAIT = Histogram(
    "pricebook_database_pool_wait_seconds",
    "Time to get a connection from the pool, opening one if need be.",
    ["pool"],
    buckets=SECONDS,
    registry=_EVENTS,
)
STATEMENT = Histogram(
    "pricebook_database_statement_seconds",
    "Time of one SQL statement, failed ones included.",
    ["pool"],
    buckets=SECONDS,
    registry=_EVENTS,
)
DATABASE_ERRORS = Counter(
    "pricebook_database_errors_total",
    "Requests to the database that it did not answer, or not in time.",
    ["kind"],
    registry=_EVENTS,
)
CHANGES = Counter(
    "pricebook_changes_total",
    "Changes to the ledger that this process committed.",
    ["type"],
    registry=_EVENTS,
)
PRICE_READS = Counter(
    "pricebook_price_reads_total",
    "Prices of single items asked for; each line of a lookup is one.",
    ["outcome"],
    registry=_EVENTS,
)
CACHE_READS = Counter(
    "pricebook_response_cache_reads_total",
    "Reads whose answers may be kept in memory, by whether they were answered from there.",
    ["result"],
    registry=_EVENTS,
)
QUOTES = Counter(
    "pricebook_quotes_total",
    "Quotes answered, and stored quotes verified or found different.",
    ["result"],
    registry=_EVENTS,
)

FEED_CATCH_UPS = Counter(
    "pricebook_feed_catch_ups_total",
    "Reads in which the follower found changes.",
    ["woken_by"],
    registry=_EVENTS,
)

IMPORTS = Counter(
    "pricebook_imports_total",
    "Imports previewed, applied, refused for prices that moved, and failed.",
    ["result"],
    registry=_EVENTS,
)
IMPORT_ROWS = Counter(
    "pricebook_import_rows_total",
    "Rows of imported files, by what they do; missing are prices whose item the file does not name.",
    ["status"],
    registry=_EVENTS,
)
IMPORT_SECONDS = Histogram(
    "pricebook_import_seconds",
    "Time of the steps of imports: reading the file as it arrives, comparing it, applying it.",
    ["step"],
    buckets=(0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600),
    registry=_EVENTS,
)

# Every series exists from the start, so that the first event is seen as an increase.
for _metric, _values in (
    (POOL_WAIT, POOLS),
    (STATEMENT, POOLS),
    (DATABASE_ERRORS, DatabaseError),
    (CHANGES, ChangeType),
    (PRICE_READS, PriceRead),
    (CACHE_READS, CacheRead),
    (QUOTES, QuoteResult),
    (AUTH_FAILURES, AuthFailure),
    (RETRIES, RetryCause),
    (IMPORTS, ImportResult),
    (IMPORT_ROWS, IMPORT_STATUSES),
    (IMPORT_SECONDS, ImportStep),
    (FEED_CATCH_UPS, WokenBy),
):
    for _value in _values:
        _metric.labels(_value)


def registry() -> CollectorRegistry:
    """A registry for one application, with what is the same for all of the process."""
    result = CollectorRegistry()
    ProcessCollector(registry=result)
    PlatformCollector(registry=result)
    GCCollector(registry=result)
    result.register(_EVENTS)
    return result


def exposition(request: Request, registry: CollectorRegistry) -> Response:
    """The metrics as Prometheus's text format, or as OpenMetrics, with exemplars, for those who accept it."""
    if "application/openmetrics-text" in request.headers.get("accept", ""):
        text: bytes = openmetrics.generate_latest(registry)  # type: ignore[no-untyped-call]  # the library has no type here
        return Response(text, headers={"Content-Type": openmetrics.CONTENT_TYPE_LATEST})
    return Response(generate_latest(registry), headers={"Content-Type": CONTENT_TYPE_PLAIN_0_0_4})
