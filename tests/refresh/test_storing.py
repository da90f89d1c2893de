"""Storing a credential while others write it, and a client's secret while others change it: use cases over the memory."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import pytest

from connectors_grpc.audit import LogAudit
from connectors_grpc.changes import ChangeFeed
from connectors_grpc.credentials.keeping import Held, Keeper
from connectors_grpc.credentials.managing import STORE_ATTEMPTS, Managing
from connectors_grpc.credentials.placing import NewMaterial
from connectors_grpc.credentials.refresh_lease import RefreshLeases
from connectors_grpc.credentials.revoking import Revoking
from connectors_grpc.domain.definition import Api, ClientAuthentication, Integration, OAuth, OAuthClient, Placement
from connectors_grpc.domain.ids import CredentialId, IntegrationId, KeyId, TenantId
from connectors_grpc.domain.records import ApiKey, Credential, CredentialKind, Role, Scope, Tenant
from connectors_grpc.errors import ConnectorsError, Reason
from connectors_grpc.integrations import Integrations
from connectors_grpc.memory import MemoryCiphers, MemoryDocuments
from connectors_grpc.ports import HttpReply, HttpRequest, Json
from connectors_grpc.sealed_clients import PLATFORM_KEY
from connectors_grpc.secret import Secret
from connectors_grpc.tenants import Tenants
from tests.clock import ManualClock

ADMIN = ApiKey(KeyId("admin"), "", frozenset((Role.ADMIN,)), Scope(None), "", ManualClock().now())
WIKI = IntegrationId("wiki")
MINE = CredentialId("wiki")
PLACEMENT = Placement(headers={"X-Api-Key": "{api_key}"})
WITH_KEYS = Integration(id=WIKI, display_name="Wiki", api=Api(base_url="https://api.example.com", placement=PLACEMENT))
OAUTH = OAuth(
    authorization_endpoint="https://id.example.com/authorize",
    token_endpoint="https://id.example.com/token",
)


class Rival(MemoryDocuments):
    """Documents where somebody else may write right before we do."""

    def __init__(self) -> None:
        super().__init__()
        self.before: Callable[[], Awaitable[None]] | None = None

    async def write(self, path: str, data: Json, *, cas: int | None) -> int:
        before, self.before = self.before, None
        if before is not None:
            await before()
        return await super().write(path, data, cas=cas)


class Nowhere:
    """`ports.Outbound` that nobody may use."""

    async def send(self, request: HttpRequest) -> HttpReply:
        raise AssertionError(request.url)


@dataclass
class Place:
    """A tenant, and what stores its credentials."""

    secrets: Rival = field(default_factory=Rival)
    records: MemoryDocuments = field(default_factory=MemoryDocuments)
    clock: ManualClock = field(default_factory=ManualClock)

    def __post_init__(self) -> None:
        audit, changes, platform, cipher = LogAudit(), ChangeFeed(), MemoryCiphers(), MemoryCiphers()
        self.keeper = Keeper(self.secrets, cipher, self.clock)
        self.tenants = Tenants(self.records, cipher, changes, audit, self.clock)
        self.integrations = Integrations(self.records, platform, {}, changes, audit, self.clock)
        revoking = Revoking(self.records, self.tenants, self.integrations, self.keeper, Nowhere(), self.clock)
        leases = RefreshLeases(self.records, self.clock, "replica-a")
        self.managing = Managing(
            self.tenants, self.integrations, self.keeper, revoking, leases, changes, audit, self.clock
        )
        self.platform = platform

    async def tenant(self) -> Tenant:
        """A tenant with its key, and the platform's."""
        await self.platform.create_key(PLATFORM_KEY)
        wanted = TenantId("acme")
        return await self.tenants.create(ADMIN, wanted, display_name="", labels={}, request_id="", validate_only=False)

    async def store(self, tenant: Tenant, key: str, version: int = 0) -> Credential:
        """Store an API key."""
        new = NewMaterial(CredentialKind.API_KEY, {"api_key": Secret(key)})
        return await self.managing.store(tenant, WITH_KEYS, MINE, new, caller="test", version=version)

    async def stored(self, tenant: Tenant) -> str:
        """The API key that is there."""
        held = await self.keeper.read(tenant, MINE)
        assert held is not None
        return (await self.keeper.open(tenant, held)).fields["api_key"].reveal()

    def rewrap(self, tenant: Tenant, times: int) -> None:
        """Before each of the next writes, what is there is written again, as a rotation does."""
        left = times

        async def rival() -> None:
            held = await self.keeper.read(tenant, MINE)
            assert held is not None
            nonlocal left
            left -= 1
            await self.keeper.write(tenant, Held(held.credential, held.ciphertext))
            if left:
                self.secrets.before = rival

        self.secrets.before = rival


@pytest.mark.parametrize("times", [1, STORE_ATTEMPTS - 1])
async def test_without_an_etag_a_write_that_another_came_before_is_made_again(times: int) -> None:
    """A rotation rewraps in between: the caller, who would take whatever is there, hears nothing of it."""
    place = Place()
    tenant = await place.tenant()
    await place.store(tenant, "k-1")
    place.rewrap(tenant, times)
    stored = await place.store(tenant, "k-2")
    assert stored.generation == 2
    assert await place.stored(tenant) == "k-2"


async def test_the_first_of_two_who_store_at_once_is_replaced() -> None:
    """There was nothing when the second began: it stands over the first, as the next generation."""
    place = Place()
    tenant = await place.tenant()

    async def first() -> None:
        await place.store(tenant, "k-1")

    place.secrets.before = first
    stored = await place.store(tenant, "k-2")
    assert stored.generation == 2
    assert await place.stored(tenant) == "k-2"


async def test_a_storm_of_rivals_ends_in_a_conflict() -> None:
    """The attempts are bounded, and what the rivals wrote stays."""
    place = Place()
    tenant = await place.tenant()
    await place.store(tenant, "k-1")
    place.rewrap(tenant, STORE_ATTEMPTS)
    with pytest.raises(ConnectorsError) as caught:
        await place.store(tenant, "k-2")
    assert caught.value.reason is Reason.CONFLICT
    assert await place.stored(tenant) == "k-1"


async def test_with_an_etag_a_rival_is_a_conflict_at_once() -> None:
    """Who named a version replaces that one and no other."""
    place = Place()
    tenant = await place.tenant()
    seen = await place.store(tenant, "k-1")
    place.rewrap(tenant, 1)
    with pytest.raises(ConnectorsError) as caught:
        await place.store(tenant, "k-2", seen.version)
    assert caught.value.reason is Reason.CONFLICT
    assert await place.stored(tenant) == "k-1"


def with_client(client: OAuthClient | None, oauth: OAuth = OAUTH) -> Integration:
    """An integration to connect to."""
    return Integration(id=WIKI, display_name="Wiki", oauth=oauth, api=Api("https://api.example.com"), client=client)


async def test_the_secret_that_is_kept_is_the_stored_one() -> None:
    """With its spares; a new `kid` is taken over."""
    place = Place()
    tenant = await place.tenant()
    client = OAuthClient("ours", Secret("s-1"), others=(Secret("s-0"),))
    await place.integrations.create(ADMIN, with_client(client), request_id="", validate_only=False)
    await place.integrations.update(
        ADMIN, WIKI, lambda _: with_client(OAuthClient("ours", key_id="k")), version=0, keep_client=False
    )
    found = await place.integrations.client_for(await place.integrations.get(WIKI), tenant)
    assert found.secret == Secret("s-1")
    assert found.others == (Secret("s-0"),)
    assert found.key_id == "k"


async def test_attack_38_a_re_created_tenant_keeps_no_secret_of_its_forerunner() -> None:
    """The document under the tenant's name is there; its uid is another's."""
    place = Place()
    tenant = await place.tenant()
    await place.integrations.create(ADMIN, with_client(None), request_id="", validate_only=False)
    await place.integrations.tenant_clients.set(ADMIN, tenant, WIKI, OAuthClient("theirs", Secret("s-1")))
    later = Tenant(**{name: getattr(tenant, name) for name in tenant.__slots__} | {"uid": "another"})
    with pytest.raises(ConnectorsError) as caught:
        await place.integrations.tenant_clients.set(ADMIN, later, WIKI, OAuthClient("theirs"))
    assert [violation.field for violation in caught.value.fields] == ["integration.oauth_client.client_secret"]
    with pytest.raises(ConnectorsError) as caught:
        await place.integrations.tenant_clients.delete(ADMIN, later, WIKI)
    assert caught.value.reason is Reason.INTEGRATION_NOT_FOUND


async def test_a_public_tenants_client_takes_no_secret_along() -> None:
    """`client_authentication` NONE: the new id stands alone."""
    place = Place()
    tenant = await place.tenant()
    public = OAuth(
        authorization_endpoint=OAUTH.authorization_endpoint,
        token_endpoint=OAUTH.token_endpoint,
        client_authentication=ClientAuthentication.NONE,
    )
    await place.integrations.create(ADMIN, with_client(None, public), request_id="", validate_only=False)
    await place.integrations.tenant_clients.set(ADMIN, tenant, WIKI, OAuthClient("theirs"))
    found = await place.integrations.client_for(await place.integrations.get(WIKI), tenant)
    assert (found.client_id, found.secret) == ("theirs", None)
