"""A consumer's copy of the items and of one book's prices, in a SQLite file.

The documents, and the seq that they are as of with its instant, are written in one transaction. So whenever the process
is killed, the file holds some state of the ledger, complete, and says which.
"""

import contextlib
import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple, Self

_APPLICATION_ID = 0x50424B31
_BUSY_SECONDS = 30
_SCHEMA = f"""
    PRAGMA journal_mode = WAL;
    PRAGMA application_id = {_APPLICATION_ID};
    BEGIN IMMEDIATE;
    CREATE TABLE IF NOT EXISTS copy (
        singleton INTEGER PRIMARY KEY CHECK (singleton = 1), book TEXT NOT NULL, seq INTEGER, recorded_at TEXT
    );
    CREATE TABLE IF NOT EXISTS items (id TEXT PRIMARY KEY, document TEXT NOT NULL) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS prices (
        item_id TEXT NOT NULL, id TEXT NOT NULL, document TEXT NOT NULL, PRIMARY KEY (item_id, id)
    ) WITHOUT ROWID;
    COMMIT;
"""

_STRAYS = """
    SELECT (SELECT count(*) FROM items WHERE id IS NOT document ->> 'id')
        + (SELECT count(*) FROM prices WHERE id IS NOT document ->> 'id' OR item_id IS NOT document ->> 'item_id'
            OR item_id NOT IN (SELECT id FROM items))
"""


class CopyError(Exception):
    """The file cannot be used, or does not fit what it is told; the message says what to do."""


class Counts(NamedTuple):
    """How much the copy holds."""

    items: int
    prices: int


class At(NamedTuple):
    """The last change in a copy, and the instant at which it was recorded, as the service writes it."""

    seq: int
    recorded_at: str


class Copy:
    """The copy in a file, as a block: ``with Copy(path, book) as copy``.

    :param reads_only: the file has to be there, and is left as it is, whoever else writes to it.
    :raises CopyError: if the file is something else, or a copy of another book.
    """

    def __init__(self, path: Path, book: str, *, reads_only: bool = False) -> None:
        self.path = path
        self.book = book
        with self._checked():
            if not reads_only:
                path.parent.mkdir(parents=True, exist_ok=True)
            address = f"{path.absolute().as_uri()}?mode={'ro' if reads_only else 'rwc'}"
            self._database = sqlite3.connect(address, uri=True, timeout=_BUSY_SECONDS, isolation_level=None)
            (found,) = self._database.execute("PRAGMA application_id").fetchone()
            (tables,) = self._database.execute("SELECT count(*) FROM sqlite_master").fetchone()
            if found != _APPLICATION_ID and (found or tables):
                raise CopyError(f"{path} is no copy that pricebook follow made. Name another file.")
            if not reads_only:
                self._database.executescript(_SCHEMA)
                self._database.execute("INSERT OR IGNORE INTO copy VALUES (1, ?, NULL, NULL)", (book,))
            # Without a row it is just being made, by the other process.
            (owner,) = self._database.execute("SELECT book FROM copy").fetchone() or (book,)
        if owner != book:
            self._database.close()
            raise CopyError(f"{path} is a copy of the book {owner}, not of {book}. Name another file.")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._database.close()

    @property
    def at(self) -> At | None:
        """The last change in the copy, or ``None`` before the first snapshot."""
        with self._checked():
            found = self._database.execute("SELECT seq, recorded_at FROM copy WHERE seq IS NOT NULL").fetchone()
            return None if found is None else At(*found)

    def replace(self, at: At, lines: Iterable[bytes]) -> Counts:
        """Take over a snapshot, if it comes to its end.

        :param lines: those of the snapshot as of ``at``.
        """
        items = prices = 0
        with self._writing(self.at, at):
            self._database.execute("DELETE FROM items")
            self._database.execute("DELETE FROM prices")
            for line in lines:
                entry = json.loads(line)
                self._put_item(entry["item"])
                for row in entry["prices"]:
                    self._put_price(row)
                items += 1
                prices += len(entry["prices"])
        return Counts(items, prices)

    def apply(self, changes: Iterable[Mapping[str, Any]], *, after: At) -> None:
        """Take over the changes that follow, all or none.

        :param after: where the copy was when they were asked for.
        :raises CopyError: if one is missing or comes twice, or another process has moved the copy on meanwhile.
        """
        changes = list(changes)
        if not changes:
            return
        for expected, change in enumerate(changes, after.seq + 1):
            if change["seq"] != expected:
                raise CopyError(f"The feed goes on with change {change['seq']} where {expected} should be.")
        with self._writing(after, At(changes[-1]["seq"], changes[-1]["at"])):
            for change in changes:
                self._apply(change)

    def _apply(self, change: Mapping[str, Any]) -> None:
        before, after = change["before"], change["after"]
        if change["type"].startswith("item."):
            self._put_item(after)
        elif change["type"].startswith("price.") and change["book"] == self.book:
            if before is not None:
                # Superseded, or voided.
                self._database.execute(
                    "DELETE FROM prices WHERE item_id = ? AND id = ?", (before["item_id"], before["id"])
                )
            if not after["void"]:
                self._put_price(after)

    def _put_item(self, item: Mapping[str, Any]) -> None:
        self._database.execute("INSERT OR REPLACE INTO items VALUES (?, ?)", (item["id"], _json(item)))

    def _put_price(self, row: Mapping[str, Any]) -> None:
        self._database.execute(
            "INSERT OR REPLACE INTO prices VALUES (?, ?, ?)", (row["item_id"], row["id"], _json(row))
        )

    @contextlib.contextmanager
    def snapshot(self) -> Iterator[tuple[At | None, Iterator[bytes]]]:
        """Where it is, and the copy as a snapshot of it would be; both of one moment, whoever writes to the file."""
        with self._checked(), self._transaction("BEGIN"):
            yield self.at, self._lines()

    def strays(self) -> int:
        """Rows that the copy as a snapshot does not show: of no item, or not those that their documents are."""
        with self._checked():
            (count,) = self._database.execute(_STRAYS).fetchone()
            return int(count)

    def _lines(self) -> Iterator[bytes]:
        found = self._database.execute(
            "SELECT items.id, items.document, prices.document FROM items "
            "LEFT JOIN prices ON prices.item_id = items.id ORDER BY items.id, prices.id"
        )
        for _, rows in groupby(found, key=lambda row: row[0]):
            (_, item, first), *others = rows
            prices = [price for price in (first, *(row[2] for row in others)) if price is not None]
            yield f'{{"item":{item},"prices":[{",".join(prices)}]}}\n'.encode()

    @contextlib.contextmanager
    def _writing(self, before: At | None, after: At) -> Iterator[None]:
        """A transaction that takes the copy from one place to another."""
        with self._checked(), self._transaction("BEGIN IMMEDIATE"):
            moved = self._database.execute(
                "UPDATE copy SET seq = ?, recorded_at = ? WHERE seq IS ? AND recorded_at IS ?",
                (*after, *(before or (None, None))),
            )
            if moved.rowcount != 1:
                raise CopyError(f"Another process writes to {self.path}. Let one follow, and the others read.")
            yield

    @contextlib.contextmanager
    def _transaction(self, begin: str) -> Iterator[None]:
        self._database.execute(begin)
        try:
            yield
        except BaseException:
            self._database.rollback()
            raise
        self._database.commit()

    @contextlib.contextmanager
    def _checked(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            raise CopyError(f"The copy {self.path} cannot be used: {error}.") from None


_json = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
