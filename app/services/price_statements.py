"""The statements with which prices are recorded."""

from functools import cache
from typing import Any

from sqlalchemy import BigInteger, Select, Text, Uuid, bindparam, func, insert, literal, select, true
from sqlalchemy.orm import aliased

from app.models import Book, Change, ChangeType, Item, PriceRetirement, PriceRow
from app.services import ledger
from app.services.parameter_rows import parameter_rows

STATED = (
    *("item_id", "book_id", "amount", "per", "min_quantity", "tax_rate", "tax", "tax_included"),
    *("valid_from", "valid_to", "supersedes", "reason", "recorded_by"),
)
"""What of a row the request and its target decide. A null ``valid_from`` stands for the instant of recording."""

_WRITTEN = ("id", "seq", "recorded_at", "recorded_by", "item_id", "book_id", "valid_from", "supersedes")


@cache
def target(*, by_sku: bool, wait: bool) -> Select[Any]:
    """What recordings are about: a row for each whose item is there, with its ``place``, and null if there is no book.

    :param by_sku: whether ``items`` are skus or ids; that, ``books`` and ``supersedes`` are the parameters, all arrays.
    :param wait: for items and books that others are changing. Otherwise those look as if they were not there.
    """
    asked = parameter_rows(
        item=("items", Text() if by_sku else Uuid()), book=("books", Text()), supersedes=("supersedes", Uuid())
    )
    # The lock that the row's foreign key takes anyway, taken early: the book's currency stays until the commit.
    book = (
        select(Book.id, Book.currency, Book.time_zone, Book.tax_included)
        .where(Book.key == asked.c.book)
        .with_for_update(read=True, key_share=True, skip_locked=not wait)
        .lateral("book")
    )
    superseded = aliased(PriceRow, name="superseded")
    return (
        select(
            asked.c.place,
            Item.id.label("item_id"),
            Item.archived_at,
            book.c.id.label("book_id"),
            book.c.currency,
            book.c.time_zone,
            book.c.tax_included,
            superseded.id.label("superseded_id"),
            superseded.valid_from.label("superseded_began"),
            PriceRetirement.seq.label("retired_seq"),
            # The number is taken later, and with it a later instant.
            func.clock_timestamp().label("now"),
        )
        .select_from(asked)
        .join(Item, (Item.sku if by_sku else Item.id) == asked.c.item)
        .outerjoin(book, true())
        .outerjoin(
            superseded,
            (superseded.id == asked.c.supersedes) & (superseded.item_id == Item.id) & (superseded.book_id == book.c.id),
        )
        .outerjoin(PriceRetirement, PriceRetirement.price_id == superseded.id)
        # Archiving the item waits for this transaction, and the other way round.
        .with_for_update(read=True, of=Item, skip_locked=not wait)
    )


@cache
def record() -> Select[Any]:
    """Takes as many numbers as there are rows, writes the rows, retires what they supersede, and logs the changes.

    Its parameters are arrays by the names of the columns, and ``count``, their length. It answers ``seq``,
    ``recorded_at``, ``id`` and ``valid_from`` of each row, in order.
    """
    stamp = ledger.ADVANCE.cte("stamp")
    table = PriceRow.__table__
    stated = parameter_rows(**{name: (name, table.c[name].type) for name in STATED})
    values = {
        **{name: stated.c[name] for name in STATED},
        "valid_from": func.coalesce(stated.c.valid_from, stamp.c.recorded_at),
        "seq": stamp.c.seq - bindparam("count", type_=BigInteger) + stated.c.place,
        "recorded_at": stamp.c.recorded_at,
    }
    row = (
        insert(PriceRow)
        .from_select(
            list(values),
            select(*(value.label(name) for name, value in values.items())).select_from(stamp.join(stated, true())),
        )
        .returning(*(table.c[name] for name in _WRITTEN))
        .cte("recorded")
    )
    retired = (
        insert(PriceRetirement)
        .from_select(
            ["price_id", "successor_id", "seq"],
            select(row.c.supersedes, row.c.id, row.c.seq).where(row.c.supersedes.is_not(None)),
        )
        .cte("retired")
    )
    logged = {
        "seq": row.c.seq,
        "at": row.c.recorded_at,
        "actor": row.c.recorded_by,
        "type": literal(ChangeType.PRICE_RECORDED.value, Text()),
        "item_id": row.c.item_id,
        "book_id": row.c.book_id,
        "price_id": row.c.id,
    }
    change = insert(Change).from_select(list(logged), select(*logged.values())).cte("logged")
    return select(row.c.seq, row.c.recorded_at, row.c.id, row.c.valid_from).order_by(row.c.seq).add_cte(retired, change)
