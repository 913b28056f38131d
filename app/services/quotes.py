"""Quotes: prices from the ledger, or stated, and what they add up to."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any

from app import money, quoting
from app.database import ReadSession
from app.errors import (
    FieldError,
    InvalidRequest,
    NoPrice,
    NotForSale,
    ProblemError,
    UnknownBook,
    UnknownItem,
    UnknownSeq,
)
from app.models.book import DEFAULT_BOOK
from app.money import RoundingMode
from app.observability import metrics
from app.observability.metrics import QuoteResult
from app.quoting import RATED_CATEGORIES, Policy, Tax
from app.schemas.quote import (
    Difference,
    Quote,
    QuoteAdjustment,
    QuoteDocumentAdjustment,
    QuoteLine,
    QuoteRequest,
    QuoteRounding,
    Verification,
)
from app.services import books, price_lines, quote_documents
from app.services.questions import Knowledge
from app.services.quote_documents import PricedLine

_MOST_FAULTS = 100


async def quote(session: ReadSession, request: QuoteRequest, *, explain: bool = False) -> Quote:
    """Add up a document, everything or nothing.

    One SQL statement, for any number of lines; a bare date costs another, for the book's time zone.

    :raises UnknownBook: if there is no such book.
    :raises UnknownItem: if a line names no item.
    :raises NoPrice: if no row answers for a line.
    :raises NotForSale: if the row that answers for a line has no amount.
    :raises InvalidRequest: if the document does not fit the book or the currency.
    """
    answer = await _quote(session, request, known_seq=None, explain=explain)
    metrics.QUOTES.labels(QuoteResult.QUOTED).inc()
    return answer


async def verify(session: ReadSession, stated: Quote, request: QuoteRequest, sent: Mapping[str, Any]) -> Verification:
    """Whether a quote is what its own lines come to, at its instant and in its state of knowledge.

    :param request: that of the quote.
    :param sent: the quote as it was sent, to the letter.
    :raises UnknownSeq: if the quote is of a state of knowledge that does not exist.
    :raises InvalidRequest: if the quote names another arithmetic.
    """
    if stated.algorithm != quoting.ALGORITHM:
        message = f"must be {quoting.ALGORITHM}, the only one that this version knows"
        raise InvalidRequest.at("/algorithm", "unknown-algorithm", message)
    difference: Difference | None
    try:
        computed = await _quote(session, request, known_seq=stated.known_seq, explain=False)
        difference = next(quote_documents.differences(sent, quote_documents.comparable(computed)), None)
    except (UnknownBook, UnknownItem, NoPrice, NotForSale, InvalidRequest) as error:
        # Nobody was ever answered like this.
        pointer = error.errors[0].pointer
        difference = Difference(pointer=pointer, stated=quote_documents.at(sent, pointer), computed=None)
    metrics.QUOTES.labels(QuoteResult.VERIFIED if difference is None else QuoteResult.DIFFERENT).inc()
    return Verification(matches=difference is None, difference=difference)


async def _quote(session: ReadSession, request: QuoteRequest, *, known_seq: int | None, explain: bool) -> Quote:
    book = request.book or (DEFAULT_BOOK if request.currency is None else None)
    rows = await _price(session, request, book, known_seq)
    head = rows[0]
    currency = _currency(request, book, head["currency"])
    policy = _policy(request, head["rounding"], currency)
    included = bool(head["book_tax_included"]) if request.tax_included is None else request.tax_included
    lines = _lines(request, rows, included=included)
    adjustments = [_document_adjustment(given, included=included) for given in request.adjustments]
    _check_decimals(request, policy.digits)
    try:
        totals = quoting.total([line.priced for line in lines], adjustments, policy, request.prepaid or Decimal(0))
    except quoting.NoBase as error:
        message = "needs a base, because no line is in its tax group"
        raise InvalidRequest.at(f"/adjustments/{error.index}/percent", "no-base", message) from None
    return quote_documents.build(
        request,
        lines,
        totals,
        policy,
        explain=explain,
        book=book,
        currency=currency,
        at=head["at"],
        known_seq=head["known_seq"],
        algorithm=quoting.ALGORITHM,
    )


async def _price(
    session: ReadSession, request: QuoteRequest, book: str | None, known_seq: int | None
) -> Sequence[Mapping[str, Any]]:
    """A row for each line, and at least one, with what the ledger says of it and of the quote."""
    # A line that was returned had the price of as many that were bought.
    lines = [(line.item, abs(line.quantity)) for line in request.lines] or [(None, Decimal(1))]
    values = {
        "book": book,
        "at": await _instant(session, request, book),
        **price_lines.parameters(lines),
    }
    knowledge = Knowledge.LATEST
    if known_seq is not None:
        knowledge = Knowledge.AT_SEQ
        values["known_seq"] = known_seq
    rows: Sequence[Any] = (await session.columns(price_lines.quote_statement(knowledge), values)).mappings().all()
    head = rows[0]
    if head["known_seq"] > head["head"]:
        fault = FieldError("/known_seq", "unknown-seq", f"must not be greater than {head['head']}")
        raise UnknownSeq(f"The newest change is {head['head']}; known_seq {known_seq} does not exist yet.", [fault])
    if book is not None and head["book"] is None:
        raise books.unknown(book, "/book")
    return rows


async def _instant(session: ReadSession, request: QuoteRequest, book: str | None) -> datetime | None:
    if book is None and request.at is not None and not isinstance(request.at, datetime):
        return books.start_of_day(request.at, "UTC", "/at")
    return await books.instant(session, book or DEFAULT_BOOK, request.at, pointer="/at", book_pointer="/book")


def _currency(request: QuoteRequest, book: str | None, of_book: str | None) -> str:
    currency = of_book or request.currency
    assert currency is not None  # noqa: S101 - without a book, the request has one
    if request.currency not in (None, currency):
        message = f"must be {currency}, the currency of book {book}, or be left out"
        raise InvalidRequest.at("/currency", "currency-mismatch", message)
    return currency


def _policy(request: QuoteRequest, of_book: Mapping[str, Any] | None, currency: str) -> Policy:
    """The book's policy, with what the request says instead."""
    stored = of_book or {}
    if stored.get("cash_increment") is not None:
        stored = {**stored, "cash_increment": money.parse(stored["cash_increment"])}
    given = request.rounding.model_dump(exclude_unset=True) if request.rounding else {}
    whole = QuoteRounding().model_dump() | dict(stored) | given
    if whole["digits"] is None:
        whole["digits"] = money.minor_units(currency)
    increment, digits = whole["cash_increment"], whole["digits"]
    if increment is not None and (increment <= 0 or money.round_to(increment, digits) != increment):
        field = "cash_increment" if "cash_increment" in given else "digits"
        message = (
            f"must go with the cash increment {money.plain(increment)}, of a positive multiple of the last decimal"
        )
        raise InvalidRequest.at(f"/rounding/{field}", "not-in-currency", message)
    return Policy(RoundingMode(whole["mode"]), money.RoundingLevel(whole["level"]), digits, increment)


def _check_decimals(request: QuoteRequest, digits: int) -> None:
    """Amounts that go into sums as they are must not be finer than the sums.

    :raises InvalidRequest: naming all that are.
    """
    places: list[tuple[str, Sequence[QuoteAdjustment]]] = [
        *((f"/lines/{number}", line.adjustments) for number, line in enumerate(request.lines)),
        ("", request.adjustments),
    ]
    amounts = [
        (f"{place}/adjustments/{index}/amount", adjustment.amount)
        for place, adjustments in places
        for index, adjustment in enumerate(adjustments)
    ]
    message = f"must have at most {digits} decimals, as results have"
    _refuse(
        [
            (InvalidRequest, FieldError(pointer, "too-many-digits", message))
            for pointer, amount in [*amounts, ("/prepaid", request.prepaid)]
            if amount is not None and money.round_to(amount, digits) != amount
        ]
    )


def _refuse(faults: Sequence[tuple[type[ProblemError], FieldError]]) -> None:
    """Raise the problem of the first fault, naming all of them; without any, do nothing."""
    if faults:
        kind, first = faults[0]
        more = f" ({len(faults) - 1} more)" if len(faults) > 1 else ""
        raise kind(f"{first.pointer} {first.message}{more}.", [fault for _, fault in faults[:_MOST_FAULTS]])


class _Fault(Exception):
    """What is wrong with a line."""

    def __init__(self, kind: type[ProblemError], field: str, code: str, message: str) -> None:
        super().__init__(message)
        self.kind, self.field, self.code, self.message = kind, field, code, message


def _lines(request: QuoteRequest, rows: Sequence[Mapping[str, Any]], *, included: bool) -> list[PricedLine]:
    """The lines with their prices.

    :raises ProblemError: of the kind of the first fault, naming all of them.
    """
    lines: list[PricedLine] = []
    faults: list[tuple[type[ProblemError], FieldError]] = []
    for number, (line, row) in enumerate(zip(request.lines, rows, strict=False)):
        try:
            lines.append(_line(line, row, included=included))
        except _Fault as fault:
            faults.append((fault.kind, FieldError(f"/lines/{number}/{fault.field}", fault.code, fault.message)))
    _refuse(faults)
    return lines


def _line(line: QuoteLine, row: Mapping[str, Any], *, included: bool) -> PricedLine:
    if line.item is not None and row["item_id"] is None:
        raise _Fault(UnknownItem, "item", "unknown-item", "names no item")
    adjustments = [_adjustment(each) for each in line.adjustments]
    if line.unit_price is not None:
        contains = included if line.tax_included is None else line.tax_included
        tax = _tax_of_line(line, row["tax_category"] or "S", contains)
        if tax.category in RATED_CATEGORIES and tax.rate is None:
            raise _Fault(InvalidRequest, "tax_rate", "rate-required", "is required")
        priced = quoting.Line(line.quantity, line.unit_price, line.per or Decimal(1), tax, None, adjustments)
        return PricedLine(priced, row["item_id"], None)
    if row["book"] is None:
        raise _Fault(InvalidRequest, "unit_price", "no-book", "is required, because the quote has no book")
    if row["price_id"] is None:
        raise _Fault(NoPrice, "item", "no-price", f"has no price for quantity {money.plain(abs(line.quantity))}")
    if row["amount"] is None:
        raise _Fault(NotForSale, "item", "not-for-sale", "is not for sale")
    tax, unit_tax = _tax_of_price(line, row)
    priced = quoting.Line(line.quantity, row["amount"], row["per"], tax, unit_tax, adjustments)
    return PricedLine(priced, row["item_id"], row["price_id"])


def _stated_tax(given: QuoteLine | QuoteDocumentAdjustment, default: str, included: bool) -> Tax:
    category = given.tax_category if "tax_category" in given.model_fields_set else default
    if category is None:
        return Tax(None, None, included)
    return Tax(category, given.tax_rate if category in RATED_CATEGORIES else Decimal(0), included)


def _tax_of_line(line: QuoteLine, category: str, included: bool) -> Tax:
    """How a line says that it is taxed. ``category`` is the item's."""
    tax = _stated_tax(line, category, included)
    if line.tax_rate and tax.rate == 0:
        message = f"must not be stated: the item's tax category {category} has none"
        raise _Fault(InvalidRequest, "tax_rate", "rate-with-untaxed-category", message)
    return tax


def _tax_of_price(line: QuoteLine, row: Mapping[str, Any]) -> tuple[Tax, Decimal | None]:
    """How a line at the book's price is taxed: as its price says, unless the line says so itself."""
    rate, unit_tax, category = row["tax_rate"], row["tax"], row["tax_category"]
    if line.states_tax:
        tax = _tax_of_line(line, category, row["tax_included"])
        if tax.category not in RATED_CATEGORIES or tax.rate is not None:
            return tax, None
        if rate is None and unit_tax is None:
            raise _Fault(InvalidRequest, "tax_rate", "rate-required", "is required: the item's price states no tax")
        return tax._replace(rate=rate), unit_tax
    if category not in RATED_CATEGORIES:
        if rate or unit_tax:
            message = f"has tax category {category}, which has no tax, but its price states one. State tax_category"
            raise _Fault(InvalidRequest, "item", "tax-conflict", message)
        return Tax(category, Decimal(0), row["tax_included"]), None
    if rate is None and unit_tax is None:
        category = None
    return Tax(category, rate, row["tax_included"]), unit_tax


def _adjustment(given: QuoteAdjustment) -> quoting.Adjustment:
    return quoting.Adjustment(given.amount, given.percent, given.base)


def _document_adjustment(given: QuoteDocumentAdjustment, *, included: bool) -> quoting.DocumentAdjustment:
    contains = included if given.tax_included is None else given.tax_included
    return quoting.DocumentAdjustment(_adjustment(given), _stated_tax(given, "S", contains))
