"""Random ledgers and random price lists, through HTTP, against a second opinion on what every row does.

``IMPORT_ORACLE_CASES`` (16) and ``IMPORT_ORACLE_SEED`` (1) make longer and other runs, and so does ``make fuzz``; a
failure names its seed.
"""

import os
import random
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import asyncpg
import httpx2
import pytest

from tests.conftest import CLEAR
from tests.support import import_fuzz, import_oracle
from tests.support.effort import examples
from tests.support.import_oracle import Item, NewItem, Plan, Price, Terms

Client = httpx2.AsyncClient
JSON = dict[str, Any]

CASES = int(os.environ.get("IMPORT_ORACLE_CASES", examples(16, of_fuzz=200)))
SEED = int(os.environ.get("IMPORT_ORACLE_SEED", "1"))
PARTS = 4

EVERYTHING = """
SELECT (SELECT seq FROM ledger), (SELECT count(*) FROM items), (SELECT count(*) FROM price_rows),
    (SELECT count(*) FROM price_retirements), (SELECT count(*) FROM changes), (SELECT count(*) FROM import_staging)
"""


class Case:
    """One ledger, as the oracle and as the service have it, and lists imported one after the other."""

    def __init__(self, client: Client, owner: asyncpg.Connection, chance: random.Random) -> None:
        self.client = client
        self.owner = owner
        self.chance = chance
        self.book = "list"
        self.zone = chance.choice(import_fuzz.ZONES)
        self.included = chance.random() < 0.5
        self.digits, self.currency = chance.choice([(2, "EUR"), (0, "JPY")])
        self.items: list[Item] = []
        self.ids: list[str] = []
        self.documents: list[JSON] = []
        """Every price row of the book, by seq, as it was answered when it was recorded."""
        self.gone: dict[int, str] = {}
        """Seqs of rows that are superseded or voided, and which."""

    async def call(self, method: str, path: str, expected: int, **options: Any) -> Any:
        answer = await self.client.request(method, path, **options)
        assert answer.status_code == expected, (method, path, answer.status_code, answer.text)
        return answer.json()

    async def build(self) -> None:
        """A ledger out of single writes."""
        chance = self.chance
        book: JSON = {"key": self.book, "name": "List", "currency": self.currency, "time_zone": self.zone}
        await self.call("POST", "/v1/books", 201, json=book | {"tax_included": self.included})
        for sku in import_fuzz.SKUS[: chance.randint(1, 4)]:
            gtin = import_fuzz.GTINS[len(self.items)] if chance.random() < 0.6 else None
            named = gtin is None or chance.random() < 0.8
            body: JSON = {"sku": sku if named else None, "gtin": gtin, "name": "x"}
            created = await self.call("POST", "/v1/items", 201, json=body)
            self.ids.append(created["id"])
            self.items.append(Item(body["sku"], gtin))
        for place, item_id in enumerate(self.ids):
            for _ in range(chance.randint(0, 4)):
                body = import_fuzz.price(chance) | {"book": self.book}
                if body.get("tax") and (body["amount"] is None or Decimal(body["amount"]) < 2):
                    body |= {"tax_included": False}
                document = await self.call("POST", f"/v1/items/{item_id}/prices", 201, json=body)
                self.documents.append(document)
                if chance.random() < 0.15:
                    await self.call("DELETE", f"/v1/prices/{document['id']}", 200)
                    self.gone[document["seq"]] = "voided"
            if chance.random() < 0.2:
                await self.call("DELETE", f"/v1/items/{item_id}", 200, headers={"if-match": '"1"'})
                self.items[place] = replace(self.items[place], archived=True)

    def prices(self) -> list[Price]:
        """What is in force, for the oracle."""

        def number(text: str | None) -> Decimal | None:
            return None if text is None else Decimal(text)

        def instant(text: str | None) -> datetime | None:
            return None if text is None else datetime.fromisoformat(text)

        return [
            Price(
                self.ids.index(document["item_id"]),
                Terms(
                    number(document["amount"]),
                    Decimal(document["per"]),
                    Decimal(document["min_quantity"]),
                    number(document["tax_rate"]),
                    number(document["tax"]),
                    document["tax_included"],
                    instant(document["valid_from"]),
                    instant(document["valid_to"]),
                ),
                document["seq"],
            )
            for document in self.documents
            if document["seq"] not in self.gone
        ]

    async def import_one(self) -> None:
        """Preview a list, compare the report, apply it, compare what was recorded."""
        file = import_fuzz.price_list(self.chance, included=self.included, time_zone=self.zone)
        before = await self.owner.fetchrow(EVERYTHING)
        expected = import_oracle.plan(self.items, self.prices(), file.rows, file.options, datetime.now(UTC))
        options: JSON = {"content": file.body, "headers": {"content-type": file.content_type}}
        run = await self.call("POST", "/v1/imports", 201, params=file.query | {"book": self.book}, **options)
        assert await self.owner.fetchrow(EVERYTHING) == before, "a preview writes nothing"
        context = (file.query, file.body.decode("utf-8", "replace"))
        assert run["base_seq"] == before["seq"]
        counts = expected.counts()
        # What is left as it is can be read, but is not counted.
        assert run["counts"] == (counts if file.options.end_missing else counts | {"missing": None}), context
        report = await self.report(run["id"])
        assert report == [import_oracle.report(verdict, self.digits) for verdict in expected.verdicts], context
        nameless = any(row["status"] == "error" and not self.is_about_no_missing_item(row) for row in report)
        if run["counts"]["error"] and (
            file.query["on_error"] == "abort" or (file.query["missing"] == "end" and nameless)
        ):
            problem = await self.call("POST", f"/v1/imports/{run['id']}:apply", 422)
            assert problem["type"] == "/problems/import-has-errors"
            assert await self.owner.fetchrow(EVERYTHING) == before
            return
        applied = await self.call("POST", f"/v1/imports/{run['id']}:apply", 200)
        assert applied["state"] == "applied"
        await self.compare_recorded(expected, applied, before["seq"])

    def is_about_no_missing_item(self, row: JSON) -> bool:
        """Whether a row with errors names an item that is there, or one that is not."""
        if any(code == "unknown-item" for _, code in row["errors"]):
            return True
        if row["sku"] is not None:
            return any(item.sku == row["sku"] for item in self.items)
        return any(item.gtin == row["gtin"] is not None for item in self.items)

    async def report(self, import_id: str) -> list[JSON]:
        """The whole report, in pages of a random size; errors as columns and codes."""
        rows: list[JSON] = []
        query: JSON = {"limit": self.chance.choice([1, 3, 1000])}
        while True:
            page = await self.call("GET", f"/v1/imports/{import_id}/rows", 200, params=query)
            rows += page["rows"]
            if page["next"] is None:
                break
            query["cursor"] = page["next"]
        for row in rows:
            row["errors"] = sorted(((error["column"], error["code"]) for error in row["errors"]), key=str)
        return rows

    async def compare_recorded(self, expected: Plan, run: JSON, base_seq: int) -> None:
        """One block of seqs, in the order of the file, and a ledger that holds the rows before and these."""
        steps = expected.steps
        block = (base_seq + 1, base_seq + len(steps)) if steps else (None, None)
        assert (run["first_seq"], run["last_seq"]) == block
        feed = await self.call("GET", "/v1/changes", 200, params={"after": base_seq, "limit": 1000})
        changes = feed["changes"]
        assert [change["seq"] for change in changes] == list(range(base_seq + 1, base_seq + 1 + len(steps)))
        assert {change["at"] for change in changes} <= {run["applied_at"]}
        for step, change in zip(steps, changes, strict=True):
            after = change["after"]
            if isinstance(step, NewItem):
                assert (change["type"], change["before"]) == ("item.created", None)
                own: JSON = {
                    "name": step.cells["name"],
                    "description": step.cells.get("description"),
                    "archived_at": None,
                }
                own |= {"sku": step.sku, "gtin": step.gtin, "unit": "C62", "tax_category": "S", "attributes": {}}
                assert after == after | own
                assert await self.call("GET", f"/v1/items/{after['id']}", 200) == after
                self.items.append(Item(step.sku, step.gtin))
                self.ids.append(after["id"])
                continue
            superseded = self.by_seq(step.supersedes) if step.supersedes else None
            assert (change["type"], change["before"]) == ("price.recorded", superseded)
            terms = replace(step.terms, starts=step.terms.starts or datetime.fromisoformat(run["applied_at"]))
            own = {"item_id": self.ids[step.item], "book": self.book, "reason": step.reason, "void": False}
            own |= {"supersedes": superseded and superseded["id"], "seq": change["seq"], "import_id": run["id"]}
            own |= {"recorded_at": run["applied_at"], "recorded_by": run["created_by"], "currency": self.currency}
            assert after == {"id": after["id"], **own, **import_oracle.document(terms, self.digits)}
            self.documents.append(after)
            if step.supersedes:
                self.gone[step.supersedes] = "superseded"
        await self.compare_ledger()

    def by_seq(self, seq: int) -> JSON:
        return next(document for document in self.documents if document["seq"] == seq)

    async def compare_ledger(self) -> None:
        for item_id in self.ids:
            query = {"rows": "true", "book": self.book}
            answer = await self.call("GET", f"/v1/items/{item_id}/prices", 200, params=query)
            assert answer["rows"] == [
                document | {"void": self.gone.get(document["seq"]) == "voided"}
                for document in self.documents
                if document["item_id"] == item_id
            ]


@pytest.mark.parametrize("part", range(PARTS))
async def test_imports_do_what_the_oracle_says(
    client: Client, owner: asyncpg.Connection, part: int, record_property: Callable[[str, object], None]
) -> None:
    imported = 0
    for seed in range(SEED + part, SEED + CASES, PARTS):
        chance = random.Random(seed)  # noqa: S311 - it is to be repeated
        await owner.execute(CLEAR)
        case = Case(client, owner, chance)
        try:
            await case.build()
            for _ in range(chance.randint(1, 4)):
                await case.import_one()
                imported += 1
        except AssertionError as error:
            error.add_note(f"IMPORT_ORACLE_SEED={seed} IMPORT_ORACLE_CASES=1")
            raise
    record_property("summary", f"import oracle: {imported} lists")
