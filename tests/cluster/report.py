"""The table of proofs: one row each, printed at the end of the run and written to a page if one is named."""

from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class Report:
    """Rows in the order in which they were shown.

    :ivar page: where the table goes, if anywhere; after each row, so that a run cut short leaves what it showed.
    :ivar part: whether only some of the proofs are run, so that the page keeps the rows of the others.
    """

    page: Path | None = None
    part: bool = False
    rows: list[tuple[str, str, str]] = field(default_factory=list)

    def row(self, proof: str, how: str, figure: str) -> None:
        """Add what was shown, how, and the figure that was seen."""
        self.rows.append((proof, how, figure))
        if self.page:
            self._write(self.page)

    def table(self) -> str:
        """The rows as a Markdown table."""
        return _HEADER + "".join(map(_line, self.rows))

    def _write(self, page: Path) -> None:
        """Put the table into a page, between its two markers."""
        begin, end = "<!-- proofs: begin -->\n", "<!-- proofs: end -->"
        head, rest = page.read_text().split(begin)
        before, tail = rest.split(end)
        kept = before.removeprefix(_HEADER).splitlines(keepends=True) if self.part else []
        # A proof that was shown again has its row where it was.
        table = {line.split(" | ")[0]: line for line in [*kept, *map(_line, self.rows)]}
        page.write_text(f"{head}{begin}{_HEADER}{''.join(table.values())}{end}{tail}")


_HEADER = "| proof | how | seen |\n| --- | --- | --- |\n"


def _line(row: tuple[str, str, str]) -> str:
    return f"| {' | '.join(' '.join(cell.replace('|', '/').split()) for cell in row)} |\n"
