"""Answers that are given again to requests that are sent again with their ``Idempotency-Key``."""

import hashlib
import json
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any, NamedTuple

from sqlalchemy import (
    BigInteger,
    Interval,
    LargeBinary,
    Text,
    bindparam,
    case,
    delete,
    func,
    select,
)
from sqlalchemy.dialects.postgresql import JSONB, insert

from app.database import ReadSession, WriteSession
from app.errors import FieldError, IdempotencyKeyReused, RequestInProgress
from app.models import StoredAnswer
from app.schemas.base import Document
from app.services.parameter_rows import parameter_rows

_FORGET_AT_ONCE = 1_000


class Question(NamedTuple):
    """A request that may come again."""

    owner: str
    """Id of the caller: one's keys never meet another's."""
    key: str
    fingerprint: bytes
    """SHA-256 of what was asked."""
    hours: float
    """How long its answer counts."""


class Answer(NamedTuple):
    """What was answered to it."""

    status: int
    headers: dict[str, str]
    body: bytes


class Stored(NamedTuple):
    """An answer, and the fingerprint of the request that it was to."""

    fingerprint: bytes
    answer: Answer
    """Without its body, if it was another request than the one that was asked about."""


class Named(NamedTuple):
    """What a service needs that stores the answer itself, in the transaction of what it does."""

    question: Question
    answer: Callable[[Document], Answer]
    """Makes the answer that tells of the document."""


class AnsweredBefore(Exception):
    """No error, but there is nothing left to do; whatever the transaction did is to be undone."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer


async def claim(session: WriteSession, question: Question) -> None:
    """Begin to work on a request. Others with its key are turned away until the commit.

    :raises AnsweredBefore: if it was.
    :raises RequestInProgress: if another request with the key is being worked on.
    :raises IdempotencyKeyReused: if the key was used for another request.
    """
    if not await _lock(session, [question]):
        raise RequestInProgress(
            "Another request with this Idempotency-Key is being worked on. Send it again in a moment.",
            [FieldError("header/Idempotency-Key", "in-progress", "belongs to a request that is not finished")],
            retry_after_seconds=1,
        )
    await look(session, question)


async def claim_together(session: WriteSession, questions: Sequence[Question]) -> list[bool]:
    """Begin to work on those of several requests for which :func:`claim` would not raise: says of each whether.

    Of those with the same key that come together, only the first can be one.
    """
    places = {(question.owner, question.key): place for place, question in reversed(list(enumerate(questions)))}
    claimed = await _lock(session, [questions[place] for place in places.values()])
    answered = await find_together(session, claimed)
    begun = {
        places[question.owner, question.key]
        for question, stored in zip(claimed, answered, strict=True)
        if stored is None
    }
    return [place in begun for place in range(len(questions))]


async def _lock(session: WriteSession, questions: Sequence[Question]) -> list[Question]:
    """Take the locks of those that nobody has, and say which. As each statement sees what was committed before it (READ
    COMMITTED, which is PostgreSQL's default), the next one sees what those who had them answered.

    They are the transaction's, so that they end with it whatever becomes of this process, and no pooler hands them on.
    """
    names = (hashlib.sha256(f"{question.owner}/{question.key}".encode()).digest() for question in questions)
    locks = [int.from_bytes(name[:8], signed=True) for name in names]
    taken = (await session.columns(_LOCK, {"locks": locks})).scalars()
    return [question for question, is_taken in zip(questions, taken, strict=True) if is_taken]


async def look(session: WriteSession, question: Question) -> None:
    """Go on with a request that was not answered before.

    :raises AnsweredBefore: if it was.
    :raises IdempotencyKeyReused: if the key was used for another request.
    """
    if (known := await find(session, question)) is not None:
        raise AnsweredBefore(known)


async def settle(session: WriteSession, question: Question, answer: Answer) -> None:
    """Store an answer with what it tells of, in whose transaction this is the last thing to do.

    :raises AnsweredBefore: if another request, which claimed nothing, was quicker.
    :raises IdempotencyKeyReused: if the key was used for another request.
    """
    if not await keep(session, question, answer):
        await look(session, question)
        raise RequestInProgress("Another request has this Idempotency-Key.", retry_after_seconds=1)


async def find(session: ReadSession | WriteSession, question: Question) -> Answer | None:
    """What was answered before, if it was.

    :raises IdempotencyKeyReused: if the key was used for another request.
    """
    return of_question(question, *await find_together(session, [question]))


async def find_together(session: ReadSession | WriteSession, questions: Sequence[Question]) -> list[Stored | None]:
    """What was answered before to requests with these keys, in their order."""
    if not questions:
        return []
    values = {
        "owners": [question.owner for question in questions],
        "keys": [question.key for question in questions],
        "fingerprints": [question.fingerprint for question in questions],
        "age": timedelta(hours=questions[0].hours),
    }
    found = {row.place: row for row in await session.columns(_FIND, values)}
    rows = (found.get(place) for place in range(1, len(questions) + 1))
    return [row and Stored(row.fingerprint, Answer(row.status, row.headers, row.body)) for row in rows]


def of_question(question: Question, stored: Stored | None) -> Answer | None:
    """The answer, if it was to this request.

    :raises IdempotencyKeyReused: if it was to another one.
    """
    if stored is None:
        return None
    if stored.fingerprint != question.fingerprint:
        raise IdempotencyKeyReused(
            "This Idempotency-Key came with another request before. Make a new one for each request, and keep it for "
            "sending that request again.",
            [FieldError("header/Idempotency-Key", "reused", "was used for another request")],
        )
    return stored.answer


async def keep(session: WriteSession, question: Question, answer: Answer) -> bool:
    """Store an answer, unless another one came first; says whether it was stored."""
    return await keep_together(session, [(question, answer)])


async def keep_together(session: WriteSession, answered: Sequence[tuple[Question, Answer]]) -> bool:
    """Store several answers; says whether none came first."""
    values = {
        "owners": [question.owner for question, _ in answered],
        "keys": [question.key for question, _ in answered],
        "fingerprints": [question.fingerprint for question, _ in answered],
        "statuses": [answer.status for _, answer in answered],
        "headers": [json.dumps(answer.headers) for _, answer in answered],
        "bodies": [answer.body for _, answer in answered],
        "age": timedelta(hours=answered[0][0].hours),
    }
    return (await session.columns(_KEEP, values)).rowcount == len(answered)


async def forget(session: WriteSession, *, hours: float) -> bool:
    """Delete answers that do not count any more, and say whether there may be more."""
    old = select(StoredAnswer.owner, StoredAnswer.key).where(
        StoredAnswer.created_at <= func.now() - timedelta(hours=hours)
    )
    # One that a request is overwriting counts again: nobody waits for the other.
    some = old.limit(_FORGET_AT_ONCE).with_for_update(skip_locked=True).subquery()
    deleted: Any = await session.execute(
        delete(StoredAnswer).where(StoredAnswer.owner == some.c.owner, StoredAnswer.key == some.c.key)
    )
    return bool(deleted.rowcount == _FORGET_AT_ONCE)


_LOCKS = parameter_rows(lock=("locks", BigInteger()))
_LOCK = select(func.pg_try_advisory_xact_lock(_LOCKS.c.lock)).order_by(_LOCKS.c.place)
_TOO_OLD = StoredAnswer.created_at <= func.now() - bindparam("age", type_=Interval)
_ASKED = parameter_rows(owner=("owners", Text()), key=("keys", Text()), fingerprint=("fingerprints", LargeBinary()))
# A body may be large, and that of another request's answer is of no use.
_OWN_BODY = case((StoredAnswer.fingerprint == _ASKED.c.fingerprint, StoredAnswer.body))
_FIND = (
    select(
        _ASKED.c.place,
        StoredAnswer.fingerprint,
        StoredAnswer.status,
        StoredAnswer.headers,
        _OWN_BODY.label("body"),
    )
    .join(StoredAnswer, (StoredAnswer.owner == _ASKED.c.owner) & (StoredAnswer.key == _ASKED.c.key))
    .where(~_TOO_OLD)
)
_ANSWERED = parameter_rows(
    owner=("owners", Text()),
    key=("keys", Text()),
    fingerprint=("fingerprints", LargeBinary()),
    status=("statuses", BigInteger()),
    headers=("headers", Text()),
    body=("bodies", LargeBinary()),
).c
_KEPT = {
    **{name: _ANSWERED[name] for name in ("owner", "key", "fingerprint", "status", "body")},
    "headers": _ANSWERED.headers.cast(JSONB),
    "created_at": func.now(),
}
_STORING = insert(StoredAnswer).from_select(list(_KEPT), select(*_KEPT.values()))
_KEEP = _STORING.on_conflict_do_update(
    index_elements=["owner", "key"],
    set_={name: _STORING.excluded[name] for name in _KEPT if name not in ("owner", "key")},
    where=_TOO_OLD,
)
