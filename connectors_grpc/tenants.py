"""Tenants: made with a key of their own, frozen, and deleted so that nothing can be read again."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from connectors_grpc import codec, policy
from connectors_grpc.domain.ids import IntegrationId, TenantId, TenantUid
from connectors_grpc.domain.records import ApiKey, Role, Tenant, TenantState
from connectors_grpc.errors import Conflict, ConnectorsError, Reason
from connectors_grpc.ports import Audit, Change, Changes, Ciphers, Clock, DocumentPage, Documents
from connectors_grpc.quota import NO_QUOTA, Quota
from connectors_grpc.recent import Recent
from connectors_grpc.several import several

BOUNDS = frozenset(("quota", "integrations"))
"""Fields that bound a tenant: an admin's to change."""


@dataclass(frozen=True, slots=True)
class TenantPage:
    """Tenants by id. `next` is empty at the end."""

    tenants: Sequence[Tenant]
    next: str


class Tenants:
    """The use cases of tenants over `tenants/{id}` documents and one transit key each."""

    def __init__(self, documents: Documents, ciphers: Ciphers, changes: Changes, audit: Audit, clock: Clock) -> None:
        self._documents = documents
        self._ciphers = ciphers
        self._changes = changes
        self._audit = audit
        self._clock = clock
        self._recent: Recent[TenantId, Tenant | None] = Recent(clock)

    def forget(self, change: Change | None) -> None:
        """Drop what a change, perhaps of another replica, made old; None: everything."""
        if change is None:
            self._recent.clear()
        elif change.tenant is not None and change.credential is None:
            self._recent.drop(change.tenant)

    async def _read(self, tenant_id: TenantId) -> Tenant | None:
        document = await self._documents.read(f"tenants/{tenant_id}")
        return None if document is None else replace(codec.load(Tenant, document.data), version=document.version)

    async def get(self, caller: ApiKey, tenant_id: TenantId, *, fresh: bool = False) -> Tenant:
        """The tenant, if the caller's scope was given for it. `fresh` reads past the one-second cache.

        Raises: TENANT_NOT_FOUND (only to who may see it), PERMISSION_DENIED.
        """
        tenant = await (self._read(tenant_id) if fresh else self._recent.get(tenant_id, self._read))
        if tenant is None:
            # A key that names this tenant outlived it: to such a key it is as if it had never named it.
            if caller.scope.tenants is not None:
                raise policy.denied()
            raise ConnectorsError(Reason.TENANT_NOT_FOUND, {"tenant": tenant_id})
        if not policy.bound_to(caller.scope, tenant):
            raise policy.denied()
        return tenant

    async def usable(self, caller: ApiKey, tenant_id: TenantId) -> Tenant:
        """As `get`, and it is neither suspended nor being deleted. Raises: TENANT_SUSPENDED besides."""
        tenant = await self.get(caller, tenant_id)
        match tenant.state:
            case TenantState.ACTIVE:
                return tenant
            case TenantState.SUSPENDED:
                raise ConnectorsError(Reason.TENANT_SUSPENDED, {"tenant": tenant_id})
            case TenantState.DELETING:
                raise ConnectorsError(Reason.TENANT_NOT_FOUND, {"tenant": tenant_id})

    async def of_uid(self, tenant_id: TenantId, uid: TenantUid) -> Tenant | None:
        """The tenant of that very uid, whatever its state; None if it is gone. Reads past the cache."""
        tenant = await self._read(tenant_id)
        return tenant if tenant and tenant.uid == uid else None

    async def any(self, tenant_id: TenantId) -> Tenant | None:
        """The tenant of that id, whatever its uid and state: for the platform's own work."""
        return await self._recent.get(tenant_id, self._read)

    async def names(self, *, after: str, limit: int) -> DocumentPage:
        """A page of all tenants' ids: for the platform's own work."""
        return await self._documents.list("tenants", after=after, limit=limit)

    async def succeeded(self, tenant_id: TenantId, uid: TenantUid) -> bool:
        """Whether another tenant has the id by now."""
        tenant = await self._recent.get(tenant_id, self._read)
        return tenant is not None and tenant.uid != uid

    async def bound(self, tenant_id: TenantId, uid: TenantUid) -> Tenant | None:
        """The tenant of that very uid, if it may be used now: for what was begun earlier, without a caller."""
        tenant = await self._recent.get(tenant_id, self._read)
        return tenant if tenant and tenant.uid == uid and tenant.state is TenantState.ACTIVE else None

    async def create(
        self,
        caller: ApiKey,
        tenant_id: TenantId,
        *,
        display_name: str,
        labels: Mapping[str, str],
        request_id: str,
        validate_only: bool,
        quota: Quota = NO_QUOTA,
        integrations: tuple[IntegrationId, ...] | None = None,
    ) -> Tenant:
        """A new tenant and its key. The same `request_id` again gives the same tenant.

        Raises: ALREADY_EXISTS. The key comes first: a tenant without one never exists, and a key that a crash left
        behind holds nothing, for ciphertexts are bound to the uid.
        """
        now = self._clock.now()
        there = await self._read(tenant_id)
        if there is not None:
            return self._repeated(there, request_id)
        tenant = Tenant(
            id=tenant_id,
            uid=TenantUid(uuid.uuid4().hex),
            display_name=display_name or tenant_id,
            state=TenantState.ACTIVE,
            labels=dict(labels),
            create_time=now,
            update_time=now,
            request_id=request_id,
            quota=quota,
            integrations=integrations,
        )
        if validate_only:
            return tenant
        await self._ciphers.create_key(tenant_id)
        try:
            version = await self._documents.write(f"tenants/{tenant_id}", codec.dump(tenant), cas=0)
        except Conflict:
            winner = await self._read(tenant_id)
            if winner is None:
                raise ConnectorsError(Reason.CONFLICT) from None
            return self._repeated(winner, request_id)
        self._changed(tenant_id)
        self._audit.record("CreateTenant", caller=caller.id, tenant=tenant_id, result="created")
        return replace(tenant, version=version)

    @staticmethod
    def _repeated(there: Tenant, request_id: str) -> Tenant:
        if request_id and there.request_id == request_id:
            return there
        raise ConnectorsError(Reason.ALREADY_EXISTS, {"tenant": there.id})

    async def list(self, caller: ApiKey, *, after: str, limit: int) -> TenantPage:
        """Tenants in the caller's scope, by id."""
        if caller.scope.tenants is not None:
            return await self._list_named(sorted(t for t in caller.scope.tenants if t > after), caller, limit)
        page = await self._documents.list("tenants", after=after, limit=limit)
        found = await several(self._read, map(TenantId, page.names))
        return TenantPage([tenant for tenant in found if tenant], page.names[-1] if page.more and page.names else "")

    async def _list_named(self, names: Sequence[TenantId], caller: ApiKey, limit: int) -> TenantPage:
        found = [await self._read(name) for name in names[:limit]]
        bound = [tenant for tenant in found if tenant and policy.bound_to(caller.scope, tenant)]
        return TenantPage(bound, names[limit - 1] if len(names) > limit else "")

    async def update(self, caller: ApiKey, tenant_id: TenantId, *, version: int, changes: Mapping[str, Any]) -> Tenant:
        """Replace the fields that `changes` names. `version` 0 takes what is there.

        Raises: CONFLICT, PERMISSION_DENIED (what a tenant may use is not its own operators' to say), INVALID_FIELD (nor are
        reserved labels).
        """
        tenant = await self.get(caller, tenant_id, fresh=True)
        lifted = any(name in BOUNDS and changes[name] != getattr(tenant, name) for name in changes)
        if lifted and Role.ADMIN not in caller.roles:
            raise policy.denied()
        if version not in (0, tenant.version):
            raise ConnectorsError(Reason.CONFLICT)
        if "labels" in changes:
            labels = policy.labels_after(caller.roles, changes["labels"], tenant.labels, "tenant.labels")
            changes = {**changes, "labels": labels}
        changed = replace(tenant, **changes)
        updated = await self._write(replace(changed, display_name=changed.display_name or tenant_id))
        self._audit.record("UpdateTenant", caller=caller.id, tenant=tenant_id, result="updated")
        return updated

    async def set_state(self, caller: ApiKey, tenant_id: TenantId, state: TenantState, action: str) -> Tenant:
        """Suspend or resume. Doing it twice changes nothing, but that an admin's suspension is one from then on.

        Raises: TENANT_NOT_FOUND if it is being deleted, PERMISSION_DENIED if an admin suspended it and another resumes it.
        """
        tenant = await self.get(caller, tenant_id, fresh=True)
        if tenant.state is TenantState.DELETING and state is not TenantState.DELETING:
            raise ConnectorsError(Reason.TENANT_NOT_FOUND, {"tenant": tenant_id})
        if tenant.admin_suspended and state is TenantState.ACTIVE and Role.ADMIN not in caller.roles:
            raise ConnectorsError(Reason.PERMISSION_DENIED, {"denied_by": "admin_suspended"})
        by_admin = state is TenantState.SUSPENDED and (tenant.admin_suspended or Role.ADMIN in caller.roles)
        if (tenant.state, tenant.admin_suspended) != (state, by_admin):
            tenant = await self._write(replace(tenant, state=state, admin_suspended=by_admin))
        self._changed(tenant_id)
        self._audit.record(action, caller=caller.id, tenant=tenant_id, result=state)
        return tenant

    async def _write(self, tenant: Tenant) -> Tenant:
        tenant = replace(tenant, update_time=self._clock.now())
        try:
            version = await self._documents.write(f"tenants/{tenant.id}", codec.dump(tenant), cas=tenant.version)
        except Conflict:
            raise ConnectorsError(Reason.CONFLICT) from None
        self._changed(tenant.id)
        return replace(tenant, version=version)

    async def shred(self, tenant: Tenant) -> None:
        """Delete the key, then the record: after the first step no ciphertext of the tenant opens again."""
        await self._ciphers.shred_key(tenant.id)
        await self._documents.purge(f"tenants/{tenant.id}")
        self._changed(tenant.id)

    def _changed(self, tenant_id: TenantId) -> None:
        self._recent.drop(tenant_id)
        self._changes.publish(Change(tenant=tenant_id))
