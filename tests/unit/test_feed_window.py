"""The window answers as a list of all changes would, as far back as it goes, and never grows beyond its bounds."""

import gc
import random
import weakref
from datetime import UTC, datetime, timedelta

import pytest

from app import feed_window
from app.feed_position import Position
from app.feed_window import FeedWindow, Question, RenderedChange

START = datetime(2026, 11, 22, 9, 30, tzinfo=UTC)
TYPES = ("item.created", "price.recorded", "price.voided")


def at(seq: int) -> datetime:
    return START + timedelta(milliseconds=seq)


def change(seq: int, chance: random.Random) -> RenderedChange:
    return RenderedChange(seq, at(seq), chance.choice(TYPES), b"x" * chance.randrange(50))


@pytest.mark.parametrize("seed", range(20))
def test_it_answers_as_the_whole_log_would(seed: int) -> None:
    chance = random.Random(seed)  # noqa: S311 - not for secrets
    most_changes, most_bytes = chance.randrange(1, 30), chance.randrange(1, 600)
    window = FeedWindow(most_changes, most_bytes)
    start = chance.randrange(100)
    window.start_at(Position(start, at(start)))
    log: list[RenderedChange] = []
    for _ in range(60):
        log += (batch := [change(start + len(log) + number, chance) for number in range(1, chance.randrange(2, 9))])
        window.extend(batch)
        head = start + len(log)
        assert window.seq == head
        assert len(window) <= most_changes
        kept = log[len(log) - len(window) :]
        assert sum(len(one.document) for one in kept) <= most_bytes
        assert window.at == at(head)
        for _ in range(20):
            types = chance.choice([None, frozenset(chance.sample(TYPES, 2))])
            question = Question(chance.randrange(start - 2, head + 3), chance.randrange(1, 12), types)
            page = window.page(question)
            assert (page is not None) == (head - len(window) <= question.after <= head)
            if page is None:
                continue
            wanted = [one for one in log if one.seq > question.after and (types is None or one.type in types)]
            assert list(page.changes) == wanted[: question.limit]
            assert page.next_after == (page.changes[-1].seq if len(page.changes) == question.limit else head)
            assert page.next_after_at == at(page.next_after)
            assert window.page(question._replace(after_at=at(question.after))) is page, "it is of this ledger"
            assert window.page(question._replace(after_at=at(question.after + 1))) is None, "it is of another"
            assert window.page(question) is page, "who asks the same shares the answer"


def test_it_keeps_as_much_as_it_may() -> None:
    window = FeedWindow(3, 100)
    window.extend([RenderedChange(seq, at(seq), "item.created", b"x" * 10) for seq in range(1, 6)])
    assert len(window) == 3
    window.extend([RenderedChange(6, at(6), "item.created", b"x" * 85)])
    assert len(window) == 2
    window.extend([RenderedChange(7, at(7), "item.created", b"x" * 101)])
    assert (len(window), window.seq, window.at) == (0, 7, at(7)), "one that is too large by itself is not kept"
    window.extend([RenderedChange(8, at(8), "item.created", b"")])
    assert len(window) == 1


@pytest.mark.parametrize("seq", [1, 3])
def test_a_gap_or_a_repetition_is_refused(seq: int) -> None:
    window = FeedWindow(3, 100)
    window.start_at(Position(1, at(1)))
    with pytest.raises(ValueError, match="does not come after 1"):
        window.extend([RenderedChange(seq, at(seq), "item.created", b"")])


def test_starting_again_forgets() -> None:
    window = FeedWindow(3, 100)
    window.extend([RenderedChange(1, at(1), "item.created", b"{}")])
    assert window.page(Question(0, 10)) is not None
    window.start_at(Position(1, at(1)))
    assert window.page(Question(0, 10)) is None
    page = window.page(Question(1, 10))
    assert page is not None
    assert page.json == b'{"changes":[],"next_after":1,"next_after_at":"2026-11-22T09:30:00.001000Z","head":1}'
    window.extend([RenderedChange(2, at(2), "price.voided", b"{}")])
    page = window.page(Question(1, 10))
    assert page is not None
    assert page.events == b"id: 2@2026-11-22T09:30:00.002000Z\nevent: price.voided\ndata: {}\n\n"


def test_a_page_ends_with_the_change_that_takes_it_to_its_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed_window, "PAGE_BYTES", 100)
    window = FeedWindow(100, 10_000)
    window.extend([RenderedChange(seq, at(seq), TYPES[seq % 2], b"x" * 40) for seq in range(1, 11)])
    page = window.page(Question(0, 10))
    assert page is not None
    assert ([change.seq for change in page.changes], page.next_after) == ([1, 2, 3], 3)
    page = window.page(Question(3, 10, frozenset(TYPES[:1])))
    assert page is not None
    assert ([change.seq for change in page.changes], page.next_after) == ([4, 6, 8], 8)
    large = FeedWindow(100, 10_000)
    large.extend([RenderedChange(seq, at(seq), TYPES[0], b"x" * 400) for seq in range(1, 3)])
    page = large.page(Question(0, 10))
    assert page is not None
    assert page.next_after == 1, "one change at the least"


def test_answers_that_are_kept_are_bounded_in_bytes() -> None:
    window = FeedWindow(10_000, 16 * 2**20)
    window.extend([RenderedChange(seq, at(seq), TYPES[0], b"x" * 16_000) for seq in range(1, 1001)])
    pages = [window.page(Question(after, 1000)) for after in range(900)]
    alive = [weakref.ref(page) for page in pages if page is not None]
    page = pages[-1]
    assert page is not None
    assert window.page(Question(899, 1000)) is page, "those who ask the same share it"
    del page, pages
    gc.collect()
    kept = [page for ref in alive if (page := ref()) is not None]
    assert 1 <= len(kept) <= 8
    assert sum(len(page.json) + len(page.events) for page in kept) < 17 * 2**20
