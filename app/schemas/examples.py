"""Examples of answers, for the documentation. One item, one book, one Christmas."""

import json
from typing import Any

from app import price_list

_ITEM_ID = "01a20537-de50-7ff8-9c93-02db0b06a11c"
_PRICE_ID = "01a20537-df11-7c58-8b71-6a4f0c1c9d2e"

_TERMS: dict[str, Any] = {
    "amount": "19.99",
    "per": "1",
    "min_quantity": "1",
    "tax_rate": "19",
    "tax": None,
    "tax_included": True,
    "valid_from": "2026-12-01T00:00:00Z",
    "valid_to": "2026-12-27T00:00:00Z",
    "seq": 42,
    "recorded_at": "2026-11-22T09:30:00.123456Z",
    "reason": "Christmas list",
}
KEY_CREATE: dict[str, Any] = {"name": "till-12", "scopes": ["items:read", "prices:read"], "expires_at": None}
NEW_KEY: dict[str, Any] = {
    "id": "0f3a9c5b7d1e2486",
    **KEY_CREATE,
    "created_at": "2026-11-22T09:00:00Z",
    "created_by": "admin",
    "revoked_at": None,
    "revoked_by": None,
    "key": "pb_0f3a9c5b7d1e2486_...",
}
KEY: dict[str, Any] = {name: value for name, value in NEW_KEY.items() if name != "key"}
WHO_AM_I: dict[str, Any] = {
    **{name: KEY[name] for name in ("id", "name", "scopes", "expires_at")},
    "auth_required": True,
}
_DISPLAY: dict[str, Any] = {"net": "16.80", "tax": "3.19", "gross": "19.99"}
_IN_FORCE: dict[str, Any] = {**_TERMS, "price_id": _PRICE_ID, "display": _DISPLAY}

ITEM: dict[str, Any] = {
    "id": _ITEM_ID,
    "sku": "FR-R92B",
    "name": "Frame",
    "description": None,
    "gtin": "4006381333931",
    "unit": "C62",
    "tax_category": "S",
    "attributes": {"colour": "black", "size": 58},
    "archived_at": None,
    "version": 1,
    "created_at": "2026-11-22T09:00:00Z",
    "updated_at": "2026-11-22T09:00:00Z",
}
BOOK: dict[str, Any] = {
    "key": "default",
    "name": "Default",
    "currency": "EUR",
    "time_zone": "Europe/Berlin",
    "tax_included": True,
    "rounding": {"mode": "half_up", "level": "group", "cash_increment": None},
    "version": 1,
    "created_at": "2026-11-22T09:00:00Z",
    "updated_at": "2026-11-22T09:00:00Z",
}
BOOK_LIST: dict[str, Any] = {"items": [BOOK], "next": None}
PRICE_ROW: dict[str, Any] = {
    "id": _PRICE_ID,
    "item_id": _ITEM_ID,
    "book": "default",
    "currency": "EUR",
    **_TERMS,
    "supersedes": None,
    "void": False,
    "recorded_by": "anonymous",
    "import_id": None,
}
CHANGE: dict[str, Any] = {
    "seq": 42,
    "at": "2026-11-22T09:30:00.123456Z",
    "actor": "anonymous",
    "type": "price.recorded",
    "item_id": _ITEM_ID,
    "book": "default",
    "before": None,
    "after": PRICE_ROW,
}
CHANGE_PAGE: dict[str, Any] = {
    "changes": [CHANGE],
    "next_after": 42,
    "next_after_at": CHANGE["at"],
    "head": 42,
}
PRICE_ANSWER: dict[str, Any] = {
    "item_id": _ITEM_ID,
    "sku": "FR-R92B",
    "book": "default",
    "currency": "EUR",
    "at": "2026-12-24T00:00:00Z",
    "known_seq": 42,
    "quantity": "1",
    **_IN_FORCE,
    "effective_until": "2026-12-27T00:00:00Z",
    "explain": None,
}
PRICED_ITEM: dict[str, Any] = {**ITEM, "price": PRICE_ANSWER}
ITEM_LIST: dict[str, Any] = {"items": [PRICED_ITEM], "next": None}
TIMELINE: dict[str, Any] = {
    "item_id": _ITEM_ID,
    "book": "default",
    "currency": "EUR",
    "from": "2026-12-01T00:00:00Z",
    "to": "2027-01-01T00:00:00Z",
    "known_seq": 42,
    "steps": [
        {"from": "2026-12-01T00:00:00Z", "to": "2026-12-27T00:00:00Z", **_IN_FORCE},
        {"from": "2026-12-27T00:00:00Z", "to": "2027-01-01T00:00:00Z", **dict.fromkeys(_IN_FORCE)},
    ],
}
PRICE_ROWS: dict[str, Any] = {
    "item_id": _ITEM_ID,
    "book": "default",
    "currency": "EUR",
    "known_seq": 42,
    "rows": [PRICE_ROW],
}
PRIOR_PRICE: dict[str, Any] = {
    "item_id": _ITEM_ID,
    "book": "default",
    "currency": "EUR",
    "reduced_at": "2026-12-27T00:00:00Z",
    "days": 30,
    "amount": "19.99",
    "per": "1",
    "tax_rate": "19",
    "tax": None,
    "tax_included": True,
    "from": "2026-12-01T00:00:00Z",
    "to": "2026-12-27T00:00:00Z",
    "price_id": _PRICE_ID,
}
LOOKUP_ANSWER: dict[str, Any] = {
    "book": "default",
    "currency": "EUR",
    "at": "2026-12-24T00:00:00Z",
    "known_seq": 42,
    "prices": [PRICE_ANSWER, {"item": "sku:GONE", "error": "unknown-item"}],
}
SCHEDULE: dict[str, Any] = {
    "boundaries": [
        {
            "at": "2026-12-27T00:00:00Z",
            "item_id": _ITEM_ID,
            "sku": "FR-R92B",
            "book": "default",
            "before": _IN_FORCE,
            "after": None,
        }
    ],
    "next": None,
}
PROBLEM_TYPE: dict[str, Any] = {
    "type": "/problems/no-price",
    "title": "The item has no price",
    "status": 404,
    "description": "The item has no price in this book at the instant asked about.",
}
_TAXED: dict[str, Any] = {"tax_rate": "19", "tax_category": "S", "tax_included": True}
QUOTE_REQUEST: dict[str, Any] = {
    "book": "default",
    "at": "2026-12-24T00:00:00Z",
    "prepaid": "20.00",
    "lines": [
        {"item": "sku:FR-R92B", "quantity": "3", "adjustments": [{"percent": "-10", "reason": "three for Christmas"}]},
        {"id": "ribbon", "quantity": "250", "unit_price": "1.15", "per": "100", "tax_rate": "19"},
    ],
    "adjustments": [{"amount": "4.90", "tax_rate": "19", "reason": "freight"}],
}
QUOTE: dict[str, Any] = {
    "book": "default",
    "currency": "EUR",
    "at": "2026-12-24T00:00:00Z",
    "known_seq": 42,
    "algorithm": "pricebook-1",
    "rounding": {"mode": "half_up", "level": "group", "digits": 2, "cash_increment": None},
    "lines": [
        {
            "id": None,
            "item": _ITEM_ID,
            "price_id": _PRICE_ID,
            "quantity": "3",
            "unit_price": "19.99",
            "per": "1",
            **_TAXED,
            "adjustments": [{"amount": "-6.00", "percent": "-10", "base": None, "reason": "three for Christmas"}],
            "amount": "53.97",
            "net": "45.35",
            "tax": "8.62",
            "gross": "53.97",
            "explain": None,
        },
        {
            "id": "ribbon",
            "item": None,
            "price_id": None,
            "quantity": "250",
            "unit_price": "1.15",
            "per": "100",
            **_TAXED,
            "adjustments": [],
            "amount": "2.88",
            "net": "2.42",
            "tax": "0.46",
            "gross": "2.88",
            "explain": None,
        },
    ],
    "adjustments": [
        {
            "amount": "4.90",
            "percent": None,
            "base": None,
            "reason": "freight",
            **_TAXED,
            "net": "4.12",
            "tax": "0.78",
            "gross": "4.90",
        }
    ],
    "tax_groups": [{**_TAXED, "base": "51.89", "tax": "9.86"}],
    "net": "51.89",
    "tax": "9.86",
    "gross": "61.75",
    "cash_rounding": "0.00",
    "prepaid": "20.00",
    "payable": "41.75",
    "digest": "f9c4ec62e8785cd86d428e717107b5935634543405f331a36b425446dc1f7770",
}
VERIFICATION: dict[str, Any] = {"matches": True, "difference": None}
_LIST_TERMS: dict[str, Any] = {
    "amount": "19.99",
    "per": "1",
    "min_quantity": "1",
    "tax_rate": "19",
    "tax": None,
    "tax_included": True,
    "valid_from": "2026-12-01T00:00:00Z",
    "valid_to": None,
}
IMPORT: dict[str, Any] = {
    "id": "01a20537-e0a4-7a51-b2f7-5d7c0e6b1f3a",
    "book": "default",
    "effective_at": "2026-12-01T00:00:00Z",
    "mode": "preview",
    "state": "previewed",
    "options": {
        "format": "csv",
        "charset": "utf-8",
        "on_error": "abort",
        "missing": "ignore",
        "create": True,
        "max_change_percent": "50",
        "decimal": ".",
        "mapping": ["sku:Article", "amount:Price"],
    },
    "base_seq": 42,
    "first_seq": None,
    "last_seq": None,
    "file_sha256": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
    "file_bytes": 5120,
    "counts": {"rows": 120, "create": 3, "change": 41, "unchanged": 75, "error": 1, "missing": None},
    "failure": None,
    "created_at": "2026-11-22T09:30:00.123456Z",
    "created_by": "anonymous",
    "applied_at": None,
    "expires_at": "2026-11-23T09:30:00.123456Z",
}
IMPORT_LIST: dict[str, Any] = {"items": [IMPORT], "next": None}
IMPORT_ROWS: dict[str, Any] = {
    "rows": [
        {
            "line": 2,
            "sku": "FR-R92B",
            "gtin": None,
            "status": "change",
            "old": {**_LIST_TERMS, "amount": "17.99", "valid_from": "2026-01-01T00:00:00Z"},
            "new": _LIST_TERMS,
            "percent": "11.12",
            "errors": [],
        },
        {
            "line": 3,
            "sku": "FR-R92R",
            "gtin": None,
            "status": "error",
            "old": None,
            "new": None,
            "percent": None,
            "errors": [
                {
                    "column": "amount",
                    "value": "19,99",
                    "code": "not-a-number",
                    "message": 'must be a number in plain notation such as "19.99", without exponent',
                }
            ],
        },
    ],
    "next": None,
}
EXPORT_CSV = price_list.HEADER + price_list.csv_line(ITEM | PRICE_ROW)
EXPORT_NDJSON = price_list.ndjson_line(ITEM | PRICE_ROW)
EXPORT_SNAPSHOT = json.dumps({"item": ITEM, "prices": [PRICE_ROW]}, separators=(",", ":")) + "\n"
