"""The fleet's health: every tenant in scope once, at a bounded cost, whatever is stored."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from connectors_grpc import fleet
from connectors_grpc.audit import LogAudit
from connectors_grpc.clock import SystemClock
from connectors_grpc.credentials.keeping import Held, Keeper
from connectors_grpc.domain.ids import CredentialId, IntegrationId, KeyId, TenantId
from connectors_grpc.domain.records import ApiKey, Credential, CredentialKind, CredentialState, Role, Scope, Tenant
from connectors_grpc.gen.connectors.v1 import access_service_pb2 as access
from connectors_grpc.gen.connectors.v1 import tenant_service_pb2 as pb
from connectors_grpc.journals import JournaledChanges
from connectors_grpc.memory import MemoryCiphers, MemoryDocuments
from connectors_grpc.simulator.misbehaviour import Misbehaviour
from connectors_grpc.tenants import Tenants
from tests.running import Client, fresh_id, refused
from tests.worlds import World

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def key(tenants: dict[TenantId, Any] | None = None, credentials: frozenset[CredentialId] | None = None) -> ApiKey:
    """A caller."""
    return ApiKey(KeyId("k"), "", frozenset((Role.ADMIN,)), Scope(tenants, credentials), "", NOW)


class Small:
    """Tenants over memory, and how many credentials were read."""

    def __init__(self) -> None:
        self.documents = MemoryDocuments()
        ciphers = MemoryCiphers()
        records = MemoryDocuments()
        self.tenants = Tenants(records, ciphers, JournaledChanges(records), LogAudit(), SystemClock())
        self.keeper = Keeper(self.documents, ciphers, SystemClock())
        self.fleet = fleet.Fleet(self.tenants, self.keeper)

    async def tenant(self, name: str, states: list[CredentialState]) -> Tenant:
        """A tenant with a credential in each of these states."""
        tenant = await self.tenants.create(
            key(), TenantId(name), display_name="", labels={}, request_id="", validate_only=False
        )
        for number, state in enumerate(states):
            credential = Credential(
                tenant=tenant.id,
                id=CredentialId(f"c{number:04}"),
                integration=IntegrationId("notes"),
                kind=CredentialKind.API_KEY,
                state=state,
                generation=1,
                create_time=NOW,
                update_time=NOW,
            )
            await self.keeper.write(tenant, Held(credential, ""))
        return tenant

    async def walk(self, limit: int = 500, *, needing: bool = False) -> list[list[fleet.TenantHealth]]:
        """Every page."""
        pages, after = [], ""
        while True:
            page = await self.fleet.list(key(), after=after, limit=limit, needing=needing)
            pages.append(list(page.tenants))
            if not page.next:
                return pages
            after = page.next


async def test_a_page_ends_when_it_has_cost_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is shorter than asked for then, and the walk still gives each tenant once."""
    monkeypatch.setattr(fleet, "ENOUGH", 8)
    small = Small()
    names = [f"t{number}" for number in range(10)]
    for name in names:
        await small.tenant(name, [CredentialState.ACTIVE] * 3)
    pages = await small.walk()
    assert [len(page) for page in pages] == [4, 4, 2]
    assert [health.tenant.id for page in pages for health in page] == names


async def test_a_page_without_needy_tenants_is_empty_and_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty token is the only sign of the end."""
    monkeypatch.setattr(fleet, "ENOUGH", 1)
    small = Small()
    for number in range(5):
        await small.tenant(f"a{number}", [CredentialState.ACTIVE])
    await small.tenant("z", [CredentialState.ACTIVE, CredentialState.EXPIRED])
    pages = await small.walk(needing=True)
    assert [[health.tenant.id for health in page] for page in pages] == [[], ["z"]]


async def test_a_damaged_record_is_counted_and_hides_nobody() -> None:
    """It is what somebody should look at."""
    small = Small()
    tenant = await small.tenant("acme", [CredentialState.ACTIVE])
    data: Any = {"tenant_uid": tenant.uid, "record": {"id": "odd"}, "ciphertext": ""}
    await small.documents.write("acme/odd", data, cas=0)
    ((health,),) = await small.walk(needing=True)
    assert (dict(health.by_state), health.unreadable, health.needs_attention) == (
        {CredentialState.ACTIVE: 1},
        1,
        True,
    )


async def test_of_very_many_credentials_the_first_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """And it is said that there are more."""
    monkeypatch.setattr(fleet, "MOST_COUNTED", 3)
    monkeypatch.setattr(fleet, "MOST_NAMED", 2)
    small = Small()
    await small.tenant("big", [CredentialState.NEEDS_REAUTH] * 5)
    await small.tenant("fits", [CredentialState.ACTIVE] * 3)
    ((big, fits),) = await small.walk()
    assert (big.partly, big.by_state[CredentialState.NEEDS_REAUTH], len(big.needs_reauth)) == (True, 3, 2)
    assert not fits.partly


async def test_a_scope_bounds_what_is_counted() -> None:
    """Tenants by uid, and credentials by id."""
    small = Small()
    mine = await small.tenant("mine", [CredentialState.ACTIVE, CredentialState.NEEDS_REAUTH])
    await small.tenant("other", [CredentialState.NEEDS_REAUTH])
    caller = key({mine.id: mine.uid}, frozenset((CredentialId("c0000"), CredentialId("none"))))
    page = await small.fleet.list(caller, after="", limit=50, needing=False)
    (health,) = page.tenants
    assert (health.tenant.id, dict(health.by_state)) == ("mine", {CredentialState.ACTIVE: 1})


async def statuses(client: Client, **fields: Any) -> list[pb.TenantStatus]:
    """Every page of ListTenantStatuses."""
    found: list[pb.TenantStatus] = []
    token = ""
    while True:
        request = pb.ListTenantStatusesRequest(page_token=token, **fields)
        page = await client.call("ListTenantStatuses", request)
        found += page.statuses
        token = page.next_page_token
        if not token:
            return found


async def test_a_tenant_whose_grant_ended_needs_attention(world: World) -> None:
    """For operators within their scope too; apps see nothing."""
    await world.connect()
    quiet = (await world.admin.create_tenant(fresh_id("quiet"))).id
    world.near_expiry()
    world.next(Misbehaviour.INVALID_GRANT_400)
    with refused("NEEDS_REAUTH"):
        await world.refresh()
    needing = {status.tenant.id: status for status in await statuses(world.admin, needs_attention=True)}
    status = needing[world.tenant]
    assert list(status.needs_reauth) == [world.integration]
    assert dict(status.credentials_by_state) == {"needs_reauth": 1}
    assert quiet not in needing
    assert quiet in {status.tenant.id for status in await statuses(world.admin, page_size=500)}
    operator = await world.server.app(world.tenant, role=access.ROLE_OPERATOR)
    assert [one.tenant.id for one in await statuses(operator)] == [world.tenant]
    with refused("PERMISSION_DENIED"):
        await statuses(world.app)
    with refused("INVALID_PAGE_TOKEN"):
        await world.admin.call("ListTenantStatuses", pb.ListTenantStatusesRequest(page_token="Not one!"))
