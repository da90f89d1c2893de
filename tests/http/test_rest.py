"""REST over the real server: the same servicers, the same boundary, the same words."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest
import pytest_asyncio

from connectors_grpc.gen.connectors.v1 import access_service_pb2 as access
from tests.providers import recording_upstream
from tests.running import Server, fresh_id


@pytest_asyncio.fixture
async def rest(server: Server) -> AsyncIterator[httpx2.AsyncClient]:
    """An admin's client."""
    headers = {"Authorization": f"Bearer {server.admin.key}"}
    async with httpx2.AsyncClient(base_url=server.http_url, headers=headers) as client:
        yield client


async def made(rest: httpx2.AsyncClient, path: str, **body: Any) -> Any:
    """POST that must work."""
    answer = await rest.post(path, json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def test_a_tenant_by_rest(rest: httpx2.AsyncClient) -> None:
    """Create, read, list, change, suspend, ask, delete: each by its route."""
    tenant = fresh_id("rest")
    created = await made(rest, "/tenants", tenantId=tenant, tenant={"displayName": "Rest & Co"})
    assert created["state"] == "STATE_ACTIVE"
    assert (await rest.get(f"/tenants/{tenant}")).json()["displayName"] == "Rest & Co"
    for path in ("/tenants", "/admin/tenants"):
        page = (await rest.get(path, params={"page_size": 500})).json()
        assert tenant in [each["id"] for each in page["tenants"]]
    changed = await rest.patch(f"/tenants/{tenant}", json={"labels": {"team": "blue"}, "etag": created["etag"]})
    assert changed.json()["labels"] == {"team": "blue"}, changed.text
    stale = await rest.patch(f"/tenants/{tenant}", json={"labels": {}, "etag": created["etag"]})
    assert (stale.status_code, stale.json()["reason"]) == (409, "CONFLICT")
    await made(rest, f"/tenants/{tenant}/suspend")
    assert (await rest.get(f"/tenants/{tenant}/status")).json()["tenant"]["state"] == "STATE_SUSPENDED"
    await made(rest, f"/tenants/{tenant}/resume")
    assert (await rest.delete(f"/tenants/{tenant}")).json()["done"] is True
    assert (await rest.get(f"/tenants/{tenant}")).json()["reason"] == "TENANT_NOT_FOUND"


async def test_a_credential_by_rest(rest: httpx2.AsyncClient, server: Server) -> None:
    """Integration, credential, call and revocation, and the secret comes back from none of them."""
    tenant, integration = fresh_id("rest"), fresh_id("api")
    async with recording_upstream() as upstream:
        await made(rest, "/tenants", tenantId=tenant)
        api = {"baseUrl": upstream.url, "placement": {"headers": {"X-Api-Key": "{api_key}"}}}
        definition = {"api": api, "allowPrivateAddresses": True}
        await made(rest, "/integrations", integrationId=integration, integration=definition)
        base = f"/tenants/{tenant}/integrations"
        stored = await rest.post(f"{base}/{integration}/credentials", json={"apiKey": {"apiKey": "canary-88213"}})
        assert stored.status_code == 200
        listed = await rest.get(base)
        assert [each["id"] for each in listed.json()["credentials"]] == [integration]
        key = (await made(rest, "/admin/keys", apiKey={"roles": ["ROLE_APP"], "tenants": [tenant]}))["secret"]
        called = await rest.post(
            f"/tenants/{tenant}/credentials/{integration}/call",
            json={"path": "/v1/x"},
            headers={"Authorization": f"Bearer {key}"},
        )
        assert called.json()["httpStatus"] == 200
        assert b"canary-88213" in upstream.heads[-1]
        revoked = await rest.delete(f"{base}/{integration}/credentials")
        assert revoked.json()["credential"]["state"] == "STATE_REVOKED"
        for answer in (stored, listed, called, revoked):
            assert "canary" not in answer.text


@pytest.mark.parametrize(
    ("headers", "status", "reason"),
    [
        ({}, 401, "API_KEY_MISSING"),
        ({"Authorization": "Bearer nonsense"}, 401, "API_KEY_INVALID"),
        ({"Authorization": "Basic abc"}, 401, "API_KEY_INVALID"),
    ],
)
async def test_who_has_no_key_learns_nothing_of_the_body(
    server: Server, headers: dict[str, str], status: int, reason: str
) -> None:
    """Authentication comes first, as problem+json with a challenge, and no CORS header (attack 2)."""
    async with httpx2.AsyncClient(
        base_url=server.http_url, headers={"Origin": "https://evil.example", **headers}
    ) as rest:
        answer = await rest.post("/tenants", content=b"not json at all")
    assert (answer.status_code, answer.json()["reason"]) == (status, reason)
    assert answer.headers["content-type"] == "application/problem+json"
    challenge = "Bearer" if reason == "API_KEY_MISSING" else 'Bearer error="invalid_token"'
    assert answer.headers["www-authenticate"] == challenge
    assert not [name for name in answer.headers if name.lower().startswith("access-control-")]


async def test_a_tenants_key_sees_the_same_refusal_whether_the_other_exists(server: Server) -> None:
    """By REST as by gRPC (attack 29)."""
    mine, other = (await server.admin.create_tenant()).id, (await server.admin.create_tenant()).id
    operator = await server.admin.create_key([access.ROLE_OPERATOR], [mine])
    headers = {"Authorization": f"Bearer {operator}"}
    async with httpx2.AsyncClient(base_url=server.http_url, headers=headers) as rest:
        answers = [await rest.get(f"/tenants/{tenant}") for tenant in (other, "no-such-tenant")]
        assert (await rest.get(f"/tenants/{mine}")).status_code == 200
    assert answers[0].status_code == 403
    assert answers[0].content == answers[1].content


async def test_bad_bodies_name_the_field(rest: httpx2.AsyncClient) -> None:
    """400 with violations, 413 above the bound, 415 for what does not say that it is JSON."""
    answer = await rest.post("/tenants", json={"tenantId": "Not A Label"})
    assert answer.json()["violations"][0]["field"] == "tenant_id"
    unknown = await rest.post("/tenants", json={"tenantld": "x"})
    assert (unknown.status_code, unknown.json()["reason"]) == (400, "INVALID_FIELD")
    text = await rest.post("/tenants", content=b'{"tenantId": "x"}', headers={"Content-Type": "text/plain"})
    assert (text.status_code, text.json()["reason"]) == (415, "UNSUPPORTED_MEDIA_TYPE")
    huge = await rest.post("/tenants", content=b" " * (9 * 1024 * 1024), headers={"Content-Type": "application/json"})
    assert (huge.status_code, huge.json()["reason"]) == (413, "BODY_TOO_LARGE")
