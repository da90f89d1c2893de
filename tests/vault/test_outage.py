"""The Vault goes away for a while: who may wait, waits; who may not, is told when to come again."""

from __future__ import annotations

import asyncio
from pathlib import Path

from connectors_grpc.gen.connectors.v1 import access_service_pb2 as access
from connectors_grpc.gen.connectors.v1 import credential_service_pb2 as credentials
from connectors_grpc.gen.connectors.v1 import tenant_service_pb2 as tenants
from tests.openbao import OpenBao
from tests.running import fresh_id, refused, running_server


async def test_callers_ride_out_a_restart_of_the_vault(private_openbao: OpenBao, tmp_path: Path) -> None:
    """Token-readers get their token once it is back; a write answers UNAVAILABLE at once, with a time to come again."""
    async with running_server(private_openbao, tmp_path / "keys") as server:
        integration = fresh_id("api")
        tenant = (await server.admin.create_tenant()).id
        await server.admin.create_integration(
            integration, api={"base_url": "http://127.0.0.1:1"}, allow_private_addresses=True
        )
        await server.admin.store(tenant, integration, oauth={"access_token": "at-1"})
        reader = await server.app(tenant, access.ROLE_TOKEN_READER)
        request = credentials.FetchAccessTokenRequest(tenant=tenant, credential=integration)
        await reader.call("FetchAccessToken", request)
        await private_openbao.vault.stop()
        waiting = [asyncio.create_task(reader.call("FetchAccessToken", request)) for _ in range(20)]
        with refused("VAULT_UNAVAILABLE"):
            await server.admin.call("CreateTenant", tenants.CreateTenantRequest(tenant_id=fresh_id()))
        await private_openbao.vault.start()
        replies = await asyncio.gather(*waiting)
        assert {reply.access_token for reply in replies} == {"at-1"}


async def test_a_short_deadline_is_not_waited_past(private_openbao: OpenBao, tmp_path: Path) -> None:
    """The caller is told before it gives up, with RetryInfo."""
    async with running_server(private_openbao, tmp_path / "keys") as server:
        tenant = (await server.admin.create_tenant()).id
        await private_openbao.vault.stop()
        with refused("VAULT_UNAVAILABLE"):
            await server.admin.call("GetTenant", tenants.GetTenantRequest(tenant=tenant), timeout=4)
