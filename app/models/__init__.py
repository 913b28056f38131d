"""Tables, and named selectables over them. Nothing here runs a statement."""

from app.models.api_key import ApiKey, ApiKeyState
from app.models.base import Base
from app.models.book import DEFAULT_BOOK, Book
from app.models.change import Change, ChangeType, Ledger
from app.models.idempotency import StoredAnswer
from app.models.import_run import STAGING, ImportRecord, PlannedRow
from app.models.item import Item, ItemKey
from app.models.price import PriceRetirement, PriceRow

__all__ = [
    "DEFAULT_BOOK",
    "STAGING",
    "ApiKey",
    "ApiKeyState",
    "Base",
    "Book",
    "Change",
    "ChangeType",
    "ImportRecord",
    "Item",
    "ItemKey",
    "Ledger",
    "PlannedRow",
    "PriceRetirement",
    "PriceRow",
    "StoredAnswer",
]
