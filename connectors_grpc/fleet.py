"""How all tenants are, a page at a time, each page at a bounded cost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from connectors_grpc.codec import RecordMalformed
from connectors_grpc.credentials.keeping import Keeper
from connectors_grpc.domain.ids import CredentialId
from connectors_grpc.domain.records import ApiKey, CredentialState, Tenant
from connectors_grpc.several import several
from connectors_grpc.tenants import Tenants

MOST_COUNTED = 500
"""Credentials of one tenant; a list of the store names more, so that it is known whether there are."""
MOST_NAMED = 20
AT_ONCE = 4
ENOUGH = 2000
"""Credentials read, after which a page ends. With the last tenants' own, a page reads 4,000 at most."""
NEEDY = frozenset((CredentialState.NEEDS_REAUTH, CredentialState.EXPIRED))


@dataclass(frozen=True, slots=True)
class TenantHealth:
    """How one tenant is, by its first 500 credentials; `partly` says that there are more."""

    tenant: Tenant
    by_state: Mapping[CredentialState, int]
    needs_reauth: tuple[CredentialId, ...]
    unreadable: int
    partly: bool

    @property
    def needs_attention(self) -> bool:
        """Whether somebody should look."""
        return bool(self.unreadable or any(self.by_state.get(state) for state in NEEDY))


@dataclass(frozen=True, slots=True)
class HealthPage:
    """Tenants by id. `next` is empty at the end; before it, a page may be short or empty."""

    tenants: Sequence[TenantHealth]
    next: str


class Fleet:
    """The use case over `tenants` and the credentials that the caller may see."""

    def __init__(self, tenants: Tenants, keeper: Keeper) -> None:
        self._tenants = tenants
        self._keeper = keeper

    async def list(self, caller: ApiKey, *, after: str, limit: int, needing: bool) -> HealthPage:
        """Tenants in the caller's scope; `needing`: of those, only such as need attention."""
        page = await self._tenants.list(caller, after=after, limit=limit)
        found: list[TenantHealth] = []
        counted = 0
        for begin in range(0, len(page.tenants), AT_ONCE):
            some = page.tenants[begin : begin + AT_ONCE]
            healths = await several(lambda tenant: self._health(caller, tenant), some, most=AT_ONCE)
            found += [health for health in healths if health.needs_attention or not needing]
            counted += sum(sum(health.by_state.values()) + health.unreadable for health in healths)
            if counted >= ENOUGH and begin + AT_ONCE < len(page.tenants):
                return HealthPage(found, some[-1].id)
        return HealthPage(found, page.next)

    async def _health(self, caller: ApiKey, tenant: Tenant) -> TenantHealth:
        only = caller.scope.credentials
        names = sorted(await self._keeper.names(tenant) if only is None else only)
        by_state: Counter[CredentialState] = Counter()
        waiting: list[CredentialId] = []
        unreadable = 0
        for name in names[:MOST_COUNTED]:
            try:
                held = await self._keeper.read(tenant, name)
            except RecordMalformed:
                unreadable += 1
                continue
            if held is None:
                continue
            by_state[held.credential.state] += 1
            if held.credential.state is CredentialState.NEEDS_REAUTH and len(waiting) < MOST_NAMED:
                waiting.append(name)
        return TenantHealth(tenant, by_state, tuple(waiting), unreadable, len(names) > MOST_COUNTED)
