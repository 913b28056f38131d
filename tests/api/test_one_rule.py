"""One rule, asked in every way: random ledgers through HTTP against an oracle of ten lines.

The machine records rows, corrects, voids and renames at random, and asks for prices, lookups, lists, steps, schedules,
prior prices and explanations at instants around every edge, now and as known at every earlier seq.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from urllib.parse import urlencode

import anyio.from_thread
import httpx2
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from sqlalchemy.engine import URL

from app.main import create_app
from app.settings import Settings
from tests.conftest import CLEAR, make_settings
from tests.support import postgres
from tests.support.effort import examples

DAY = timedelta(days=1)
MICRO = timedelta(microseconds=1)
# Days around both clock changes in Berlin, leap day, new year, and instants a microsecond apart.
EDGES = sorted(
    {
        instant + shift
        for instant in (
            datetime(2023, 12, 31, 23, tzinfo=UTC),
            datetime(2024, 2, 29, tzinfo=UTC),
            datetime(2024, 3, 31, 1, tzinfo=UTC),
            datetime(2024, 4, 15, tzinfo=UTC),
            datetime(2024, 10, 27, 1, tzinfo=UTC),
        )
        for shift in (timedelta(), MICRO, DAY)
    }
)
ASKED = sorted({edge + shift for edge in EDGES for shift in (-MICRO, timedelta(), MICRO)})
QUANTITIES = ["1", "5", "10.5", "100"]
BOOKS = ["default", "other"]
ITEMS = ["a", "b"]
# Most of what happens, happens to one item in one book, so that rows meet.
SOME_ITEM = st.sampled_from(["a", "a", "a", "b"])
SOME_BOOK = st.sampled_from(["default", "default", "default", "other"])

Terms = tuple[str | None, str, datetime, datetime | None]
TERMS = st.tuples(
    st.none() | st.integers(0, 9).map(str),
    st.sampled_from(["1", "1", "10", "0.5"]),
    # Often the same few starts, so that only the later places of the rule decide.
    st.sampled_from([*EDGES[:2] * 5, *EDGES]),
    st.none() | st.sampled_from(EDGES),
)


@dataclass
class Recorded:
    """A row as the oracle remembers it."""

    id: str
    item: str
    book: str
    amount: str | None
    min_quantity: Decimal
    start: datetime
    end: datetime | None
    seq: int
    retired: float = float("inf")


def oracle(rows: list[Recorded], at: datetime, known: int, quantity: Decimal) -> Recorded | None:
    """Which row answers, by the specification's words."""
    best: Recorded | None = None
    for row in rows:
        known_then = row.seq <= known < row.retired
        if not known_then or row.min_quantity > quantity or row.start > at or (row.end and row.end <= at):
            continue
        if best is None:
            best = row
        elif (row.end is None) != (best.end is None):
            best = best if row.end is None else row
        else:
            best = max(best, row, key=lambda r: (r.min_quantity, r.start, r.seq))
    return best


def iso(instant: datetime) -> str:
    return instant.isoformat().replace("+00:00", "Z")


class Api:
    """A synchronous client of an application that runs in another thread."""

    def __init__(self, portal: anyio.from_thread.BlockingPortal, client: httpx2.AsyncClient) -> None:
        self._portal = portal
        self._client = client

    def __call__(self, method: str, path: str, body: Any = None, **query: Any) -> httpx2.Response:
        address = f"{path}?{urlencode(query)}" if query else path
        headers = {"If-Match": "*"}
        return self._portal.call(lambda: self._client.request(method, address, json=body, headers=headers))


@contextmanager
def api_of(configuration: Settings) -> Iterator[Api]:
    app = create_app(configuration)
    transport = httpx2.ASGITransport(app=app)
    with (
        anyio.from_thread.start_blocking_portal() as portal,
        portal.wrap_async_context_manager(app.router.lifespan_context(app)),
        portal.wrap_async_context_manager(
            httpx2.AsyncClient(transport=transport, base_url="http://pricebook.test")
        ) as client,
    ):
        yield Api(portal, client)


class Ledger(RuleBasedStateMachine):
    """Random changes and random questions."""

    api: Api
    owner: URL

    @initialize()
    def begin(self) -> None:
        postgres.execute(self.owner, CLEAR)
        self.rows: list[Recorded] = []
        self.api(
            "POST", "/v1/books", {"key": "other", "name": "Other", "currency": "JPY", "time_zone": "Europe/Berlin"}
        )
        self.ids = {
            name: self.api("POST", "/v1/items", {"name": name, "sku": f"sku/{name}"}).json()["id"] for name in ITEMS
        }
        self.head = 4
        self.renamed = 0

    def of(self, item: str, book: str) -> list[Recorded]:
        return [row for row in self.rows if (row.item, row.book) == (item, book)]

    def in_force(self) -> list[Recorded]:
        return [row for row in self.rows if row.retired == float("inf")]

    @rule(item=SOME_ITEM, book=SOME_BOOK, terms=st.lists(TERMS, min_size=1, max_size=6))
    def record(self, item: str, book: str, terms: list[Terms]) -> None:
        for row in terms:
            self.record_one(item, book, *row, old=None)

    @precondition(lambda self: self.rows)
    @rule(terms=TERMS, data=st.data())
    def correct(self, terms: Terms, data: Any) -> None:
        old = data.draw(st.sampled_from(self.rows), label="superseded")
        self.record_one(old.item, old.book, *terms, old=old)

    def record_one(
        self,
        item: str,
        book: str,
        amount: str | None,
        least: str,
        start: datetime,
        end: datetime | None,
        old: Recorded | None,
    ) -> None:
        body = {
            "book": book,
            "amount": amount,
            "min_quantity": least,
            "valid_from": iso(start),
            "valid_to": iso(end) if end else None,
            "supersedes": old.id if old else None,
        }
        answer = self.api("POST", f"/v1/items/{self.ids[item]}/prices", body)
        if old is not None and old.retired != float("inf"):
            assert answer.status_code == 409
            return
        if end is not None and end <= start:
            assert answer.status_code == 422
            return
        assert answer.status_code == 201, answer.text
        row = answer.json()
        self.head += 1
        assert row["seq"] == self.head, "nothing else took a number, and failures took none"
        if old is not None:
            old.retired = self.head
        self.rows.append(Recorded(row["id"], item, book, row["amount"], Decimal(least), start, end, self.head))

    @precondition(lambda self: self.in_force())
    @rule(data=st.data())
    def void(self, data: Any) -> None:
        row = data.draw(st.sampled_from(self.in_force()), label="voided")
        answer = self.api("DELETE", f"/v1/prices/{row.id}")
        assert (answer.status_code, answer.json()["void"]) == (200, True)
        self.head += 1
        row.retired = self.head
        assert self.api("DELETE", f"/v1/prices/{row.id}").status_code == 409

    @rule(item=SOME_ITEM)
    def rename(self, item: str) -> None:
        self.renamed += 1
        assert self.api("PATCH", f"/v1/items/{self.ids[item]}", {"sku": f"{item}{self.renamed}"}).status_code == 200
        self.head += 1

    @rule(
        item=SOME_ITEM,
        book=SOME_BOOK,
        instants=st.lists(st.sampled_from(ASKED), min_size=5, max_size=5, unique=True),
        quantity=st.sampled_from(QUANTITIES),
        data=st.data(),
    )
    def ask(self, item: str, book: str, instants: list[datetime], quantity: str, data: Any) -> None:
        known = data.draw(st.just(self.head) | st.integers(4, self.head), label="known_seq")
        for at in instants:
            self.ask_at(item, book, at, quantity, known)

    def ask_at(self, item: str, book: str, at: datetime, quantity: str, known: int) -> None:
        expected = oracle(self.of(item, book), at, known, Decimal(quantity))
        query = {"book": book, "at": iso(at), "quantity": quantity, "known_seq": known}
        answer = self.api("GET", f"/v1/items/{self.ids[item]}/price", explain="true", **query)
        if expected is None:
            assert answer.json()["type"] == "/problems/no-price"
        elif expected.amount is None:
            assert answer.json()["type"] == "/problems/not-for-sale"
        else:
            price = answer.json()
            assert (price["price_id"], price["amount"], price["known_seq"]) == (expected.id, expected.amount, known)
            first, *others = price["explain"]
            assert (first["price_id"], first["outcome"]) == (expected.id, "answers")
            assert "answers" not in {other["outcome"] for other in others}
            assert len(price["explain"]) == sum(row.seq <= known for row in self.of(item, book))
            self.check_until(price, item, book, at, known, Decimal(quantity))
        steps = self.api(
            "GET", f"/v1/items/{self.ids[item]}/prices", book=book, quantity=quantity, known_seq=known
        ).json()["steps"]
        (step,) = (
            step
            for step in steps
            if (step["from"] is None or datetime.fromisoformat(step["from"]) <= at)
            and (step["to"] is None or at < datetime.fromisoformat(step["to"]))
        )
        assert step["price_id"] == (expected.id if expected else None)

    def check_until(self, price: Any, item: str, book: str, at: datetime, known: int, quantity: Decimal) -> None:
        """The boundary is the first later edge with another answer."""
        rows = self.of(item, book)
        later = [edge for edge in EDGES if edge > at]
        changed = (
            edge
            for edge in later
            if (found := oracle(rows, edge, known, quantity)) is None or found.id != price["price_id"]
        )
        first = next(changed, None)
        assert price["effective_until"] == (iso(first) if first else None)

    @rule(book=SOME_BOOK, at=st.sampled_from(ASKED))
    def ask_for_many(self, book: str, at: datetime) -> None:
        lines = [{"item": self.ids[item], "quantity": quantity} for item in ITEMS for quantity in QUANTITIES]
        found = self.api("POST", "/v1/prices:lookup", {"book": book, "at": iso(at), "lines": lines}).json()["prices"]
        expected = [
            oracle(self.of(item, book), at, self.head, Decimal(quantity)) for item in ITEMS for quantity in QUANTITIES
        ]
        assert [price.get("price_id", price.get("error")) for price in found] == [
            "no-price" if row is None else "not-for-sale" if row.amount is None else row.id for row in expected
        ]
        listed = self.api("GET", "/v1/items", book=book, at=iso(at)).json()["items"]
        assert {item["id"]: item["price"] and item["price"]["price_id"] for item in listed} == {
            self.ids[item]: row.id
            if (row := oracle(self.of(item, book), at, self.head, Decimal(1))) and row.amount
            else None
            for item in ITEMS
        }

    @rule(book=SOME_BOOK, limit=st.sampled_from([1, 3, 1000]))
    def ask_for_the_schedule(self, book: str, limit: int) -> None:
        def side(item: str, at: datetime) -> str | None:
            row = oracle(self.of(item, book), at, self.head, Decimal(1))
            return row.id if row else None

        expected = sorted(
            (iso(edge), self.ids[item], before, after)
            for edge in EDGES
            for item in ITEMS
            if (before := side(item, edge - MICRO)) != (after := side(item, edge))
        )
        found: list[Any] = []
        query: dict[str, Any] = {"book": book, "from": iso(EDGES[0]), "limit": limit}
        while True:
            page = self.api("GET", "/v1/schedule", **query).json()
            found += page["boundaries"]
            if page["next"] is None:
                break
            query["cursor"] = page["next"]
        ids = [
            tuple(side and side["price_id"] for side in (boundary["before"], boundary["after"])) for boundary in found
        ]
        assert [(b["at"], b["item_id"], *i) for b, i in zip(found, ids, strict=True)] == sorted(
            expected, key=lambda row: (datetime.fromisoformat(row[0]), row[1])
        )

    @rule(
        item=SOME_ITEM,
        book=SOME_BOOK,
        reduced_at=st.sampled_from(EDGES),
        days=st.sampled_from([1, 30, 60]),
    )
    def ask_for_the_prior_price(self, item: str, book: str, reduced_at: datetime, days: int) -> None:
        rows = self.of(item, book)
        start = reduced_at - days * DAY
        answer = self.api(
            "GET", f"/v1/items/{self.ids[item]}/prior-price", book=book, reduced_at=iso(reduced_at), days=days
        )
        relevant = [row for row in self.in_force() if row in rows and row.min_quantity <= 1]
        if not any(row.start <= start for row in relevant):
            assert answer.json()["type"] == "/problems/history-too-short"
            return
        instants = [start, *(edge for edge in EDGES if start < edge < reduced_at)]
        found = [oracle(rows, instant, self.head, Decimal(1)) for instant in instants]
        amounts = [Decimal(row.amount) for row in found if row is not None and row.amount is not None]
        if amounts:
            assert Decimal(answer.json()["amount"]) == min(amounts), answer.text
        else:
            assert answer.json()["type"] == "/problems/no-price"

    @invariant()
    def knows_its_head(self) -> None:
        if hasattr(self, "rows"):
            beyond = self.api("GET", f"/v1/items/{self.ids['a']}/price", known_seq=self.head + 1)
            assert beyond.json()["type"] == "/problems/unknown-seq"


def test_every_read_gives_the_answer_of_the_rule(service_url: URL) -> None:
    with api_of(make_settings(postgres.as_serving_role(service_url))) as api:
        machine = type("Bound", (Ledger,), {"api": api, "owner": service_url})
        run_state_machine_as_test(machine, settings=LIMITS)


LIMITS = settings(
    max_examples=examples(14, of_fuzz=200),
    stateful_step_count=20,
    report_multiple_bugs=False,
    deadline=None,
    derandomize=False,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
