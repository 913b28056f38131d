"""`pricebook follow`: the reference consumer of the feed. It keeps a copy and can prove that the copy is right.

It begins with a snapshot and goes on from its seq by long polls. What it knows is in the file, so it may be killed at
any moment.
"""

import json
import random
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

from app import client
from app.client import ProblemAnswer, Service, ServiceError
from app.copy_file import At, Copy

_WAIT_SECONDS = 30
_LIMIT = 1000
_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 0.5, 30.0
_SOON_SECONDS = 1.0
"""A service that stops answers long polls at once: no sooner than this it is asked again."""
_PASSING = {408, 429}
"""Statuses that blame the client, and are of the moment all the same."""
_SHOWN = 60


class FollowError(Exception):
    """Following cannot go on; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class Difference:
    """The first line in which the copy and a fresh export differ."""

    line: int
    copy: str | None
    service: str | None


class Report:
    """What happens, for people or, line by line, as JSON."""

    def __init__(self, *, as_json: bool) -> None:
        self._as_json = as_json

    def say(self, words: str, event: str, **facts: Any) -> None:
        """Something that happened."""
        sys.stdout.write(f"{json.dumps({'event': event, **facts}) if self._as_json else words}\n")
        sys.stdout.flush()

    def warn(self, words: str) -> None:
        """Something that may pass."""
        sys.stderr.write(f"{words}\n")


def path_of(target: Path, book: str) -> Path:
    """The file of the copy: the target itself, or one in it if it is a directory."""
    return target / f"{book}.sqlite3" if target.is_dir() else target


def follow(url: str, target: Path, book: str, *, once: bool, report: Report) -> None:
    """Follow for ever, or to the head if ``once``. If the service's past was replaced, begin anew with a snapshot.

    :raises FollowError: if it cannot go on.
    :raises ServiceError: with ``once``, if the service does not answer.
    :raises CopyError: if the file is at fault.
    """
    with Copy(path_of(target, book), book) as copy, client.Service(url) as service:
        pauses = _pauses()
        begins_anew, is_fresh = False, False
        while True:
            try:
                at = None if begins_anew else copy.at
                if at is None:
                    at = _take_snapshot(service, copy, report)
                    begins_anew, is_fresh = False, True
                if _poll(service, copy, at, report, wait=0 if once else _WAIT_SECONDS) and once:
                    return
            except ServiceError as error:
                if why := _why_anew(copy, error, once=once, is_fresh=is_fresh):
                    report.say(f"{why} A new snapshot is taken.", "begins-anew", seq=_seq(copy), why=_slug(error))
                    begins_anew = True
                    time.sleep(next(pauses))
                    continue
                if once or _is_final(error):
                    raise
                pause = max(next(pauses), _asked_to_wait(error))
                report.warn(f"{error} Trying again in {pause:.1f} s.")
                time.sleep(pause)
            else:
                pauses, is_fresh = _pauses(), False


def _pauses() -> Iterator[float]:
    """How long to wait after one failure after the other: longer each time, and not as long as others wait."""
    longest = _FIRST_PAUSE_SECONDS
    while True:
        yield longest * random.uniform(0.5, 1)  # noqa: S311 - spreads requests, keeps no secret
        longest = min(longest * 2, _LONGEST_PAUSE_SECONDS)


def _slug(error: ServiceError) -> str | None:
    return error.slug if isinstance(error, ProblemAnswer) else None


def _why_anew(copy: Copy, error: ServiceError, *, once: bool, is_fresh: bool) -> str | None:
    """Why only a new snapshot helps, in words, if that is so.

    :param is_fresh: no change has come since a snapshot was taken.
    :raises FollowError: if a new one would not help either.
    """
    match _slug(error):
        case "feed-truncated":
            if is_fresh:
                raise FollowError(_forgets_too_soon(copy, error)) from None
            return "The feed no longer goes back to the copy's last change."
        case "history-diverged":
            # One that follows for ever waits until whatever makes them differ is over.
            if is_fresh and once:
                raise FollowError(_two_ledgers(error)) from None
            return (
                f"The service's past was replaced: change {_seq(copy)} of the copy is not in its ledger, or is another "
                "one there."
            )
    return None


def _is_final(error: ServiceError) -> bool:
    """Whether asking again would be answered alike. A gateway's answer, or none, may be another one soon."""
    if not isinstance(error, ProblemAnswer):
        return False
    status = int(error.document["status"])
    return status < 500 and status not in _PASSING


def _asked_to_wait(error: ServiceError) -> int:
    return error.retry_after_seconds if isinstance(error, ProblemAnswer) else 0


def _take_snapshot(service: Service, copy: Copy, report: Report) -> At:
    with service.stream("GET", "/v1/export", params={"format": "snapshot", "book": copy.book}) as answer:
        at = At(service.seq_of(answer), service.recorded_at_of(answer))
        counts = copy.replace(at, _lines(service, answer.iter_bytes()))
    words = f"Snapshot as of seq {at.seq}: {counts.items:,} items, {counts.prices:,} price rows"
    report.say(words, "snapshot", seq=at.seq, items=counts.items, prices=counts.prices)
    return at


def _lines(service: Service, chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Lines that end in LF, and in nothing else that Unicode takes for the end of a line.

    :raises ServiceError: if the last one does not end.
    """
    rest = b""
    for chunk in chunks:
        *whole, rest = (rest + chunk).split(b"\n")
        yield from whole
    if rest:
        raise service.cut_off()


def _poll(service: Service, copy: Copy, after: At, report: Report, *, wait: int) -> bool:
    """Take over the changes that there are. Whether the copy is at the head then."""
    asked_at = time.monotonic()
    parameters = {"after": after.seq, "after_at": after.recorded_at, "limit": _LIMIT, "wait": wait}
    page = service.ask("GET", "/v1/changes", expects="next_after_at", params=parameters).json()
    changes = page["changes"]
    copy.apply(changes, after=after)
    if changes:
        seq = changes[-1]["seq"]
        words = f"At seq {seq} of {page['head']}: {len(changes):,} changes"
        report.say(words, "changes", seq=seq, changes=len(changes), head=page["head"])
    elif page["next_after"] != after.seq:
        raise FollowError(f"The feed goes from change {after.seq} to {page['next_after']} without the changes between.")
    elif wait and time.monotonic() - asked_at < _SOON_SECONDS:
        time.sleep(_SOON_SECONDS)
    return bool(page["next_after"] == page["head"])


def _forgets_too_soon(copy: Copy, error: ServiceError) -> str:
    return (
        f"The feed does not go back to seq {_seq(copy)}, the one of a snapshot just taken: the service forgets faster "
        f"than a snapshot takes. Raise its FEED_RETENTION_DAYS. The service says: {error}"
    )


def _two_ledgers(error: ServiceError) -> str:
    return (
        "The feed is not of the ledger that a snapshot was just taken of: processes of two ledgers answer at this "
        f"address, or a backup is being restored. Follow again when that is over. The service says: {error}"
    )


def _seq(copy: Copy) -> int:
    return 0 if copy.at is None else copy.at.seq


def _replaced(copy: Copy, seq: int) -> str:
    return (
        f"The copy cannot be compared: the service's past was replaced, and change {seq} is not in its ledger, or is "
        f"another one there. Follow it into {copy.path} once more, which takes a new snapshot."
    )


def verify(url: str, target: Path, book: str, *, report: Report) -> bool:
    """Compare the copy, byte for byte, with a fresh export as known at its seq, and say what differs first.

    :raises FollowError: if there is no copy, or the service's past was replaced.
    :raises ServiceError: if the service does not answer.
    :raises CopyError: if the file is at fault.
    """
    path = path_of(target, book)
    if not path.is_file():
        raise FollowError(f"There is no copy at {path}. Make one: pricebook follow {target} --once")
    with Copy(path, book, reads_only=True) as copy, client.Service(url) as service, copy.snapshot() as (at, kept):
        if at is None:
            raise FollowError(f"The copy {path} is not complete yet. Make it so: pricebook follow {target} --once")
        seq = at.seq
        parameters = {"format": "snapshot", "book": book, "known_seq": seq}
        try:
            with service.stream("GET", "/v1/export", params=parameters) as answer:
                if service.recorded_at_of(answer) != at.recorded_at:
                    raise FollowError(_replaced(copy, seq))
                lines, difference = _compare(kept, _lines(service, answer.iter_bytes()))
        except ProblemAnswer as error:
            if error.slug == "unknown-seq":
                raise FollowError(_replaced(copy, seq)) from None
            raise
        strays = 0 if difference is not None else copy.strays()
    if strays:
        words = (
            f"The copy as of seq {seq} is not right: its lines are, but {strays} rows stand where they do not belong."
        )
        report.say(words, "verified", seq=seq, items=lines, matches=False, strays=strays)
        return False
    if difference is None:
        report.say(
            f"The copy is right: {lines:,} items as of seq {seq}.", "verified", seq=seq, items=lines, matches=True
        )
        return True
    words = (
        f"The copy as of seq {seq} is not right. The first difference, in line {difference.line}:\n"
        f"copy      {difference.copy or 'has no such line'}\n"
        f"service   {difference.service or 'has no such line'}"
    )
    facts = {"line": difference.line, "copy": difference.copy, "service": difference.service}
    report.say(words, "verified", seq=seq, items=lines, matches=False, difference=facts)
    return False


def _compare(kept: Iterable[bytes], fresh: Iterable[bytes]) -> tuple[int, Difference | None]:
    number = 0
    for number, (mine, theirs) in enumerate(zip_longest(kept, (line + b"\n" for line in fresh)), 1):
        if mine != theirs:
            start = _first_difference(mine or b"", theirs or b"")
            return number, Difference(number, _excerpt(mine, start), _excerpt(theirs, start))
    return number, None


def _first_difference(one: bytes, other: bytes) -> int:
    pairs = enumerate(zip(one, other, strict=False))
    return next((place for place, (mine, theirs) in pairs if mine != theirs), min(len(one), len(other)))


def _excerpt(line: bytes | None, start: int) -> str | None:
    """The line's item, and some of the line around the place."""
    if line is None:
        return None
    item = json.loads(line)["item"]["id"]
    around = line[max(start - _SHOWN, 0) : start + _SHOWN].decode(errors="replace").strip()
    return f"item {item}: ...{around}..."
