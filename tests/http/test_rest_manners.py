"""REST's manners: methods, paths, media types, bounds, and what is said besides the answer."""

from __future__ import annotations

import asyncio
import gzip
import json
import uuid
from collections.abc import AsyncIterator

import httpx2
import pytest
import pytest_asyncio

from connectors_grpc.errors import ConnectorsError, Reason, VaultUnavailable
from connectors_grpc.gen.connectors.v1 import access_service_pb2 as access
from connectors_grpc.gen.connectors.v1 import tenant_service_pb2 as tenants
from connectors_grpc.http import protocol
from connectors_grpc.http import rest as edge
from tests.http.test_http_face import raw
from tests.running import Server, fresh_id

JSON = {"Content-Type": "application/json"}


@pytest_asyncio.fixture
async def rest(server: Server) -> AsyncIterator[httpx2.AsyncClient]:
    """An admin's client."""
    headers = {"Authorization": f"Bearer {server.admin.key}"}
    async with httpx2.AsyncClient(base_url=server.http_url, headers=headers) as client:
        yield client


def reason(answer: httpx2.Response) -> tuple[int, str]:
    """Status and reason of a refusal, which says the reason twice."""
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["x-connectors-error"] == answer.json()["reason"]
    assert answer.headers["cache-control"] == "no-store"
    return answer.status_code, answer.json()["reason"]


@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        ("/tenants", "GET, HEAD, POST"),
        ("/tenants/acme", "DELETE, GET, HEAD, PATCH"),
        ("/tenants/acme/suspend", "POST"),
        ("/health", "GET, HEAD"),
        ("/connect/" + "x" * 43, "GET, HEAD, POST"),
    ],
)
@pytest.mark.parametrize("method", ["OPTIONS", "PUT", "TRACE", "PROPFIND"])
async def test_another_method_is_told_which_there_are(
    rest: httpx2.AsyncClient, path: str, allowed: str, method: str
) -> None:
    """405 with Allow, for a preflight too, and no CORS header ever (attack 2)."""
    page = {"Origin": "https://evil.example", "Access-Control-Request-Method": "POST"}
    answer = await rest.request(method, path, headers=page)
    assert reason(answer) == (405, "METHOD_NOT_ALLOWED")
    assert answer.headers["allow"] == allowed
    assert not [name for name in answer.headers if name.startswith("access-control-")]


@pytest.mark.parametrize(
    "path", ["/", "/tenant", "/tenants/", "/tenants//status", "/Tenants", "/tenants%2Facme", "/v1/tenants", "/admin"]
)
async def test_an_unknown_path_is_404_with_a_reason(rest: httpx2.AsyncClient, path: str) -> None:
    """And nothing redirects."""
    assert reason(await rest.get(path)) == (404, "ROUTE_NOT_FOUND")


async def test_head_is_get_without_a_body(rest: httpx2.AsyncClient) -> None:
    """Same headers, same length."""
    got, head = await rest.get("/tenants?page_size=1"), await rest.head("/tenants?page_size=1")
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-length"] == got.headers["content-length"]


@pytest.mark.parametrize("inside", ["%2F", "%2f", "%5C", "%00", "%0d%0a", "%2e%2e", "%ff", "%252F", "..", ";", "ä"])
async def test_attack_15_an_encoded_separator_is_part_of_an_identifier_that_is_none(
    server: Server, inside: str
) -> None:
    """`/tenants/acme%2Fstatus` is never `/tenants/acme/status`: one form serves routing, policy and use."""
    tenant = (await server.admin.create_tenant()).id
    for tail in ("status", "suspend"):
        target = f"/tenants/{tenant}{inside}{tail}".encode()
        head = b"GET " + target + b" HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer "
        answer = await raw(server.http_url, head + server.admin.key.encode() + b"\r\n\r\n")
        assert answer.split(b" ")[1] == b"400", answer
        assert b"INVALID_FIELD" in answer or b"MALFORMED_REQUEST" in answer
    found = await server.admin.call("GetTenant", tenants.GetTenantRequest(tenant=tenant))
    assert found.tenant.state == tenants.Tenant.STATE_ACTIVE


async def test_a_query_parameter_comes_once_and_exists(rest: httpx2.AsyncClient) -> None:
    """In either spelling; two spellings of one are two."""
    assert (await rest.get("/tenants?pageSize=1")).status_code == 200
    for query in ("page_size=1&page_size=1", "page_size=1&pageSize=1", "nope=1", "page_size=1.5", "page_size=1e9"):
        assert reason(await rest.get(f"/tenants?{query}")) == (400, "INVALID_FIELD"), query
    assert reason(await rest.get("/tenants?" + "&".join(["page_token=a"] * 200))) == (400, "INVALID_FIELD")
    assert reason(await rest.post("/tenants?tenant_id=x", json={})) == (400, "INVALID_FIELD")


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        ({"Content-Encoding": "gzip", **JSON}, gzip.compress(b'{"tenantId": "x"}', mtime=0)),
        ({"Content-Encoding": "br", **JSON}, b"{}"),
        ({}, b'{"tenantId": "x"}'),
        ({"Content-Type": "application/x-www-form-urlencoded"}, b"tenantId=x"),
        ({"Content-Type": "text/plain"}, b'{"tenantId": "x"}'),
        ({"Content-Type": "application/json; charset=utf-16"}, '{"tenantId": "x"}'.encode("utf-16")),
    ],
)
async def test_only_plain_json_is_taken(rest: httpx2.AsyncClient, headers: dict[str, str], body: bytes) -> None:
    """415, and nothing is inflated."""
    answer = await rest.post("/tenants", content=body, headers=headers)
    assert reason(answer) == (415, "UNSUPPORTED_MEDIA_TYPE")


async def test_a_body_where_none_is_taken_is_refused(rest: httpx2.AsyncClient) -> None:
    """GET and DELETE say everything in path and query."""
    for method in ("GET", "DELETE"):
        answer = await rest.request(method, "/tenants/none", content=b"{}", headers=JSON)
        assert reason(answer) == (400, "INVALID_FIELD")


async def test_the_same_request_id_is_the_same_call(rest: httpx2.AsyncClient) -> None:
    """Another, or none, is ALREADY_EXISTS (AIP-155)."""
    body = {"tenantId": fresh_id("again"), "requestId": str(uuid.uuid4())}
    first, second = [await rest.post("/tenants", json=body) for _ in range(2)]
    assert (first.status_code, first.json()) == (200, second.json())
    for other in ({"requestId": str(uuid.uuid4())}, {"requestId": ""}):
        assert reason(await rest.post("/tenants", json=body | other)) == (409, "ALREADY_EXISTS")


async def test_a_patch_changes_what_its_body_names(rest: httpx2.AsyncClient) -> None:
    """What it does not name stays, null clears, a whole resource sent back is fine, an unknown member is refused."""
    tenant = fresh_id("patched")
    made = {"tenantId": tenant, "tenant": {"displayName": "Old", "labels": {"a": "1"}}}
    await rest.post("/tenants", json=made)
    named = (await rest.patch(f"/tenants/{tenant}", json={"displayName": "New"})).json()
    assert (named["displayName"], named["labels"]) == ("New", {"a": "1"})
    cleared = (await rest.patch(f"/tenants/{tenant}", json={"labels": None})).json()
    assert (cleared["displayName"], cleared["labels"]) == ("New", {})
    whole = await rest.patch(f"/tenants/{tenant}", json=cleared | {"displayName": "Whole"})
    assert whole.json()["displayName"] == "Whole"
    assert (await rest.patch(f"/tenants/{tenant}", json={})).json()["displayName"] == "Whole"
    for body in ({"nope": 1}, {"displayName": 1}, {"displayName": "x", "display_name": "y"}):
        assert reason(await rest.patch(f"/tenants/{tenant}", json=body)) == (400, "INVALID_FIELD"), body
    elsewhere = await rest.patch(f"/tenants/{tenant}", json={"id": "other", "displayName": "Mine"})
    assert elsewhere.json()["id"] == tenant


async def test_a_key_in_either_header_and_never_two(server: Server) -> None:
    """Two keys are none (attack 6), and a key in the query is a parameter that there is not."""
    key = server.admin.key
    async with httpx2.AsyncClient(base_url=server.http_url) as client:
        assert (await client.get("/tenants", headers={"X-Api-Key": key})).status_code == 200
        assert (await client.get("/tenants", headers={"Authorization": f"bearer {key}"})).status_code == 200
        both = [("Authorization", f"Bearer {key}"), ("X-Api-Key", key)]
        assert reason(await client.get("/tenants", headers=both)) == (401, "API_KEY_MISSING")
        twice = [("Authorization", f"Bearer {key}")] * 2
        assert reason(await client.get("/tenants", headers=twice)) == (401, "API_KEY_MISSING")
        assert reason(await client.get(f"/tenants?access_token={key}")) == (401, "API_KEY_MISSING")


async def test_the_routes_that_the_design_names_are_there(rest: httpx2.AsyncClient, server: Server) -> None:
    """Each answers, and not by 404 for want of a route."""
    tenant = (await server.admin.create_tenant()).id
    status = (await rest.get(f"/tenants/{tenant}/status")).json()
    assert (status["tenant"]["id"], status["credentialsByState"]) == (tenant, {})
    assert (await rest.get("/admin/tenants?page_size=1")).json()["tenants"]
    page = (await rest.get("/admin/health/tenants?page_size=1")).json()
    assert page["statuses"][0]["needsAttention"] is False
    needing = (await rest.get("/admin/health/tenants", params={"needsAttention": "true"})).json()
    assert all(each["needsAttention"] for each in needing["statuses"])
    assert reason(await rest.get(f"/tenants/{tenant}/integrations/none")) == (404, "CREDENTIAL_NOT_FOUND")
    refreshed = await rest.post(f"/tenants/{tenant}/integrations/none/refresh")
    assert reason(refreshed) == (404, "CREDENTIAL_NOT_FOUND")
    begun = await rest.post("/oauth/authorize/no-such", json={"tenant": tenant})
    assert reason(begun) == (404, "INTEGRATION_NOT_FOUND")
    base = f"/tenants/{tenant}/integrations/no-such/credentials"
    assert reason(await rest.post(base, json={"apiKey": {"apiKey": "k"}})) == (404, "INTEGRATION_NOT_FOUND")
    assert reason(await rest.delete(base, params={"credential": "x"})) == (404, "CREDENTIAL_NOT_FOUND")


def test_a_refusal_says_how_long_to_wait() -> None:
    """In whole seconds, never none."""
    answer = edge.refusal(VaultUnavailable(0.2))
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    assert json.loads(bytes(answer.body))["retryAfterSeconds"] == 0.2
    assert edge.refusal(ConnectorsError(Reason.LIMIT_EXCEEDED, retry_after=2.5)).headers["retry-after"] == "3"
    assert "retry-after" not in edge.refusal(ConnectorsError(Reason.CONFLICT)).headers


async def test_bodies_are_bounded_one_by_one_and_together(
    rest: httpx2.AsyncClient, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By what is announced, by what comes, and by what is held of all of them; strangers' are not read at all."""
    announced = (
        f"POST /tenants HTTP/1.1\r\nHost: x\r\nContent-Length: 999999999\r\nX-Api-Key: {server.admin.key}\r\n\r\n"
    )
    answer = await asyncio.wait_for(first_line(server.http_url, announced.encode()), 60)
    assert b" 413 " in answer
    stranger = b"POST /tenants HTTP/1.1\r\nHost: x\r\nContent-Length: 999\r\n\r\n"
    assert b" 401 " in await asyncio.wait_for(first_line(server.http_url, stranger), 60)
    monkeypatch.setattr(edge, "MOST_BODIES", 10)
    crowded = await rest.post("/tenants", json={"tenantId": "some-tenant"})
    assert reason(crowded) == (429, "LIMIT_EXCEEDED")
    assert crowded.headers["retry-after"] == "1"
    monkeypatch.undo()
    assert reason(await rest.post("/tenants", json={})) == (400, "INVALID_FIELD")


async def test_a_body_that_does_not_come_is_not_waited_for(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would hold a connection for ever."""
    monkeypatch.setattr(edge, "BODY_DEADLINE", 0.05)
    slow = f"POST /tenants HTTP/1.1\r\nHost: x\r\nContent-Length: 99\r\nX-Api-Key: {server.admin.key}\r\n\r\n{{"
    assert b" 504 " in await asyncio.wait_for(first_line(server.http_url, slow.encode()), 60)


async def first_line(url: str, request: bytes) -> bytes:
    """The status line that bytes are answered by."""
    where = httpx2.URL(url)
    reader, writer = await asyncio.open_connection(where.host, where.port)
    try:
        writer.write(request)
        return await reader.readline()
    finally:
        writer.close()


@pytest.mark.parametrize(
    "head",
    [
        b"GET /health HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost: a\r\n" + b"X: y\r\n" * 101 + b"\r\n",
        b"GET /health HTTP/1.1\r\nHost: a\r\nX: " + b"y" * protocol.MOST_HEAD + b"\r\n\r\n",
        b"GET /health?" + b"x" * protocol.MOST_HEAD + b" HTTP/1.1\r\nHost: a\r\n\r\n",
        b"POST /tenants HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n{}",
        b"POST /tenants HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
        b"nonsense\r\n\r\n",
    ],
)
async def test_attacks_8_and_20_a_head_that_is_none_is_refused_and_the_connection_ends(
    server: Server, head: bytes
) -> None:
    """In one read or many."""
    answer = await raw(server.http_url, head)
    if answer:
        assert answer.startswith(b"HTTP/1.1 400 ")
        assert b'"reason": "MALFORMED_REQUEST"' in answer


async def test_a_websocket_is_not_spoken(server: Server) -> None:
    """An upgrade is as if it had not been asked for."""
    ask = b"GET /tenants HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    answer = await first_line(server.http_url, ask + b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")
    assert b" 401 " in answer


async def test_an_operator_walks_its_own_tenants_by_rest(server: Server) -> None:
    """Lists show what lies in scope, fleet health too."""
    tenant = (await server.admin.create_tenant()).id
    key = await server.admin.create_key([access.ROLE_OPERATOR], [tenant])
    async with httpx2.AsyncClient(base_url=server.http_url, headers={"X-Api-Key": key}) as client:
        assert [each["id"] for each in (await client.get("/tenants")).json()["tenants"]] == [tenant]
        statuses = (await client.get("/admin/health/tenants")).json()["statuses"]
        assert [each["tenant"]["id"] for each in statuses] == [tenant]
