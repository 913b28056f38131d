"""Random documents against the oracle: ``python -m tests.support.quote_fuzz COUNT SEED``.

Ends with status 1 at the first difference.
"""

import sys
from collections import Counter
from decimal import Decimal

from app import quoting
from app.money import RoundingLevel, RoundingMode
from tests.support import quote_oracle
from tests.support.quote_oracle import OracleAdjustment, OracleDocument, OracleTax


def totals(document: OracleDocument) -> quoting.Totals:
    """What the application makes of a document.

    :raises quoting.NoBase: as :func:`app.quoting.total`.
    """
    policy = quoting.Policy(
        RoundingMode(document.mode), RoundingLevel(document.level), document.digits, _decimal(document.increment)
    )
    adjustments = [quoting.DocumentAdjustment(_adjustment(each), _tax(tax)) for each, tax in document.adjustments]
    return quoting.total(lines(document), adjustments, policy, Decimal(document.prepaid))


def lines(document: OracleDocument) -> list[quoting.Line]:
    """The lines of a document as the application has them."""
    return [
        quoting.Line(
            Decimal(line.quantity),
            Decimal(line.price),
            Decimal(line.per),
            _tax(line.tax),
            _decimal(line.stated_tax),
            [_adjustment(each) for each in line.adjustments],
        )
        for line in document.lines
    ]


def difference(document: OracleDocument) -> str | None:
    """Where application and oracle differ about a document. Both may refuse it for the same reason."""
    try:
        computed = totals(document)
    except quoting.NoBase as refusal:
        try:
            quote_oracle.figures(document)
        except quote_oracle.NothingToTakeItOf as expected:
            return None if expected.args == (refusal.index,) else f"another adjustment has no base in {document}"
        return f"refused, but adjustment {refusal.index} has a base in {document}"
    try:
        return quote_oracle.compare(document, computed)
    except quote_oracle.NothingToTakeItOf as expected:
        return f"not refused, but adjustment {expected} has no base in {document}"


def _decimal(text: str | None) -> Decimal | None:
    return None if text is None else Decimal(text)


def _tax(tax: OracleTax) -> quoting.Tax:
    return quoting.Tax(tax.category, _decimal(tax.rate), tax.included)


def _adjustment(given: OracleAdjustment) -> quoting.Adjustment:
    return quoting.Adjustment(_decimal(given.amount), _decimal(given.percent), _decimal(given.base))


def main(count: int, seed: int) -> int:
    """Compare so many documents; the exit status."""
    seen: Counter[str] = Counter()
    for number, document in enumerate(quote_oracle.documents(seed, count)):
        found = difference(document)
        if found is not None:
            print(f"document {number} of seed {seed}: {found}", file=sys.stderr)  # noqa: T201 - a program that prints its result
            return 1
        seen["lines"] += len(document.lines)
        seen["document adjustments"] += len(document.adjustments)
        seen[f"level {document.level}"] += 1
        seen[f"mode {document.mode}"] += 1
        seen[f"{document.digits} digits"] += 1
        taxes = [line.tax for line in document.lines] + [tax for _, tax in document.adjustments]
        seen["with tax-inclusive amounts"] += any(tax.included for tax in taxes)
        seen["with cash rounding"] += document.increment is not None
    print(f"{count} documents of seed {seed}: no difference; {dict(sorted(seen.items()))}")  # noqa: T201 - a program that prints its result
    return 0


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), int(sys.argv[2])))
