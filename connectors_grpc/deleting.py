"""A tenant as a whole: how it is, and its deletion.

The order of a deletion makes it repeatable at every step: mark it DELETING (no lease, call or store from then on), revoke and
purge each credential, shred the key, remove the record. All but the first is an operation: what dies half-way is finished by
another replica, or by calling again.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from connectors_grpc.credentials.keeping import Keeper
from connectors_grpc.credentials.purging import Purging, Receipt
from connectors_grpc.domain.ids import CredentialId, TenantId, TenantUid
from connectors_grpc.domain.operation import Deletion, DeletionOf, Deletions, Operation
from connectors_grpc.domain.records import ApiKey, CredentialState, Tenant, TenantState
from connectors_grpc.errors import ConnectorsError, Reason, VaultUnavailable
from connectors_grpc.operation_run import Run
from connectors_grpc.operations import Operations
from connectors_grpc.ports import Audit
from connectors_grpc.several import several
from connectors_grpc.tenants import Tenants

AT_ONCE = 1.0
"""Seconds that a call waits for its operation's end."""
MOST_NAMED = 100
MOST_NAMED_OF_MANY = 20
"""Of each tenant, so that the operation of a hundred fits into one document."""
TENANTS_AT_ONCE = 4
ATTEMPTS = 4


@dataclass(frozen=True, slots=True)
class TenantStatus:
    """How a tenant is. `needs_reauth` names up to 100."""

    tenant: Tenant
    by_state: Mapping[CredentialState, int]
    needs_reauth: tuple[CredentialId, ...]


class Deleting:
    """The use cases over a whole tenant."""

    def __init__(
        self, tenants: Tenants, purging: Purging, keeper: Keeper, operations: Operations, audit: Audit
    ) -> None:
        self._tenants = tenants
        self._purging = purging
        self._keeper = keeper
        self._operations = operations
        self._audit = audit
        operations.carry_out("delete-tenant", self._delete)
        operations.carry_out("delete-tenants", self._delete_many)

    async def delete(self, caller: ApiKey, tenant_id: TenantId, *, force: bool, version: int) -> Operation:
        """Delete the tenant for good; what takes longer than a second goes on by itself.

        Raises: TENANT_NOT_FOUND, NOT_EMPTY (without force), CONFLICT.
        """
        tenant = await self._closed(caller, tenant_id, force=force, version=version)
        operation = await self._operations.begin(caller, tenant_id, tenant.uid, Deletion())
        return await self._operations.wait(operation, AT_ONCE)

    async def _closed(self, caller: ApiKey, tenant_id: TenantId, *, force: bool, version: int = 0) -> Tenant:
        """The tenant, marked as being deleted. Raises: as `delete`."""
        tenant = await self._tenants.get(caller, tenant_id, fresh=True)
        if version not in (0, tenant.version):
            raise ConnectorsError(Reason.CONFLICT)
        if not force and tenant.state is not TenantState.DELETING and await self._keeper.names(tenant):
            raise ConnectorsError(Reason.NOT_EMPTY, {"tenant": tenant_id})
        return await self._tenants.set_state(caller, tenant_id, TenantState.DELETING, "DeleteTenant")

    async def delete_many(self, caller: ApiKey, tenant_ids: Sequence[TenantId], *, force: bool) -> Operation:
        """As `delete`, of each tenant that can be: the others' reasons stand in the operation. Raises: VAULT_UNAVAILABLE."""

        async def closed(tenant_id: TenantId) -> DeletionOf:
            for attempt in range(ATTEMPTS):
                try:
                    return DeletionOf(tenant_id, (await self._closed(caller, tenant_id, force=force)).uid)
                except VaultUnavailable:
                    raise
                except ConnectorsError as error:
                    # Another was first, who perhaps closes it as well: see.
                    if error.reason is not Reason.CONFLICT or attempt == ATTEMPTS - 1:
                        return DeletionOf(tenant_id, error=error.reason.value, done=True)
            raise AssertionError

        each = tuple(await several(closed, dict.fromkeys(tenant_ids)))
        # The same tenants again are the same operation while it runs.
        uid = TenantUid(hashlib.sha256(" ".join(sorted(tenant_ids)).encode()).hexdigest()[:32])
        operation = await self._operations.begin(caller, TenantId(""), uid, Deletions(each))
        assert isinstance(operation.work, Deletions)
        if {(one.tenant, one.uid) for one in each if one.uid} - {(one.tenant, one.uid) for one in operation.work.each}:
            # One that runs already is of an earlier tenant of the id: this one's turn is after its end.
            raise ConnectorsError(Reason.CONFLICT)
        return await self._operations.wait(operation, AT_ONCE)

    async def _delete_many(self, run: Run) -> None:
        """Carry out each that was not refused, or what is left of it."""
        deletions = run.operation.work
        assert isinstance(deletions, Deletions)
        now = list(deletions.each)

        def tell(at: int, one: DeletionOf) -> None:
            now[at] = one
            done = sum(each.done for each in now)
            run.note(work=Deletions(tuple(now)), items_done=done, items_total=len(now))

        async def carry_out(at: int) -> None:
            one = now[at]

            def told(deletion: Deletion) -> None:
                failed = deletion.revocations_failed[:MOST_NAMED_OF_MANY]
                tell(at, replace(one, deletion=replace(deletion, revocations_failed=failed)))

            assert one.uid is not None
            try:
                await self._carried_out(one.tenant, one.uid, one.deletion, told)
            except VaultUnavailable:
                raise
            except ConnectorsError as error:
                tell(at, replace(now[at], error=error.reason.value, done=True))
                return
            tell(at, replace(now[at], deletion=replace(now[at].deletion, key_shredded=True), done=True))
            self._audit.record("DeleteTenant", caller=run.operation.caller, tenant=one.tenant, result="deleted")

        run.note(step="deleting", items_done=sum(each.done for each in now), items_total=len(now))
        await several(carry_out, [at for at, one in enumerate(now) if not one.done], most=TENANTS_AT_ONCE)

    async def _carried_out(
        self, tenant_id: TenantId, uid: TenantUid, so_far: Deletion, tell: Callable[[Deletion], None]
    ) -> None:
        """Purge and shred what is left of the tenant. Without a record, an earlier run got as far as shredding."""
        tenant = await self._tenants.of_uid(tenant_id, uid)
        if tenant is not None:

            def told(receipt: Receipt) -> None:
                tell(replace(so_far, purged=receipt.purged, revocations_failed=receipt.revocations_failed))

            await self._purging.purge(tenant, Receipt(so_far.purged, so_far.revocations_failed), told)
            await self._tenants.shred(tenant)

    async def _delete(self, run: Run) -> None:
        """Carry it out, or what is left of it."""
        operation = run.operation
        assert isinstance(operation.work, Deletion)
        deletion = operation.work
        tenant = await self._tenants.of_uid(operation.tenant, operation.uid)
        # Without a record, an earlier run got as far as shredding.
        if tenant is not None:
            left = await self._keeper.count(tenant)
            run.note(step="purging", items_done=deletion.purged, items_total=deletion.purged + left)

            def tell(receipt: Receipt) -> None:
                done = replace(deletion, purged=receipt.purged, revocations_failed=receipt.revocations_failed)
                run.note(work=done, items_done=done.purged, items_total=max(done.purged, run.operation.items_total))

            so_far = Receipt(deletion.purged, deletion.revocations_failed)
            await self._purging.purge(tenant, so_far, tell)
            await run.save(step="shredding")
            await self._tenants.shred(tenant)
        assert isinstance(run.operation.work, Deletion)
        run.note(work=replace(run.operation.work, key_shredded=True))
        self._audit.record("DeleteTenant", caller=operation.caller, tenant=operation.tenant, result="deleted")

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
