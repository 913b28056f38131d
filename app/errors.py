"""What can go wrong, in the words of the domain.

Each class is one problem type: a stable ``slug`` (the ``type`` of the answer is ``/problems/<slug>``), a ``title``
that never changes with the case, and an HTTP ``status``. The docstring is its public description, served at that
address. The classes know no request; :mod:`app.problems` turns them into answers.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import ClassVar


@dataclass(frozen=True, slots=True)
class FieldError:
    """One fault in the input. ``pointer`` is ``/a/b`` (RFC 6901) in the body, or ``query/x``, ``header/x``."""

    pointer: str
    code: str
    message: str


class RetryCause(StrEnum):
    """What the database does to a request that has done nothing wrong."""

    SERIALIZATION = "serialization"
    DEADLOCK = "deadlock"
    CONNECTION = "connection"
    REPLICA = "replica"
    """It could not answer, or does not know yet what was asked about. The primary is asked."""


class ProblemError(Exception):
    """Base of all problem types. ``detail`` says what happened in this case and what to do."""

    slug: ClassVar[str]
    title: ClassVar[str]
    status: ClassVar[int]

    def __init__(
        self, detail: str, errors: Sequence[FieldError] = (), *, retry_after_seconds: int | None = None
    ) -> None:
        super().__init__(detail)
        self.detail = detail
        self.errors = tuple(errors)
        self.retry_after_seconds = retry_after_seconds
        self.retry_cause: RetryCause | None = None
        """Why the request may go well if it is tried again at once."""
        self.may_have_happened = False
        """It broke off in the commit, and nobody can tell whether what it wrote is there."""


class InvalidRequest(ProblemError):
    """The request was understood but does not fit the schema or the rules. `errors` names each fault and its place."""

    slug, title, status = "invalid-request", "The request is not valid", 422

    @classmethod
    def at(cls, pointer: str, code: str, message: str) -> "InvalidRequest":
        """The problem with a single faulty field."""
        return cls(f"{pointer} {message}.", [FieldError(pointer, code, message)])


class UpgradeRequired(ProblemError):
    """HTTP/1.0 cannot say where a file ends that is sent as it is read, so a client would take half of one for whole.

    Ask by HTTP/1.1 or later. A proxy on the way may be what speaks HTTP/1.0.
    """

    slug, title, status = "upgrade-required", "HTTP/1.1 is needed here", 426


class MalformedRequest(ProblemError):
    """The request could not be read at all: it breaks HTTP itself or one of its headers."""

    slug, title, status = "malformed-request", "The request cannot be read", 400


class Unauthenticated(ProblemError):
    """The request needs a key: `Authorization: Bearer pb_...`. One that was sent is unknown, expired or revoked."""

    slug, title, status = "unauthenticated", "A key is needed", 401

    def __init__(self, detail: str, *, key_was_sent: bool) -> None:
        super().__init__(detail)
        self.key_was_sent = key_was_sent


class Forbidden(ProblemError):
    """The key does not allow this. `detail` names the scopes that it lacks; `/v1/whoami` those that it has."""

    slug, title, status = "forbidden", "The key does not allow this", 403


class NotFound(ProblemError):
    """There is nothing at this address."""

    slug, title, status = "not-found", "Nothing is at this address", 404


class UnknownItem(ProblemError):
    """No item has this id or sku."""

    slug, title, status = "unknown-item", "No such item", 404


class UnknownBook(ProblemError):
    """No book has this key. A book is a price list in one currency; `default` always exists."""

    slug, title, status = "unknown-book", "No such book", 404


class UnknownPrice(ProblemError):
    """No price row has this id."""

    slug, title, status = "unknown-price", "No such price row", 404


class UnknownImport(ProblemError):
    """No import has this id."""

    slug, title, status = "unknown-import", "No such import", 404


class UnknownKey(ProblemError):
    """No key has this id."""

    slug, title, status = "unknown-key", "No such key", 404


class DuplicateKeyName(ProblemError):
    """Another key has this name and is not revoked. Names tell in the ledger who wrote what."""

    slug, title, status = "duplicate-key-name", "The name is taken", 409


class TooManyKeys(ProblemError):
    """As many keys are in force as the service keeps. Revoke those that nobody uses any more."""

    slug, title, status = "too-many-keys", "There are too many keys", 409


class NoPrice(ProblemError):
    """The item has no price in this book at the instant, for the quantity and in the state of knowledge asked about."""

    slug, title, status = "no-price", "The item has no price", 404


class UnreadableFile(ProblemError):
    """The file cannot be read as a whole: its encoding, its columns or its structure are not those of a price list.
    Nothing was written. `errors` says where it broke off."""

    slug, title, status = "unreadable-file", "The file cannot be read", 422


class ImportHasErrors(ProblemError):
    """Rows of the file have errors, and the import was to be applied whole (`on_error=abort`). Nothing was written. The
    report lists them; correct them and send the file again, or leave them out with `on_error=skip`."""

    slug, title, status = "import-has-errors", "Rows of the file have errors", 422


class UnknownSeq(ProblemError):
    """The seq asked about is beyond the newest change: that state of knowledge does not exist yet."""

    slug, title, status = "unknown-seq", "No such change yet", 422


class FeedTruncated(ProblemError):
    """The feed no longer goes back to `after`. Take a snapshot of everything, and follow the feed from its seq."""

    slug, title, status = "feed-truncated", "The feed begins later", 410


class HistoryDiverged(ProblemError):
    """The change that you followed to is not in this ledger, or is another one here: a backup was restored, or a
    standby that lacked changes took over. Take a snapshot, and go on from its `Pricebook-Seq` and
    `Pricebook-Recorded-At`."""

    slug, title, status = "history-diverged", "The history is another one", 409


class NotForSale(ProblemError):
    """The item's price row at that instant says that the item is not for sale (its amount is null)."""

    slug, title, status = "not-for-sale", "The item is not for sale", 404


class MethodNotAllowed(ProblemError):
    """The address exists but does not take this HTTP method; the `Allow` header lists those it takes."""

    slug, title, status = "method-not-allowed", "The method is not allowed here", 405


class NotAcceptable(ProblemError):
    """The `Accept` header excludes every media type that this operation can answer with."""

    slug, title, status = "not-acceptable", "No acceptable media type", 406


class DuplicateSku(ProblemError):
    """Another item has this sku. A sku names one item, archived ones included."""

    slug, title, status = "duplicate-sku", "The sku is taken", 409


class DuplicateGtin(ProblemError):
    """Another item has this gtin. A GTIN names one trade item, archived ones included."""

    slug, title, status = "duplicate-gtin", "The gtin is taken", 409


class ItemArchived(ProblemError):
    """The item is archived and takes no new prices. Restore it first: PATCH it with `"archived_at": null`."""

    slug, title, status = "item-archived", "The item is archived", 409


class DuplicateBook(ProblemError):
    """Another book has this key."""

    slug, title, status = "duplicate-book", "The book exists", 409


class CurrencyFixed(ProblemError):
    """The book has prices, so its currency stays. Prices in another currency belong into another book."""

    slug, title, status = "currency-fixed", "The currency cannot change", 409


class HistoryTooShort(ProblemError):
    """The item's prices do not reach back over all the days before the reduction: no prior price can be stated."""

    slug, title, status = "history-too-short", "The price history is too short", 409


class ImportConflict(ProblemError):
    """Since the preview, prices of its items moved: applied now, it would do other things than it showed. `errors`
    names the rows (the first hundred). Nothing was written. Send the file again for a new preview."""

    slug, title, status = "import-conflict", "Prices moved since the preview", 409


class ImportNotOpen(ProblemError):
    """The import's state does not allow this: only a preview that is neither applied nor expired can be applied or
    cancelled."""

    slug, title, status = "import-not-open", "The import is not open", 409


class RequestInProgress(ProblemError):
    """Another request with this `Idempotency-Key` is being worked on. Send it again after `Retry-After`."""

    slug, title, status = "request-in-progress", "The request is being worked on", 409


class IdempotencyKeyReused(ProblemError):
    """This `Idempotency-Key` was used for another request. A key names one request; make a new one for each."""

    slug, title, status = "idempotency-key-reused", "The idempotency key was used before", 422


class RequestTimeout(ProblemError):
    """The request's head or body did not arrive in time. Nothing was written, and the connection is closed."""

    slug, title, status = "request-timeout", "The request did not arrive in time", 408


class AlreadySuperseded(ProblemError):
    """The price row was superseded or voided before. To bring an old price back, record it again."""

    slug, title, status = "already-superseded", "The price row is no longer in force", 409


class PreconditionFailed(ProblemError):
    """The resource changed since the version named in `If-Match`. Read it again and repeat the change."""

    slug, title, status = "precondition-failed", "The resource has changed", 412


class ContentTooLarge(ProblemError):
    """The request body is larger than the limit."""

    slug, title, status = "content-too-large", "The body is too large", 413


class UriTooLong(ProblemError):
    """The address of the request is longer than the limit. The connection is closed."""

    slug, title, status = "uri-too-long", "The address is too long", 414


class HeaderFieldsTooLarge(ProblemError):
    """The request has too many header fields, or too large ones. The connection is closed."""

    slug, title, status = "header-fields-too-large", "The header is too large", 431


class UnsupportedMediaType(ProblemError):
    """The body's `Content-Type` is missing or not one that this operation reads, or it has a `Content-Encoding`."""

    slug, title, status = "unsupported-media-type", "The media type is not supported", 415


class PreconditionRequired(ProblemError):
    """Changing this resource needs an `If-Match` header with the ETag that was read, so that no change is lost."""

    slug, title, status = "precondition-required", "If-Match is required", 428


class InternalError(ProblemError):
    """A defect in the service. Nothing was written. The `request_id` finds it in the log."""

    slug, title, status = "internal-error", "The service failed", 500


class DatabaseUnavailable(ProblemError):
    """The database cannot be reached or went away. Nothing was confirmed as written; try again after `Retry-After`."""

    slug, title, status = "database-unavailable", "The database is not available", 503


class Busy(ProblemError):
    """Too much is going on at once and a time limit was reached. Nothing was written; try again after `Retry-After`."""

    slug, title, status = "busy", "The service is busy", 503


class SeqNotReached(ProblemError):
    """There is no change as late as the one that `Pricebook-Min-Seq` names; it was waited for in vain. Try again after
    `Retry-After`; if it does not come then either, it was lost with the database, which has an earlier state."""

    slug, title, status = "seq-not-reached", "There is no such change yet", 503


class Overloaded(ProblemError):
    """This process has as many requests in flight, or connections, as it takes. Nothing was done; try again after
    `Retry-After`."""

    slug, title, status = "overloaded", "Too many requests are in flight", 503


def problem_types() -> Iterator[type[ProblemError]]:
    """Every problem type, by status and slug."""
    return iter(sorted(ProblemError.__subclasses__(), key=lambda kind: (kind.status, kind.slug)))
