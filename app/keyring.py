"""Who sends a request: the keys that are in force, held in memory, and never trusted for longer than a moment."""

import asyncio
import hashlib
import hmac
import time
from collections.abc import Sequence
from datetime import UTC, datetime

import structlog
from pydantic import SecretStr

from app.access import ADMIN, ANONYMOUS, Caller
from app.database import Database, ReadSession
from app.database_errors import first_line
from app.errors import Unauthenticated
from app.key_token import KeySecret, KeyToken
from app.observability.metrics import AUTH_FAILURES, AuthFailure
from app.services import keys
from app.services.keys import LiveKey
from app.settings import Settings

logger = structlog.get_logger(__name__)

_TRUSTED_SECONDS = 1.5
"""How old the last look at the database may be. So a key that is revoked is refused everywhere within two seconds,
whatever becomes of notifications."""


RENEW_AFTER_SECONDS = 600.0
"""How old a process is when it begins to store digests by the new secret key: during a roll-out, others may hold the
two secret keys the other way round, and would store them back."""


_RENEW_PAUSE_SECONDS = 30.0
"""After one that failed."""

_MOST_RECOGNISED = 20_000


class KeyRing:
    """All keys in force. The follower keeps it fresh as it looks for changes; where it does not, requests look."""

    def __init__(self, database: Database, settings: Settings) -> None:
        self._database = database
        self.auth_required = settings.auth_required
        self._admin_digest = _digest(settings.admin_key)
        self._has_admin_key = settings.admin_key is not None
        self.secret = KeySecret(settings.secret_key.get_secret_value())
        previous = settings.secret_key_previous
        self._secrets = [self.secret] + ([KeySecret(previous.get_secret_value())] if previous else [])
        self._keys: dict[str, LiveKey] = {}
        self._recognised: dict[bytes, LiveKey | None] = {}
        """Keys by a digest of the header that they came in; ``None`` stands for ``ADMIN_KEY``."""
        self._version: int | None = None
        self._confirmed_at = float("-inf")
        self._look: asyncio.Task[None] | None = None
        self._renewing: asyncio.Task[None] | None = None
        self._renew_again_at = float("-inf")
        self._began = time.monotonic()

    def __len__(self) -> int:
        return len(self._keys)

    async def caller(self, authorization: Sequence[str]) -> Caller:
        """Who sends a request with these ``Authorization`` headers.

        :raises Unauthenticated: if a key is needed and there is none, or one that is not accepted.
        :raises DatabaseUnavailable: if the database had to be asked and is not there; and what else reads raise.
        """
        if not authorization:
            if self.auth_required:
                raise _refused(AuthFailure.MISSING)
            return ANONYMOUS
        scheme, _, text = authorization[0].strip().partition(" ")
        if len(authorization) > 1 or scheme.lower() != "bearer":
            raise _refused(AuthFailure.MALFORMED)
        text = text.strip()
        # Digests, because the comparison of two texts tells how long the right one is.
        if hmac.compare_digest(_sha256(text), self._admin_digest):
            self._remember(authorization[0], None)
            return ADMIN
        token = KeyToken.parse(text)
        if token is None:
            raise _refused(AuthFailure.MALFORMED)
        await self._fresh(_TRUSTED_SECONDS)
        if token.id not in self._keys:
            # It may have been made a moment ago, here or elsewhere. That takes longer, and so tells which ids there
            # are; they are no secrets, and stand in logs and lists.
            await self._fresh(0)
        key = await self._recognise(token)
        self._remember(authorization[0], key)
        return key.caller

    def recognised(self, authorization: bytes | None, *, trusted_seconds: float = _TRUSTED_SECONDS) -> Caller | None:
        """Who :meth:`caller` would say it is, if it can be told at once: the header came before, with a key that is
        still in force as of a look at the database not longer ago than ``trusted_seconds``. Else ``None``.
        """
        if authorization is None:
            return None if self.auth_required else ANONYMOUS
        digest = hashlib.blake2b(authorization).digest()
        if digest not in self._recognised:
            return None
        key = self._recognised[digest]
        if key is None:
            return ADMIN
        if self._confirmed_at < time.monotonic() - trusted_seconds or self._keys.get(key.caller.id) != key:
            return None
        # One that is due to be renewed goes the long way, on which that is done.
        return None if _expired(key.caller) or self._is_due(key) else key.caller

    def _remember(self, authorization: str, key: LiveKey | None) -> None:
        if len(self._recognised) >= _MOST_RECOGNISED:
            self._recognised.clear()
        self._recognised[hashlib.blake2b(authorization.encode("latin-1")).digest()] = key

    def _is_due(self, key: LiveKey) -> bool:
        """Whether its digest is to be stored by the new secret key."""
        return key.secret_key_id != self.secret.id and time.monotonic() - self._began > RENEW_AFTER_SECONDS

    def accepts(self, caller: Caller) -> bool:
        """Whether one who was admitted before still would be, as far as is known without looking at the database."""
        if caller in (ADMIN, ANONYMOUS):
            return True
        key = self._keys.get(caller.id)
        return key is not None and not _expired(key.caller)

    async def still(self, caller: Caller) -> None:
        """Check that one who was admitted before still would be: before what its request does, or is given, much later.

        :raises Unauthenticated: if not; and as :meth:`caller`.
        """
        if caller not in (ADMIN, ANONYMOUS):
            await self._fresh(_TRUSTED_SECONDS)
        if not self.accepts(caller):
            raise _refused(AuthFailure.UNKNOWN)

    async def _recognise(self, token: KeyToken) -> LiveKey:
        key = self._keys.get(token.id)
        secret = next((one for one in self._secrets if key is not None and one.id == key.secret_key_id), None)
        if secret is None or key is None:
            self.secret.matches(token, self.secret.no_digest)
            raise _refused(AuthFailure.UNKNOWN)
        if not secret.matches(token, key.digest):
            raise _refused(AuthFailure.UNKNOWN)
        if _expired(key.caller):
            raise _refused(AuthFailure.EXPIRED)
        if self._is_due(key):
            self._renew_soon(token)
        return key

    def _renew_soon(self, token: KeyToken) -> None:
        """Store the digest of the new secret key, one key after the other; no request waits for that."""
        if self._renewing is None and time.monotonic() > self._renew_again_at:
            self._renewing = asyncio.create_task(self._renew(token))

    async def _renew(self, token: KeyToken) -> None:
        try:
            async with self._database.writing() as session:
                await keys.renew(session, token, self.secret)
            if (key := self._keys.get(token.id)) is not None:
                self._keys[token.id] = LiveKey(key.caller, self.secret.digest(token), self.secret.id)
            logger.info("key renewed with the new secret key", key_id=token.id)
        except Exception as error:  # Whatever it is, the key is good, and comes by here again.
            self._renew_again_at = time.monotonic() + _RENEW_PAUSE_SECONDS
            logger.warning("key not renewed with the new secret key", key_id=token.id, reason=first_line(error))
        finally:
            self._renewing = None

    async def close(self) -> None:
        """Let a renewal that is under way come to its end."""
        if self._renewing is not None:
            await asyncio.wait([self._renewing])

    async def confirm(self, session: ReadSession, version: int, looked_at: float) -> None:
        """Somebody saw which state the keys are in: take it over, if it is another one.

        :param looked_at: on the monotonic clock, before the statement was sent.
        """
        if looked_at <= self._confirmed_at:
            return
        if version != self._version:
            live = await keys.live(session)
            # The follower and a request may come with what they saw at once, and not in the order in which they looked.
            # Neither waits for the other, whose connection may have fallen silent.
            if looked_at <= self._confirmed_at:
                return
            begins = self._version is None
            self._keys, self._version = live, version
            if begins:
                self._warn_if_nobody_can_get_in()
        self._confirmed_at = looked_at

    def _warn_if_nobody_can_get_in(self) -> None:
        known = {secret.id for secret in self._secrets}
        if (
            self.auth_required
            and not self._has_admin_key
            and known.isdisjoint(key.secret_key_id for key in self._keys.values())
        ):
            logger.warning(
                "nobody can get in: requests need a key, and there is none that would be accepted",
                remedy="Set ADMIN_KEY, and make keys with it: pricebook keys create. Keys made under another "
                "SECRET_KEY are accepted again with that one as SECRET_KEY_PREVIOUS.",
            )

    async def _fresh(self, seconds: float) -> None:
        """Return once the keys are as they were so long ago. One look serves all who wait for it."""
        arrived_at = time.monotonic()
        while self._confirmed_at < arrived_at - seconds:
            if self._look is None or self._look.done():
                self._look = asyncio.create_task(self._ask())
                # There may be nobody left to raise it to.
                self._look.add_done_callback(lambda task: task.cancelled() or task.exception())
            await asyncio.shield(self._look)

    async def _ask(self) -> None:
        looked_at = time.monotonic()
        async with self._database.reading() as session:
            await self.confirm(session, await keys.version(session), looked_at)


def _expired(caller: Caller) -> bool:
    return caller.expires_at is not None and caller.expires_at <= datetime.now(UTC)


def _refused(reason: AuthFailure) -> Unauthenticated:
    AUTH_FAILURES.labels(reason).inc()
    if reason is AuthFailure.MISSING:
        return Unauthenticated("Send a key in the header Authorization: Bearer pb_...", key_was_sent=False)
    # One text for all, so that nobody learns from it which keys there are.
    return Unauthenticated("The key is not accepted: it is unknown, expired or revoked.", key_was_sent=True)


def _sha256(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).digest()


def _digest(key: SecretStr | None) -> bytes:
    # Without a key, nothing that anybody sends has this digest.
    return _sha256(key.get_secret_value()) if key else bytes(32)
