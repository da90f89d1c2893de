"""Keeps access tokens fresh: when a token is refreshed, and one refresh however many callers of this process wait for it.

How a refresh goes, over all replicas, is renewing.py's. A caller that is cancelled leaves it to its end, for the provider may
have rotated.
"""

from __future__ import annotations

import random
from datetime import datetime, timedelta

from connectors_grpc import lifecycle
from connectors_grpc.credentials.checks import check_enabled, check_state, needs_reauth, not_found
from connectors_grpc.credentials.holding import Holding
from connectors_grpc.credentials.keeping import Held, Keeper, MaterialLost
from connectors_grpc.credentials.renewing import Renewing
from connectors_grpc.domain.ids import CredentialId
from connectors_grpc.domain.records import Credential, Material, Tenant
from connectors_grpc.errors import ConnectorsError, Reason
from connectors_grpc.flight import SingleFlight
from connectors_grpc.integrations import Integrations
from connectors_grpc.ports import Clock

YOUNG = timedelta(seconds=30)
"""A token younger than this is not refreshed because an upstream answered 401 (attack 33)."""
PASSING = frozenset(
    (Reason.PROVIDER_UNAVAILABLE, Reason.VAULT_UNAVAILABLE, Reason.OAUTH_CLIENT_REFUSED, Reason.LIMIT_EXCEEDED)
)
"""Why a refresh may fail while nothing is wrong with the credential."""


class Refreshing:
    """The use cases that need a token to live. Owns its flights: close it after the servers."""

    def __init__(
        self,
        keeper: Keeper,
        integrations: Integrations,
        renewing: Renewing,
        holding: Holding,
        clock: Clock,
    ) -> None:
        self._holding = holding
        self._keeper = keeper
        self._integrations = integrations
        self._renewing = renewing
        self._clock = clock
        self.flights: SingleFlight[tuple[str, CredentialId], Held] = SingleFlight()

    async def read(self, tenant: Tenant, credential_id: CredentialId) -> Held:
        """As stored. Raises: CREDENTIAL_NOT_FOUND."""
        held = await self._keeper.read(tenant, credential_id)
        if held is None:
            raise not_found(tenant.id, credential_id)
        return held

    async def open(self, tenant: Tenant, held: Held) -> Material:
        """The material; if it does not open, a person must connect again. Raises: NEEDS_REAUTH."""
        try:
            return await self._keeper.open(tenant, held)
        except MaterialLost:
            raise needs_reauth(held.credential) from None

    async def fresh(
        self, tenant: Tenant, credential_id: CredentialId, *, min_ttl: timedelta, rejected_generation: int = 0
    ) -> Held:
        """The credential with a token that lives for `min_ttl` at least, refreshed on the way if it is near its end.

        A refresh that fails for a passing reason is no error while the token still lives, and is not tried again at once.
        A token that a refresh is about to end is given to nobody: what comes of that refresh is waited for, within bounds.
        Raises: CREDENTIAL_NOT_FOUND, INTEGRATION_NOT_ENABLED, what `check_state` raises, CREDENTIAL_EXPIRED,
        PROVIDER_UNAVAILABLE, OAUTH_CLIENT_REFUSED.
        """
        held = await self._past_hold(tenant, await self.read(tenant, credential_id))
        check_enabled(tenant, held.credential.integration)
        check_state(held.credential)
        now = self._clock.now()
        rejected = self._rejected(held.credential, rejected_generation, now)
        if not rejected and not await self._due(held.credential, min_ttl, now):
            return held
        if not held.credential.refreshable:
            if lifecycle.usable(held.credential, now, timedelta(0)):
                return held
            raise ConnectorsError(Reason.CREDENTIAL_EXPIRED, {"tenant": tenant.id, "credential": credential_id})
        generation = held.credential.generation
        try:
            self._renewing.backoff.check((tenant.uid, credential_id, generation))
            renewed = await self._fly(tenant, credential_id, generation)
        except ConnectorsError as error:
            if error.reason in PASSING and lifecycle.usable(held.credential, self._clock.now(), timedelta(0)):
                return held
            raise
        # It may have been switched off or revoked while the provider took its time.
        check_state(renewed.credential)
        return renewed

    async def _past_hold(self, tenant: Tenant, held: Held) -> Held:
        """As given, unless it is about to be ended. What our own refresh made is not read: a standby might be behind."""
        credential = held.credential
        use = (tenant.uid, credential.id, credential.generation)
        if not self._holding.stands(use):
            return held
        try:
            if self.flights.flying((tenant.uid, credential.id)):
                return await self._fly(tenant, credential.id, credential.generation)
        except ConnectorsError as error:
            if error.reason not in PASSING:
                raise
        await self._holding.over(use)
        return await self.read(tenant, credential.id)

    async def _due(self, credential: Credential, min_ttl: timedelta, now: datetime) -> bool:
        if credential.expire_time is None or not credential.refreshable:
            return not lifecycle.usable(credential, now, timedelta(0))
        if credential.issue_time is not None:
            # A token that never lives so long can't be asked to: half its life is the most.
            min_ttl = min(min_ttl, (credential.expire_time - credential.issue_time) / 2)
        if not lifecycle.usable(credential, now, min_ttl):
            return True
        oauth = (await self._integrations.get(credential.integration)).oauth
        spread = random.random()  # noqa: S311 - spreads load, guards nothing
        ends = oauth is not None and oauth.refresh_ends_access_token
        return lifecycle.refresh_due(credential, now, spread, ends_access_token=ends)

    @staticmethod
    def _rejected(credential: Credential, generation: int, now: datetime) -> bool:
        if generation == 0 or generation != credential.generation or not credential.refreshable:
            return False
        return credential.issue_time is None or now - credential.issue_time >= YOUNG

    async def refresh(self, tenant: Tenant, credential_id: CredentialId) -> Held:
        """Refresh now. Callers at the same time share one provider call. Raises: as `fresh`."""
        held = await self.read(tenant, credential_id)
        check_enabled(tenant, held.credential.integration)
        check_state(held.credential)
        if not held.credential.refreshable:
            raise ConnectorsError(Reason.CREDENTIAL_EXPIRED, {"tenant": tenant.id, "credential": credential_id})
        return await self._fly(tenant, credential_id, held.credential.generation)

    async def _fly(self, tenant: Tenant, credential_id: CredentialId, seen: int) -> Held:
        return await self.flights.run(
            (tenant.uid, credential_id), lambda: self._renewing.renew(tenant, credential_id, seen)
        )
