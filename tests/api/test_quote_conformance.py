"""Invoices, credit notes and orders that nobody here wrote come out to the cent, and verify.

Once with prices stated in the request, once with an item and a price row for each line; adjustments as amounts, and as
percentages where the source has some. ``UPDATE_CONFORMANCE=1`` writes what is found to docs/conformance.md.
"""

import os
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.support import conformance

pytestmark = pytest.mark.long

Client = httpx2.AsyncClient
Document = dict[str, Any]
Figures = dict[str, Any]

FILES = ("xrechnung", "zugferd", "gobl")
RATED = ("S", "L", "M")
PAGE = Path(__file__).parents[2] / "docs" / "conformance.md"

NOT_PAYABLE = ("retained", "third_party_payments", "rounding")
"""What changes the amount to be paid and is in no quote: there, what is payable must be the gross amount."""

HEAD = """# Invoices that must come out to the cent

`make test-long` computes every document below with `POST /v1/quotes`: once with its prices stated, and once from
items with a price row for each line. It compares each line's amount, each tax group, net, tax, gross and payable with
what was published, sends each answer to `quotes:verify`, and fails unless this page is what it found. Where a source
states a percentage, the document is computed twice: with the amount, and with the percentage.
[How totals are computed](totals.md) says by which rules.

The documents are invoices, credit notes, orders and a delivery note of three public collections, read as figures from
`CONFORMANCE_DIR` (default `../shared/conformance`). Their texts are not part of this repository.

- `xrechnung.jsonl`: <https://github.com/itplr-kosit/xrechnung-testsuite> at 5528afa, Apache-2.0
- `zugferd.jsonl`: <https://github.com/ZUGFeRD/corpus> at 47b61be, Apache-2.0
- `gobl.jsonl`: <https://github.com/invopop/gobl> at 7a4ad62, Apache-2.0

Five documents include what a quote has no field for and their payable amount shows: withheld tax, payments for
others, and a rounding by hand. There, gross less prepaid is compared.

This page is written by `UPDATE_CONFORMANCE=1 ./scripts/uv run pytest -n0 -m long tests/api/test_quote_conformance.py`.

Beyond these, `./scripts/uv run python -m tests.support.quote_fuzz 100000 20261125` computes random documents of every
level, mode and number of digits a second time, in fractions, from code that shares nothing with the service: 100,000
documents of 325,355 lines, no difference (2026-11-25). `make test` does 2,000 of them.

"""

NOT_VALID = "zugferd/not_validating_full_invoice_based_onTest_EeISI_300_CENfullmodel"
SURCHARGE = "an equivalence surcharge is added to the rate of a line; a quote has one tax for a line"
TWO_TAXES = "its lines bear a central and a state tax; a quote has one tax for a line"
INSURANCE = "insurance tax is in the line amounts, but in no unit price"

REASONS = {
    "gobl/be/invoice-peppol": "taxes were added before they were rounded; its groups, which come out, add up otherwise",
    "gobl/es/invoice-es-nl-b2b": "lines of categories O and G are shown as one group; a quote keeps them apart",
    "xrechnung/03.01a": "245 x 0.1973 is 48.3385; line 13 says 48.33",
    "xrechnung/03.04a": "lines 2 and 3 are each 0.01 above quantity x price",
    "xrechnung/03.05a": "2100 x 3.2916 is 6912.36; line 2 says 6912.37",
    "xrechnung/01.06_minimal": "19 % of 3986.34 is 757.4046; the tax says 757.41",
    "zugferd/EN16931_1_Teilrechnung": "20 x 2.77 is 55.40; line 4 says 55.46",
    "zugferd/EN16931_Kraftfahrversicherung_Bruttopreise": INSURANCE,
    "zugferd/EN16931_Sachversicherung_berechneter_Steuersatz": INSURANCE,
    NOT_VALID: "invalid by its own name, and of unclear licence; no figures were taken",
    "zugferd/ubl-tc434-creditnote1": "comes from a collection under EUPL-1.2; no figures were taken",
    "gobl/es/invoice-es-bypass": "its taxes are set by hand, to show that they can be",
    "gobl/es/invoice-es-es-tbai-equivalence": SURCHARGE,
    "gobl/es/invoice-es-es-vateqs-provider": SURCHARGE,
    "gobl/in/invoice-in-in-simplified": TWO_TAXES,
    "gobl/in/invoice-in-in-stdr": TWO_TAXES,
}
"""Why documents are excluded, or a figure of them is not compared."""


@dataclass
class Found:
    """What a file holds."""

    documents: int
    reproduced: list[Document]
    partly: dict[str, set[str]]
    excluded: list[str]
    lines: int
    groups: int


def amount(adjustment: Document) -> Decimal:
    """Signed as in a request: an allowance is taken off."""
    return Decimal(adjustment["amount"]) * (-1 if adjustment["kind"] == "allowance" else 1)


def adjusted(given: Document, *, percent: bool, base: str | None = None) -> Document:
    """An adjustment of a request, as a percentage if that is wanted and stated."""
    if percent and "percent" in given:
        sign = -1 if given["kind"] == "allowance" else 1
        return {"percent": str(sign * Decimal(given["percent"])), "base": given.get("base", base)}
    return {"amount": str(amount(given))}


def taxed(given: Document) -> Document:
    """Category and rate as stated; a category without tax may come without a rate."""
    return {"tax_category": given["tax_category"], "tax_rate": given["tax_rate"]}


def of_document(document: Document, *, percent: bool) -> list[Document]:
    """The adjustments of the whole document. A base that is not stated is the sum of all lines, whatever their tax."""
    total = document["expected"]["line_total"]
    return [{**adjusted(each, percent=percent, base=total), **taxed(each)} for each in document["adjustments"]]


def stated(document: Document, *, percent: bool) -> Document:
    """The request with prices stated."""
    return {
        "currency": document["currency"],
        "tax_included": document["tax_included"],
        "prepaid": document["expected"].get("prepaid"),
        "lines": [
            {
                **{name: line[name] for name in ("quantity", "unit_price", "per")},
                **taxed(line),
                "adjustments": [adjusted(each, percent=percent) for each in line.get("adjustments", [])],
            }
            for line in document["lines"]
        ],
        "adjustments": of_document(document, percent=percent),
    }


async def stored(client: Client, document: Document, number: int) -> None:
    """An item with a price row for each line, in a book of the document's kind."""
    for place, line in enumerate(document["lines"]):
        row = {"book": book(document), "amount": line["unit_price"], "per": line["per"], "min_quantity": "0.0001"}
        if line["tax_rate"] is not None:
            row["tax_rate"] = line["tax_rate"]
        # A price that states no tax, of an item whose category has a rate: no tax is stated.
        category = line["tax_category"] or "S"
        item = {"sku": f"{number}-{place}", "name": "x", "tax_category": category, "price": row}
        answer = await client.post("/v1/items", json=item)
        assert answer.status_code == 201, answer.text


def book(document: Document) -> str:
    return str(document["currency"]).lower() + ("-included" if document["tax_included"] else "")


def by_items(document: Document, number: int, *, percent: bool) -> Document:
    """The request by items: neither prices nor tax are stated."""
    request = stated(document, percent=percent)
    of_price = ("unit_price", "per", "tax_category", "tax_rate")
    lines = [
        {"item": f"sku:{number}-{place}", **{name: line[name] for name in line if name not in of_price}}
        for place, line in enumerate(request["lines"])
    ]
    del request["currency"]
    if document["lines"]:
        del request["tax_included"]  # The book says so.
    return {**request, "book": book(document), "lines": lines}


def differences(document: Document, quote: Document) -> set[str]:
    """The figures that are not as published."""
    expected = document["expected"]
    side = "expected_gross" if document["tax_included"] else "expected_net"
    pairs = list(zip(document["lines"], quote["lines"], strict=True))
    published: Figures = {
        "groups": groups(expected["groups"]),
        "lines": [Decimal(line[side]) for line, _ in pairs],
        "adjustments": [amount(each) for each in adjustments(document)],
        **{name: Decimal(expected[name]) for name in TOTALS if name in expected},
    }
    if any(name in expected for name in NOT_PAYABLE):
        published["payable"] = published["gross"] - Decimal(expected.get("prepaid", 0))
    found: Figures = {
        "groups": groups(quote["tax_groups"]),
        "lines": [Decimal(line["amount"]) for _, line in pairs],
        "adjustments": [Decimal(each["amount"]) for each in adjustments(quote)],
        "line_total": sum((Decimal(line["amount"]) for _, line in pairs), Decimal(0)),
        "allowance_total": -sum_of(document, quote, "allowance"),
        "charge_total": sum_of(document, quote, "charge"),
        **{name: Decimal(quote[name]) for name in ("net", "tax", "gross", "prepaid", "payable")},
    }
    return {name for name in published if found[name] != published[name]}


TOTALS = ("line_total", "allowance_total", "charge_total", "net", "tax", "gross", "prepaid", "payable")


def adjustments(document: Document) -> list[Document]:
    """Those of the lines, then those of the document."""
    of_lines = [each for line in document["lines"] for each in line.get("adjustments", [])]
    return [*of_lines, *document["adjustments"]]


def sum_of(document: Document, quote: Document, kind: str) -> Decimal:
    """What the document's adjustments of a kind come to."""
    pairs = zip(document["adjustments"], quote["adjustments"], strict=True)
    return sum((Decimal(answered["amount"]) for given, answered in pairs if given["kind"] == kind), Decimal(0))


def groups(given: list[Document]) -> Counter[tuple[Any, ...]]:
    return Counter(
        (group["tax_category"], Decimal(group["tax_rate"] or 0), Decimal(group["base"]), Decimal(group["tax"]))
        for group in given
    )


async def computed(client: Client, request: Document) -> Document:
    """The answer, which must verify."""
    answer = await client.post("/v1/quotes", json=request)
    assert answer.status_code == 200, (request, answer.text)
    quote: Document = answer.json()
    verification = await client.post("/v1/quotes:verify", content=answer.content, headers=JSON)
    assert verification.json() == {"matches": True, "difference": None}, quote
    return quote


JSON = {"content-type": "application/json"}


def table(found: dict[str, Found]) -> str:
    """The page's tables."""
    rows = [
        "| file | documents | reproduced | reproduced in part | excluded | lines | tax groups |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    sums: Counter[str] = Counter()
    for name, result in found.items():
        counts = {
            "documents": result.documents,
            "reproduced": len(result.reproduced),
            "partly": len(result.partly),
            "excluded": len(result.excluded),
            "lines": result.lines,
            "groups": result.groups,
        }
        sums.update(counts)
        rows.append(f"| `{name}.jsonl` | {' | '.join(map(str, counts.values()))} |")
    rows.append(f"| all | {' | '.join(map(str, sums.values()))} |")
    rows += ["", "Reproduced in part: the figures named are left out of the comparison.", ""]
    rows += ["| document | left out | why |", "| --- | --- | --- |"]
    rows += [
        f"| {name} | {', '.join(sorted(wrong))} | {REASONS[name]} |"
        for result in found.values()
        for name, wrong in result.partly.items()
    ]
    rows += ["", "Excluded, and not computed:", "", "| document | why |", "| --- | --- |"]
    rows += [f"| {name} | {REASONS[name]} |" for result in found.values() for name in result.excluded]
    return "\n".join(rows) + "\n"


async def test_published_documents_come_out_to_the_cent(
    client: Client, record_property: Callable[[str, object], None]
) -> None:
    given = {name: conformance.documents(f"quotes/{name}.jsonl") for name in FILES}
    kept = [document for documents in given.values() for document in documents if "excluded" not in document]
    for key, of_book in {book(document): document for document in kept}.items():
        fields = {"key": key, "name": key, "currency": of_book["currency"], "tax_included": of_book["tax_included"]}
        assert (await client.post("/v1/books", json=fields)).status_code == 201
    partly: dict[str, set[str]] = {}
    for number, document in enumerate(kept):
        await stored(client, document, number)
        for percent in {False, any("percent" in each for each in adjustments(document))}:
            quote = await computed(client, stated(document, percent=percent))
            from_items = await computed(client, by_items(document, number, percent=percent))
            wrong = differences(document, quote)
            assert wrong == differences(document, from_items)
            assert wrong <= set(document.get("not_compared", {})), (document["id"], percent)
            if wrong:
                partly[document["id"]] = wrong
            assert all(line["price_id"] for line in from_items["lines"])
            same = ("net", "tax", "gross", "payable", "tax_groups", "adjustments")
            assert [from_items[figure] for figure in same] == [quote[figure] for figure in same]

    found = {name: of_file(documents, partly) for name, documents in given.items()}
    page = HEAD + table(found)
    counts = f"{len(kept)} of {sum(map(len, given.values()))} published documents come out"
    record_property("summary", f"quotes: {counts}, {len(partly)} of them but for figures that contradict themselves")
    if os.environ.get("UPDATE_CONFORMANCE"):
        PAGE.write_text(page)
    assert page == PAGE.read_text(), "UPDATE_CONFORMANCE=1 writes the page anew"


def of_file(documents: list[Document], partly: dict[str, set[str]]) -> Found:
    """What a file holds, all of whose documents came out or are excluded."""
    kept = [document for document in documents if "excluded" not in document]
    return Found(
        len(documents),
        [document for document in kept if document["id"] not in partly],
        {document["id"]: partly[document["id"]] for document in kept if document["id"] in partly},
        [document["id"] for document in documents if "excluded" in document],
        sum(len(document["lines"]) for document in kept),
        sum(len(document["expected"]["groups"]) for document in kept),
    )
