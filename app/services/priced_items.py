"""Items with what they cost: one, or pages of a list."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from functools import cache
from typing import Any, Literal, NamedTuple
from uuid import UUID

from sqlalchemy import Integer, Select, Subquery, Text, bindparam, or_, select, true

from app.database import ReadSession
from app.errors import UnknownItem
from app.models import DEFAULT_BOOK, Item, ItemKey
from app.observability.metrics import PriceRead
from app.pagination import Cursors
from app.schemas import item as schemas
from app.schemas.base import Document
from app.services import answers, books, questions
from app.services.answers import AnswerRow

_SELECT = select(*Item.__table__.c)
_ANSWER = len(AnswerRow._fields)
_OWN = tuple(name for name in schemas.Item.model_fields if name not in {"id", "sku"})
"""What of an item is not in a row that answers what it costs."""
_ONE = Decimal(1)

Archived = Literal["false", "true", "any"]


@dataclass(frozen=True, slots=True)
class Listing:
    """What a list of items asks for. ``at`` is when to price them: now if it is ``None``."""

    limit: int
    cursor: str | None = None
    book: str = DEFAULT_BOOK
    at: datetime | date | None = None
    q: str | None = None
    sku: str | None = None
    gtin: str | None = None
    archived: Archived = "false"

    @property
    def filters(self) -> dict[str, Any]:
        """What a cursor is bound to."""
        return {
            "book": self.book,
            "at": self.at.isoformat() if self.at else None,
            "q": self.q,
            "sku": self.sku,
            "gtin": self.gtin,
            "archived": self.archived,
        }


async def read(session: ReadSession, key: ItemKey) -> Document:
    """The item and its price now in the book `default`, archived or not: a ``PricedItem``.

    :raises UnknownItem: if there is none.
    """
    parameters = _question(DEFAULT_BOOK, None) | {"item": key.parameter}
    row = (await session.columns(_one_priced(by_sku=key.sku is not None), parameters)).one()
    if AnswerRow._make(row[:_ANSWER]).item_id is None:
        answers.count(PriceRead.UNKNOWN_ITEM)
        raise UnknownItem(f"There is no item {key}.")
    item = _priced_item(row)
    answers.count(PriceRead.NO_PRICE if item["price"] is None else PriceRead.ANSWERED)
    return item


class Page(NamedTuple):
    """A page of a list, and what it depends on."""

    items: list[Document]
    """Each a ``PricedItem``."""
    following: str | None
    """The cursor of the next page."""
    known_seq: int
    """The newest change that it can know of."""
    at: datetime
    """The instant at which it is priced."""
    until: datetime | None
    """When the first of its prices changes by itself; ``None``: none is known."""


async def read_page(session: ReadSession, listing: Listing, cursors: Cursors) -> Page:
    """A page of items in the order of their ids, each with its price.

    One SQL statement; a bare date costs another, for the book's time zone.

    :raises UnknownBook: if there is no such book.
    :raises InvalidRequest: if the cursor belongs to another list.
    """
    at = await books.instant(session, listing.book, listing.at, pointer="query/at")
    parameters = _question(listing.book, at) | {"limit": listing.limit + 1, "sku": listing.sku, "gtin": listing.gtin}
    if listing.cursor is not None:
        parameters["after"] = UUID(cursors.decode(listing.cursor, listing.filters)["after"])
    if listing.q is not None:
        # An index of trigrams finds three letters anywhere, but fewer only at the beginning.
        anywhere = "%" if len(listing.q) >= 3 else ""
        parameters["pattern"] = anywhere + re.sub(r"([\\%_])", r"\\\1", listing.q) + "%"
    statement = _page_of(
        frozenset(name for name in ("cursor", "q", "sku", "gtin") if getattr(listing, name) is not None),
        listing.archived,
    )
    rows = (await session.columns(statement, parameters)).all()
    priced = [AnswerRow._make(row[:_ANSWER]) for row in rows]
    first = priced[0]
    if first.book is None:
        raise books.unknown(listing.book)
    found = [] if first.item_id is None else [_priced_item(row) for row in rows[: listing.limit]]
    following = None
    if len(rows) > listing.limit:
        following = cursors.encode({"after": str(found[-1]["id"])}, listing.filters)
    until = min((row.effective_until for row in priced if row.effective_until is not None), default=None)
    return Page(found, following, first.known_seq, first.at, until)


@cache
def _page_of(filters: frozenset[str], archived: Archived) -> Select[Any]:
    """The statement of a list that has these filters. To build it takes ten times as long as to answer with it."""
    matching = _SELECT.order_by(Item.id).limit(bindparam("limit", type_=Integer))
    if "cursor" in filters:
        matching = matching.where(Item.id > bindparam("after"))
    if "q" in filters:
        pattern = bindparam("pattern", type_=Text)
        matching = matching.where(or_(Item.name.ilike(pattern), Item.sku.ilike(pattern)))
    if "sku" in filters:
        matching = matching.where(Item.sku == bindparam("sku"))
    if "gtin" in filters:
        matching = matching.where(Item.gtin == bindparam("gtin"))
    if archived != "any":
        matching = matching.where(Item.archived_at.is_not(None) if archived == "true" else Item.archived_at.is_(None))
    page = matching.subquery("page")
    return _priced(page).order_by(page.c.id)


@cache
def _one_priced(*, by_sku: bool) -> Select[Any]:
    return _priced(_SELECT.where(ItemKey.any(by_sku=by_sku).condition).subquery("page"))


def _question(book: str, at: datetime | None) -> dict[str, Any]:
    return {"book": book, "at": at, "quantity": _ONE}


def _priced(page: Subquery) -> Select[Any]:
    """The answers for a page of items, with the items' own columns behind them."""
    subject = questions.subject_of(page)
    row, selected = answers.columns(subject)
    own = [page.c[name].label(f"item_{name}") for name in _OWN]
    return subject.select(*selected, *own).outerjoin(row, true())


def _priced_item(row: Sequence[Any]) -> Document:
    answer = AnswerRow._make(row[:_ANSWER])
    own = zip(_OWN, row[_ANSWER:], strict=True)
    return {"id": answer.item_id, "sku": answer.sku, **dict(own), "price": answers.document(answer)}
