"""The pure rule against the words of the specification, on thousands of small, crowded ledgers."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import pairwise
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app import timeline
from app.timeline import Outcome, Row
from tests.support.effort import examples

DAYS = [datetime(2026, 1, day, tzinfo=UTC) for day in range(1, 7)]
QUANTITY = Decimal(5)


@st.composite
def ledgers(draw: st.DrawFn) -> list[Row]:
    """Rows that crowd into a few days, so that every place of the rule has to decide."""
    size = draw(st.integers(1, 7))
    rows = []
    for seq in range(1, size + 1):
        start = draw(st.integers(0, 4))
        end = draw(st.none() | st.integers(start + 1, 5))
        retired = draw(st.none() | st.none() | st.integers(seq + 1, size + 2))
        rows.append(
            Row(
                id=UUID(int=seq),
                amount=draw(st.none() | st.integers(1, 3).map(Decimal)),
                per=Decimal(1),
                min_quantity=draw(st.sampled_from([Decimal(1), Decimal(5), Decimal(6)])),
                tax_rate=None,
                tax=None,
                tax_included=True,
                valid_from=DAYS[start],
                valid_to=None if end is None else DAYS[end],
                seq=seq,
                retired_seq=retired,
                successor_id=draw(st.none() | st.just(UUID(int=99))) if retired else None,
            )
        )
    return rows


def oracle(rows: list[Row], at: datetime, known: int, quantity: Decimal) -> Row | None:
    """Which row answers, by the specification's words."""
    best: Row | None = None
    for row in rows:
        visible = row.seq <= known and not (row.retired_seq is not None and row.retired_seq <= known)
        inside = row.valid_from <= at and not (row.valid_to is not None and row.valid_to <= at)
        if not visible or not inside or row.min_quantity > quantity:
            continue
        if best is None:
            best = row
        elif (row.valid_to is None) != (best.valid_to is None):
            best = best if row.valid_to is None else row
        elif row.min_quantity != best.min_quantity:
            best = row if row.min_quantity > best.min_quantity else best
        elif row.valid_from != best.valid_from:
            best = row if row.valid_from > best.valid_from else best
        else:
            best = row if row.seq > best.seq else best
    return best


@settings(max_examples=examples(150, of_fuzz=10), deadline=None)
@given(ledgers(), st.integers(0, 9), st.sampled_from([Decimal(1), QUANTITY, Decimal(100)]))
def test_answers_steps_and_explanations_follow_the_rule(rows: list[Row], known: int, quantity: Decimal) -> None:
    playing = timeline.in_play(rows, known_seq=known, quantity=quantity)
    steps = list(timeline.steps(playing))
    assert (steps[0].start, steps[-1].end) == (None, None)
    assert all(before.end == after.start and before.row is not after.row for before, after in pairwise(steps))
    for at in [DAYS[0] - timedelta(days=1), *DAYS, *(day - timedelta(microseconds=1) for day in DAYS)]:
        expected = oracle(rows, at, known, quantity)
        assert timeline.answer(playing, at) is expected
        (step,) = (s for s in steps if (s.start is None or s.start <= at) and (s.end is None or at < s.end))
        assert step.row is expected
        explained = timeline.explain(rows, at=at, known_seq=known, quantity=quantity)
        assert {row.id for row, _ in explained} == {row.id for row in rows if row.seq <= known}
        assert [row for row, outcome in explained if outcome is Outcome.ANSWERS] == ([expected] if expected else [])
        for row, outcome in explained:
            retired = row.retired_seq is not None and row.retired_seq <= known
            assert retired == (outcome in {Outcome.SUPERSEDED, Outcome.VOIDED})
            if not retired:
                assert (row.min_quantity > quantity) == (outcome is Outcome.QUANTITY_TOO_SMALL)


@settings(max_examples=examples(150, of_fuzz=10), deadline=None)
@given(ledgers(), st.integers(1, 5), st.integers(1, 4))
def test_the_prior_price_is_the_lowest_of_the_window(rows: list[Row], reduced: int, days: int) -> None:
    playing = timeline.in_play(rows, known_seq=9, quantity=QUANTITY)
    start = DAYS[reduced] - timedelta(days=days)
    if all(row.valid_from > start for row in playing):
        with pytest.raises(timeline.HistoryTooShort):
            timeline.prior_price(playing, reduced_at=DAYS[reduced], days=days)
        return
    found = [oracle(rows, day, 9, QUANTITY) for day in [start, *DAYS] if start <= day < DAYS[reduced]]
    amounts = [row.amount for row in found if row is not None and row.amount is not None]
    lowest = timeline.prior_price(playing, reduced_at=DAYS[reduced], days=days)
    assert (lowest.row.amount if lowest else None) == min(amounts, default=None)
    if lowest is not None:
        assert start <= lowest.start < lowest.end <= DAYS[reduced]
        assert oracle(rows, lowest.start, 9, QUANTITY) is lowest.row


@pytest.mark.parametrize(
    ("start", "end", "expected"),
    [
        (None, None, [(None, 1), (1, 3), (3, None)]),
        (0, 4, [(0, 1), (1, 3), (3, 4)]),
        (1, 3, [(1, 3)]),
        (2, None, [(2, 3), (3, None)]),
        (None, 1, [(None, 1)]),
    ],
)
def test_steps_are_cut_to_a_window(
    start: int | None, end: int | None, expected: list[tuple[int | None, int | None]]
) -> None:
    def day(place: int | None) -> datetime | None:
        return None if place is None else DAYS[place]

    whole = [timeline.Step(day(a), day(b), None) for a, b in [(None, 1), (1, 3), (3, None)]]
    cut = [(step.start, step.end) for step in timeline.between(whole, day(start), day(end))]
    assert cut == [(day(a), day(b)) for a, b in expected]
