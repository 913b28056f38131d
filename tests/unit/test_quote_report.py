"""The tables of `pricebook quote` on a small terminal."""

import io

from rich.console import Console

from app import quote_report, tables
from app.schemas import examples


def test_no_figure_is_cut_off_on_a_small_terminal() -> None:
    figures = {"quantity": "12500", "unit_price": "0.061232374", "per": "1000", "amount": "17893.75", "tax": "2857.00"}
    line = {**examples.QUOTE["lines"][0], **figures}
    terminal = Console(width=60, file=io.StringIO())
    for part in quote_report._report({**examples.QUOTE, "lines": [line]}, ["a name that may be folded"]):
        tables.show(terminal, part)
    assert isinstance(terminal.file, io.StringIO)
    shown = terminal.file.getvalue()
    for figure in ("12500", "0.061232374 / 1000", "17893.75", "2857.00", "-6.00"):
        assert figure in shown
