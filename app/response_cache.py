"""Rendered answers kept in memory, and what makes each of them worth no more.

An answer is kept with what it depends on (its *tags*: the ids of its items, the key of its book) and with the seq that
it was made at. It is right until a change touches one of its tags, or until its boundary, and the two rules below make
sure that it is dropped by then. What a change touches is learnt from the follower, in the order of the seqs, and from
this process's own writes, between their commits and their answers.

**No raced fill.** A change may be followed while an answer that does not know it yet is on its way from the database.
So the cache remembers at which seq each tag was last touched (of the longest untouched it forgets that, and takes the
greatest forgotten seq for all of them), and stores an answer only if it was made at that seq or later. An answer made
at a seq that the follower has yet to come to is fine: whatever touches it has a greater seq, so the follower comes to
that after the answer was stored, and drops it then. (It also drops an answer that knows the change already. That costs
one read, and whoever trusted the numbers more would keep the answers of a ledger that was replaced.)

**No other ledger.** When the follower starts again, because changes were forgotten or the ledger was replaced, all
answers go, and a fill that had begun before is not stored, whatever its seq: it may be of the ledger that is gone.

An entry named by ``sku:`` needs no tag for its sku. For another item to get it, the item that had it must change.
"""

import time
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import ClassVar, Final, TypedDict
from uuid import UUID

from app import http_fields
from app.access import Scope

type Tag = UUID | str
"""The id of an item, the key of a book, or all items."""

ALL_ITEMS: Final = "all items"
"""What a list depends on besides the items that are on it: which there are, and what they are called. It is no key that
a book can have."""

type Headers = Sequence[tuple[bytes, bytes]]

_ENTRY_BYTES = 1_700
"""What an entry takes beside its body and tags, about: its headers, its place in the index, the objects around them."""

_TAG_BYTES = 400
"""What it takes to find an entry by one of its tags: a set of few, and a place in the index of sets."""

_LISTS_SHARE = 4
"""Lists take a quarter of the room at the most."""

_MOST_TOUCHES = 20_000


@dataclass(slots=True)
class Clocks:
    """What an application takes for the time. Tests set them."""

    wall: Callable[[], float] = time.time
    """Seconds since 1970."""
    monotonic: Callable[[], float] = time.monotonic


@dataclass(frozen=True, slots=True)
class Offer:
    """What a handler says of an answer that may be kept."""

    known_seq: int
    """The newest change that the answer can know of."""
    tags: tuple[Tag, ...]
    """What it depends on; empty for an answer that no change can touch."""
    most_seconds: int | None = None
    """How long HTTP caches may keep it at the most; ``None`` leaves its ``Cache-Control`` as it is."""
    at: datetime | None = None
    """The database's now that it was made at, if it is about now."""
    until: datetime | None = None
    """When it changes by itself. Needs ``at``."""
    is_price: bool = False
    """Whether it counts as the price of a single item."""
    is_list: bool = False
    """Whether it shares the room of lists, so that somebody who reads all pages of one does not empty the rest."""


@dataclass(slots=True)
class Fill:
    """A request whose answer may be kept, from before it asks the database. The handler may make an :class:`Offer`."""

    generation: int = -1
    wall: float = 0.0
    """The wall clock when it began, seconds since 1970."""
    monotonic: float = 0.0
    scopes: Sequence[Scope] | None = None
    """What its caller needed; ``None`` as long as nobody asked for a key."""
    offer: Offer | None = None

    SCOPE_KEY: ClassVar[str] = "pricebook.fill"
    """Where a request's ASGI scope holds it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """What is kept of an answer, and until when it is right by itself."""

    offer: Offer
    wall: float
    """The wall clock before it was made."""
    wall_until: float
    monotonic_until: float

    def seconds_left(self, wall: float, monotonic: float) -> float:
        """How long it goes on to be right unless a change touches it; 0 or less once it is over.

        By both clocks: the boundary is an instant, and the wall clock may be set, or differ from the database's, by
        which the answer was made.
        """
        return min(self.wall_until - wall, self.monotonic_until - monotonic)

    @property
    def size(self) -> int:
        """Bytes that it takes, about."""
        return self._body_size + _ENTRY_BYTES + _TAG_BYTES * len(self.offer.tags)

    @property
    def _body_size(self) -> int:
        raise NotImplementedError


class Life(TypedDict):
    """The clocks of a :class:`Kept`."""

    wall: float
    wall_until: float
    monotonic_until: float


def life(fill: Fill, offer: Offer) -> Life:
    """When an answer was made, and when it is over by itself."""
    wall_until = monotonic_until = float("inf")
    if offer.until is not None and offer.at is not None:
        wall_until = offer.until.timestamp()
        # The statement was sent after the fill began, so this ends before the database's clock comes to the boundary.
        monotonic_until = fill.monotonic + (offer.until - offer.at).total_seconds()
    return Life(wall=fill.wall, wall_until=wall_until, monotonic_until=monotonic_until)


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry(Kept):
    """A rendered answer with status 200."""

    body: bytes
    headers: Headers
    """All of them but ``Cache-Control`` and what belongs to one request."""
    head: bytes
    """Their lines."""
    headers_304: Headers
    """Those of an answer without a body."""
    etag: str
    control: bytes | None
    """``Cache-Control`` as it was; ``None`` if there is none."""
    route: str
    scopes: Sequence[Scope]

    @property
    def _body_size(self) -> int:
        return len(self.body) + len(self.head)


def entry(fill: Fill, *, body: bytes, headers: Headers, route: str) -> Entry:
    """The answer to the fill's request. The fill must have scopes and an offer."""
    offer = fill.offer
    if offer is None or fill.scopes is None:
        raise ValueError("nobody offered the answer")
    kept = [header for header in headers if header[0] not in _OF_THE_REQUEST]
    named = dict(headers)
    return Entry(
        body=body,
        headers=kept,
        head=http_fields.lines(kept),
        headers_304=[header for header in kept if not header[0].startswith(b"content-") or header[0] == _POLICY],
        etag=named.get(b"etag", b"").decode("latin-1"),
        control=named.get(b"cache-control"),
        route=route,
        scopes=fill.scopes,
        offer=offer,
        **life(fill, offer),
    )


_OF_THE_REQUEST = frozenset({b"cache-control", b"x-request-id", b"connection"})
_POLICY = b"content-security-policy"


@dataclass(slots=True)
class ResponseCache:
    """Entries by what was asked, bounded in bytes; the least recently used make room, lists first for lists."""

    max_bytes: int
    bytes: int = 0
    generation: int = 0
    """Counts how often everything was forgotten."""
    _entries: OrderedDict[Hashable, Kept] = field(default_factory=OrderedDict)
    _lists: OrderedDict[Hashable, int] = field(default_factory=OrderedDict)
    """Those of them that are lists, with their sizes."""
    _lists_bytes: int = 0
    _by_tag: dict[Tag, set[Hashable]] = field(default_factory=dict)
    _touched: OrderedDict[Tag, int] = field(default_factory=OrderedDict)
    _touched_before: int = 0
    """No tag that is not in ``_touched`` was touched after this seq."""

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: Hashable) -> Kept | None:
        """The entry, which counts as used."""
        found = self._entries.get(key)
        if found is not None:
            self._entries.move_to_end(key)
            if found.offer.is_list:
                self._lists.move_to_end(key)
        return found

    def store(self, key: Hashable, fill: Fill, new: Kept) -> bool:
        """Keep an answer, unless it may have been touched since it was made; says whether it was kept."""
        offer = new.offer
        if fill.generation != self.generation or new.size > self.max_bytes // 8:
            return False
        if any(self._touched.get(tag, self._touched_before) > offer.known_seq for tag in offer.tags):
            return False
        self.drop(key)
        self._entries[key] = new
        self.bytes += new.size
        for tag in offer.tags:
            self._by_tag.setdefault(tag, set()).add(key)
        if offer.is_list:
            self._lists[key] = new.size
            self._lists_bytes += new.size
        while self._lists_bytes > self.max_bytes // _LISTS_SHARE:
            self.drop(next(iter(self._lists)))
        while self.bytes > self.max_bytes:
            self.drop(next(iter(self._entries)))
        return True

    def drop(self, key: Hashable) -> None:
        """Forget one entry, if it is there."""
        if (old := self._entries.pop(key, None)) is None:
            return
        self.bytes -= old.size
        self._lists_bytes -= self._lists.pop(key, 0)
        for tag in old.offer.tags:
            keys = self._by_tag[tag]
            keys.discard(key)
            if not keys:
                del self._by_tag[tag]

    def touch(self, tags: Iterable[Tag], seq: int) -> None:
        """A change touched these: what depends on them goes, and what was made before it is not stored."""
        for tag in tags:
            for key in tuple(self._by_tag.get(tag, ())):
                self.drop(key)
            self._touched[tag] = max(seq, self._touched.pop(tag, self._touched_before))
        while len(self._touched) > _MOST_TOUCHES:
            _, forgotten = self._touched.popitem(last=False)
            self._touched_before = max(self._touched_before, forgotten)

    def touch_all(self, seq: int) -> None:
        """A change touched who knows what: everything goes, and what was made before it is not stored."""
        self._clear()
        self._touched.clear()
        self._touched_before = max(self._touched_before, seq)

    def start_again(self, seq: int) -> None:
        """The follower goes on after ``seq``, perhaps in another ledger: what it did not see may have touched all."""
        self._clear()
        self._touched.clear()
        self._touched_before = seq
        self.generation += 1

    def _clear(self) -> None:
        self._entries.clear()
        self._lists.clear()
        self._by_tag.clear()
        self.bytes = self._lists_bytes = 0
