"""What an attacker tried and must not get: each test is an attack that once worked, or nearly did."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import grpc
import pytest

from connectors_grpc.audit import LogAudit
from connectors_grpc.clock import SystemClock
from connectors_grpc.credentials.inflight import InFlight
from connectors_grpc.credentials.leasing import InUse, Leasing
from connectors_grpc.domain.ids import CredentialId, KeyId, TenantId
from connectors_grpc.domain.records import ApiKey, Role, Scope
from connectors_grpc.errors import ConnectorsError, Reason
from connectors_grpc.gen.connectors.v1 import proxy_service_pb2 as pb
from connectors_grpc.gen.connectors.v1.access_service_pb2 import RevokeApiKeyRequest
from connectors_grpc.gen.connectors.v1.credential_service_pb2 import RevokeCredentialRequest
from connectors_grpc.gen.connectors.v1.proxy_service_pb2 import CallStreamRequest
from connectors_grpc.gen.connectors.v1.tenant_service_pb2 import SuspendTenantRequest
from connectors_grpc.journals import JournaledChanges
from connectors_grpc.memory import MemoryCiphers, MemoryDocuments
from connectors_grpc.metering import Metering
from connectors_grpc.outbound import HttpOutbound
from connectors_grpc.proxying import Call
from connectors_grpc.streaming import MOST_OF_ONE, MOST_STREAMS, Streaming
from connectors_grpc.tenants import Tenants
from sidecar.door import AppKey
from sidecar.leases import Ask, Leases
from sidecar.problem import Problem
from sidecar.route import Credential, Tenant
from sidecar.server import Denied, Unreachable
from tests.api.test_api_call_stream import CHUNKED, Line
from tests.api.test_api_call_stream import line as line
from tests.http.test_outbound import certificate, get, resolver
from tests.running import refused
from tests.sidecar.harness import SOON
from tests.upstream import recording_upstream

ACME, NOTES = Tenant("acme"), Credential("notes")


def app_key(name: str) -> AppKey:
    """An app's key of that id."""
    return AppKey(name, hashlib.sha256(name.encode()).digest())


@dataclass
class Server:
    """A `Source`: the tenant as it is now, and which keys are bound to it. `refusal` is what it says instead of a lease."""

    uid: str = "u1"
    bound: dict[str, str] = field(default_factory=dict)
    refusal: Exception | None = None
    asked: int = 0

    async def lease(self, request: pb.LeaseRequest) -> pb.LeaseResponse:
        """See Source."""
        self.asked += 1
        if self.refusal is not None:
            raise self.refusal
        if self.bound.get(request.app_key.key_id) != self.uid:
            raise Denied("PERMISSION_DENIED", {})
        lease = pb.Lease(
            tenant=ACME,
            tenant_uid=self.uid,
            credential=NOTES,
            integration="notes",
            generation=1,
            base_url="https://api.notes.example",
            allowed_hosts=["api.notes.example"],
            headers=[pb.InjectedField(name="authorization", value=f"Bearer of-{self.uid}")],
        )
        lease.refresh_after_ttl.seconds = 60
        lease.grace_ttl.seconds = 3600
        grant = pb.AppGrant(key_id=request.app_key.key_id, tenants=[ACME], credentials=["*"])
        grant.ttl.seconds = 60
        return pb.LeaseResponse(lease=lease, app_grant=grant)


@pytest.mark.parametrize("away", [False, True])
async def test_a_key_of_a_deleted_tenant_gets_nothing_of_its_namesake_from_the_sidecars_cache(away: bool) -> None:
    """The grant was had before the tenant was deleted and made again, the lease after it, with the namesake's own key."""
    server, now = Server(bound={"old": "u1", "new": "u2"}), [100.0]
    async with asyncio.TaskGroup() as tasks:
        leases = Leases(server, tasks, clock=lambda: now[0])
        leases.watched = True
        old = Ask(ACME, NOTES, app_key("old"))
        await leases.fill(old)
        server.uid = "u2"
        leases.apply(pb.WatchLeasesResponse(tenant_changed=pb.TenantChanged(tenant=ACME)))
        await leases.fill(Ask(ACME, NOTES, app_key("new")))
        now[0] += 10
        server.refusal = Unreachable() if away else None
        with pytest.raises(Problem) as refused:
            await leases.get(old)
        assert refused.value.reason == ("SERVER_UNAVAILABLE" if away else "PERMISSION_DENIED")


@pytest.mark.parametrize("tenant", [ACME, None])
async def test_what_the_server_refused_does_not_come_back_while_the_server_is_away(tenant: Tenant | None) -> None:
    """A revoked credential's lease goes with the refusal, whether the address or the app's key says whose it is."""
    server, now = Server(bound={"app": "u1"}), [100.0]
    ask = Ask(tenant, NOTES, app_key("app"))
    async with asyncio.TaskGroup() as tasks:
        leases = Leases(server, tasks, clock=lambda: now[0])
        leases.watched = True
        await leases.fill(ask)
        changed = pb.CredentialChanged(tenant=ACME, credential=NOTES)
        leases.apply(pb.WatchLeasesResponse(credential_changed=changed))
        server.refusal = Denied("CREDENTIAL_REVOKED", {})
        with pytest.raises(Problem, match="CREDENTIAL_REVOKED"):
            await leases.get(ask)
        now[0] += 10
        server.refusal = Unreachable()
        with pytest.raises(Problem, match="SERVER_UNAVAILABLE"):
            await leases.get(ask)


@pytest.mark.parametrize(("tls", "size"), [(False, 65_536), (True, 16_384)], ids=["plain", "tls"])
@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
async def test_an_answer_smuggled_behind_a_whole_read_is_never_another_tenants(
    tmp_path: Path, tls: bool, size: int, streamed: bool
) -> None:
    """The first reply ends where one read does, so that what follows lies in the stream's buffer, where no parser sees it."""
    ca_file, server = certificate(tmp_path, "api.example")
    head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n"
    body = b"x" * (size - len(head % size))
    evil = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nEVIL"
    async with recording_upstream(tls=server if tls else None) as upstream:
        upstream.replies = [head % len(body) + body + evil]
        upstream.reply = head % 4 + b"good"
        outbound = HttpOutbound(ca_file=ca_file, resolve=resolver(["127.0.0.1"]))  # type: ignore[arg-type]
        request = get(f"{'https' if tls else 'http'}://api.example:{upstream.port}/", max_body=2 * size)
        if streamed:
            async with outbound.stream(request, None, None) as reply:
                assert b"".join([piece async for piece in reply.body]) == body
        else:
            assert (await outbound.send(request)).body == body
        assert (await outbound.send(request)).body == b"good"
        assert upstream.connections == 2
        await outbound.aclose()


async def test_open_streams_keep_no_other_request_from_being_sent() -> None:
    """As many as there can be, each to a provider that never ends its answer: others still get theirs."""
    async with recording_upstream() as slow, recording_upstream() as quick:
        slow.reply = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
        outbound = HttpOutbound()
        async with AsyncExitStack() as open_ones:
            for _ in range(MOST_STREAMS):
                await open_ones.enter_async_context(outbound.stream(get(slow.url), None, None))
            assert (await outbound.send(get(quick.url, timeout=SOON))).body == b"ok"
        await outbound.aclose()


class Waiting(Leasing):
    """Gives no credential before the test says so."""

    def __init__(self) -> None:
        self.go = asyncio.Event()

    async def use(self, *_args: object, **_named: object) -> InUse:
        """See Leasing."""
        await self.go.wait()
        raise ConnectorsError(Reason.CREDENTIAL_NOT_FOUND)


async def nothing() -> AsyncIterator[bytes]:
    """A body without a byte."""
    return
    yield b""


async def test_one_tenants_streams_leave_room_for_the_others() -> None:
    """A tenant whose app opens one stream after the other and ends none is told so; another's app is served."""
    leasing, outbound, clock = Waiting(), HttpOutbound(), SystemClock()
    records = MemoryDocuments()
    tenants = Tenants(records, MemoryCiphers(), JournaledChanges(records), LogAudit(), clock)
    streaming = Streaming(leasing, Metering(tenants, clock), outbound, InFlight(), LogAudit())
    key = ApiKey(KeyId("app"), "", frozenset((Role.APP,)), Scope(None), "", datetime.now(UTC), None)

    async def begin(tenant: str) -> str:
        stream = streaming.call(key, TenantId(tenant), CredentialId("notes"), Call("GET", "/", (), b""), nothing())
        with pytest.raises(ConnectorsError) as refused:
            await anext(stream)
        return refused.value.reason

    for name in ("greedy", "modest"):
        await tenants.create(key, TenantId(name), display_name="", labels={}, request_id="", validate_only=False)
    tasks = [asyncio.create_task(begin("greedy")) for _ in range(MOST_OF_ONE)]
    await asyncio.sleep(0)
    assert await begin("greedy") == Reason.LIMIT_EXCEEDED
    other = asyncio.create_task(begin("modest"))
    leasing.go.set()
    assert await other == Reason.CREDENTIAL_NOT_FOUND
    assert set(await asyncio.gather(*tasks)) == {Reason.CREDENTIAL_NOT_FOUND}
    assert await begin("greedy") == Reason.CREDENTIAL_NOT_FOUND
    await outbound.aclose()


@pytest.mark.usefixtures("heard")
@pytest.mark.parametrize("way", ["up", "down"])
@pytest.mark.parametrize("ended", ["key", "tenant", "credential"])
async def test_a_stream_ends_with_the_right_to_it(line: Line, ended: str, way: str) -> None:
    """However long it was open before: not a piece more goes through, neither to the provider nor to the app."""
    passed: list[bytes] = []

    async def play(_head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if way == "down":
            writer.write(CHUNKED)
        while not writer.is_closing() and (piece := b"1\r\nx\r\n" if way == "down" else await reader.read(100)):
            passed.append(piece)
            writer.write(piece if way == "down" else b"")
            await writer.drain()
            await asyncio.sleep(0.05)

    line.upstream.handler = play
    call = line.open()
    await call.write(line.start(method="POST" if way == "up" else "GET"))
    if way == "down":
        await call.done_writing()
        assert (await call.read()).start.http_status == 200
        assert (await call.read()).body == b"x"
    admin, reason = line.server.admin, "API_KEY_INVALID"
    match ended:
        case "key":
            await admin.call("RevokeApiKey", RevokeApiKeyRequest(key=line.app.key.split("_")[1]))
        case "tenant":
            reason = "TENANT_SUSPENDED"
            await admin.call("SuspendTenant", SuspendTenantRequest(tenant=line.tenant))
        case _:
            reason = "CREDENTIAL_REVOKED"
            await admin.call("RevokeCredential", RevokeCredentialRequest(tenant=line.tenant, credential=line.name))
    with refused(reason):
        async with asyncio.timeout(SOON):
            while await (pushed(call) if way == "up" else call.read()) is not grpc.aio.EOF:
                assert passed or way == "up"


async def pushed(call: Any) -> Any:
    """One more piece of the body, after a moment. Raises: AioRpcError, once the call has ended."""
    await asyncio.sleep(0.05)
    try:
        return await call.write(CallStreamRequest(body=b"x"))
    except asyncio.InvalidStateError:
        return await call.read()
