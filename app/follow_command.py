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
from app.copy_file import Copy

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
    """Follow for ever, or to the head if ``once``.

    :raises FollowError: if it cannot go on.
    :raises ServiceError: with ``once``, if the service does not answer.
    :raises CopyError: if the file is at fault.
    """
    with Copy(path_of(target, book), book) as copy, client.Service(url) as service:
        pauses = _pauses()
        begins_anew, is_fresh = copy.seq is None, False
        while True:
            try:
                if begins_anew:
                    _take_snapshot(service, copy, report)
                    begins_anew, is_fresh = False, True
                if _poll(service, copy, report, wait=0 if once else _WAIT_SECONDS) and once:
                    return
            except ServiceError as error:
                if _is_truncated(error):
                    if is_fresh:
                        raise FollowError(_forgets_too_soon(copy, error)) from None
                    report.warn("The feed no longer goes back to the copy's last change. A new snapshot is taken.")
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


def _is_truncated(error: ServiceError) -> bool:
    return isinstance(error, ProblemAnswer) and error.slug == "feed-truncated"


def _is_final(error: ServiceError) -> bool:
    """Whether asking again would be answered alike. A gateway's answer, or none, may be another one soon."""
    if not isinstance(error, ProblemAnswer):
        return False
    status = int(error.document["status"])
    return status < 500 and status not in _PASSING


def _asked_to_wait(error: ServiceError) -> int:
    return error.retry_after_seconds if isinstance(error, ProblemAnswer) else 0


def _take_snapshot(service: Service, copy: Copy, report: Report) -> None:
    with service.stream("GET", "/v1/export", params={"format": "snapshot", "book": copy.book}) as answer:
        seq = service.seq_of(answer)
        counts = copy.replace(seq, _lines(service, answer.iter_bytes()))
    words = f"Snapshot as of seq {seq}: {counts.items:,} items, {counts.prices:,} price rows"
    report.say(words, "snapshot", seq=seq, items=counts.items, prices=counts.prices)


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


def _poll(service: Service, copy: Copy, report: Report, *, wait: int) -> bool:
    """Take over the changes that there are. Whether the copy is at the head then."""
    after = copy.seq or 0
    asked_at = time.monotonic()
    parameters = {"after": after, "limit": _LIMIT, "wait": wait}
    try:
        page = service.ask("GET", "/v1/changes", expects="next_after", params=parameters).json()
    except ProblemAnswer as error:
        if error.slug == "unknown-seq":
            raise FollowError(_set_back(copy, error)) from None
        raise
    changes = page["changes"]
    copy.apply(changes, after=after)
    if changes:
        words = f"At seq {copy.seq} of {page['head']}: {len(changes):,} changes"
        report.say(words, "changes", seq=copy.seq, changes=len(changes), head=page["head"])
    elif page["next_after"] != after:
        raise FollowError(f"The feed goes from change {after} to {page['next_after']} without the changes between.")
    elif wait and time.monotonic() - asked_at < _SOON_SECONDS:
        time.sleep(_SOON_SECONDS)
    return bool(copy.seq == page["head"])


def _forgets_too_soon(copy: Copy, error: ServiceError) -> str:
    return (
        f"The feed does not go back to seq {copy.seq}, the one of a snapshot just taken: the service forgets faster "
        f"than a snapshot takes. Raise its FEED_RETENTION_DAYS. The service says: {error}"
    )


def _set_back(copy: Copy, error: ProblemAnswer) -> str:
    return (
        f"The copy has change {copy.seq}, which the service does not: its ledger was set back, to a backup perhaps. "
        f"If that is meant, remove {copy.path} and follow again. The service says: {error.document['detail']}"
    )


def verify(url: str, target: Path, book: str, *, report: Report) -> bool:
    """Compare the copy, byte for byte, with a fresh export as known at its seq, and say what differs first.

    :raises FollowError: if there is no copy, or the service does not know its seq.
    :raises ServiceError: if the service does not answer.
    :raises CopyError: if the file is at fault.
    """
    path = path_of(target, book)
    if not path.is_file():
        raise FollowError(f"There is no copy at {path}. Make one: pricebook follow {target} --once")
    with Copy(path, book, reads_only=True) as copy, client.Service(url) as service, copy.snapshot() as (seq, kept):
        if seq is None:
            raise FollowError(f"The copy {path} is not complete yet. Make it so: pricebook follow {target} --once")
        parameters = {"format": "snapshot", "book": book, "known_seq": seq}
        try:
            with service.stream("GET", "/v1/export", params=parameters) as answer:
                service.seq_of(answer)
                lines, difference = _compare(kept, _lines(service, answer.iter_bytes()))
        except ProblemAnswer as error:
            if error.slug == "unknown-seq":
                raise FollowError(_set_back(copy, error)) from None
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
