"""Keys to the API."""

from datetime import datetime
from typing import Annotated

from pydantic import AfterValidator, ConfigDict, Field, StringConstraints
from pydantic_core import PydanticCustomError

from app.access import Scope
from app.schemas import examples
from app.schemas.base import Input, Instant, Output

_RESERVED = {"admin", "anonymous"}


def _free(name: str) -> str:
    if name in _RESERVED:
        raise PydanticCustomError("reserved-name", "must not be admin or anonymous, which stand for others")
    return name


KeyName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$"), AfterValidator(_free)]


def _distinct(scopes: list[Scope]) -> list[Scope]:
    return sorted(set(scopes))


Scopes = Annotated[list[Scope], Field(min_length=1, max_length=len(Scope)), AfterValidator(_distinct)]


class KeyCreate(Input):
    """A key to make."""

    model_config = ConfigDict(json_schema_extra={"examples": [examples.KEY_CREATE]})

    name: KeyName
    """What the ledger records as the actor of its writes."""
    scopes: Scopes
    expires_at: Instant | None = None
    """When it stops being accepted; null: never."""


class Key(Output):
    """A key, without its secret."""

    model_config = ConfigDict(json_schema_extra={"examples": [examples.KEY]})

    id: str
    name: str
    scopes: list[Scope]
    created_at: datetime
    created_by: str
    expires_at: datetime | None
    revoked_at: datetime | None
    revoked_by: str | None


class NewKey(Key):
    """A key that was just made, with its secret, which is never shown again."""

    model_config = ConfigDict(json_schema_extra={"examples": [examples.NEW_KEY]})

    key: str | None
    """Null where the request was sent again: the secret was in the first answer only."""


class KeyList(Output):
    """A page of keys."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"keys": [examples.KEY], "next": None}]})

    keys: list[Key]
    next: str | None


class WhoAmI(Output):
    """Who the caller is to the service, and what it may do."""

    model_config = ConfigDict(json_schema_extra={"examples": [examples.WHO_AM_I]})

    id: str
    name: str
    scopes: list[Scope]
    expires_at: datetime | None
    auth_required: bool
    """Whether requests need a key at all."""
