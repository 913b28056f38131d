"""A consumer's copy takes changes in their order or not at all."""

import contextlib
import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from app.copy_file import At, Copy, CopyError, Counts
from app.schemas import examples

ITEM, ROW = examples.ITEM, examples.PRICE_ROW
LINE = json.dumps({"item": ITEM, "prices": [ROW]}, separators=(",", ":")).encode()


def at(seq: int) -> At:
    return At(seq, f"2026-11-22T09:30:{seq}Z")


def change(seq: int, kind: str, before: Any, after: Any) -> dict[str, Any]:
    return {
        "seq": seq,
        "at": at(seq).recorded_at,
        "type": kind,
        "book": after.get("book"),
        "before": before,
        "after": after,
    }


def lines(copy: Copy) -> list[bytes]:
    with copy.snapshot() as (_, found):
        return list(found)


@pytest.fixture
def copy(tmp_path: Path) -> Iterator[Copy]:
    with Copy(tmp_path / "copy", "default") as copy:
        assert copy.at is None
        assert copy.replace(at(42), [LINE]) == Counts(1, 1)
        yield copy


def test_a_snapshot_comes_back_as_it_was(copy: Copy) -> None:
    assert copy.at == at(42)
    assert lines(copy) == [LINE + b"\n"]


@pytest.mark.parametrize("seqs", [(44,), (42,), (43, 45), (43, 43), (43, 44, 44)])
def test_changes_without_their_order_are_refused_and_none_is_taken(copy: Copy, seqs: tuple[int, ...]) -> None:
    with pytest.raises(CopyError, match="The feed goes on with change"):
        copy.apply([change(seq, "item.updated", ITEM, {**ITEM, "name": "Other"}) for seq in seqs], after=at(42))
    assert copy.at == at(42)
    assert lines(copy) == [LINE + b"\n"]


def test_changes_are_taken(copy: Copy) -> None:
    renamed = {**ITEM, "name": "Ω"}
    corrected = {**ROW, "id": "01a20537-df11-7c58-8b71-6a4f0c1c9d2f", "supersedes": ROW["id"]}
    copy.apply([
        change(43, "item.updated", ITEM, renamed),
        change(44, "price.recorded", ROW, corrected),
        change(45, "price.recorded", None, {**corrected, "id": "another", "book": "another"}),
        change(46, "book.updated", {"key": "default"}, {"key": "default"}),
    ], after=at(42))  # fmt: skip
    assert copy.at == at(46)
    (line,) = lines(copy)
    assert json.loads(line) == {"item": renamed, "prices": [corrected]}
    copy.apply([change(47, "price.voided", corrected, {**corrected, "void": True})], after=at(46))
    (line,) = lines(copy)
    assert json.loads(line) == {"item": renamed, "prices": []}


def test_a_copy_that_another_process_moved_on_is_left_alone(copy: Copy) -> None:
    renamed = change(43, "item.updated", ITEM, {**ITEM, "name": "Other"})
    with Copy(copy.path, "default") as other:
        other.apply([renamed], after=at(42))
    with pytest.raises(CopyError, match="Another process writes"):
        copy.apply([renamed], after=at(42))
    assert copy.at == at(43)


def test_a_copy_of_another_history_with_the_same_seq_is_not_moved_on(copy: Copy) -> None:
    with pytest.raises(CopyError, match="Another process writes"):
        copy.apply([change(43, "item.updated", ITEM, ITEM)], after=At(42, "2026-11-22T09:31:42Z"))
    assert copy.at == at(42)


def test_half_a_snapshot_is_none(copy: Copy) -> None:
    def broken() -> Iterator[bytes]:
        yield LINE.replace(b"Frame", b"Other")
        raise ConnectionResetError("cut off")

    with pytest.raises(CopyError, match="cut off"):
        copy.replace(at(50), broken())
    assert copy.at == at(42)
    assert lines(copy) == [LINE + b"\n"]


def test_reading_sees_one_moment_while_another_writes(copy: Copy) -> None:
    with Copy(copy.path, "default") as reader, reader.snapshot() as (seen, found):
        copy.apply([change(43, "item.updated", ITEM, {**ITEM, "name": "Other"})], after=at(42))
        assert seen == at(42)
        assert list(found) == [LINE + b"\n"]


def test_it_is_read_while_another_process_writes(copy: Copy) -> None:
    def slowly() -> Iterator[bytes]:
        yield LINE
        with Copy(copy.path, "default", reads_only=True) as reader:
            assert reader.at == at(42)
            assert lines(reader) == [LINE + b"\n"]
            assert reader.strays() == 0

    copy.replace(at(50), slowly())
    with Copy(copy.path, "default", reads_only=True) as reader:
        assert reader.at == at(50)
        with pytest.raises(CopyError, match="readonly"):
            reader.replace(at(51), [LINE])


def test_a_copy_that_is_not_there_is_not_made_to_be_read(tmp_path: Path) -> None:
    with pytest.raises(CopyError, match="unable to open"):
        Copy(tmp_path / "none", "default", reads_only=True)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "spoil",
    [
        "INSERT INTO prices VALUES ('gone', 'one', json_object('id', 'one', 'item_id', 'gone'))",
        "UPDATE prices SET id = 'other'",
        "UPDATE items SET document = replace(document, id, 'other')",
    ],
)
def test_rows_that_do_not_belong_are_counted(copy: Copy, spoil: str) -> None:
    assert copy.strays() == 0
    with contextlib.closing(sqlite3.connect(copy.path, isolation_level=None)) as other:
        other.execute(spoil)
    assert copy.strays() == 1
