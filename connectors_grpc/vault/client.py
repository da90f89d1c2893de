"""One way to call the Vault: under a deadline, with a good token, and with what is not an answer turned into an error."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

from hvac.api.secrets_engines.kv_v2 import KvV2
from hvac.api.secrets_engines.transit import Transit
from hvac.api.system_backend.health import Health

from connectors_grpc import logs
from connectors_grpc.errors import VaultUnavailable
from connectors_grpc.vault.adapter import AsyncAdapter, Reply, malformed, silence
from connectors_grpc.vault.login import login_of
from connectors_grpc.vault.session import Session
from connectors_grpc.vault.settings import VaultSettings

log = logs.get("vault")
_ANSWERS: Final = frozenset((200, 204, 400, 403, 404))
_HEALTH: Final = frozenset((200, 429, 472, 473, 501, 503))
_FORBIDDEN: Final = 403


Observed = Callable[[str, float], None]
"""Told of each call at its end: `answered` or `unavailable`, seconds."""


@dataclass(frozen=True, slots=True)
class VaultHealth:
    """What the Vault says of itself. `version` is its own text, at most 64 characters."""

    initialized: bool
    sealed: bool
    version: str


class VaultClient:
    """A Vault that we are logged in to. `kv` and `transit` are hvac's API classes; hand their calls to `call`."""

    def __init__(
        self, adapter: AsyncAdapter, session: Session, timeout: float, observed: Observed | None = None
    ) -> None:
        self.adapter = adapter
        self.kv = KvV2(adapter)
        self.transit = Transit(adapter)
        self._session = session
        self._timeout = timeout
        self._observed = observed

    @property
    def authenticated(self) -> bool:
        """Whether there is a token that nobody has refused yet: part of readiness."""
        return self._session.authenticated

    async def call(self, request: Callable[[], Awaitable[Reply]]) -> Reply:
        """The answer, of status 200, 204, 400, 403 or 404. A refused token is replaced, and the call made again, once.

        Bounds: the settings' timeout for all of it; a caller's own `asyncio.timeout` may end it sooner.
        Raises: VaultUnavailable.
        """
        began, result = time.monotonic(), "unavailable"
        try:
            reply = await self._answer(request)
            result = "answered"
        finally:
            if self._observed is not None:
                self._observed(result, time.monotonic() - began)
        return reply

    async def _answer(self, request: Callable[[], Awaitable[Reply]]) -> Reply:
        try:
            async with asyncio.timeout(self._timeout):
                token = await self._session.token()
                reply = await request()
                if reply.status == _FORBIDDEN and await self._session.replace(token):
                    reply = await request()
        except TimeoutError:
            self.adapter.note_unreachable("TimeoutError")
            raise VaultUnavailable from None
        if reply.status not in _ANSWERS:
            log.warning("vault_not_serving", http_status=reply.status)
            raise VaultUnavailable(reply.retry_after)
        return reply

    async def health(self) -> VaultHealth:
        """Whether the Vault serves; needs no token.  Raises: VaultUnavailable if it does not answer at all."""
        try:
            async with asyncio.timeout(self._timeout):
                reply: Reply = await Health(self.adapter).read_health_status(method="GET")
        except TimeoutError:
            raise VaultUnavailable from None
        initialized, sealed, version = (reply.field(name) for name in ("initialized", "sealed", "version"))
        known = reply.status in _HEALTH and isinstance(initialized, bool) and isinstance(sealed, bool)
        if not known or not isinstance(version, str):
            raise malformed(reply)
        return VaultHealth(initialized, sealed, version[:64])


def unexpected(reply: Reply) -> VaultUnavailable:
    """The Vault refused what the platform must be able to do: its policy, mounts or version are not as we need them."""
    log.error("vault_refused", http_status=reply.status)
    return VaultUnavailable(reply.retry_after)


@asynccontextmanager
async def connect(settings: VaultSettings, observed: Observed | None = None) -> AsyncIterator[VaultClient]:
    """A client for a block, its token renewed meanwhile and ended afterwards.

    A Vault that is down does not stop it: calls raise VaultUnavailable until it is back.
    Raises: VaultMisconfigured if the login is refused, a file can't be read, or the token is root's.
    """
    silence()
    adapter = AsyncAdapter(settings)
    session = Session(adapter, login_of(settings), settings.timeout)
    try:
        await session.start()
        yield VaultClient(adapter, session, settings.timeout, observed)
    finally:
        try:
            await session.close()
        finally:
            await adapter.aclose()
