"""Minor units against a list that nobody here wrote."""

import pytest

from app import money
from tests.support import conformance


def test_minor_units_of_every_current_currency() -> None:
    rows = conformance.rows("prices/iso4217.csv")
    assert len(rows) == 178
    for row in rows:
        if row["minor_units"]:
            assert money.minor_units(row["code"]) == int(row["minor_units"]), row
        else:
            with pytest.raises(KeyError):
                money.minor_units(row["code"])
