"""The table of proofs: one row each, printed at the end of the run and written to a file if one is named."""

from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class Report:
    """Rows in the order in which they were shown.

    :ivar page: where the table goes, if anywhere; after each row, so that a run cut short leaves what it showed.
    """

    page: Path | None = None
    rows: list[tuple[str, str, str]] = field(default_factory=list)

    def row(self, proof: str, how: str, figure: str) -> None:
        """Add what was shown, how, and the figure that was seen."""
        self.rows.append((proof, how, figure))
        if self.page:
            self._write(self.page)

    def table(self) -> str:
        """The rows as a Markdown table."""
        lines = ["| proof | how | seen |", "| --- | --- | --- |"]
        lines += [f"| {' | '.join(' '.join(cell.replace('|', '/').split()) for cell in row)} |" for row in self.rows]
        return "\n".join(lines) + "\n"

    def _write(self, page: Path) -> None:
        """Put the table into a page, between its two markers."""
        begin, end = "<!-- proofs: begin -->\n", "<!-- proofs: end -->"
        head, rest = page.read_text().split(begin)
        _, tail = rest.split(end)
        page.write_text(f"{head}{begin}{self.table()}{end}{tail}")
