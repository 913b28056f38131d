"""The newest changes, rendered once and kept in memory for all who wait for them."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import NamedTuple
from uuid import UUID

from app import instants
from app.feed_position import Position

PAGE_BYTES = 2**20
"""With the document that takes it there a page ends, also before its limit: ``next_after`` says where to go on."""

_PAGE_OVERHEAD_BYTES = 1000

_MOST_PAGES_BYTES = 8 * PAGE_BYTES
"""Documents of the answers that are kept until the next change; rendered in both forms they are twice that."""


class RenderedChange(NamedTuple):
    """A change as the feed answers it: ``document`` is JSON without line ends."""

    seq: int
    at: datetime
    type: str
    document: bytes
    item_id: UUID | None = None
    book: str | None = None


@dataclass(frozen=True)
class Page:
    """A page of the feed. All who ask the same share it, and what it is rendered to."""

    changes: Sequence[RenderedChange]
    next_after: int
    """The last change looked at, of any type: where to go on."""
    next_after_at: datetime | None
    """When that change was recorded; ``None`` before the first one."""
    head: int
    """The newest change there is."""

    @cached_property
    def size(self) -> int:
        """Bytes that it keeps in memory, about: without what it is rendered to, and never none."""
        return sum(len(change.document) for change in self.changes) + _PAGE_OVERHEAD_BYTES

    @cached_property
    def json(self) -> bytes:
        """The page as a JSON document."""
        documents = b",".join(change.document for change in self.changes)
        at = b"null" if self.next_after_at is None else b'"%b"' % instants.text(self.next_after_at).encode()
        return b'{"changes":[%b],"next_after":%d,"next_after_at":%b,"head":%d}' % (
            documents,
            self.next_after,
            at,
            self.head,
        )

    @cached_property
    def events(self) -> bytes:
        """The changes as server-sent events."""
        return b"".join(
            b"id: %b\nevent: %b\ndata: %b\n\n"
            % (Position(change.seq, change.at).event_id.encode(), change.type.encode(), _on_one_line(change.document))
            for change in self.changes
        )


def _on_one_line(document: bytes) -> bytes:
    # To JSON and to the standard of events these end no line; to many a client library they do.
    for character in ("\x85", "\u2028", "\u2029"):
        document = document.replace(character.encode(), b"\\u%04x" % ord(character))
    return document


class Question(NamedTuple):
    """What a consumer asks for. Without ``types`` it wants all of them.

    With ``after_at`` it wants them of the ledger that recorded the change ``after`` at that instant, and of no other.
    """

    after: int
    limit: int
    types: frozenset[str] | None = None
    after_at: datetime | None = None

    def following(self, page: Page) -> "Question":
        """What comes after the page, in the same ledger."""
        return self._replace(after=page.next_after, after_at=page.next_after_at)


class FeedWindow:
    """An unbroken run of changes that ends with the newest known one, bounded in number and bytes."""

    def __init__(self, most_changes: int, most_bytes: int) -> None:
        self._most_changes = most_changes
        self._most_bytes = most_bytes
        self.start_at(Position(0, None))

    def start_at(self, position: Position) -> None:
        """Forget everything; the next change is the one after ``position``."""
        self.seq = position.seq
        """The newest change known."""
        self._before_at = position.at
        self._changes: dict[int, RenderedChange] = {}
        self._bytes = 0
        self._forget_pages()

    def _forget_pages(self) -> None:
        self._pages: dict[Question, Page] = {}
        self._pages_bytes = 0

    def __len__(self) -> int:
        return len(self._changes)

    def extend(self, changes: Sequence[RenderedChange]) -> None:
        """Add the changes that come next; the oldest make room."""
        for change in changes:
            if change.seq != self.seq + 1:
                raise ValueError(f"change {change.seq} does not come after {self.seq}")
            self._changes[change.seq] = change
            self._bytes += len(change.document)
            self.seq = change.seq
        while len(self._changes) > self._most_changes or self._bytes > self._most_bytes:
            oldest = self._changes.pop(self.seq - len(self._changes) + 1)
            self._bytes -= len(oldest.document)
            self._before_at = oldest.at
        self._forget_pages()

    @property
    def at(self) -> datetime | None:
        """When the newest change known was recorded."""
        return self._at(self.seq)

    def _at(self, seq: int) -> datetime | None:
        return self._changes[seq].at if seq in self._changes else self._before_at

    def page(self, question: Question) -> Page | None:
        """The answer, or ``None`` if the window does not reach back that far, or not that far ahead, or is of another
        ledger than the one asked about: which of the two is the database's is not for the window to say.

        Those who wait mostly ask the same, so they share one page, and its one rendering.
        """
        if not self.seq - len(self._changes) <= question.after <= self.seq:
            return None
        if question.after_at is not None:
            if question.after_at != self._at(question.after):
                return None
            question = question._replace(after_at=None)
        if (page := self._pages.get(question)) is None:
            page = self._find(question)
            if self._pages_bytes + page.size > _MOST_PAGES_BYTES:
                self._forget_pages()
            self._pages[question] = page
            self._pages_bytes += page.size
        return page

    def _find(self, question: Question) -> Page:
        found: list[RenderedChange] = []
        looked_at, size = question.after, 0
        while looked_at < self.seq and len(found) < question.limit and size < PAGE_BYTES:
            looked_at += 1
            change = self._changes[looked_at]
            if question.types is None or change.type in question.types:
                found.append(change)
                size += len(change.document)
        return Page(found, looked_at, self._at(looked_at), self.seq)
