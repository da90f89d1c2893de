"""The main job over real parts: a tenant, an integration, a credential, and a call with it, by every door."""

from __future__ import annotations

from tests.providers import recording_upstream
from tests.running import Server, fresh_id, refused


async def test_a_stored_key_reaches_the_api_and_nothing_else(server: Server) -> None:
    """StoreCredential, then Call: the upstream sees the tenant's key."""
    async with recording_upstream() as upstream:
        integration = fresh_id("api")
        tenant = (await server.admin.create_tenant()).id
        await server.admin.create_integration(
            integration,
            api={"base_url": upstream.url, "placement": {"headers": {"X-Api-Key": "{api_key}"}}},
            allow_private_addresses=True,
        )
        stored = await server.admin.store(tenant, integration, api_key={"api_key": "sk-of-the-tenant"})
        assert stored.generation == 1
        app = await server.app(tenant)
        answer = await app.proxied(tenant, integration, "/v1/things?x=1")
        assert answer.http_status == 200
        assert b"sk-of-the-tenant" in upstream.heads[-1]
        assert app.key.encode() not in upstream.heads[-1]


async def test_a_tenant_is_created_once(server: Server) -> None:
    """The second is ALREADY_EXISTS, with the same request_id it is the same tenant."""
    request_id = "8b9f2f4e-8f43-4d2c-9f35-3b1f0d6f7a11"
    tenant = await server.admin.create_tenant(request_id=request_id)
    again = await server.admin.create_tenant(tenant.id, request_id=request_id)
    assert again.uid == tenant.uid
    with refused("ALREADY_EXISTS", tenant=tenant.id):
        await server.admin.create_tenant(tenant.id)
