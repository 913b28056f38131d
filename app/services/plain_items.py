"""The plain form of items: four fields and JSON numbers, in the book `default`, priced now."""

from decimal import Decimal

from app import money
from app.database import ReadSession, WriteSession
from app.models import ItemKey
from app.pagination import Cursors
from app.schemas.base import Document
from app.schemas.item import ItemCreate, PlainItem, PlainItemCreate
from app.schemas.price import InitialPrice
from app.services import items, priced_items
from app.services.ledger import Written


async def create(session: WriteSession, data: PlainItemCreate, *, actor: str) -> Written[PlainItem]:
    """Create an item with a price from now on; ``tax`` is an amount on top of it."""
    price = InitialPrice(amount=data.price, tax=data.tax, tax_included=False)
    item = ItemCreate(name=data.name, description=data.description, price=price)
    written = await items.create(session, item, actor=actor, may_correct=False)
    return Written(_plain(written.document.model_dump()), written.seq)


async def read(session: ReadSession, key: ItemKey) -> PlainItem:
    """The item.

    :raises UnknownItem: if there is none.
    """
    return _plain(await priced_items.read(session, key))


async def list_page(
    session: ReadSession, *, limit: int, cursor: str | None, cursors: Cursors
) -> tuple[list[PlainItem], str | None]:
    """A page of items that are not archived, and the cursor of the next page.

    :raises InvalidRequest: if the cursor is not one of this list.
    """
    page = await priced_items.read_page(session, priced_items.Listing(limit=limit, cursor=cursor), cursors)
    return [_plain(item) for item in page.items], page.following


def _plain(item: Document) -> PlainItem:
    price = tax = gross = None
    if (answer := item["price"]) is not None:
        if answer["per"] != "1":
            pass  # A price of a hundred must not be taken for the price of one; v1 shows it.
        elif answer["tax_rate"] is None and (answer["tax"] is None or not answer["tax_included"]):
            # Stated as this form states it: every digit comes back.
            price = _number(answer["amount"])
            tax = None if answer["tax"] is None else _number(answer["tax"])
            gross = _number(money.plain(money.EXACT.add(price, tax or Decimal(0))))
        else:
            price, tax, gross = (_number(answer["display"][part]) for part in ("net", "tax", "gross"))
    stated = {name: item[name] for name in ("id", "name", "description")}
    return PlainItem(**stated, price=price, tax=tax, price_with_tax=gross)


def _number(text: str) -> Decimal:
    """The decimal without padding: 35.4 comes back as it was sent, not as 35.40."""
    return Decimal(money.plain(Decimal(text)))
