"""OAuth clients that tenants bring of their own: id and secret in place of the platform's, and nothing else of a definition."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from connectors_grpc import codec
from connectors_grpc.domain.definition import OAuth, OAuthClient
from connectors_grpc.domain.ids import IntegrationId
from connectors_grpc.domain.records import ApiKey, Tenant
from connectors_grpc.errors import Conflict, ConnectorsError, Reason
from connectors_grpc.ports import Audit, Documents
from connectors_grpc.rules.clients import client_violations
from connectors_grpc.sealed_clients import (
    ClientSeals,
    SealedClient,
    may_compare,
    record_comparison,
    refuse,
    refuse_bare,
    without_secret,
)


@dataclass(frozen=True, slots=True)
class StoredClient:
    """The document of `clients/{tenant}.{integration}`: a tenant's own client, good for that uid only."""

    tenant_uid: str
    client: SealedClient


class TenantClients:
    """`definition` gives an integration's OAuth side as it is now. Raises: INTEGRATION_NOT_FOUND, as it does."""

    def __init__(
        self,
        documents: Documents,
        seals: ClientSeals,
        definition: Callable[[IntegrationId], Awaitable[OAuth | None]],
        audit: Audit,
    ) -> None:
        self._documents = documents
        self._seals = seals
        self._definition = definition
        self._audit = audit

    async def get(self, integration_id: IntegrationId, tenant: Tenant) -> OAuthClient | None:
        """The tenant's own client, without its secret."""
        own = await self._read(integration_id, tenant)
        return without_secret(own)

    async def opened(self, integration_id: IntegrationId, tenant: Tenant) -> OAuthClient | None:
        """The tenant's own client, with its secret. Raises: INTEGRATION_NOT_CONFIGURED."""
        own = await self._read(integration_id, tenant)
        return None if own is None else await self._seals.open(own, _context(tenant, integration_id))

    async def _read(self, integration_id: IntegrationId, tenant: Tenant) -> SealedClient | None:
        document = await self._documents.read(f"clients/{tenant.id}.{integration_id}")
        if document is None:
            return None
        stored = codec.load(StoredClient, document.data)
        return stored.client if stored.tenant_uid == tenant.uid else None

    async def set(
        self,
        caller: ApiKey,
        tenant: Tenant,
        integration_id: IntegrationId,
        client: OAuthClient,
        *,
        validate_only: bool = False,
    ) -> bool:
        """A tenant's own id and secret, and nothing else of the definition (attack 37). Says whether it was there already.

        Raises: CONFLICT, INVALID_FIELD, PERMISSION_DENIED.
        """
        may_compare(caller, validate_only)
        oauth = await self._definition(integration_id)
        refuse(client_violations(client, oauth))
        path = f"clients/{tenant.id}.{integration_id}"
        there = await self._documents.read(path)
        own = None if there is None else codec.load(StoredClient, there.data)
        # What a former tenant of that name stored is not this one's to keep (attack 38).
        stored = own.client if own is not None and own.tenant_uid == tenant.uid else None
        if stored is None and client.secret is None:
            refuse_bare(oauth)
        sealed = await self._seals.sealed(client, stored, oauth, _context(tenant, integration_id))
        unchanged = sealed == stored
        if validate_only:
            record_comparison(self._audit, caller, integration_id, tenant.id, unchanged)
        if unchanged or validate_only:
            return unchanged
        try:
            await self._documents.write(
                path, codec.dump(StoredClient(tenant.uid, sealed)), cas=there.version if there else 0
            )
        except Conflict:
            raise ConnectorsError(Reason.CONFLICT) from None
        self._audit.record(
            "UpdateIntegration", caller=caller.id, tenant=tenant.id, target=integration_id, result="client set"
        )
        return False

    async def delete(self, caller: ApiKey, tenant: Tenant, integration_id: IntegrationId) -> None:
        """Back to the platform's client. Raises: INTEGRATION_NOT_FOUND if the tenant has none of its own."""
        if await self._read(integration_id, tenant) is None:
            raise ConnectorsError(Reason.INTEGRATION_NOT_FOUND, {"integration": integration_id, "tenant": tenant.id})
        await self._documents.purge(f"clients/{tenant.id}.{integration_id}")
        self._audit.record(
            "DeleteIntegration", caller=caller.id, tenant=tenant.id, target=integration_id, result="client deleted"
        )

    async def purge_all(self, tenant: Tenant) -> None:
        """Forget every OAuth client of a tenant that is being deleted: they are sealed by the platform's key, not by its own."""
        prefix = f"{tenant.id}."
        while True:
            page = await self._documents.list("clients", after=prefix, limit=100)
            names = [name for name in page.names if name.startswith(prefix)]
            for name in names:
                await self._documents.purge(f"clients/{name}")
            if not names:
                return


def _context(tenant: Tenant, integration_id: IntegrationId) -> str:
    return f"{tenant.uid}/{integration_id}"
