"""The report of an import as tables. Amounts and percentages stay the strings that the service answered."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.table import Table

from app import tables

Rows = Sequence[Mapping[str, Any]]

_TAX = ("tax_rate", "tax", "tax_included")


def report(run: Mapping[str, Any], rows: Mapping[str, Rows], name: str) -> Iterator[Table | str]:
    """What an import does.

    :param run: its document.
    :param rows: the first rows of each status that are to be shown, the greatest changes first.
    :param name: what the file is called.
    """
    yield f"Import {run['id']}: {name} for book {run['book']}"
    yield ""
    titles = {
        "change": "Changes, the greatest first",
        "create": "First prices",
        "missing": "Not in the file, no longer for sale" if ends_missing(run) else "Not in the file, left as they are",
        "error": "Rows with errors" + (", left out" if run["options"]["on_error"] == "skip" else ""),
    }
    makers = {"change": _changes, "create": _creates, "missing": _missing, "error": _errors}
    for status, title in titles.items():
        shown, count = rows.get(status, ()), run["counts"][status]
        if shown:
            of_all = "" if count is None else f": {count}" if len(shown) == count else f": {len(shown)} of {count}"
            yield f"{title}{of_all}"
            yield ""
            yield makers[status](shown)
            yield ""
            if status == "error" and _may_have_commas(run, shown):
                yield "If a comma stands before the decimals in this file: --decimal ,"
                yield ""
    yield _totals(run["counts"])
    yield ""
    begin = run["effective_at"] or "when they are applied"
    yield f"Prices begin {begin}, unless a row says otherwise; compared with the prices as of change {run['base_seq']}"


def ends_missing(run: Mapping[str, Any]) -> bool:
    """Whether items that the file does not name stop being for sale."""
    return bool(run["options"]["missing"] == "end")


def _item(row: Mapping[str, Any]) -> str:
    return tables.plain(row["sku"] or row["gtin"] or "")


def _changes(rows: Rows) -> Table:
    table, extra = _terms_table(rows, "line", "item", "old", "new", "change")
    for row in rows:
        old, new = row["old"], row["new"]
        taxed = any(old[name] != new[name] for name in _TAX)
        table.add_row(str(row["line"]), _item(row), _price(old, taxed), _price(new, taxed), _percent(row), *extra(new))
    return table


def _creates(rows: Rows) -> Table:
    table, extra = _terms_table(rows, "line", "item", "price")
    for row in rows:
        table.add_row(str(row["line"]), _item(row), _price(row["new"], with_tax=True), *extra(row["new"]))
    return table


def _terms_table(rows: Rows, *headings: str) -> tuple[Table, Any]:
    """A table that shows quantities and ends only if there are any, and what makes these cells of a row's terms."""
    has_quantity = any(row["new"]["min_quantity"] != "1" for row in rows)
    has_end = any(row["new"]["valid_to"] for row in rows)
    columns = [*(["at least"] if has_quantity else []), "from", *(["until"] if has_end else [])]

    def cells(terms: Mapping[str, Any]) -> Iterator[str]:
        if has_quantity:
            yield terms["min_quantity"]
        yield terms["valid_from"] or "when applied"
        if has_end:
            yield terms["valid_to"] or ""

    return tables.table(*headings, *columns, texts=("item", "from", "until")), cells


def _missing(rows: Rows) -> Table:
    table = tables.table("item", "price", "since", texts=("item", "since"))
    for row in rows:
        table.add_row(_item(row), _price(row["old"]), row["old"]["valid_from"])
    return table


def _errors(rows: Rows) -> Table:
    headings = ("line", "item", "column", "value", "what is wrong")
    table = tables.table(*headings, words=("value",), texts=("item", "column", "what is wrong"))
    for row in rows:
        line, item = str(row["line"]), _item(row)
        for error in row["errors"]:
            value = tables.plain(error["value"] or "")
            table.add_row(line, item, error["column"] or "", value, tables.plain(error["message"]))
            line = item = ""
    return table


def _may_have_commas(run: Mapping[str, Any], rows: Rows) -> bool:
    """Whether numbers were refused that are numbers in many countries."""
    errors = [error for row in rows for error in row["errors"] if error["code"] == "not-a-number"]
    return run["options"]["decimal"] == "." and any("," in (error["value"] or "") for error in errors)


_TOTALS = {
    "rows": "rows",
    "create": "first prices",
    "change": "changes",
    "unchanged": "unchanged",
    "error": "errors",
    "missing": "not in the file",
}


def _totals(counts: Mapping[str, int | None]) -> Table:
    counted = [name for name in _TOTALS if counts[name] is not None]
    table = tables.table(*(_TOTALS[name] for name in counted))
    table.add_row(*(str(counts[name]) for name in counted), style="bold")
    return table


def _price(terms: Mapping[str, Any], with_tax: bool = False) -> str:
    if terms["amount"] is None:
        return "not for sale"
    price = terms["amount"] + (f" / {terms['per']}" if terms["per"] != "1" else "")
    return f"{price} ({_tax(terms)})" if with_tax else price


def _tax(terms: Mapping[str, Any]) -> str:
    if terms["tax_rate"] is None and terms["tax"] is None:
        return "no tax stated"
    tax = f"tax {terms['tax']}" if terms["tax_rate"] is None else f"{terms['tax_rate']} % tax"
    return tax + (" incl." if terms["tax_included"] else "")


def _percent(row: Mapping[str, Any]) -> str:
    percent = row["percent"]
    if percent is None:
        return ""
    return f"{percent} %" if percent.startswith("-") or percent == "0.00" else f"+{percent} %"
