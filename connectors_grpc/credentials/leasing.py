"""What callers get of a credential: a lease for a sidecar, an access token for a token-reader, an injection for Call.

One path for all three (`Leasing.use`): the tenant may be used, the credential is ACTIVE, its token is fresh, its hosts are
those that were sealed with it, its templates are filled.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from datetime import datetime, timedelta

from connectors_grpc import lifecycle, policy
from connectors_grpc.access import Access
from connectors_grpc.credentials.checks import check_enabled, check_state
from connectors_grpc.credentials.holding import Holding
from connectors_grpc.credentials.keeping import Held
from connectors_grpc.credentials.legacy_reads import LEGACY
from connectors_grpc.credentials.refreshing import Refreshing
from connectors_grpc.domain.definition import Api, Integration, OAuth
from connectors_grpc.domain.ids import CredentialId, KeyId, TenantId
from connectors_grpc.domain.records import ApiKey, Credential, CredentialKind, CredentialState, Material, Role, Tenant
from connectors_grpc.errors import ConnectorsError, Reason, VaultUnavailable
from connectors_grpc.hosts import sealed_hosts
from connectors_grpc.inject import FieldRefused, Injection, PlaceholderUnresolved, resolve
from connectors_grpc.integrations import Integrations
from connectors_grpc.ports import Audit, Clock
from connectors_grpc.secret import Secret
from connectors_grpc.tailoring import fields_with, tailored
from connectors_grpc.tenants import Tenants

LEASE_TTL = timedelta(seconds=60)
"""How soon a sidecar with a live watch asks again for what it uses; without one it asks after 4 s (sidecar.leases).

Why that keeps the promise of 5 s: a sidecar that is watched is told. On the same replica at once; from another through its
journal, in under two seconds. What could go wrong between is noticed within the same bound, and answered with a resync:
a replica that is killed or cut off from the Vault before it wrote its journal falls silent; a replica that can't read the
journals ends its watches; a watch that breaks puts its sidecar back to 4 s. Where the Vault is away for all, nothing can change.
The time still bounds what nobody publishes: documents that an operator edits by hand.
"""
SOONEST, LATEST = timedelta(milliseconds=100), timedelta(seconds=5)
"""Bounds of asking again for a token whose refresh is overdue."""
LEASE_GRACE = timedelta(hours=1)
GRANT_TTL = timedelta(seconds=60)
SHORTEST = timedelta(seconds=30)
"""How long a fetched token lives at least, unless asked otherwise or its whole life is shorter."""


@dataclass(frozen=True, slots=True)
class InUse:
    """A credential ready to be used: checked, fresh and resolved. Holds secrets."""

    tenant: Tenant
    held: Held
    integration: Integration
    api: Api
    material: Material
    injection: Injection

    @property
    def allowed_hosts(self) -> tuple[str, ...]:
        """Sealed hosts that the definition still allows: definitions may narrow, never widen (attack 37)."""
        still = set(sealed_hosts(self.api))
        return tuple(host for host in self.material.hosts if host in still)

    @property
    def refused_urls(self) -> tuple[str, ...]:
        """The provider's OAuth endpoints (attack 34)."""
        return self.integration.oauth.endpoints() if self.integration.oauth else ()


@dataclass(frozen=True, slots=True)
class Leased:
    """What Lease gives. `grant` is the app key's, where one was shown."""

    use: InUse
    refresh_after: timedelta
    grace: timedelta
    grant: ApiKey | None


class Leasing:
    """The use cases that hand out what a credential can do."""

    def __init__(
        self,
        tenants: Tenants,
        integrations: Integrations,
        refreshing: Refreshing,
        holding: Holding,
        access: Access,
        audit: Audit,
        clock: Clock,
    ) -> None:
        self._holding = holding
        self._tenants = tenants
        self._integrations = integrations
        self._refreshing = refreshing
        self._access = access
        self._audit = audit
        self._clock = clock

    async def use(
        self,
        caller: ApiKey,
        tenant_id: TenantId,
        credential_id: CredentialId,
        *,
        min_ttl: timedelta = timedelta(0),
        rejected_generation: int = 0,
    ) -> InUse:
        """The credential, ready: whoever counts its call at once is waited for by a refresh that would end the token.

        Raises: what `Tenants.usable`, `Refreshing.fresh` and `resolve` raise.
        """
        while True:
            use = await self._use(caller, tenant_id, credential_id, min_ttl, rejected_generation)
            # A hold may have begun while all that was looked up: once more then, behind it.
            if not self._holding.stands((use.tenant.uid, credential_id, use.held.credential.generation)):
                return use

    async def _use(
        self,
        caller: ApiKey,
        tenant_id: TenantId,
        credential_id: CredentialId,
        min_ttl: timedelta,
        rejected_generation: int,
    ) -> InUse:
        tenant = await self._tenants.usable(caller, tenant_id)
        held = await self._refreshing.fresh(
            tenant, credential_id, min_ttl=min_ttl, rejected_generation=rejected_generation
        )
        # A refresh takes its time: whoever suspended or deleted the tenant meanwhile meant this use too.
        tenant = await self._tenants.usable(caller, tenant_id)
        check_enabled(tenant, held.credential.integration)
        integration = await self._integrations.get(held.credential.integration)
        if integration.api is None:
            raise ConnectorsError(Reason.INTEGRATION_NOT_CONFIGURED, {"missing": "api"})
        material = await self._refreshing.open(tenant, held)
        integration = tailored(integration, material.values)
        assert integration.api is not None
        try:
            injection = resolve(integration.api.placement, fields_with(integration, material.fields, material.values))
        except PlaceholderUnresolved as error:
            raise ConnectorsError(Reason.PLACEHOLDER_UNRESOLVED, {"field": str(error.args[0])}) from None
        except FieldRefused as error:
            raise ConnectorsError(Reason.PLACEHOLDER_UNRESOLVED, {"place": str(error.args[0])}) from None
        return InUse(tenant, held, integration, integration.api, material, injection)

    async def confirm(self, caller: ApiKey, tenant_id: TenantId, credential_id: CredentialId) -> None:
        """That a use under way may go on: key, tenant and credential are still there and in use.

        A Vault that is away says nothing.
        Raises: API_KEY_INVALID, CREDENTIAL_NOT_FOUND, CREDENTIAL_REVOKED, CREDENTIAL_DISABLED, INTEGRATION_NOT_ENABLED, and what
        `Tenants.usable` raises.
        """
        with contextlib.suppress(VaultUnavailable):
            await self._access.prove(caller.id, bytes.fromhex(caller.sha256))
            tenant = await self._tenants.usable(caller, tenant_id)
            credential = (await self._refreshing.read(tenant, credential_id)).credential
            check_enabled(tenant, credential.integration)
            if credential.state is CredentialState.REVOKED or not credential.enabled:
                check_state(credential)

    async def lease(
        self,
        caller: ApiKey,
        tenant_id: TenantId | None,
        credential_id: CredentialId,
        *,
        proof: tuple[KeyId, bytes] | None,
        rejected_generation: int,
    ) -> Leased:
        """A lease for a sidecar, within its scope and the app key's. Raises: PERMISSION_DENIED, API_KEY_INVALID besides."""
        grant = None if proof is None else await self._access.prove(*proof)
        if grant is not None and Role.APP not in grant.roles:
            raise policy.denied()
        wanted = tenant_id or _only_tenant(grant)
        for scope in (caller.scope, *([grant.scope] if grant else ())):
            if not (policy.covers_tenant(scope, wanted) and policy.covers_credential(scope, credential_id)):
                raise policy.denied()
        if grant is not None:
            await self._tenants.get(grant, wanted)
        use = await self.use(caller, wanted, credential_id, rejected_generation=rejected_generation)
        self._handed_out("Lease", grant or caller, use)
        return Leased(use, ask_again(use.held.credential, use.integration.oauth, self._clock.now()), LEASE_GRACE, grant)

    async def fetch_token(
        self, caller: ApiKey, tenant_id: TenantId, credential_id: CredentialId, min_ttl: timedelta | None
    ) -> tuple[Held, Secret, str]:
        """The access token itself, its record and its type. Raises: INTEGRATION_NOT_CONFIGURED if it is no OAuth token."""
        tenant = await self._tenants.usable(caller, tenant_id)
        held = await self._refreshing.fresh(tenant, credential_id, min_ttl=min_ttl or SHORTEST)
        tenant = await self._tenants.usable(caller, tenant_id)
        check_enabled(tenant, held.credential.integration)
        if held.credential.kind is not CredentialKind.OAUTH:
            raise ConnectorsError(Reason.INTEGRATION_NOT_CONFIGURED, {"missing": "oauth"})
        material = await self._refreshing.open(tenant, held)
        self._audit.record(
            "FetchAccessToken",
            caller=caller.id,
            tenant=tenant.id,
            target=credential_id,
            generation=held.credential.generation,
            result="handed out",
        )
        return held, material.fields["access_token"], material.token_type

    def _handed_out(self, action: str, caller: ApiKey, use: InUse) -> None:
        self._audit.record(
            action,
            caller=caller.id,
            tenant=use.tenant.id,
            target=use.held.credential.id,
            generation=use.held.credential.generation,
            result="handed out",
        )


def ask_again(credential: Credential, oauth: OAuth | None, now: datetime) -> timedelta:
    """When a sidecar asks for its lease again: when a refresh is due, LEASE_TTL at the most.

    Past that point (jitter put it off, or the provider is down) a few times more before the token ends: often enough to get
    the new one in time, seldom enough not to hammer anybody.
    """
    if credential.detail == LEGACY:
        return LATEST  # nobody tells us when the old system refreshes it, or when it is cut over
    ends = oauth is not None and oauth.refresh_ends_access_token
    due = lifecycle.renew_at(credential, ends_access_token=ends)
    if due is None or credential.expire_time is None:
        return LEASE_TTL
    if due > now:
        return min(LEASE_TTL, due - now)
    return min(max((credential.expire_time - now) / 4, SOONEST), LATEST)


def _only_tenant(grant: ApiKey | None) -> TenantId:
    """The one tenant that a key is bound to. Raises: PERMISSION_DENIED (a key of several must say which)."""
    if grant is None or grant.scope.tenants is None or len(grant.scope.tenants) != 1:
        raise policy.denied()
    return next(iter(grant.scope.tenants))
