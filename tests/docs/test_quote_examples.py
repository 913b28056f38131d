"""The documentation's example of a quote is true: figures, digest, and what the service makes of the same request."""

import hashlib
import json
from decimal import Decimal
from typing import Any

import httpx2

from app import quoting
from app.money import RoundingLevel, RoundingMode
from app.quoting import Adjustment, DocumentAdjustment, Line, Tax
from app.schemas import examples
from app.schemas.quote import Quote
from app.services import quote_documents


def tax(given: dict[str, Any]) -> Tax:
    return Tax(given["tax_category"], Decimal(given["tax_rate"]), given["tax_included"])


def adjustment(given: dict[str, Any]) -> Adjustment:
    if given["percent"] is None:
        return Adjustment(amount=Decimal(given["amount"]))
    return Adjustment(percent=Decimal(given["percent"]), base=given["base"] and Decimal(given["base"]))


def test_the_figures_are_those_of_the_arithmetic() -> None:
    stated = examples.QUOTE
    lines = [
        Line(
            Decimal(line["quantity"]),
            Decimal(line["unit_price"]),
            Decimal(line["per"]),
            tax(line),
            adjustments=[adjustment(each) for each in line["adjustments"]],
        )
        for line in stated["lines"]
    ]
    document = [DocumentAdjustment(adjustment(each), tax(each)) for each in stated["adjustments"]]
    rounding = stated["rounding"]
    policy = quoting.Policy(RoundingMode(rounding["mode"]), RoundingLevel(rounding["level"]), rounding["digits"])
    totals = quoting.total(lines, document, policy, Decimal(stated["prepaid"]))

    assert stated["algorithm"] == quoting.ALGORITHM
    for name in ("net", "tax", "gross", "cash_rounding", "prepaid", "payable"):
        assert str(getattr(totals, name).quantize(Decimal("0.01"))) == stated[name], name
    for entry, shown in zip(totals.lines + totals.adjustments, stated["lines"] + stated["adjustments"], strict=True):
        figures = [str(figure) for figure in (entry.amount, entry.net, entry.tax, entry.gross)]
        assert figures == [shown[name] for name in ("amount", "net", "tax", "gross")]
    (group,) = totals.groups
    assert [str(group.base), str(group.tax)] == [stated["tax_groups"][0][name] for name in ("base", "tax")]
    assert str(totals.lines[0].adjustments[0]) == stated["lines"][0]["adjustments"][0]["amount"]


def test_the_digest_is_that_of_the_service_and_of_what_the_page_says() -> None:
    document = json.loads(json.dumps(examples.QUOTE))
    stated = document.pop("digest")
    assert quote_documents.digest(Quote(**examples.QUOTE)) == stated
    for line in document["lines"]:
        del line["explain"]
    canonical = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    assert hashlib.sha256(canonical.encode()).hexdigest() == stated


async def test_the_service_answers_the_example_to_the_example(client: httpx2.AsyncClient) -> None:
    # The book of the examples has prices with tax; the one here, without.
    names = ("amount", "tax_rate", "tax_included", "valid_from", "valid_to")
    price = {name: examples.PRICE_ROW[name] for name in names}
    request = {**examples.QUOTE_REQUEST, "tax_included": examples.BOOK["tax_included"]}
    item = {name: examples.ITEM[name] for name in ("sku", "name")}
    created = (await client.post("/v1/items", json={**item, "price": price})).json()
    assert created.get("id"), created
    answer = (await client.post("/v1/quotes", json=request)).json()
    verified = (await client.post("/v1/quotes:verify", json=answer)).json()
    row = (await client.get(f"/v1/items/{created['id']}/prices", params={"rows": "true"})).json()["rows"][0]
    of_the_ledger = {"known_seq": row["seq"], "digest": answer["digest"]}
    expected = {**json.loads(json.dumps(examples.QUOTE)), **of_the_ledger}
    expected["lines"][0].update(item=created["id"], price_id=row["id"])
    assert answer == expected
    assert verified == examples.VERIFICATION
