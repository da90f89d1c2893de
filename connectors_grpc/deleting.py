"""A tenant as a whole: how it is, and its deletion, whose receipt is kept for a day.

The order of a deletion makes it repeatable at every step: mark it DELETING (no lease, call or store from then on), revoke and
purge each credential, shred the key, remove the record. A call that dies half-way is finished by calling again.
"""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from connectors_grpc import codec, policy
from connectors_grpc.credentials.keeping import Keeper
from connectors_grpc.credentials.managing import Managing
from connectors_grpc.domain.ids import CredentialId, OperationId, TenantId, TenantUid
from connectors_grpc.domain.records import ApiKey, CredentialState, Tenant, TenantState
from connectors_grpc.errors import ConnectorsError, Reason
from connectors_grpc.ports import Audit, Clock, Documents
from connectors_grpc.tenants import Tenants

KEPT = timedelta(days=1)
MOST_NAMED = 100


@dataclass(frozen=True, slots=True)
class Deletion:
    """What a deletion did: the document of `operations/{id}`."""

    id: OperationId
    tenant: TenantId
    uid: TenantUid
    purged: int
    revocations_failed: tuple[CredentialId, ...]
    key_shredded: bool
    done_time: datetime


@dataclass(frozen=True, slots=True)
class TenantStatus:
    """How a tenant is. `needs_reauth` names up to 100."""

    tenant: Tenant
    by_state: Mapping[CredentialState, int]
    needs_reauth: tuple[CredentialId, ...]


class Deleting:
    """The use cases over a whole tenant."""

    def __init__(
        self, tenants: Tenants, managing: Managing, keeper: Keeper, documents: Documents, audit: Audit, clock: Clock
    ) -> None:
        self._tenants = tenants
        self._managing = managing
        self._keeper = keeper
        self._documents = documents
        self._audit = audit
        self._clock = clock

    async def delete(self, caller: ApiKey, tenant_id: TenantId, *, force: bool, version: int) -> Deletion:
        """Delete the tenant for good. Raises: TENANT_NOT_FOUND, NOT_EMPTY (without force), CONFLICT."""
        tenant = await self._tenants.get(caller, tenant_id, fresh=True)
        if version not in (0, tenant.version):
            raise ConnectorsError(Reason.CONFLICT)
        if not force and tenant.state is not TenantState.DELETING and await self._keeper.names(tenant):
            raise ConnectorsError(Reason.NOT_EMPTY, {"tenant": tenant_id})
        tenant = await self._tenants.set_state(caller, tenant_id, TenantState.DELETING, "DeleteTenant")
        receipt = await self._managing.purge_all(tenant)
        await self._tenants.shred(tenant)
        deletion = Deletion(
            id=OperationId(f"op-{secrets.token_hex(12)}"),
            tenant=tenant_id,
            uid=tenant.uid,
            purged=receipt.purged,
            revocations_failed=receipt.revocations_failed,
            key_shredded=True,
            done_time=self._clock.now(),
        )
        await self._documents.write(f"operations/{deletion.id}", codec.dump(deletion), cas=0)
        self._audit.record("DeleteTenant", caller=caller.id, tenant=tenant_id, result="deleted")
        return deletion

    async def operation(self, caller: ApiKey, operation_id: OperationId) -> Deletion:
        """A receipt, for a day. Raises: OPERATION_NOT_FOUND, PERMISSION_DENIED."""
        document = await self._documents.read(f"operations/{operation_id}")
        deletion = None if document is None else codec.load(Deletion, document.data)
        scope = caller.scope.tenants
        if scope is not None and (deletion is None or scope.get(deletion.tenant) != deletion.uid):
            raise policy.denied()
        if deletion is None or deletion.done_time + KEPT < self._clock.now():
            raise ConnectorsError(Reason.OPERATION_NOT_FOUND)
        return deletion

    async def sweep(self) -> None:
        """Remove receipts that are older than a day."""
        after, more = "", True
        while more:
            page = await self._documents.list("operations", after=after, limit=500)
            for name in page.names:
                after = name
                document = await self._documents.read(f"operations/{name}")
                if document and codec.load(Deletion, document.data).done_time + KEPT < self._clock.now():
                    await self._documents.purge(f"operations/{name}")
            more = page.more and bool(page.names)

    async def status(self, caller: ApiKey, tenant_id: TenantId) -> TenantStatus:
        """Counts over the tenant's credentials that lie in the caller's scope. Raises: TENANT_NOT_FOUND."""
        tenant = await self._tenants.get(caller, tenant_id, fresh=True)
        by_state: Counter[CredentialState] = Counter()
        waiting: list[CredentialId] = []
        after, more = "", True
        while more:
            page = await self._keeper.list(tenant, after=after, limit=200, only=caller.scope.credentials)
            for credential in page.credentials:
                by_state[credential.state] += 1
                if credential.state is CredentialState.NEEDS_REAUTH and len(waiting) < MOST_NAMED:
                    waiting.append(credential.id)
            after, more = page.next, bool(page.next)
        return TenantStatus(tenant, by_state, tuple(waiting))
