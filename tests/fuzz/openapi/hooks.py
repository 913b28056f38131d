"""What schemathesis has to know of this service besides its OpenAPI document, and two checks of our own."""

import base64
import hashlib
import itertools
import json
import uuid
from typing import Any

import schemathesis
from hypothesis import strategies as st
from schemathesis import CheckContext, HookContext, Response
from schemathesis.core.failures import AcceptedNegativeData
from schemathesis.core.parameters import ParameterLocation
from schemathesis.openapi.checks import (
    EnsureResourceAvailability,
    RejectedPositiveData,
    UndefinedStatusCode,
)

# fmt: off
RULES = {
    "amount-or-percent", "base-without-percent", "belongs-to-price", "currency-mismatch", "duplicate", "empty-file",
    "empty-interval", "int-type", "item-archived", "more-than-everything", "no-base", "no-book", "no-lines",
    "no-price-given", "no-such-change", "not-a-gtin", "not-a-list", "not-a-number", "not-an-attribute",
    "not-an-event-id", "not-an-instant", "not-in-currency", "not-in-the-future", "only-errors", "rate-required",
    "rate-with-untaxed-category", "rate-without-category", "reserved-name", "reserved-sku", "tax-exceeds-amount",
    "too-many-attributes", "too-many-digits", "two-pins", "two-taxes", "unknown-algorithm", "unknown-book",
    "unknown-currency", "unknown-price", "unknown-seq", "unknown-time-zone", "whole-file", "wrong-cursor",
    "wrong-digest", "wrong-mapping",
}
"""Codes of faults that no JSON schema can express, or none that anybody would read: what they refuse fits the document
all the same. JSON Schema takes 1e-7 for a number and 2.0 for an integer, and RFC 3339 has leap seconds and a year 0."""

# What every answer may have without saying so: HTTP's own, and those for browsers and proxies.
COMMON = {
    "cache-control", "connection", "content-length", "content-security-policy", "content-type", "date",
    "referrer-policy", "server", "transfer-encoding", "vary", "x-accel-buffering", "x-content-type-options",
}
# fmt: on

type Case = schemathesis.Case[Any]

_numbers = itertools.count()
_run = uuid.uuid4().hex[:8]


def _file(lines: list[tuple[str, int]], line: str, head: str = "") -> bytes:
    return (head + "".join(line % each for each in lines)).encode()


_LINES = st.lists(
    st.tuples(st.from_regex("[A-Z][0-9]{3}", fullmatch=True), st.integers(0, 999)), min_size=1, max_size=4
)
schemathesis.openapi.media_type(
    "text/csv", st.builds(_file, _LINES, st.just("%s,A,%d\n"), st.just("sku,name,amount\n"))
)
schemathesis.openapi.media_type(
    "application/x-ndjson", st.builds(_file, _LINES, st.just('{"sku":"%s","name":"A","amount":%d}\n'))
)


def _as_sent(_: schemathesis.SerializationContext | None, value: Any) -> bytes:
    """What is generated against the document is no file, but anything."""
    return value if isinstance(value, bytes) else str(value).encode("utf-8", "surrogatepass")


schemathesis.serializer("text/csv", "application/x-ndjson")(_as_sent)


@schemathesis.hook
def before_call(_: HookContext, case: Case, kwargs: dict[str, Any]) -> None:
    """What fits the document, but not the state of the service, is made to fit: most requests would end at that."""

    def is_meant_well(place: ParameterLocation) -> bool:
        return case.meta is None or case.meta.generation.mode.is_positive or not case.meta.is_negative_at(place)

    # Each request gets an idempotency key of its own: what is generated comes again and again.
    key = str(case.headers.get("idempotency-key", "")) if case.headers else ""
    if 0 < len(key) < 200:
        start = f"{_run}-{next(_numbers)}-"
        case.headers["idempotency-key"] = f'"{start}{key[1:]}' if key[0] == '"' else start + key
    # One that this replica has: others are waited for, and then refused with 503.
    seq = str(case.headers.get("pricebook-min-seq", "")) if case.headers else ""
    if seq.isdecimal() and int(seq) < 2**63:
        case.headers["pricebook-min-seq"] = str(int(seq) % 2)
    if case.headers and is_meant_well(ParameterLocation.HEADER):
        _fit_headers(case)
    if case.operation.label.endswith("/prior-price") and is_meant_well(ParameterLocation.PATH):
        case.path_parameters["item"] = "sku:LONG-PRICED"
    if case.query and is_meant_well(ParameterLocation.QUERY):
        _fit(case.query)
    if isinstance(case.body, dict) and is_meant_well(ParameterLocation.BODY):
        for name, value in (("currency", "EUR"), ("time_zone", "Europe/Berlin"), ("known_seq", 1)):
            if case.body.get(name):
                case.body[name] = value


def _fit_headers(case: Case) -> None:
    for name in [name for name, value in case.headers.items() if not value]:
        del case.headers[name]
    if "content-digest" in case.headers:
        content = _as_sent(None, case.body)
        case.headers["content-digest"] = f"sha-256=:{base64.b64encode(hashlib.sha256(content).digest()).decode()}:"


def _fit(query: dict[str, Any]) -> None:
    if len(query.get("cursor") or "") < 30:
        query.pop("cursor", None)  # Those of links are longer.
    for name in {"known_seq", "after", "wait"} & set(query):
        query[name] = int(query[name]) % 2
    if "known_seq" in query or query.get("after") == 0:
        query.pop("known_at", None)
        query.pop("after_at", None)
    if "from" in query:
        query.pop("to", None)
    if "mapping" in query:
        query["mapping"] = ["sku", "name", "amount:amount"]


@schemathesis.hook
def filter_failure(_: HookContext, failure: Exception, case: Case, response: Response) -> bool:
    """Whether it is one: data that fit the document may still break a rule that it cannot express."""
    if isinstance(failure, RejectedPositiveData) and response.status_code == 422:
        problem = json.loads(response.content)
        if problem["type"] == "/problems/import-has-errors":
            return False
        codes = {fault["code"] for fault in problem["errors"]}
        # Many a document that fits the schema of a quote is none that this service can have made.
        return (not codes or not codes <= RULES) and case.operation.label != "POST /v1/quotes:verify"
    if isinstance(failure, AcceptedNegativeData) and "x-schemathesis-unknown-property" in case.headers:
        return False  # HTTP has headers that an application does not know.
    if isinstance(failure, EnsureResourceAvailability):
        # The item is there; it is the book that was made up.
        return bool(json.loads(response.content)["type"] != "/problems/unknown-book")
    # Request lines and heads of many kilobytes end in the server, before the application.
    return not (isinstance(failure, UndefinedStatusCode) and response.status_code in {414, 431})


@schemathesis.check
def undocumented_headers(_: CheckContext, response: Response, case: Case) -> None:
    """Answers have no headers that the document does not know of."""
    definition = case.operation.definition.raw["responses"].get(str(response.status_code))
    if definition is not None:
        unknown = {name.lower() for name in response.headers} - COMMON
        unknown -= {name.lower() for name in definition.get("headers", {})}
        assert not unknown, f"undocumented headers: {sorted(unknown)}"


@schemathesis.check
class EveryOperationWorks:
    """Each operation was answered with success at least once: refusals alone would test nothing."""

    def __init__(self) -> None:
        self.asked: set[str] = set()
        self.answered: set[str] = set()

    def after_response(self, _: CheckContext, response: Response, case: Case) -> None:
        """Note what was asked."""
        self.asked.add(case.operation.label)
        if response.status_code < 400:
            self.answered.add(case.operation.label)

    def after_run(self, _: CheckContext) -> None:
        """Compare, at the end."""
        assert self.asked == self.answered, f"never answered with success: {sorted(self.asked - self.answered)}"
