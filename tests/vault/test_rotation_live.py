"""Rotations and deletions through the whole server, over a real OpenBao under the server's real policy."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio

from connectors_grpc import rotating
from connectors_grpc.embedded import EmbeddedVault
from connectors_grpc.gen.connectors.v1 import access_service_pb2 as access
from connectors_grpc.gen.connectors.v1 import credential_service_pb2 as credentials
from connectors_grpc.gen.connectors.v1 import integration_service_pb2 as integrations
from connectors_grpc.gen.connectors.v1 import tenant_service_pb2 as pb
from tests.openbao import SETTINGS, OpenBao, copy_state, opened
from tests.providers import RecordingUpstream, recording_upstream
from tests.running import Client, Refused, Server, fresh_id, refused, running_server
from tests.worlds import until


@dataclass
class Two:
    """Two servers over one OpenBao, and an upstream. Rotations settle fast."""

    openbao: OpenBao
    one: Server
    two: Server
    upstream: RecordingUpstream

    async def versions(self, key: str, mount: str = "transit") -> tuple[int, int, int]:
        """latest, lowest that opens, lowest that is left."""
        data = (await self.openbao.call("GET", f"{mount}/keys/{key}", token=await self.openbao.login())).body["data"]
        assert isinstance(data, dict)
        return data["latest_version"], data["min_decryption_version"], data["min_available_version"]

    async def tenant(self, count: int) -> tuple[str, str, list[str]]:
        """A tenant with so many keys of one integration."""
        integration, tenant = fresh_id("api"), (await self.one.admin.create_tenant()).id
        api = {"base_url": self.upstream.url, "placement": {"headers": {"X-Api-Key": "{api_key}"}}}
        await self.one.admin.create_integration(integration, api=api, allow_private_addresses=True)
        names = [f"c-{number}" for number in range(count)]
        await asyncio.gather(*(self.store(tenant, integration, name, 1) for name in names))
        return tenant, integration, names

    async def store(self, tenant: str, integration: str, name: str, number: int) -> None:
        """Store the number-th key of a credential."""
        key = credentials.ApiKeyMaterial(api_key=f"{name}-{number}")
        await self.one.admin.store(tenant, integration, credential=name, api_key=key)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def at(short_tmp: Path, openbao_template: Path, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Two]:
    """Both servers."""
    state = copy_state(openbao_template, short_tmp / "rotation")
    keys: Path = tmp_path_factory.mktemp("rotation-keys")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rotating, "SETTLE", 0.2)
        async with (
            EmbeddedVault(state, SETTINGS) as vault,
            recording_upstream() as upstream,
            running_server(opened(vault), keys, state_dir=tmp_path_factory.mktemp("one")) as one,
            running_server(opened(vault), keys, state_dir=tmp_path_factory.mktemp("two")) as two,
        ):
            yield Two(opened(vault), one, two, upstream)


async def followed(client: Client, operation: pb.Operation) -> pb.Operation:
    """Ask until it is done."""
    async with asyncio.timeout(60):
        while not operation.done:
            request = pb.GetOperationRequest(operation=operation.id)
            operation = (await client.call("GetOperation", request)).operation
            await asyncio.sleep(0.02)
    return operation


async def rotated(client: Client, tenant: str) -> pb.Operation:
    """Rotate to the end."""
    request = pb.RotateTenantKeyRequest(tenant=tenant)
    return await followed(client, (await client.call("RotateTenantKey", request)).operation)


async def test_calls_and_stores_go_on_through_three_rotations(at: Two) -> None:
    """Through both servers, without a single failure; in the end the Vault has one version left, and all opens by it."""
    tenant, integration, names = await at.tenant(12)
    stop, calls = asyncio.Event(), 0
    apps = [await server.app(tenant) for server in (at.one, at.two)]

    async def call(app: Client, name: str) -> None:
        nonlocal calls
        while not stop.is_set():
            assert (await app.proxied(tenant, name, "/v1/x")).http_status == 200
            calls += 1

    async def store(name: str) -> None:
        number = 1
        while not stop.is_set():
            number += 1
            try:
                await at.store(tenant, integration, name, number)
            except Refused as error:
                # ABORTED says to do it again: the rewrapping came in between.
                assert error.reason == "CONFLICT"  # noqa: PT017

    async def enough() -> bool:
        return calls > 20

    async with asyncio.timeout(240), asyncio.TaskGroup() as traffic:
        for number, name in enumerate(names[:6]):
            traffic.create_task(call(apps[number % 2], name))
        for name in names[4:8]:
            traffic.create_task(store(name))
        for number in range(3):
            done = await rotated((at.one, at.two)[number % 2].admin, tenant)
            assert (done.rotate_key.version_before, done.rotate_key.version_after) == (number + 1, number + 2)
            assert not done.error_reason
            assert not done.rotate_key.unreadable
        await until(enough)
        stop.set()
    assert await at.versions(tenant) == (4, 4, 4)
    for name in names:
        assert (await apps[0].proxied(tenant, name, "/v1/x")).http_status == 200


async def test_one_rotation_at_a_time_and_any_replica_tells(at: Two) -> None:
    """Two calls at two servers at once are one operation; an operator of the tenant may ask, another's may not."""
    tenant, _, _ = await at.tenant(3)
    request = pb.RotateTenantKeyRequest(tenant=tenant)
    calls = await asyncio.gather(*(server.admin.call("RotateTenantKey", request) for server in (at.one, at.two)))
    assert calls[0].operation.id == calls[1].operation.id
    operator = await at.two.app(tenant, role=access.ROLE_OPERATOR)
    done = await followed(operator, calls[0].operation)
    assert (done.tenant, done.items_done, done.items_total, done.rotate_key.rewrapped) == (tenant, 3, 3, 3)
    assert done.end_time.ToDatetime() >= done.create_time.ToDatetime()
    other = await at.one.app((await at.one.admin.create_tenant()).id, role=access.ROLE_OPERATOR)
    with refused("PERMISSION_DENIED"):
        await other.call("GetOperation", pb.GetOperationRequest(operation=done.id))
    with refused("PERMISSION_DENIED"):
        await other.call("RotateTenantKey", request)


async def test_the_platforms_key_is_rotated_by_admins_and_clients_still_open(at: Two) -> None:
    """Nobody else may begin it or see it."""
    await at.one.admin.create_integration(
        fresh_id("oauth"),
        oauth={"authorization_endpoint": "https://a.example/a", "token_endpoint": "https://a.example/t"},
        api={"base_url": "https://api.example"},
        oauth_client={"client_id": "id", "client_secret": "very-secret"},
    )
    before = await at.versions("platform", "connectors-transit")
    request = integrations.RotatePlatformKeyRequest()
    done = await followed(at.two.admin, (await at.one.admin.call("RotatePlatformKey", request)).operation)
    assert not done.error_reason
    assert done.rotate_key.rewrapped >= 1
    after = before[0] + 1
    assert await at.versions("platform", "connectors-transit") == (after, after, after)
    operator = await at.one.app((await at.one.admin.create_tenant()).id, role=access.ROLE_OPERATOR)
    for rpc, asked in (("RotatePlatformKey", request), ("GetOperation", pb.GetOperationRequest(operation=done.id))):
        with refused("PERMISSION_DENIED"):
            await operator.call(rpc, asked)


async def test_a_small_tenant_is_deleted_within_the_call(at: Two) -> None:
    """`done` comes back at once with the receipt, and the other server has it too."""
    tenant, _, names = await at.tenant(3)
    request = pb.DeleteTenantRequest(tenant=tenant, force=True)
    operation = (await at.one.admin.call("DeleteTenant", request)).operation
    assert operation.done
    assert (operation.delete_tenant.credentials_purged, operation.delete_tenant.key_shredded) == (len(names), True)
    told = (await at.two.admin.call("GetOperation", pb.GetOperationRequest(operation=operation.id))).operation
    assert told == operation
    with refused("TENANT_NOT_FOUND"):
        await at.two.admin.call("GetTenant", pb.GetTenantRequest(tenant=tenant))


async def test_a_rotation_and_a_deletion_at_once_leave_nothing(at: Two) -> None:
    """Whoever is first: both end, and the key is gone."""
    tenant, _, _ = await at.tenant(20)
    begun = (await at.one.admin.call("RotateTenantKey", pb.RotateTenantKeyRequest(tenant=tenant))).operation
    gone = (await at.two.admin.call("DeleteTenant", pb.DeleteTenantRequest(tenant=tenant, force=True))).operation
    assert (await followed(at.two.admin, gone)).delete_tenant.key_shredded
    await followed(at.one.admin, begun)
    reply = await at.openbao.call("GET", f"transit/keys/{tenant}", token=await at.openbao.login())
    assert reply.status == 404
