"""Who may do what."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import ClassVar

from app.errors import Forbidden


class Scope(StrEnum):
    """What a key can allow."""

    ITEMS_READ = "items:read"
    ITEMS_WRITE = "items:write"
    PRICES_READ = "prices:read"
    PRICES_WRITE = "prices:write"
    PRICES_CORRECT = "prices:correct"
    QUOTES = "quotes"
    IMPORTS = "imports"
    CHANGES_READ = "changes:read"
    ADMIN = "admin"


@dataclass(frozen=True, slots=True)
class Caller:
    """Who sends a request. :data:`Scope.ADMIN` includes all others."""

    id: str
    """Tells callers apart: a key's id, or a word for those without one."""
    name: str
    """What the ledger records as the actor."""
    scopes: frozenset[Scope]
    expires_at: datetime | None = None

    SCOPE_KEY: ClassVar[str] = "pricebook.caller"
    """Where a request's ASGI scope holds it."""

    def need(self, *scopes: Scope) -> None:
        """Check that it is allowed to.

        :raises Forbidden: if it is not; the message names the scopes that it lacks.
        """
        if lacks := [scope for scope in scopes if not self.may(scope)]:
            raise Forbidden(f"{self.name} lacks {' and '.join(lacks)}. Use a key with that scope, or ask for one.")

    def may(self, scope: Scope) -> bool:
        """Whether it is allowed to."""
        return scope in self.scopes or Scope.ADMIN in self.scopes


ADMIN = Caller("admin", "admin", frozenset({Scope.ADMIN}))
"""Whoever sends ``ADMIN_KEY``."""

ANONYMOUS = Caller("anonymous", "anonymous", frozenset(Scope))
"""Everybody, where no keys are asked for."""
