"""A provider whose refresh ends the old access token: no app sees that, whichever replica refreshes and whoever calls.

Two replicas over one OpenBao, a sidecar at each. The upstream reads a request to its end, and only then asks the provider
whether the token is good: a body that is not whole yet can't be sent again.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any

import grpc
import httpx2
import pytest
import pytest_asyncio

from connectors_grpc.credentials import holding, renewing
from connectors_grpc.gen.connectors.v1 import access_service_pb2 as access
from connectors_grpc.gen.connectors.v1 import integration_service_pb2 as integrations
from connectors_grpc.gen.connectors.v1 import proxy_service_pb2 as proxy
from connectors_grpc.gen.connectors.v1 import proxy_service_pb2_grpc
from connectors_grpc.simulator import Simulator, SimulatorSettings
from connectors_grpc.simulator.misbehaviour import Misbehaviour
from tests.openbao import OpenBao
from tests.providers import RecordingUpstream, UpstreamRequest, recording_upstream, running_simulator
from tests.replicas import Account, SidecarAt, make_account, sidecar_at
from tests.running import Client, Refused, Server, refused, running_server


@dataclass
class Scene:
    """All of it. `slow`: what the upstream waits for before it judges a request for `/slow`."""

    servers: list[Server]
    sidecars: list[SidecarAt]
    sim: Simulator
    upstream: RecordingUpstream
    slow: asyncio.Event = field(default_factory=asyncio.Event)
    statuses: list[int] = field(default_factory=list)

    async def judge(self, request: UpstreamRequest) -> bytes:
        """What the provider says of the request's token."""
        if request.target == "/slow":
            await self.slow.wait()
        async with httpx2.AsyncClient(trust_env=False) as http:
            headers = {"Authorization": request.header("authorization")[0]}
            status = (await http.get(f"{self.sim.url}/v1/whoami", headers=headers)).status_code
        self.statuses.append(status)
        return b"HTTP/1.1 %d X\r\nContent-Length: 0\r\n\r\n" % status

    async def account(self) -> Account:
        """A credential of this test's own, whose API is the upstream."""
        made = await make_account(
            self.servers[0], self.sim, oauth={"refresh_ends_access_token": True}, refresh_kills_access_token=True
        )
        wanted = integrations.Integration(id=made.integration, api=integrations.Api(base_url=self.upstream.url))
        await self.servers[0].admin.call("UpdateIntegration", integrations.UpdateIntegrationRequest(integration=wanted))
        return await made.sibling(self.servers[0])


async def heard(server: Server, at: Server) -> None:
    """Until what one replica says is heard at another: one that has just begun is not waited for."""
    stub: Any = proxy_service_pb2_grpc.ProxyServiceStub(at.channel)
    call = stub.WatchLeases(proxy.WatchLeasesRequest(), metadata=at.sidecar.metadata)
    assert (await call.read()).WhichOneof("event") == "resync"
    tenant = (await server.admin.create_tenant()).id
    async with asyncio.timeout(60):
        while (await call.read()).tenant_changed.tenant != tenant:
            pass
    call.cancel()


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def stage(server: Server, openbao: OpenBao) -> AsyncIterator[Scene]:
    """Servers, sidecars, provider and upstream, for this file."""
    async with AsyncExitStack() as stack:
        two = await stack.enter_async_context(running_server(openbao, server.keys))
        sim = await stack.enter_async_context(running_simulator(SimulatorSettings(clients=())))
        upstream = await stack.enter_async_context(recording_upstream())
        await heard(server, two)
        await heard(two, server)
        sidecars = [await stack.enter_async_context(sidecar_at(each)) for each in (server, two)]
        yield Scene([server, two], sidecars, sim, upstream)


@pytest.fixture
def scene(stage: Scene, monkeypatch: pytest.MonkeyPatch) -> Scene:
    """It, with nothing noted yet. Calls are waited for as long as the refresh lease bears: a machine may be slow."""
    monkeypatch.setattr(holding, "LONGEST", 20.0)
    monkeypatch.setattr(renewing, "LONGEST", 20.0)
    stage.slow, stage.statuses = asyncio.Event(), []
    stage.upstream.reply = stage.judge
    stage.upstream.heads.clear()
    return stage


class Upload:
    """A call by a sidecar whose body ends when the test says so."""

    def __init__(self, sidecar: SidecarAt, account: Account) -> None:
        self.rest = asyncio.Event()
        self.answer = asyncio.create_task(use(sidecar, account, content=self._body()))

    async def _body(self) -> AsyncIterator[bytes]:
        yield b"half"
        await self.rest.wait()
        yield b"body"


async def use(sidecar: SidecarAt, account: Account, path: str = "/v1", **body: Any) -> int:
    """A call by a sidecar; the status that the app sees."""
    url = f"/~{account.tenant}/{account.integration}{path}"
    method = "POST" if body else "GET"
    return int((await sidecar.app.request(method, url, headers={"x-api-key": account.app_key}, **body)).status_code)


async def proxied(server: Server, account: Account, path: str) -> int:
    """A call that the server makes; the status that the app sees."""
    return int((await server.client(account.app_key).proxied(account.tenant, account.integration, path)).http_status)


async def holding_on(scene: Scene, count: int = 1) -> None:
    """Until both sidecars know of so many holds."""
    for sidecar in scene.sidecars:
        await sidecar.until("leases_held", count)


async def test_no_app_sees_that_a_refresh_killed_its_token(scene: Scene) -> None:
    """Uploads at both sidecars and calls at both replicas end with the old token; those that come meanwhile have the new one."""
    account = await scene.account()
    read = await account.reader(scene.servers[0])
    old = await read(scene.servers[0])
    uploads = [Upload(sidecar, account) for sidecar in scene.sidecars]
    calls = [asyncio.create_task(proxied(server, account, "/slow")) for server in scene.servers]
    await scene.upstream.seen_heads(4)
    refresh = asyncio.create_task(account.refresh(scene.servers[1]))
    await holding_on(scene)
    later = [asyncio.create_task(use(sidecar, account)) for sidecar in scene.sidecars for _ in range(3)]
    later += [asyncio.create_task(proxied(server, account, "/v1")) for server in scene.servers]
    fetched = [asyncio.create_task(read(server)) for server in scene.servers]
    assert account.asked() == []
    for upload in uploads:
        upload.rest.set()
    scene.slow.set()
    assert [await upload.answer for upload in uploads] == [200, 200]
    assert [await call for call in calls] == [200, 200]
    assert (await refresh).generation == 2
    assert [await call for call in later] == [200] * 8
    assert len({old, *[await token for token in fetched]}) == 2, "a token that is about to end is fetched by nobody"
    assert scene.statuses == [200] * 12, "nor was any cured by sending it again"
    assert len(account.asked()) == 1
    await holding_on(scene, 0)


async def test_a_call_longer_than_the_bound_is_not_waited_for(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """The refresh goes on without it: it meets a dead token, as it might have anyway, and the next call a good one."""
    monkeypatch.setattr(holding, "LONGEST", 0.1)
    monkeypatch.setattr(renewing, "LONGEST", 0.1)
    account = await scene.account()
    upload = Upload(scene.sidecars[1], account)
    await scene.upstream.seen_heads(1)
    assert (await account.refresh(scene.servers[0])).generation == 2
    assert not upload.answer.done()
    upload.rest.set()
    assert await upload.answer == 401
    assert await use(scene.sidecars[1], account) == 200


async def test_a_refresh_that_fails_for_now_ends_the_hold(scene: Scene) -> None:
    """Calls that waited go on with the old token, which is good still; nobody asked the provider twice."""
    account = await scene.account()
    uploads = [Upload(sidecar, account) for sidecar in scene.sidecars]
    await scene.upstream.seen_heads(2)
    account.next(Misbehaviour.UNAVAILABLE)
    refresh = asyncio.create_task(account.refresh(scene.servers[0]))
    await holding_on(scene)
    later = [asyncio.create_task(use(sidecar, account)) for sidecar in scene.sidecars]
    for upload in uploads:
        upload.rest.set()
    with refused("PROVIDER_UNAVAILABLE"):
        await refresh
    assert [await call for call in later] == [200, 200]
    assert [await upload.answer for upload in uploads] == [200, 200]
    assert len(account.asked()) == 1
    await holding_on(scene, 0)


async def told(call: Any) -> proxy.CredentialHeld:
    """The next hold of a stream."""
    async with asyncio.timeout(60):
        while True:
            event = await call.read()
            assert event is not grpc.aio.EOF
            if event.WhichOneof("event") == "credential_held":
                found: proxy.CredentialHeld = event.credential_held
                return found


async def answer(client: Client, hold_id: str) -> None:
    """YieldLease."""
    await client.call("YieldLease", proxy.YieldLeaseRequest(hold_id=hold_id))


async def test_a_hold_is_answered_by_the_key_that_was_told(scene: Scene) -> None:
    """Another key, an id that nobody has, and a hold that is over are refused in the same words; so is any other role."""
    account = await scene.account()
    server = scene.servers[0]
    mine, other = [
        server.client(await server.admin.create_key([access.ROLE_SIDECAR], [account.tenant])) for _ in range(2)
    ]
    stub: Any = proxy_service_pb2_grpc.ProxyServiceStub(server.channel)
    call = stub.WatchLeases(proxy.WatchLeasesRequest(), metadata=mine.metadata)
    assert (await call.read()).WhichOneof("event") == "resync"
    refresh = asyncio.create_task(account.refresh(server))
    held = await told(call)
    assert (held.tenant, held.credential, held.generation) == (account.tenant, account.integration, 1)
    assert held.tenant_uid
    assert 0 < held.ttl.ToTimedelta().total_seconds() <= holding.LIFE
    refusals = []
    for client, hold_id in ((other, held.hold_id), (mine, "nobody's"), (server.admin, held.hold_id)):
        with pytest.raises(Refused) as caught:
            await answer(client, hold_id)
        refusals.append((caught.value.code, caught.value.reason, caught.value.metadata, caught.value.text))
    await answer(mine, held.hold_id)
    assert (await refresh).generation == 2
    with pytest.raises(Refused) as caught:
        await answer(mine, held.hold_id)
    refusals.append((caught.value.code, caught.value.reason, caught.value.metadata, caught.value.text))
    assert len(set(map(str, refusals))) == 1
    assert refusals[0][1] == "PERMISSION_DENIED"
    with refused("INVALID_FIELD"):
        await answer(mine, "")
    call.cancel()


async def test_a_sidecar_hears_of_holds_within_its_scope_only(scene: Scene) -> None:
    """A watch of another tenant's key is not told, so that it holds nothing up by its silence."""
    account, own = await scene.account(), await scene.account()
    server = scene.servers[0]
    stranger = server.client(await server.admin.create_key([access.ROLE_SIDECAR], [own.tenant]))
    stub: Any = proxy_service_pb2_grpc.ProxyServiceStub(server.channel)
    call = stub.WatchLeases(proxy.WatchLeasesRequest(), metadata=stranger.metadata)
    assert (await call.read()).WhichOneof("event") == "resync"
    assert (await account.refresh(server)).generation == 2
    refresh = asyncio.create_task(own.refresh(server))
    held = await told(call)
    assert held.tenant == own.tenant
    await answer(stranger, held.hold_id)
    assert (await refresh).generation == 2
    call.cancel()
