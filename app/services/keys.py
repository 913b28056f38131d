"""Keys to the API: making, listing and revoking them."""

from datetime import datetime
from typing import Any, Literal, NamedTuple

from sqlalchemy import BigInteger, cast, extract, func, insert, or_, select, text, update
from sqlalchemy.exc import IntegrityError

from app.access import Caller, Scope
from app.database import ReadSession, WriteSession
from app.database_errors import violated_constraint
from app.errors import DuplicateKeyName, FieldError, InvalidRequest, TooManyKeys, UnknownKey
from app.key_token import KeySecret, KeyToken
from app.models import ApiKey, ApiKeyState
from app.pagination import Cursors
from app.schemas import key as schemas
from app.services import ledger

_MOST_LIVE = 5_000
"""Every process holds all of them in memory."""

_NOT_OVER = ApiKey.revoked_at.is_(None) & or_(ApiKey.expires_at.is_(None), ApiKey.expires_at > func.now())
_COLUMNS = [getattr(ApiKey, name) for name in schemas.Key.model_fields]
_LIVE = select(ApiKey.id, ApiKey.name, ApiKey.scopes, ApiKey.expires_at, ApiKey.digest, ApiKey.secret_key_id).where(
    _NOT_OVER
)
_VERSION = select(ApiKeyState.version)
# It takes no seq, and yet wakes the followers: each looks at the version as it looks for changes.
_CHANGED = (
    update(ApiKeyState)
    .values(
        version=func.greatest(
            ApiKeyState.version + 1, cast(extract("epoch", func.clock_timestamp()) * 1_000_000, BigInteger)
        )
    )
    .returning(func.pg_notify(ledger.CHANNEL, ""), func.clock_timestamp().label("at"))
)

Revoked = Literal["false", "true", "any"]


class LiveKey(NamedTuple):
    """A key that is accepted, and how its secret is recognised."""

    caller: Caller
    digest: bytes
    secret_key_id: str


async def version(session: ReadSession) -> int:
    """Which state the keys are in: it grows with every change to one."""
    return int(await session.scalar(_VERSION) or 0)


async def live(session: ReadSession) -> dict[str, LiveKey]:
    """All keys that are accepted, by id."""
    known = set(Scope)
    return {
        row.id: LiveKey(
            # A scope of a later release means nothing to this one.
            Caller(
                row.id, row.name, frozenset(Scope(scope) for scope in known.intersection(row.scopes)), row.expires_at
            ),
            row.digest,
            row.secret_key_id,
        )
        for row in await session.execute(_LIVE)
    }


async def create(session: WriteSession, data: schemas.KeyCreate, secret: KeySecret, *, actor: str) -> schemas.NewKey:
    """Make a key. Its secret is in the answer and nowhere else.

    :raises DuplicateKeyName: if a key that is not revoked has the name.
    :raises InvalidRequest: if it would have expired already.
    :raises TooManyKeys: if there are as many as every process holds in memory.
    """
    token = KeyToken.new()
    created_at = await _changed(session)
    if data.expires_at is not None and data.expires_at <= created_at:
        raise InvalidRequest.at("/expires_at", "not-in-the-future", "must be in the future")
    if (await session.scalar(select(func.count()).select_from(ApiKey).where(_NOT_OVER)) or 0) >= _MOST_LIVE:
        raise TooManyKeys(f"{_MOST_LIVE} keys are in force. Revoke those that nobody uses any more.")
    document: dict[str, Any] = {
        "id": token.id,
        "name": data.name,
        "scopes": data.scopes,
        "created_at": created_at,
        "created_by": actor,
        "expires_at": data.expires_at,
        "revoked_at": None,
        "revoked_by": None,
    }
    row = {**document, "digest": secret.digest(token), "secret_key_id": secret.id}
    try:
        await session.execute(insert(ApiKey), row)
    except IntegrityError as error:
        if violated_constraint(error) != "uq_api_keys_name":
            raise
        raise DuplicateKeyName(
            f"Another key is named {data.name}. Choose another name, or revoke that key first.",
            [FieldError("/name", "duplicate-key-name", "is the name of another key")],
        ) from None
    return schemas.NewKey(**document, key=str(token))


async def revoke(session: WriteSession, key_id: str, *, actor: str) -> schemas.Key:
    """Revoke a key. One that is revoked is answered as it is.

    :raises UnknownKey: if there is none.
    """
    revoked_at = await _changed(session)
    revoking = update(ApiKey).where(ApiKey.id == key_id, ApiKey.revoked_at.is_(None))
    await session.execute(revoking.values(revoked_at=revoked_at, revoked_by=actor))
    return await read(session, key_id)


async def read(session: ReadSession | WriteSession, key_id: str) -> schemas.Key:
    """The key.

    :raises UnknownKey: if there is none.
    """
    row = (await session.execute(select(*_COLUMNS).where(ApiKey.id == key_id))).mappings().one_or_none()
    if row is None:
        raise UnknownKey(f"There is no key {key_id}.")
    return schemas.Key(**row)


async def list_all(
    session: ReadSession, *, revoked: Revoked, limit: int, cursor: str | None, cursors: Cursors
) -> schemas.KeyList:
    """A page of keys, in the order in which they were made.

    :raises InvalidRequest: if the cursor belongs to another list.
    """
    filters = {"list": "keys", "revoked": revoked}
    statement = select(*_COLUMNS).order_by(ApiKey.created_at, ApiKey.id).limit(limit + 1)
    if revoked != "any":
        statement = statement.where(
            ApiKey.revoked_at.is_not(None) if revoked == "true" else ApiKey.revoked_at.is_(None)
        )
    if cursor is not None:
        position = cursors.decode(cursor, filters)
        after = (datetime.fromisoformat(position["created_at"]), position["id"])
        statement = statement.where(text("(created_at, id) > (:at, :id)").bindparams(at=after[0], id=after[1]))
    found = [schemas.Key(**row) for row in (await session.execute(statement)).mappings()]
    following = None
    if len(found) > limit:
        found.pop()
        last = found[-1]
        following = cursors.encode({"created_at": last.created_at.isoformat(), "id": last.id}, filters)
    return schemas.KeyList(keys=found, next=following)


async def renew(session: WriteSession, token: KeyToken, secret: KeySecret) -> None:
    """Store the digest of a key with another secret key. Nobody need hear of it: either digest is accepted."""
    values = {"digest": secret.digest(token), "secret_key_id": secret.id}
    await session.execute(update(ApiKey).where(ApiKey.id == token.id).values(values))


async def resting_on(session: ReadSession, secret: KeySecret) -> int:
    """How many keys in force are recognised by this secret key."""
    counting = select(func.count()).select_from(ApiKey).where(_NOT_OVER, ApiKey.secret_key_id == secret.id)
    return int(await session.scalar(counting) or 0)


async def _changed(session: WriteSession) -> datetime:
    """Tell every process that the keys change with this transaction. Others who change some wait for its end."""
    row: Any = (await session.execute(_CHANGED)).one()
    at: datetime = row.at
    return at
