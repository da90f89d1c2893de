"""What operators do with credentials: store, read, list, change, revoke and forget them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Protocol

from connectors_grpc import lifecycle, policy
from connectors_grpc.credentials.checks import FORGOTTEN, STAGED, is_staged, not_found, staged_elsewhere
from connectors_grpc.credentials.keeping import Held, HeldPage, Keeper, Place
from connectors_grpc.credentials.placing import (
    NewMaterial,
    check_account,
    check_fills,
    check_place,
    granted,
    material_of,
)
from connectors_grpc.credentials.refresh_lease import RefreshLeases
from connectors_grpc.credentials.revoking import PENDING_DETAIL, ProviderResult, Revoking
from connectors_grpc.domain.definition import Integration
from connectors_grpc.domain.ids import CredentialId, IntegrationId, TenantId
from connectors_grpc.domain.records import ApiKey, Credential, CredentialState, Material, Role, Tenant
from connectors_grpc.errors import Conflict, ConnectorsError, KeyMissing, Reason
from connectors_grpc.integrations import Integrations
from connectors_grpc.ports import Audit, Change, Changes, Clock
from connectors_grpc.tenants import Tenants

STORE_ATTEMPTS = 5
"""Of one call that names no version. Each that is lost, another writer won."""


class Elsewhere(Protocol):
    """Where credentials may lie that are in use before they are stored here: an older layout, while it is migrated."""

    async def find(self, tenant: Tenant, credential_id: CredentialId) -> tuple[Credential, Material] | None:
        """The credential that is in use from there, if there is one. Raises: VaultUnavailable."""


class Managing:
    """The use cases of operators."""

    def __init__(
        self,
        tenants: Tenants,
        integrations: Integrations,
        keeper: Keeper,
        revoking: Revoking,
        leases: RefreshLeases,
        changes: Changes,
        audit: Audit,
        clock: Clock,
        elsewhere: Elsewhere | None = None,
    ) -> None:
        self._elsewhere = elsewhere
        self._tenants = tenants
        self._leases = leases
        self._integrations = integrations
        self._keeper = keeper
        self._revoking = revoking
        self._changes = changes
        self._audit = audit
        self._clock = clock

    async def store(
        self,
        tenant: Tenant,
        integration: Integration,
        credential_id: CredentialId,
        new: NewMaterial,
        *,
        caller: str,
        labels: Mapping[str, str] | None = None,
        roles: frozenset[Role] = frozenset(),
        version: int = 0,
        same_account: bool = False,
        staged: bool = False,
        place: Place | None = None,
    ) -> Credential:
        """Seal the material with the hosts of the definition as it is now, over whatever is there. `integration` is tailored.

        `version` other than 0 must be the current one; with 0, a write that another one came before (of a refresh, of a key's
        rotation) is made again over what is there then. A credential of another integration is not replaced; with
        `same_account`, neither is one of another account; with `staged`, neither is one that is in use. `place` is what was just
        read there, if it was. `roles` are the caller's, who may not have an admin's for reserved labels.
        Raises: CONFLICT, ALREADY_EXISTS, INVALID_FIELD (the material can't fill the templates), INTEGRATION_NOT_CONFIGURED,
        ACCOUNT_MISMATCH.
        """
        if integration.api is None:
            raise ConnectorsError(Reason.INTEGRATION_NOT_CONFIGURED, {"missing": "api"})
        check_fills(integration, new)
        material = material_of(integration, new)
        for _ in range(STORE_ATTEMPTS):
            there, current = place or await self._keeper.place(tenant, credential_id)
            place = None
            old = None if there is None else there.credential
            check_place(integration, credential_id, old, version, staged=staged)
            if same_account and old is not None and old.state is not CredentialState.REVOKED:
                check_account(integration, old, new)
            if labels:
                labels = policy.labels_after(roles, labels, {} if old is None else old.labels, "labels")
            credential = granted(
                tenant, integration, credential_id, new, old, now=self._clock.now(), labels=labels, version=current
            )
            if staged:
                credential = replace(credential, enabled=False, detail=STAGED)
            try:
                # Sealed anew each time: a rotation may have come between, whose old key is about to be trimmed.
                ciphertext = await self._keeper.seal(tenant, credential_id, material)
                held = await self._keeper.write(tenant, Held(credential, ciphertext))
            except Conflict:
                if version:
                    break
                continue
            except KeyMissing:
                raise ConnectorsError(Reason.TENANT_NOT_FOUND, {"tenant": tenant.id}) from None
            self._done("StoreCredential", caller, held.credential, "stored")
            return held.credential
        raise ConnectorsError(Reason.CONFLICT)

    async def find(self, tenant: Tenant, credential_id: CredentialId) -> Credential | None:
        """What is there, if anything."""
        held = await self._keeper.read(tenant, credential_id)
        return None if held is None else held.credential

    async def get(self, caller: ApiKey, tenant_id: TenantId, credential_id: CredentialId) -> Credential:
        """As stored. Raises: CREDENTIAL_NOT_FOUND."""
        return (await self._held(await self._tenants.get(caller, tenant_id), credential_id)).credential

    async def _held(self, tenant: Tenant, credential_id: CredentialId) -> Held:
        held = await self._keeper.read(tenant, credential_id)
        if held is None:
            raise not_found(tenant.id, credential_id)
        return held

    async def _absent(self, tenant: Tenant, credential_id: CredentialId) -> ConnectorsError:
        """What is said of a credential that is not stored here."""
        if self._elsewhere is None or await self._elsewhere.find(tenant, credential_id) is None:
            return not_found(tenant.id, credential_id)
        return staged_elsewhere(tenant.id, credential_id)

    async def _in_use(self, tenant: Tenant, credential_id: CredentialId) -> Held:
        """The credential with the material that is in use, sealed here if it came from elsewhere."""
        held = await self._keeper.read(tenant, credential_id)
        found = None
        if self._elsewhere is not None and (held is None or is_staged(held.credential)):
            found = await self._elsewhere.find(tenant, credential_id)
        if found is None:
            if held is None:
                raise not_found(tenant.id, credential_id)
            return held
        credential, material = found
        try:
            ciphertext = await self._keeper.seal(tenant, credential_id, material)
        except KeyMissing:
            raise ConnectorsError(Reason.TENANT_NOT_FOUND, {"tenant": tenant.id}) from None
        return Held(credential if held is None else held.credential, ciphertext)

    async def list(self, caller: ApiKey, tenant_id: TenantId, *, after: str, limit: int) -> HeldPage:
        """The tenant's credentials that lie in the caller's scope, by id."""
        tenant = await self._tenants.get(caller, tenant_id)
        return await self._keeper.list(tenant, after=after, limit=limit, only=caller.scope.credentials)

    async def update(
        self,
        caller: ApiKey,
        tenant_id: TenantId,
        credential_id: CredentialId,
        *,
        version: int,
        labels: Mapping[str, str] | None,
        enabled: bool | None,
    ) -> Credential:
        """Change what is not None. `version` 0 takes what is there.

        Raises: CONFLICT, CREDENTIAL_STAGED (a migration's to switch on or off, which is an admin's), INVALID_FIELD.
        """
        tenant = await self._tenants.get(caller, tenant_id)
        held = await self._keeper.read(tenant, credential_id)
        if held is None:
            raise await self._absent(tenant, credential_id)
        there = held.credential
        if version not in (0, there.version):
            raise ConnectorsError(Reason.CONFLICT)
        if enabled is not None and is_staged(there) and Role.ADMIN not in caller.roles:
            raise staged_elsewhere(tenant.id, credential_id)
        if labels is not None:
            labels = policy.labels_after(caller.roles, labels, there.labels, "credential.labels")
        changed = replace(
            there,
            labels=there.labels if labels is None else labels,
            enabled=there.enabled if enabled is None else enabled,
            # Whoever switches it on or off takes charge of it: it is no migration's any more.
            detail="" if enabled is not None and there.detail == STAGED else there.detail,
        )
        written = await self._write(tenant, Held(changed, held.ciphertext))
        self._done("UpdateCredential", caller.id, written, "updated")
        return written

    async def _write(self, tenant: Tenant, held: Held, *, forget: bool = False) -> Credential:
        try:
            return (await self._keeper.write(tenant, held, forget=forget)).credential
        except Conflict:
            raise ConnectorsError(Reason.CONFLICT) from None

    async def revoke(
        self, caller: ApiKey, tenant_id: TenantId, credential_id: CredentialId, integration_id: IntegrationId | None
    ) -> tuple[Credential, ProviderResult]:
        """Revoke at the provider where it can be, and here in any case; the material is purged with its old versions.

        The record stays, so that callers are told what happened. Revoking twice asks the provider once. What is in use from an
        older layout is revoked by a record here, which stands before that one from then on.
        Raises: CREDENTIAL_NOT_FOUND, CONFLICT.
        """
        tenant = await self._tenants.get(caller, tenant_id)
        held = await self._in_use(tenant, credential_id)
        if integration_id is not None and held.credential.integration != integration_id:
            raise not_found(tenant_id, credential_id)
        if held.credential.state is CredentialState.REVOKED:
            return held.credential, ProviderResult.NOT_SUPPORTED
        result = await self._revoking.revoke(tenant, held, again=True)
        detail = PENDING_DETAIL if result is ProviderResult.FAILED else ""
        written = await self._end(tenant, held, detail)
        self._done("RevokeCredential", caller.id, written, result)
        return written, result

    async def forget(
        self, caller: ApiKey, tenant_id: TenantId, credential_id: CredentialId, *, version: int
    ) -> Credential:
        """Purge the material, and say nothing to the provider. `version` other than 0 must be the current one.

        Raises: CREDENTIAL_NOT_FOUND, CONFLICT (also while a refresh is under way, whose answer would be lost).
        """
        tenant = await self._tenants.get(caller, tenant_id)
        held = await self._held(tenant, credential_id)
        if held.credential.state is CredentialState.REVOKED:
            return held.credential
        if version not in (0, held.credential.version):
            raise ConnectorsError(Reason.CONFLICT)
        if await self._leases.is_held(tenant, credential_id):
            raise ConnectorsError(Reason.CONFLICT, {"problem": "refresh_under_way"})
        written = await self._end(tenant, held, FORGOTTEN)
        self._done("ForgetCredential", caller.id, written, "forgotten")
        return written

    async def _end(self, tenant: Tenant, held: Held, detail: str) -> Credential:
        ended = replace(
            held.credential,
            state=lifecycle.next_state(held.credential.state, lifecycle.Event.REVOKED),
            reason=Reason.CREDENTIAL_REVOKED.value,
            detail=detail,
            # What was only staged was switched off by nobody: its next grant is in use at once.
            enabled=held.credential.enabled or is_staged(held.credential),
            refreshable=False,
            expire_time=None,
        )
        # Older versions still hold the ciphertext. Not by a purge: versions would count from 1 again, and a refresh under
        # way, which writes over the version that it read, could bring the credential back.
        return await self._write(tenant, Held(ended, ""), forget=True)

    def _done(self, action: str, caller: str, credential: Credential, result: str) -> None:
        self._changes.publish(Change(tenant=credential.tenant, credential=credential.id))
        self._audit.record(
            action,
            caller=caller,
            tenant=credential.tenant,
            target=credential.id,
            generation=credential.generation,
            result=result,
        )
