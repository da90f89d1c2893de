"""One tenant and one definition on a stage of their own: the use cases as the server has them, over stores in memory."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import replace
from urllib.parse import parse_qs, urlsplit

from connectors_grpc.access import Access
from connectors_grpc.changes import ChangeFeed
from connectors_grpc.clock import SystemClock
from connectors_grpc.credentials.connecting import Connecting
from connectors_grpc.credentials.flows import Flows
from connectors_grpc.credentials.granting import Granting
from connectors_grpc.credentials.holding import Holding
from connectors_grpc.credentials.identity import Identity
from connectors_grpc.credentials.inflight import InFlight
from connectors_grpc.credentials.keeping import Keeper
from connectors_grpc.credentials.leasing import InUse, Leasing
from connectors_grpc.credentials.managing import Managing
from connectors_grpc.credentials.placing import NewMaterial
from connectors_grpc.credentials.refresh_lease import RefreshLeases
from connectors_grpc.credentials.refreshing import Refreshing
from connectors_grpc.credentials.renewing import Renewing
from connectors_grpc.credentials.revoking import ProviderResult, Revoking
from connectors_grpc.credentials.storing import Storing
from connectors_grpc.domain.definition import Integration, OAuthClient
from connectors_grpc.domain.ids import CredentialId, KeyId, TenantId
from connectors_grpc.domain.records import ApiKey, Credential, Role, Scope, Tenant
from connectors_grpc.integrations import Integrations
from connectors_grpc.memory import MemoryCiphers, MemoryDocuments
from connectors_grpc.metering import Metering
from connectors_grpc.ports import Clock, HttpReply, Outbound
from connectors_grpc.proxying import Call, Proxying
from connectors_grpc.sealed_clients import PLATFORM_KEY
from connectors_grpc.spill import SpillDirectory
from connectors_grpc.tailoring import read_values, tailored
from connectors_grpc.tenants import Tenants

TENANT = TenantId("checked")
REDIRECT_URI = "https://connectors.example/oauth/callback"
CALL_TIMEOUT = 20.0


class Silent:
    """`ports.Audit` that nobody reads."""

    def record(
        self, action: str, *, caller: str, result: str, tenant: str = "", target: str = "", generation: int = 0
    ) -> None:
        """Forgets it."""


class Stage:
    """Use it as an async context manager. `client` is the platform's, or with `own` the tenant's."""

    def __init__(
        self,
        definition: Integration,
        client: OAuthClient | None,
        outbound: Outbound,
        *,
        own: bool = False,
        clock: Clock | None = None,
    ) -> None:
        clock, audit, changes = clock or SystemClock(), Silent(), ChangeFeed()
        records, secrets = MemoryDocuments(), MemoryDocuments()
        platform, cipher, calls, spill = MemoryCiphers(), MemoryCiphers(), InFlight(), SpillDirectory(None)
        self.definition = definition
        self.credential = CredentialId(definition.id)
        self._client, self._own, self._platform = client, own, platform
        self.caller = ApiKey(KeyId("check"), "", frozenset(Role), Scope(None), "", clock.now())
        access = Access(records, changes, audit, clock)
        self.records, self.secrets = records, secrets
        self.tenants = Tenants(records, cipher, changes, audit, clock)
        self.integrations = Integrations(records, platform, {definition.id: definition}, changes, audit, clock)
        self.keeper = Keeper(secrets, cipher, clock)
        storing = Storing(self.keeper, self.tenants, self.integrations, spill, changes, audit, clock)
        leases = RefreshLeases(records, clock, spill.replica)
        holding = Holding(changes, calls)
        renewing = Renewing(self.keeper, self.integrations, outbound, leases, storing, changes, audit, clock, holding)
        self.refreshing = Refreshing(self.keeper, self.integrations, renewing, holding, clock)
        self.revoking = Revoking(records, self.tenants, self.integrations, self.keeper, outbound, clock)
        self.managing = Managing(
            self.tenants, self.integrations, self.keeper, self.revoking, leases, changes, audit, clock
        )
        leasing = Leasing(self.tenants, self.integrations, self.refreshing, holding, access, audit, clock)
        self.leasing = leasing
        self._flights = AsyncExitStack()
        self.proxying = Proxying(leasing, Metering(self.tenants, clock), outbound, calls, audit)
        granting = Granting(self.managing, self.keeper, storing, outbound, audit, clock)
        self.connecting = Connecting(
            Flows(records, clock), self.tenants, self.integrations, self.managing, granting, platform, outbound, audit,
            clock, "https://connectors.example",
        )  # fmt: skip

    async def __aenter__(self) -> Stage:
        """Create the tenant, and register the OAuth client."""
        await self._flights.enter_async_context(self.connecting.flights)
        await self._flights.enter_async_context(self.refreshing.flights)
        await self._platform.create_key(PLATFORM_KEY)
        self.tenant: Tenant = await self.tenants.create(
            self.caller, TENANT, display_name="", labels={}, request_id="", validate_only=False
        )
        if self._client is not None and self._own:
            await self.integrations.tenant_clients.set(self.caller, self.tenant, self.definition.id, self._client)
        elif self._client is not None:
            wanted = replace(self.definition, client=self._client)
            await self.integrations.create(self.caller, wanted, request_id="", validate_only=False)
        return self

    async def __aexit__(self, *_: object) -> None:
        """Wait for what is under way."""
        await self._flights.aclose()

    async def begin(self, inputs: Mapping[str, str] | None = None, scopes: tuple[str, ...] = ()) -> str:
        """Where a person is sent to consent."""
        started = await self.connecting.start(
            self.caller, TENANT, self.definition.id, self.credential,
            scopes=scopes, redirect_uri=REDIRECT_URI, inputs=inputs,
        )  # fmt: skip
        return started.url

    async def finish(self, authorization_url: str, code: str) -> Credential:
        """The provider has sent the person back with this code."""
        state = parse_qs(urlsplit(authorization_url).query)["state"]
        return await self.connecting.complete(self.caller, {"state": state, "code": (code,)})

    async def store(self, new: NewMaterial, inputs: Mapping[str, str] | None = None) -> Credential:
        """Store what was obtained elsewhere."""
        values = read_values(self.definition, inputs or {}, found=True)
        return await self.managing.store(
            self.tenant, tailored(self.definition, values), self.credential, replace(new, values=values), caller="check"
        )

    async def use(self) -> InUse:
        """What a sidecar's lease is made of."""
        return await self.leasing.use(self.caller, TENANT, self.credential)

    async def call(self, method: str, path: str) -> HttpReply:
        """A call to the API with the credential put in."""
        return await self.proxying.call(self.caller, TENANT, self.credential, Call(method, path, (), b""), CALL_TIMEOUT)

    async def verify(self) -> Identity:
        """The identity call."""
        return await self.proxying.verify(self.caller, TENANT, self.credential)

    async def refresh(self) -> Credential:
        """Renew the token."""
        return (await self.refreshing.refresh(self.tenant, self.credential)).credential

    async def revoke(self) -> ProviderResult:
        """End the grant."""
        return (await self.managing.revoke(self.caller, TENANT, self.credential, None))[1]
