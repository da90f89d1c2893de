"""While a migration runs: what is not in the new layout yet, or waits there for its cut-over, is read from the old one.

It is only read. A token is handed out while it lives, and never refreshed from here: that is the old system's until the cut-over.
Only tenants that the migration made read there, so that one that was deleted and made anew finds nothing of the earlier one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from connectors_grpc import logs
from connectors_grpc.credentials.checks import is_staged
from connectors_grpc.credentials.holding import Holding
from connectors_grpc.credentials.keeping import Held, Keeper
from connectors_grpc.credentials.refreshing import Refreshing
from connectors_grpc.credentials.renewing import Renewing
from connectors_grpc.domain.definition import Integration
from connectors_grpc.domain.ids import CredentialId, IntegrationId
from connectors_grpc.domain.records import Credential, CredentialState, Material, Tenant
from connectors_grpc.errors import ConnectorsError, Reason
from connectors_grpc.hosts import sealed_hosts
from connectors_grpc.integrations import Integrations
from connectors_grpc.legacy import FormUnknown, OldCredential, parse, request_id
from connectors_grpc.ports import Clock, OldLayout

LEGACY: Final = "legacy"
"""The detail of a credential that was read from the old layout; its generation is 0, so that the migrated one is newer."""

log = logs.get("legacy")


@dataclass(frozen=True, slots=True)
class LegacyHeld(Held):
    """A credential of the old layout, with its material, which nothing here has sealed."""

    material: Material


@dataclass(frozen=True, slots=True)
class Old:
    """Where the old records lie, and which old tenants got new ids."""

    layout: OldLayout
    path: str
    names: Mapping[str, str]

    def name(self, tenant: Tenant) -> str | None:
        """What the tenant was called; None if it is not the migration's."""
        if tenant.request_id != request_id(self.path, tenant.id):
            return None
        mapped = [old for old, new in self.names.items() if new == tenant.id]
        if mapped:
            return mapped[0]
        return None if tenant.id in self.names else tenant.id


class OldCredentials:
    """Credentials as the old layout has them. It is `managing.Elsewhere`."""

    def __init__(self, integrations: Integrations, clock: Clock, old: Old) -> None:
        self._integrations = integrations
        self._clock = clock
        self._old = old

    async def find(self, tenant: Tenant, credential_id: CredentialId) -> tuple[Credential, Material] | None:
        """The credential and its material; None if there is none that can be used."""
        name = self._old.name(tenant)
        if name is None:
            return None
        try:
            integration = await self._integration(IntegrationId(credential_id))
            if integration is None:
                return None
            record = await self._old.layout.read(name, credential_id)
            return None if record is None else self._found(tenant, integration, parse(record.document))
        except FormUnknown:
            log.warning("old_record_unknown", tenant=tenant.id, credential=credential_id)
            return None

    async def _integration(self, integration_id: IntegrationId) -> Integration | None:
        try:
            return await self._integrations.get(integration_id)
        except ConnectorsError as error:
            if error.reason is not Reason.INTEGRATION_NOT_FOUND:
                raise
            return None

    def _found(
        self, tenant: Tenant, integration: Integration, old: OldCredential
    ) -> tuple[Credential, Material] | None:
        if integration.api is None:
            return None
        now, hosts = self._clock.now(), sealed_hosts(integration.api)
        credential = Credential(
            tenant=tenant.id,
            id=CredentialId(integration.id),
            integration=integration.id,
            kind=old.kind,
            state=CredentialState.ACTIVE,
            generation=0,
            create_time=now,
            update_time=now,
            detail=LEGACY,
            granted_scopes=old.scopes,
            hosts=hosts,
            expire_time=old.expire_time,
        )
        return credential, Material(integration.id, old.fields, hosts, old.refresh_token)


class LegacyRefreshing(Refreshing):
    """`Refreshing` that looks in the old layout too."""

    def __init__(
        self,
        keeper: Keeper,
        integrations: Integrations,
        renewing: Renewing,
        holding: Holding,
        clock: Clock,
        old: OldCredentials,
    ) -> None:
        super().__init__(keeper, integrations, renewing, holding, clock)
        self._old = old

    async def read(self, tenant: Tenant, credential_id: CredentialId) -> Held:
        """As `Refreshing`; what the new layout is in charge of, is never looked for in the old one."""
        try:
            held = await super().read(tenant, credential_id)
        except ConnectorsError as error:
            absent = error.reason is Reason.CREDENTIAL_NOT_FOUND
            found = await self._found(tenant, credential_id) if absent else None
            if found is None:
                raise
            return found
        if not is_staged(held.credential):
            return held
        return await self._found(tenant, credential_id) or held

    async def open(self, tenant: Tenant, held: Held) -> Material:
        """As `Refreshing`."""
        return held.material if isinstance(held, LegacyHeld) else await super().open(tenant, held)

    async def _found(self, tenant: Tenant, credential_id: CredentialId) -> LegacyHeld | None:
        found = await self._old.find(tenant, credential_id)
        return None if found is None else LegacyHeld(found[0], "", found[1])
