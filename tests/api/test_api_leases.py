"""What a sidecar gets: leases within two scopes, and events that arrive in time."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import grpc
import pytest
import pytest_asyncio

from connectors_grpc import watching as watching_limits
from connectors_grpc.gen.connectors.v1 import access_service_pb2 as access
from connectors_grpc.gen.connectors.v1 import credential_service_pb2 as credentials
from connectors_grpc.gen.connectors.v1 import proxy_service_pb2 as proxy
from connectors_grpc.gen.connectors.v1 import proxy_service_pb2_grpc
from connectors_grpc.gen.connectors.v1 import tenant_service_pb2 as tenants
from connectors_grpc.secret import Secret
from connectors_grpc.watching import AGAIN_AFTER
from sidecar.server import Address, Unreachable
from sidecar.server import Server as SidecarsServer
from tests.canary import planted
from tests.openbao import OpenBao
from tests.running import Client, Refused, Server, fresh_id, refused, running_server
from tests.worlds import until as fact

pytestmark = pytest.mark.usefixtures("heard")
SOON = 2.0
"""Seconds: what the same replica promises."""


@dataclass
class Place:
    """A tenant with the credentials `mail` and `wiki` of one integration."""

    server: Server
    tenant: str
    integration: str
    key: str

    @property
    def admin(self) -> Client:
        """The admin."""
        return self.server.admin


@pytest_asyncio.fixture(loop_scope="session")
async def place(server: Server) -> Place:
    """One of this test's own."""
    tenant, integration, key = (await server.admin.create_tenant()).id, fresh_id("api"), planted()
    await server.admin.create_integration(
        integration,
        api={
            "base_url": "https://api.example.com/v1",
            "allowed_hosts": ["uploads.example.com"],
            "placement": {"headers": {"X-Api-Key": "{api_key}"}, "query": {"k": "{api_key}"}},
            "default_headers": {"X-Version": "7"},
        },
    )
    for name in ("mail", "wiki"):
        await server.admin.store(tenant, integration, credential=name, api_key={"api_key": key})
    return Place(server, tenant, integration, key)


def proof(text: str) -> proxy.AppKeyProof:
    """What a sidecar shows of an app's key."""
    return proxy.AppKeyProof(key_id=text.split("_")[1], sha256=hashlib.sha256(text.encode()).digest())


async def lease(client: Client, **fields: Any) -> proxy.LeaseResponse:
    """Lease."""
    leased: proxy.LeaseResponse = await client.call("Lease", proxy.LeaseRequest(**fields))
    return leased


async def sidecar_of(place: Place, tenants_: list[str], **fields: Any) -> Client:
    """A sidecar with a key of that scope."""
    return place.server.client(await place.admin.create_key([access.ROLE_SIDECAR], tenants_, **fields))


async def test_a_lease_holds_all_that_a_call_needs(place: Place) -> None:
    """Fields filled, hosts sealed, how long it is good; no grant without an app key."""
    got = await lease(place.server.sidecar, tenant=place.tenant, credential="mail")
    assert not got.HasField("app_grant")
    found = got.lease
    assert (found.tenant, found.credential, found.integration) == (place.tenant, "mail", place.integration)
    assert found.base_url == "https://api.example.com/v1"
    assert list(found.allowed_hosts) == ["api.example.com", "uploads.example.com"]
    assert [(field.name, field.value) for field in found.headers] == [("X-Api-Key", place.key)]
    assert [(field.name, field.value) for field in found.query] == [("k", place.key)]
    assert [(header.name, header.value) for header in found.default_headers] == [("X-Version", "7")]
    assert found.generation == 1
    assert found.tenant_uid
    assert found.refresh_after_ttl.ToTimedelta().total_seconds() > 0


async def test_an_app_key_is_proved_by_its_digest_and_its_scope_comes_back(place: Place) -> None:
    """A key of one tenant needs no tenant in the request."""
    text = await place.admin.create_key([access.ROLE_APP], [place.tenant], credentials=["mail"])
    for fields in ({"tenant": place.tenant}, {}):
        got = await lease(place.server.sidecar, credential="mail", app_key=proof(text), **fields)
        grant = got.app_grant
        assert (list(grant.tenants), list(grant.credentials)) == ([place.tenant], ["mail"])
        assert grant.key_id == text.split("_")[1]


async def test_a_wrong_proof_is_no_key_and_a_key_without_the_role_is_denied(place: Place) -> None:
    """Of a key that is not there, of another's digest, of a digest of zeros, of a revoked one."""
    text = await place.admin.create_key([access.ROLE_APP], [place.tenant])
    other = await place.admin.create_key([access.ROLE_APP], [place.tenant])
    wrong = [
        proxy.AppKeyProof(key_id="nobody", sha256=bytes(32)),
        proxy.AppKeyProof(key_id=text.split("_")[1], sha256=bytes(32)),
        proxy.AppKeyProof(key_id=text.split("_")[1], sha256=proof(other).sha256),
    ]
    await place.admin.call("RevokeApiKey", access.RevokeApiKeyRequest(key=other.split("_")[1]))
    for shown in (*wrong, proof(other)):
        with refused("API_KEY_INVALID"):
            await lease(place.server.sidecar, tenant=place.tenant, credential="mail", app_key=shown)
    for role in (access.ROLE_ADMIN, access.ROLE_OPERATOR, access.ROLE_SIDECAR, access.ROLE_TOKEN_READER):
        powerful = await place.admin.create_key([role], [place.tenant])
        with refused("PERMISSION_DENIED"):
            await lease(place.server.sidecar, tenant=place.tenant, credential="mail", app_key=proof(powerful))
    short = proxy.AppKeyProof(key_id="a", sha256=b"short")
    with pytest.raises(Refused) as caught:
        await lease(place.server.sidecar, tenant=place.tenant, credential="mail", app_key=short)
    assert caught.value.fields == ["app_key.sha256"]


async def test_a_lease_lies_in_the_sidecars_scope_and_in_the_apps(place: Place) -> None:
    """Neither widens the other."""
    narrow = await sidecar_of(place, [place.tenant], credentials=["mail"])
    wide_app = await place.admin.create_key([access.ROLE_APP], ["*"])
    of_wiki = await place.admin.create_key([access.ROLE_APP], [place.tenant], credentials=["wiki"])
    assert (await lease(narrow, tenant=place.tenant, credential="mail", app_key=proof(wide_app))).lease.credential
    for credential, text in (("wiki", wide_app), ("mail", of_wiki), ("wiki", of_wiki)):
        with refused("PERMISSION_DENIED"):
            await lease(narrow, tenant=place.tenant, credential=credential, app_key=proof(text))


async def test_without_a_tenant_only_a_key_of_one_tenant_says_which(place: Place) -> None:
    """No key, a key of all, and a key of two say nothing."""
    other = (await place.admin.create_tenant()).id
    of_two = await place.admin.create_key([access.ROLE_APP], [place.tenant, other])
    of_all = await place.admin.create_key([access.ROLE_APP], ["*"])
    with refused("PERMISSION_DENIED"):
        await lease(place.server.sidecar, credential="mail")
    for text in (of_two, of_all):
        with refused("PERMISSION_DENIED"):
            await lease(place.server.sidecar, credential="mail", app_key=proof(text))


@contextlib.asynccontextmanager
async def watching(client: Client) -> AsyncIterator[Callable[[], Awaitable[proxy.WatchLeasesResponse]]]:
    """A stream of events, read one at a time, each within `SOON`. The first, `resync`, is behind."""
    stub: Any = proxy_service_pb2_grpc.ProxyServiceStub(client.channel)
    call = stub.WatchLeases(proxy.WatchLeasesRequest(), metadata=client.metadata)

    async def following() -> proxy.WatchLeasesResponse:
        async with asyncio.timeout(SOON):
            while True:
                event = await call.read()
                assert event is not grpc.aio.EOF
                if event.WhichOneof("event") != "heartbeat":
                    return event  # type: ignore[no-any-return]

    first = await following()
    assert first.WhichOneof("event") == "resync"
    try:
        yield following
    finally:
        call.cancel()


async def until(
    following: Callable[[], Awaitable[proxy.WatchLeasesResponse]], wanted: proxy.WatchLeasesResponse
) -> None:
    """Read on to that event, which must come within `SOON`."""
    async with asyncio.timeout(SOON):
        while await following() != wanted:
            pass


def credential_changed(place: Place, name: str) -> proxy.WatchLeasesResponse:
    """The event."""
    return proxy.WatchLeasesResponse(credential_changed=proxy.CredentialChanged(tenant=place.tenant, credential=name))


def tenant_changed(tenant: str) -> proxy.WatchLeasesResponse:
    """The event."""
    return proxy.WatchLeasesResponse(tenant_changed=proxy.TenantChanged(tenant=tenant))


async def test_what_ends_a_lease_is_told_at_once(place: Place) -> None:
    """Revoked, switched off, stored anew; the tenant suspended, resumed, deleted; an app's key revoked."""
    text = await place.admin.create_key([access.ROLE_APP], [place.tenant])
    off = credentials.UpdateCredentialRequest(credential=credentials.Credential(tenant=place.tenant, id="wiki"))
    off.update_mask.paths.append("enabled")
    async with watching(place.server.sidecar) as following:
        await place.admin.call(
            "RevokeCredential", credentials.RevokeCredentialRequest(tenant=place.tenant, credential="mail")
        )
        await until(following, credential_changed(place, "mail"))
        await place.admin.call("UpdateCredential", off)
        await until(following, credential_changed(place, "wiki"))
        await place.admin.store(place.tenant, place.integration, credential="mail", api_key={"api_key": planted()})
        await until(following, credential_changed(place, "mail"))
        await place.admin.call("RevokeApiKey", access.RevokeApiKeyRequest(key=text.split("_")[1]))
        changed = proxy.ApiKeyChanged(key_id=text.split("_")[1])
        await until(following, proxy.WatchLeasesResponse(api_key_changed=changed))
        for rpc, request in (
            ("SuspendTenant", tenants.SuspendTenantRequest(tenant=place.tenant)),
            ("ResumeTenant", tenants.ResumeTenantRequest(tenant=place.tenant)),
            ("DeleteTenant", tenants.DeleteTenantRequest(tenant=place.tenant, force=True)),
        ):
            await place.admin.call(rpc, request)
            await until(following, tenant_changed(place.tenant))


async def test_a_sidecar_hears_of_what_lies_in_its_scope_only(place: Place) -> None:
    """Another tenant, another credential, and the next tenant of the same name are not its business."""
    other = (await place.admin.create_tenant()).id
    narrow = await sidecar_of(place, [place.tenant], credentials=["mail"])
    async with watching(narrow) as following:
        await place.admin.store(other, place.integration, credential="mail", api_key={"api_key": planted()})
        await place.admin.store(place.tenant, place.integration, credential="wiki", api_key={"api_key": planted()})
        await place.admin.call("SuspendTenant", tenants.SuspendTenantRequest(tenant=other))
        await place.admin.store(place.tenant, place.integration, credential="mail", api_key={"api_key": planted()})
        assert await following() == credential_changed(place, "mail")


async def test_attack_40_a_revoked_sidecar_keys_stream_is_cut(place: Place) -> None:
    """With the reason; the next call with it is refused too."""
    text = await place.admin.create_key([access.ROLE_SIDECAR], ["*"])
    stub: Any = proxy_service_pb2_grpc.ProxyServiceStub(place.server.channel)
    client = place.server.client(text)
    call = stub.WatchLeases(proxy.WatchLeasesRequest(), metadata=client.metadata)
    assert (await call.read()).WhichOneof("event") == "resync"
    await place.admin.call("RevokeApiKey", access.RevokeApiKeyRequest(key=text.split("_")[1]))
    with refused("API_KEY_INVALID"):
        async with asyncio.timeout(SOON):
            while await call.read() is not grpc.aio.EOF:
                pass
            raise await _ended(call)
    with refused("API_KEY_INVALID"):
        await lease(client, tenant=place.tenant, credential="mail")


async def _ended(call: Any) -> grpc.RpcError:
    """How a stream ended, as an error."""
    return grpc.aio.AioRpcError(
        await call.code(), await call.initial_metadata(), await call.trailing_metadata(), await call.details()
    )


async def test_a_lease_of_a_rejected_generation_of_what_can_not_be_refreshed_is_the_same_again(place: Place) -> None:
    """Attack 33: an upstream that always says 401 drives nothing."""
    first = await lease(place.server.sidecar, tenant=place.tenant, credential="mail")
    for generation in (1, 7, -1):
        again = await lease(
            place.server.sidecar, tenant=place.tenant, credential="mail", rejected_generation=generation
        )
        assert again.lease.generation == first.lease.generation


async def test_a_sidecar_that_may_not_watch_now_is_told_when_to_come_again(
    server: Server, openbao: OpenBao, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its key has its share of the watches. Nothing is denied: what it holds goes on, and a watch that ends makes room."""
    monkeypatch.setattr(watching_limits, "MOST_WATCHERS", 2)
    async with running_server(openbao, server.keys) as own:
        address = Address(own.grpc_address, Secret(own.sidecar.key))
        async with SidecarsServer(address) as one, SidecarsServer(address) as two:
            first = one.events()
            assert (await anext(first)).HasField("resync")
            with pytest.raises(Unreachable) as told:
                await anext(two.events())
            assert (told.value.reason, told.value.retry_after) == ("LIMIT_EXCEEDED", AGAIN_AFTER)
            await first.aclose()  # type: ignore[attr-defined]

            async def watches() -> bool:
                with contextlib.suppress(Unreachable):
                    return (await anext(two.events())).HasField("resync")
                return False

            await fact(watches)
