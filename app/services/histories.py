"""One item's price rows in one book, and what follows from them: steps, explanations, the prior price."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from functools import cache
from typing import Any

from sqlalchemy import Select
from sqlalchemy.orm import aliased

from app import money, timeline
from app.database import ReadSession
from app.errors import HistoryTooShort, InvalidRequest, NoPrice
from app.models import ItemKey, PriceRetirement, PriceRow
from app.schemas import price as schemas
from app.schemas.base import Document
from app.services import answers, books, questions
from app.services.questions import Knowledge, Moment

_ONE = Decimal(1)


@dataclass(frozen=True, slots=True)
class History:
    """Every row recorded by ``known_seq``: as the rule sees it, and as the database holds it."""

    subject: Mapping[str, Any]
    rows: Sequence[timeline.Row]
    records: Mapping[Any, Mapping[str, Any]]

    @property
    def known_seq(self) -> int:
        """The state of knowledge."""
        seq: int = self.subject["known_seq"]
        return seq

    def in_play(self, quantity: Decimal) -> list[timeline.Row]:
        """The rows that may answer for the quantity."""
        return timeline.in_play(self.rows, known_seq=self.known_seq, quantity=quantity)

    @property
    def header(self) -> dict[str, Any]:
        """What every answer about the history begins with."""
        return {name: self.subject[name] for name in ("item_id", "book", "currency")}


@cache
def _statement(knowledge: Knowledge, *, by_sku: bool) -> Select[Any]:
    subject = questions.subject(knowledge, by_sku=by_sku)
    asked, book, item = subject
    row = aliased(PriceRow, name="price")
    retirement = aliased(PriceRetirement, name="retirement")
    return (
        subject.select(
            asked.c.at,
            asked.c.known_seq,
            asked.c.head,
            item.c.id.label("item_id"),
            book.c.key.label("book"),
            book.c.currency,
            book.c.rounding,
            *(getattr(row, column.key).label(f"price_{column.key}") for column in PriceRow.__table__.columns),
            retirement.seq.label("retired_seq"),
            retirement.successor_id.label("successor_id"),
        )
        .outerjoin(row, (row.item_id == item.c.id) & (row.book_id == book.c.id) & (row.seq <= asked.c.known_seq))
        .outerjoin(retirement, (retirement.price_id == row.id) & (retirement.seq <= asked.c.known_seq))
        .order_by(row.seq)
    )


async def load(session: ReadSession, key: ItemKey, *, book: str, moment: Moment) -> History:
    """The history, by one SQL statement.

    :raises UnknownItem: if there is no such item.
    :raises UnknownBook: if there is no such book.
    :raises UnknownSeq: if the state of knowledge does not exist yet.
    :raises InvalidRequest: if the state of knowledge is pinned twice.
    """
    statement = _statement(Knowledge.of(moment), by_sku=key.sku is not None)
    values = await questions.parameters(session, moment, book=book, quantity=_ONE) | {"item": key.parameter}
    found = (await session.execute(statement, values)).mappings().all()
    first = found[0]
    questions.check(
        key=key,
        book=book,
        known_seq=first["known_seq"],
        head=first["head"],
        found_item=first["item_id"],
        found_book=first["book"],
    )
    names = PriceRow.__table__.columns.keys()
    records = {
        row["price_id"]: {name: row[f"price_{name}"] for name in names}
        | {"retired_seq": row["retired_seq"], "successor_id": row["successor_id"]}
        for row in found
        if row["price_id"] is not None
    }
    deciding = timeline.Row.__dataclass_fields__
    rows = [timeline.Row(**{name: record[name] for name in deciding}) for record in records.values()]
    return History(first, rows, records)


async def read_steps(
    session: ReadSession,
    key: ItemKey,
    *,
    book: str,
    moment: Moment,
    window: tuple[datetime | date | None, datetime | date | None],
    quantity: Decimal,
) -> schemas.Timeline:
    """The prices over time as steps, in the window from (null: since ever) until (null: for ever).

    :raises InvalidRequest: if the window is empty; and as :func:`load`.
    """
    known = await questions.known_of(session, moment, book=book)
    start = await books.instant(session, book, window[0], pointer="query/from", known=known)
    end = await books.instant(session, book, window[1], pointer="query/to", known=known)
    if start is not None and end is not None and end <= start:
        raise InvalidRequest.at("query/to", "empty-interval", "must be later than from")
    history = await load(session, key, book=book, moment=moment)
    steps = timeline.between(timeline.steps(history.in_play(quantity)), start, end)
    return schemas.Timeline(
        **history.header,
        from_=start,
        to=end,
        known_seq=history.known_seq,
        steps=[_step(history, step) for step in steps],
    )


def _step(history: History, step: timeline.Step) -> schemas.Step:
    if step.row is None:
        nothing = dict.fromkeys(name for name in schemas.Step.model_fields if name not in {"from_", "to"})
        return schemas.Step(from_=step.start, to=step.end, **nothing)
    terms = in_force(history.records[step.row.id], history.subject["currency"], history.subject["rounding"])
    return schemas.Step(from_=step.start, to=step.end, **dict(terms))


def in_force(record: Mapping[str, Any], currency: str, rounding: Mapping[str, Any]) -> schemas.PriceInForce:
    """A row as the terms in force; ``record`` has the columns of a price row."""
    return schemas.PriceInForce(
        price_id=record["id"],
        display=None if record["amount"] is None else schemas.Display(**answers.display(record, currency, rounding)),
        **answers.terms(record, money.minor_units(currency)),
    )


async def read_rows(session: ReadSession, key: ItemKey, *, book: str, moment: Moment) -> schemas.PriceRows:
    """Every row as recorded, superseded and voided ones included. Raises as :func:`load`."""
    history = await load(session, key, book=book, moment=moment)
    digits = money.minor_units(history.subject["currency"])
    rows = [
        schemas.PriceRow(
            **{name: record[name] for name in ("id", "supersedes", "recorded_by", "import_id")},
            **history.header,
            void=record["retired_seq"] is not None and record["successor_id"] is None,
            **answers.terms(record, digits),
        )
        for record in history.records.values()
    ]
    return schemas.PriceRows(**history.header, known_seq=history.known_seq, rows=rows)


async def explain(session: ReadSession, answer: Document, *, quantity: Decimal) -> Document:
    """The ``PriceAnswer`` with every row and the reason why it answers or does not.

    A second statement, which sees the same rows: it is pinned to the answer's state of knowledge.
    """
    moment = Moment(known_seq=answer["known_seq"])
    history = await load(session, ItemKey(answer["item_id"], None), book=answer["book"], moment=moment)
    judged = timeline.explain(history.rows, at=answer["at"], known_seq=answer["known_seq"], quantity=quantity)
    digits = money.minor_units(answer["currency"])
    explanations = [
        schemas.Explanation(
            price_id=row.id,
            outcome=outcome,
            **{
                name: value
                for name, value in answers.terms(history.records[row.id], digits).items()
                if name in schemas.Explanation.model_fields
            },
        ).model_dump()
        for row, outcome in judged
    ]
    return answer | {"explain": explanations}


async def read_prior_price(
    session: ReadSession, key: ItemKey, *, book: str, reduced_at: datetime | date | None, days: int
) -> schemas.PriorPrice:
    """The lowest price for one unit during the ``days`` before a reduction began; by default, that of the price now.

    :raises NoPrice: if the item had no price then, or, to find the reduction, has none now.
    :raises HistoryTooShort: if the rows do not reach back over all the days; and as :func:`load`.
    """
    begun = await books.instant(session, book, reduced_at, pointer="query/reduced_at")
    history = await load(session, key, book=book, moment=Moment())
    rows = history.in_play(_ONE)
    if begun is None:
        current = next(step for step in reversed(list(timeline.steps(rows))) if _begun(step, history.subject["at"]))
        if current.row is None or current.start is None:
            raise NoPrice(f"Item {key} has no price in book {book} now; say when the reduction began: reduced_at.")
        begun = current.start
    try:
        lowest = timeline.prior_price(rows, reduced_at=begun, days=days)
    except OverflowError:
        raise InvalidRequest.at("query/reduced_at", "not-an-instant", "is at the edge of the calendar") from None
    except timeline.HistoryTooShort:
        raise HistoryTooShort(
            f"The prices of item {key} in book {book} do not reach back {days} days before {begun.isoformat()}."
        ) from None
    if lowest is None:
        raise NoPrice(f"Item {key} was not for sale in book {book} during the {days} days before {begun.isoformat()}.")
    terms = answers.terms(history.records[lowest.row.id], money.minor_units(history.subject["currency"]))
    return schemas.PriorPrice(
        **history.header,
        reduced_at=begun,
        days=days,
        from_=lowest.start,
        to=lowest.end,
        price_id=lowest.row.id,
        **{name: terms[name] for name in ("amount", "per", "tax_rate", "tax", "tax_included")},
    )


def _begun(step: timeline.Step, at: datetime) -> bool:
    return step.start is None or step.start <= at
