"""Answers that are given again to requests that are sent again with their ``Idempotency-Key``."""

import hashlib
from datetime import timedelta
from typing import Any, NamedTuple

from sqlalchemy import BigInteger, Interval, bindparam, delete, func, select
from sqlalchemy.dialects.postgresql import insert

from app.database import ReadSession, WriteSession
from app.errors import FieldError, IdempotencyKeyReused, RequestInProgress
from app.models import StoredAnswer

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
    lock = hashlib.sha256(f"{question.owner}/{question.key}".encode()).digest()[:8]
    # Of the transaction, so that it ends with it whatever becomes of this process, and no pooler hands it on.
    if not (await session.columns(_LOCK, {"lock": int.from_bytes(lock, signed=True)})).scalar_one():
        raise RequestInProgress(
            "Another request with this Idempotency-Key is being worked on. Send it again in a moment.",
            [FieldError("header/Idempotency-Key", "in-progress", "belongs to a request that is not finished")],
            retry_after_seconds=1,
        )
    await look(session, question)


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
    values = {"owner": question.owner, "key": question.key, "age": timedelta(hours=question.hours)}
    row = (await session.columns(_FIND, values)).one_or_none()
    if row is None:
        return None
    if row.fingerprint != question.fingerprint:
        raise IdempotencyKeyReused(
            "This Idempotency-Key came with another request before. Make a new one for each request, and keep it for "
            "sending that request again.",
            [FieldError("header/Idempotency-Key", "reused", "was used for another request")],
        )
    return Answer(row.status, row.headers, row.body)


async def keep(session: WriteSession, question: Question, answer: Answer) -> bool:
    """Store an answer, unless another one came first; says whether it was stored."""
    values = {
        "owner": question.owner,
        "key": question.key,
        "fingerprint": question.fingerprint,
        "age": timedelta(hours=question.hours),
        **answer._asdict(),
    }
    return bool((await session.columns(_KEEP, values)).rowcount)


async def forget(session: WriteSession, *, hours: float) -> bool:
    """Delete answers that do not count any more, and say whether there may be more."""
    old = select(StoredAnswer.owner, StoredAnswer.key).where(
        StoredAnswer.created_at <= func.now() - timedelta(hours=hours)
    )
    some = old.limit(_FORGET_AT_ONCE).subquery()
    deleted: Any = await session.execute(
        delete(StoredAnswer).where(StoredAnswer.owner == some.c.owner, StoredAnswer.key == some.c.key)
    )
    return bool(deleted.rowcount == _FORGET_AT_ONCE)


_LOCK = select(func.pg_try_advisory_xact_lock(bindparam("lock", type_=BigInteger)))
_TOO_OLD = StoredAnswer.created_at <= func.now() - bindparam("age", type_=Interval)
_FIND = select(StoredAnswer.fingerprint, StoredAnswer.status, StoredAnswer.headers, StoredAnswer.body).where(
    StoredAnswer.owner == bindparam("owner"), StoredAnswer.key == bindparam("key"), ~_TOO_OLD
)
_STORING = insert(StoredAnswer).values(created_at=func.now())
_KEEP = _STORING.on_conflict_do_update(
    index_elements=["owner", "key"],
    set_={name: _STORING.excluded[name] for name in ("fingerprint", "status", "headers", "body", "created_at")},
    where=_TOO_OLD,
)
