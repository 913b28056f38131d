"""Changes, as the feed answers them."""

from datetime import datetime
from uuid import UUID

from pydantic import ConfigDict, Field

from app.models import ChangeType
from app.schemas import examples
from app.schemas.base import Output
from app.schemas.book import Book
from app.schemas.item import Item
from app.schemas.price import PriceRow


class Change(Output):
    """A change, with the whole documents of what changed. `before` is null of what is new."""

    model_config = ConfigDict(json_schema_extra={"examples": [examples.CHANGE]})

    seq: int = Field(description="Number of the change: in the order of the commits, without gaps")
    at: datetime = Field(description="When it was recorded; the changes of one transaction have the same instant")
    actor: str
    type: ChangeType
    item_id: UUID | None = Field(description="The item, or the item of the price; null for books")
    book: str | None = Field(description="Key of the book, or of the book of the price; null for items")
    before: Item | Book | PriceRow | None = Field(
        description="What it was: the item, the book, the row that was voided, or the one that a new row supersedes"
    )
    after: Item | Book | PriceRow


class ChangePage(Output):
    """Changes in the order of `seq`."""

    model_config = ConfigDict(json_schema_extra={"examples": [examples.CHANGE_PAGE]})

    changes: list[Change]
    next_after: int = Field(description="Send as `after` to go on. Equal to `head` if there is nothing more yet")
    next_after_at: datetime | None = Field(
        description="When that change was recorded: send it as `after_at`. Null if `next_after` is 0"
    )
    head: int = Field(description="The newest change")
