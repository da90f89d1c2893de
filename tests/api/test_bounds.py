"""What a tenant may use: its integrations, and so much of a server; only an admin says so, and it holds at once."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from connectors_grpc.gen.connectors.v1 import access_service_pb2 as access
from connectors_grpc.gen.connectors.v1 import credential_service_pb2 as credentials
from connectors_grpc.gen.connectors.v1 import proxy_service_pb2 as proxy
from connectors_grpc.gen.connectors.v1 import proxy_service_pb2_grpc as stubs
from connectors_grpc.gen.connectors.v1 import tenant_service_pb2 as pb
from connectors_grpc.quota import Over, Quota, Quotas
from tests.canary import planted
from tests.providers import RecordingUpstream, recording_upstream
from tests.running import Client, Refused, Server, fresh_id, refused
from tests.worlds import Timed, World

pytestmark = pytest.mark.usefixtures("heard")


class Place:
    """A tenant with one integration at an upstream, and an app of it."""

    def __init__(self, server: Server, upstream: RecordingUpstream, tenant: str, name: str, app: Client) -> None:
        self.server, self.upstream, self.tenant, self.name, self.app = server, upstream, tenant, name, app

    async def bound(self, client: Client | None = None, mask: tuple[str, ...] = (), **fields: Any) -> pb.Tenant:
        """UpdateTenant."""
        request = pb.UpdateTenantRequest(tenant=pb.Tenant(id=self.tenant, **fields))
        request.update_mask.paths.extend(mask)
        changed: pb.Tenant = (await (client or self.server.admin).call("UpdateTenant", request)).tenant
        return changed

    async def call(self, **fields: Any) -> int:
        """ProxyService.Call; its HTTP status."""
        return int((await self.app.proxied(self.tenant, self.name, "/v1/x", **fields)).http_status)

    async def lease(self) -> proxy.Lease:
        """A sidecar's lease."""
        request = proxy.LeaseRequest(tenant=self.tenant, credential=self.name)
        found: proxy.Lease = (await self.server.sidecar.call("Lease", request)).lease
        return found


@contextlib.asynccontextmanager
async def placed(server: Server) -> AsyncIterator[Place]:
    """One of its own."""
    tenant = (await server.admin.create_tenant()).id
    async with recording_upstream() as upstream:
        name = await server.admin.keyed_api(tenant, upstream.url, planted())
        yield Place(server, upstream, tenant, name, await server.app(tenant))


@pytest_asyncio.fixture(loop_scope="session")
async def place(server: Server) -> AsyncIterator[Place]:
    """One of this test's own."""
    async with placed(server) as made:
        yield made


async def create(server: Server, wanted: pb.Tenant) -> pb.Tenant:
    """CreateTenant, with bounds."""
    request = pb.CreateTenantRequest(tenant_id=fresh_id(), tenant=wanted)
    made: pb.Tenant = (await server.admin.call("CreateTenant", request)).tenant
    return made


def only(*integrations: str) -> pb.AllowedIntegrations:
    """These and no other."""
    return pb.AllowedIntegrations(integrations=integrations)


async def test_bounds_are_stored_shown_and_taken_away_again(place: Place) -> None:
    """Created with, changed one by one, cleared by the mask; nothing else of the tenant changes."""
    quota = pb.Quota(calls_at_once=2, calls_per_second=3, bytes_per_second=4)
    wanted = pb.Tenant(quota=quota, allowed_integrations=only("b", "a", "b"))
    made = await create(place.server, wanted)
    assert (made.quota, list(made.allowed_integrations.integrations)) == (quota, ["a", "b"])
    changed = await place.bound(quota=quota, labels={"plan": "pro"})
    assert (changed.quota, changed.HasField("allowed_integrations")) == (quota, False)
    changed = await place.bound(allowed_integrations=only())
    assert (changed.quota, changed.labels["plan"]) == (quota, "pro")
    assert changed.HasField("allowed_integrations")
    changed = await place.bound(mask=("quota", "allowed_integrations"))
    assert not changed.HasField("quota")
    assert not changed.HasField("allowed_integrations")
    assert changed.labels["plan"] == "pro"


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"quota": pb.Quota(calls_at_once=-1)}, "tenant.quota.calls_at_once"),
        ({"quota": pb.Quota(bytes_per_second=1 << 41)}, "tenant.quota.bytes_per_second"),
        ({"allowed_integrations": only("Not A Label")}, "tenant.allowed_integrations.integrations[0]"),
        ({"allowed_integrations": only(*map(str, range(1001)))}, "tenant.allowed_integrations.integrations"),
    ],
)
async def test_bounds_that_are_none_name_their_field(server: Server, fields: dict[str, Any], field: str) -> None:
    """At creation as in an update."""
    with pytest.raises(Refused) as caught:
        await create(server, pb.Tenant(**fields))
    assert caught.value.fields == [field]


async def test_an_operator_does_not_lift_the_bounds_of_its_own_tenant(place: Place) -> None:
    """Labels it may change; a quota or an integration it may neither add nor take away."""
    operator = place.server.client(await place.server.admin.create_key([access.ROLE_OPERATOR], [place.tenant]))
    await place.bound(operator, labels={"mine": "yes"})
    for fields in ({"quota": pb.Quota(calls_at_once=9)}, {"allowed_integrations": only(place.name)}):
        with refused("PERMISSION_DENIED"):
            await place.bound(operator, **fields)
    await place.bound(quota=pb.Quota(calls_at_once=9), allowed_integrations=only(place.name))
    for mask in ("quota", "allowed_integrations", "*"):
        with refused("PERMISSION_DENIED"):
            await place.bound(operator, mask=(mask,))
    same = {"quota": pb.Quota(calls_at_once=9), "allowed_integrations": only(place.name)}
    assert (await place.bound(operator, mask=("*",), display_name="Ours", **same)).display_name == "Ours"


async def test_what_a_tenant_may_not_use_is_refused_wherever_it_is_used(place: Place) -> None:
    """Call, Lease, storing and verifying; another integration that is allowed goes on, and so does this one once it is."""
    assert await place.call() == 200
    await place.bound(allowed_integrations=only("something-else"))
    where = {"tenant": place.tenant, "integration": place.name}
    for attempt in (
        place.call,
        place.lease,
        lambda: place.server.admin.store(place.tenant, place.name, api_key={"api_key": planted()}),
        lambda: place.server.admin.call(
            "VerifyCredential", credentials.VerifyCredentialRequest(tenant=place.tenant, credential=place.name)
        ),
    ):
        with refused("INTEGRATION_NOT_ENABLED", **where):
            await attempt()
    await place.bound(allowed_integrations=only(place.name))
    assert await place.call() == 200


async def test_no_person_is_sent_to_connect_what_may_not_be_used(world: World) -> None:
    """No link; a link that was given before leads nowhere; and a token that is held is neither refreshed nor handed out."""
    link = await world.link()
    await world.connect()
    await world.admin.call(
        "UpdateTenant",
        pb.UpdateTenantRequest(tenant=pb.Tenant(id=world.tenant, allowed_integrations=only("something-else"))),
    )
    before = len(world.asked())
    for attempt in (world.link, world.refresh, world.token, world.whoami):
        with refused("INTEGRATION_NOT_ENABLED"):
            await attempt()
    assert len(world.asked()) == before
    assert link


async def test_a_stream_under_way_ends_when_its_integration_is_taken_away(place: Place) -> None:
    """Within the seconds in which a suspension would end it."""
    more = asyncio.Event()

    async def play(_head: bytes, _reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while not more.is_set():
            writer.write(b"1\r\nx\r\n")
            await writer.drain()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(more.wait(), 0.05)

    place.upstream.handler = play
    start = proxy.CallStreamRequest(start=proxy.CallRequest(tenant=place.tenant, credential=place.name, path="/v1/x"))
    stream = stubs.ProxyServiceStub(place.app.channel).CallStream(
        iter([start]), metadata=place.app.metadata, timeout=20
    )
    try:
        with refused("INTEGRATION_NOT_ENABLED"):
            async for part in stream:
                if part.HasField("start"):
                    await place.bound(allowed_integrations=only())
    finally:
        more.set()


async def test_calls_a_second_are_bounded_for_the_tenant_as_a_whole(timed: Timed) -> None:
    """All its credentials together; the refusal says which bound, and when to come again. Another tenant is not touched."""
    async with placed(timed.server) as place:
        other = f"{place.name}-2"
        await place.server.admin.store(place.tenant, place.name, credential=other, api_key={"api_key": planted()})
        await place.bound(quota=pb.Quota(calls_per_second=2))
        with timed.clock.still():
            outcomes = await asyncio.gather(
                *(place.app.proxied(place.tenant, name, "/v1/x") for name in (place.name, other) * 4),
                return_exceptions=True,
            )
        await check_limited(place, outcomes)


async def check_limited(place: Place, outcomes: list[Any]) -> None:
    """Two of eight calls got through; once there is no bound any more, all do."""
    refusals = [one for one in outcomes if isinstance(one, Refused)]
    assert len(refusals) == 6
    assert {(one.reason, one.metadata["limit"]) for one in refusals} == {("LIMIT_EXCEEDED", "calls a second")}
    assert all(one.retry_after is not None and 0 < one.retry_after <= 0.5 for one in refusals)
    assert len(place.upstream.requests) == len(outcomes) - len(refusals)
    await place.bound(mask=("quota",))
    assert await place.call() == 200


async def test_calls_at_once_and_bytes_are_bounded_too(place: Place) -> None:
    """The second call at once is refused, the next after its end is not; a body that is too large for the rest is waited for."""
    await place.bound(quota=pb.Quota(calls_at_once=1))
    gate = asyncio.Event()

    async def play(_head: bytes, _reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await gate.wait()
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    place.upstream.handler = play
    first = asyncio.create_task(place.call())
    await place.upstream.seen_heads(1)
    with refused("LIMIT_EXCEEDED", limit="calls at once"):
        await place.call()
    gate.set()
    assert await first == 200
    place.upstream.handler = None
    await place.bound(quota=pb.Quota(bytes_per_second=10))
    assert await place.call(method="POST", body=b"x" * 1000) == 200
    with refused("LIMIT_EXCEEDED", limit="bytes a second"):
        await place.call()


async def test_a_lease_carries_the_tenants_quota_to_the_sidecar(place: Place) -> None:
    """Unset where there is none."""
    assert not (await place.lease()).HasField("quota")
    quota = pb.Quota(calls_at_once=7, bytes_per_second=1 << 30)
    await place.bound(quota=quota)
    assert (await place.lease()).quota == quota


def test_a_bound_that_comes_later_finds_no_debt() -> None:
    """What was not bounded was not counted: neither calls nor bytes are owed for it."""
    quotas, name = Quotas(), ("acme",)
    for _ in range(50):
        use = quotas.enter(0.0, (name, Quota(concurrent=5)))
        use.pay(1_000_000)
        use.leave()
    quotas.enter(0.0, (name, Quota(volume=10))).leave()
    for _ in range(4):
        quotas.enter(0.0, (name, Quota(rate=4))).leave()
    with pytest.raises(Over):
        quotas.enter(0.0, (name, Quota(rate=4)))
    quotas.enter(0.25, (name, Quota(rate=4))).leave()


def test_a_call_that_one_bound_refuses_is_counted_in_no_other() -> None:
    """The wider bound's call is not used up by the narrower's refusal."""
    quotas = Quotas()
    tenant, credential = (("acme",), Quota(rate=3)), (("acme", "notes"), Quota(rate=1))
    quotas.enter(0.0, credential, tenant).leave()
    for _ in range(5):
        with pytest.raises(Over):
            quotas.enter(0.0, credential, tenant)
    for _ in range(2):
        quotas.enter(0.0, tenant).leave()
    with pytest.raises(Over):
        quotas.enter(0.0, tenant)
