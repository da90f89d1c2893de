"""The life of our token: had once, renewed at two thirds of its time, replaced when it is refused. One flight at a time."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine
from typing import Any, Final

from hvac.api.auth_methods.token import Token

from connectors_grpc import logs
from connectors_grpc.errors import VaultUnavailable
from connectors_grpc.vault.adapter import AsyncAdapter, Reply
from connectors_grpc.vault.login import OK, Grant, Login, lifetime, look_up
from connectors_grpc.vault.settings import VaultMisconfigured

log = logs.get("vault")
_FORBIDDEN: Final = 403
_RENEW_AT: Final = 2 / 3
_MIN_PAUSE: Final = 0.5
_MAX_PAUSE: Final = 15.0
_REFUSED_PAUSE: Final = 1.0
_PARTING: Final = 1.0

Failure = VaultMisconfigured | VaultUnavailable


class Session:
    """Keeps `adapter.token` good. Owned by `connect`, which starts, keeps and closes it."""

    def __init__(self, adapter: AsyncAdapter, login: Login, timeout: float) -> None:
        self._adapter = adapter
        self._login = login
        self._timeout = timeout
        self._grant: Grant | None = None
        self._full_ttl = 0.0
        self._flight: asyncio.Task[Failure | None] | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._changed = asyncio.Event()
        self._failures = 0
        self._no_login_before = 0.0

    @property
    def authenticated(self) -> bool:
        """Whether there is a token that nobody has refused yet."""
        return self._adapter.token is not None

    async def start(self) -> None:
        """Log in for the first time, and keep the token from then on. A Vault that is down is waited for in the background.

        Raises: VaultMisconfigured.
        """
        failure = await self._join(self._log_in())
        if isinstance(failure, VaultMisconfigured):
            raise failure
        self._keeper = asyncio.create_task(self._keep(), name="vault-token")

    async def token(self) -> str:
        """The token that the next call will carry.  Raises: VaultUnavailable."""
        if self._adapter.token is None:
            self._raise(await self._join(self._log_in()))
        if self._adapter.token is None:
            raise VaultUnavailable
        return self._adapter.token

    async def replace(self, refused: str) -> bool:
        """After a 403: whether another token is there now, and the call is worth one more try.  Raises: VaultUnavailable."""
        if self._adapter.token == refused:
            self._raise(await self._join(self._verify(refused)))
        return self._adapter.token not in (refused, None)

    async def close(self) -> None:
        """Stop keeping the token, and end it if it is ours."""
        tasks = [task for task in (self._keeper, self._flight) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._grant is not None and self._grant.ours:
            with contextlib.suppress(VaultUnavailable, TimeoutError):
                async with asyncio.timeout(min(_PARTING, self._timeout)):
                    await Token(self._adapter).revoke_self()
        self._adapter.token = None

    async def _join(self, step: Coroutine[Any, Any, Failure | None]) -> Failure | None:
        """Take part in the flight that is under way, or begin one. A caller that gives up does not end it."""
        if self._flight is None or self._flight.done():
            self._flight = asyncio.create_task(step, name="vault-login")
        else:
            step.close()
        return await asyncio.shield(self._flight)

    def _raise(self, failure: Failure | None) -> None:
        # Each waiter gets an error of its own: a shared one would collect everybody's traceback.
        if failure is not None:
            raise VaultUnavailable(
                (failure.retry_after or 1.0) if isinstance(failure, VaultUnavailable) else _MAX_PAUSE
            )

    async def _verify(self, refused: str) -> Failure | None:
        """Ask whether the token itself is refused, or only what was asked with it; replace it if it is."""
        try:
            async with asyncio.timeout(self._timeout):
                reply = await look_up(self._adapter, refused)
        except (VaultUnavailable, TimeoutError):
            return VaultUnavailable()
        if reply.status == _FORBIDDEN:
            return await self._log_in()
        return None if reply.status == OK else VaultUnavailable(reply.retry_after)

    async def _log_in(self) -> Failure | None:
        """One login. A refusal is not repeated within a second, so that callers do not become a storm of logins."""
        clock = asyncio.get_running_loop().time
        if clock() < self._no_login_before:
            return VaultUnavailable()
        try:
            async with asyncio.timeout(self._timeout):
                self._hold(await self._login(self._adapter))
        except VaultMisconfigured as error:
            self._no_login_before = clock() + _REFUSED_PAUSE
            self._adapter.token = None
            log.error("vault_login_refused", reason=str(error))  # noqa: TRY400  (a trace has nothing to add)
            return error
        except (VaultUnavailable, TimeoutError) as error:
            return error if isinstance(error, VaultUnavailable) else VaultUnavailable()
        log.info("vault_login", result="ok")
        return None

    def _hold(self, grant: Grant) -> None:
        self._grant = grant
        self._full_ttl = grant.ttl
        self._failures = 0
        self._adapter.token = grant.token
        self._changed.set()

    async def _keep(self) -> None:
        """Renew for ever. Sleeps until it is time or until somebody else logged in."""
        while True:
            self._changed.clear()
            try:
                async with asyncio.timeout(self._pause()):
                    await self._changed.wait()
                continue
            except TimeoutError:
                pass
            try:
                failure = await self._renew()
            except Exception as error:  # a bug here must not end renewal for good
                log.error("vault_renewal_failed", error=type(error).__name__)  # noqa: TRY400  (text may hold a secret)
                failure = VaultUnavailable()
            self._failures = self._failures + 1 if failure else 0

    def _pause(self) -> float | None:
        """Seconds until the next step; None while there is none to take."""
        if self._failures:
            return min(_MIN_PAUSE * 2.0 ** min(self._failures - 1, 16), _MAX_PAUSE)
        if self._grant is None:
            return 1.0
        return max(self._grant.ttl * _RENEW_AT, _MIN_PAUSE) if self._grant.ttl else None

    async def _renew(self) -> Failure | None:
        grant = self._grant
        if grant is None or not grant.renewable or self._adapter.token is None:
            return await self._join(self._log_in())
        try:
            async with asyncio.timeout(self._timeout):
                reply: Reply = await Token(self._adapter).renew_self()
            if reply.status >= 500 or reply.status == 429:
                return VaultUnavailable(reply.retry_after)
            if reply.status != OK:
                return await self._join(self._log_in())
            ttl, renewable = lifetime(reply, reply.field("auth"), "lease_duration")
        except (VaultUnavailable, TimeoutError):
            return VaultUnavailable()
        if self._grant is grant:
            self._grant = Grant(grant.token, ttl, renewable, grant.ours)
        # Near the end of its longest life a token is renewed for less and less: take a new one in time.
        return await self._join(self._log_in()) if ttl < self._full_ttl / 2 else None
