"""Tables at the terminal whose figures are never cut off."""

from collections.abc import Collection

from rich import box
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table

_PIPED_WIDTH = 200
_WIDEST = 1000
_WORD_WIDTH = 9
_WORDS_WIDTH = 30


def console(*, stderr: bool = False) -> Console:
    """A console that takes nothing in the data for markup."""
    result = Console(stderr=stderr, markup=False, emoji=False, highlight=False)
    if not result.is_terminal:
        result.width = _PIPED_WIDTH
    return result


def show(console: Console, part: Table | str) -> None:
    """Print; a table wider than the terminal is wrapped by the terminal, whereas rich would cut its figures off."""
    needed = Measurement.get(console, console.options.update(max_width=_WIDEST), part).maximum
    console.width = max(console.width, needed)
    console.print(part)


def table(*headings: str, words: Collection[str] = (), texts: Collection[str] = ()) -> Table:
    """A table with figures on the right.

    :param words: columns of words, which may be folded.
    :param texts: columns of text, which are as wide as their text.
    """
    result = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, collapse_padding=True)
    for heading in headings:
        if heading in words:
            result.add_column(heading, overflow="fold", min_width=_WORD_WIDTH, max_width=_WORDS_WIDTH)
        else:
            result.add_column(heading, justify="left" if heading in texts else "right", no_wrap=True)
    return result


def plain(text: str) -> str:
    """Text on one line: what would not be seen, or would steer the terminal, as an escape."""
    return "".join(sign if sign.isprintable() else ascii(sign)[1:-1] for sign in text)
