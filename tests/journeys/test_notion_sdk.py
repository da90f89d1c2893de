"""The official Notion SDK through the sidecar, with nothing changed but its base URL and its token; and tenants never crossed."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import httpx2
import notion_client
import pytest

from connectors_grpc.secret import Secret
from sidecar.main import run
from sidecar.server import Address
from sidecar.settings import SidecarSettings, Tcp
from tests.providers import RecordingUpstream, UpstreamRequest, recording_upstream
from tests.running import Server, fresh_id
from tests.sidecar.harness import SOON
from tests.worlds import Canary

MANY = 50


def notion(request: UpstreamRequest) -> bytes:
    """So much of Notion's API as these tests use. Says whose token came, by its `Authorization`."""
    path = request.target.partition("?")[0]
    match request.method, path:
        case "POST", "/v1/search":
            wanted = json.loads(request.body)
            answer = {"object": "list", "results": [{"object": "page", "id": "p1", "asked": wanted}], "has_more": False}
        case "POST", "/v1/pages":
            answer = {"object": "page", "id": "p2", "properties": json.loads(request.body)["properties"]}
        case "GET", "/v1/blocks/p1/children":
            answer = {"object": "list", "results": [{"object": "block", "id": "b1"}], "has_more": False}
        case "GET", "/v1/users/me":
            answer = {"object": "user", "token": "".join(request.header("authorization"))}
        case _:
            return reply(404, {"object": "error", "status": 404, "code": "object_not_found", "message": "no"})
    return reply(200, answer)


def reply(status: int, document: object) -> bytes:
    """JSON on the wire."""
    body = json.dumps(document).encode()
    return (
        f"HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body
    )


@dataclass
class Tenant:
    """A tenant that has connected Notion, and its app's key."""

    id: str
    token: str
    key: str


@dataclass
class Desk:
    """An app's machine: the sidecar beside it, and the simulated Notion that it reaches."""

    server: Server
    upstream: RecordingUpstream
    integration: str
    sidecar: str

    async def tenant(self) -> Tenant:
        """A new one."""
        tenant = (await self.server.admin.create_tenant()).id
        token = f"ntn_{fresh_id('secret')}_of_{tenant}"
        await self.server.admin.store(tenant, self.integration, oauth={"access_token": token})
        return Tenant(tenant, token, (await self.server.app(tenant)).key)

    def base_url(self, tenant: Tenant) -> str:
        """What the SDK is given."""
        return f"{self.sidecar}/~{tenant.id}/{self.integration}"


@contextlib.asynccontextmanager
async def running_sidecar(server: Server) -> AsyncIterator[str]:
    """A sidecar of that server on a free port; its URL."""
    up: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    stop = asyncio.Event()
    key = Secret((server.keys / "sidecar.key").read_text().strip())
    settings = SidecarSettings(listen=Tcp("127.0.0.1", 0), server=Address(server.grpc_address, key))
    task = asyncio.create_task(run(settings, lambda address: None if up.done() else up.set_result(address), stop))
    try:
        async with asyncio.timeout(SOON):
            await asyncio.wait((task, up), return_when=asyncio.FIRST_COMPLETED)
            address = await up
        yield address.rstrip("/")
    finally:
        stop.set()
        await task


@pytest.fixture(scope="module")
async def desk(server: Server) -> AsyncIterator[Desk]:
    """One for the module."""
    async with recording_upstream(notion) as upstream, running_sidecar(server) as sidecar:
        integration = fresh_id("notion")
        await server.admin.create_integration(
            integration,
            oauth={
                "authorization_endpoint": f"{upstream.url}/v1/oauth/authorize",
                "token_endpoint": f"{upstream.url}/v1/oauth/token",
            },
            api={"base_url": upstream.url, "default_headers": {"Notion-Version": "2022-06-28"}},
            oauth_client={"client_id": "c", "client_secret": "s"},
            allow_private_addresses=True,
        )
        yield Desk(server, upstream, integration, sidecar)


def check_heads(heads: list[bytes], tenant: Tenant, version: bytes) -> None:
    """What Notion saw: the tenant's token once, the SDK's version, and nothing of the app's key or of ours."""
    for head in heads:
        lines = head.lower().split(b"\r\n")
        assert [line for line in lines if line.startswith(b"authorization:")] == [
            b"authorization: bearer " + tenant.token.lower().encode()
        ]
        assert [line for line in lines if line.startswith(b"notion-version:")] == [b"notion-version: " + version]
        assert tenant.key.encode() not in head
        assert b"x-connectors" not in head.lower()
        assert b"/~" not in head


def use(client: notion_client.Client) -> tuple[object, object, object]:
    """Search, create, list: the synchronous SDK."""
    return (
        client.search(query="roadmap"),
        client.pages.create(parent={"page_id": "p1"}, properties={"title": [{"text": {"content": "Ä"}}]}),
        client.blocks.children.list(block_id="p1"),
    )


def check_answers(found: object, made: object, listed: object) -> None:
    """What the simulated Notion said came back whole."""
    assert isinstance(found, dict)
    assert isinstance(made, dict)
    assert isinstance(listed, dict)
    assert found["results"][0]["asked"] == {"query": "roadmap"}
    assert made["properties"] == {"title": [{"text": {"content": "Ä"}}]}
    assert listed["results"][0]["id"] == "b1"


async def test_the_synchronous_sdk_works_unchanged(desk: Desk, canary: Canary) -> None:
    """Search, page create, blocks list; its own Notion-Version stays."""
    tenant, before = await desk.tenant(), len(desk.upstream.heads)
    with httpx.Client(trust_env=False) as http:
        client = notion_client.Client(auth=tenant.key, base_url=desk.base_url(tenant), client=http)
        check_answers(*await asyncio.to_thread(use, client))
    check_heads(desk.upstream.heads[before:], tenant, client.options.notion_version.encode())
    assert len(desk.upstream.heads) - before == 3
    assert canary.find(tenant.token) == []


async def test_the_asynchronous_sdk_works_unchanged(desk: Desk) -> None:
    """The same by AsyncClient, all three at once."""
    tenant, before = await desk.tenant(), len(desk.upstream.heads)
    async with httpx.AsyncClient(trust_env=False) as http:
        client = notion_client.AsyncClient(auth=tenant.key, base_url=desk.base_url(tenant), client=http)
        answers = await asyncio.gather(
            client.search(query="roadmap"),
            client.pages.create(parent={"page_id": "p1"}, properties={"title": [{"text": {"content": "Ä"}}]}),
            client.blocks.children.list(block_id="p1"),
        )
        check_answers(*answers)
    check_heads(desk.upstream.heads[before:], tenant, client.options.notion_version.encode())


async def test_notions_own_errors_reach_the_sdk_as_notions(desk: Desk) -> None:
    """A 404 of the upstream is an APIResponseError with Notion's code, not one of ours."""
    tenant = await desk.tenant()
    async with httpx.AsyncClient(trust_env=False) as http:
        client = notion_client.AsyncClient(auth=tenant.key, base_url=desk.base_url(tenant), client=http)
        with pytest.raises(notion_client.APIResponseError) as caught:
            await client.pages.retrieve(page_id="nothing")
    assert caught.value.code == "object_not_found"


async def test_the_definitions_version_is_sent_where_the_app_sends_none(desk: Desk) -> None:
    """A plain HTTP client without Notion-Version gets the definition's."""
    tenant, before = await desk.tenant(), len(desk.upstream.heads)
    async with httpx2.AsyncClient(trust_env=False, timeout=SOON) as http:
        url = f"{desk.base_url(tenant)}/v1/users/me"
        answer = await http.get(url, headers={"Authorization": f"Bearer {tenant.key}"})
    assert answer.status_code == 200
    check_heads(desk.upstream.heads[before:], tenant, b"2022-06-28")


async def test_a_tenants_key_opens_no_other_tenant(desk: Desk) -> None:
    """Attack 29: the same answer whether the other tenant exists or not, and nothing goes upstream."""
    mine, theirs = await desk.tenant(), await desk.tenant()
    before = len(desk.upstream.heads)
    nobody = Tenant(fresh_id("nobody"), "", "")
    answers = []
    async with httpx2.AsyncClient(trust_env=False, timeout=SOON) as http:
        for tenant in (theirs, nobody):
            url = f"{desk.base_url(tenant)}/v1/users/me"
            answer = await http.get(url, headers={"Authorization": f"Bearer {mine.key}"})
            answers.append((answer.status_code, answer.text))
    assert answers[0] == answers[1]
    assert answers[0][0] == 403
    assert len(desk.upstream.heads) == before


@pytest.mark.parametrize("door", ["sidecar", "call"])
async def test_two_tenants_at_once_are_never_crossed(desk: Desk, door: str) -> None:
    """Fifty calls each, interleaved over shared connections: everybody's own token, every time (attack 31)."""
    pair = [await desk.tenant(), await desk.tenant()]
    async with httpx2.AsyncClient(trust_env=False, timeout=SOON) as http:

        async def by_sidecar(tenant: Tenant) -> bytes:
            headers = {"Authorization": f"Bearer {tenant.key}"}
            return (await http.get(f"{desk.base_url(tenant)}/v1/users/me", headers=headers)).content

        async def by_call(tenant: Tenant) -> bytes:
            body: bytes = (
                await desk.server.client(tenant.key).proxied(tenant.id, desk.integration, "/v1/users/me")
            ).body
            return body

        ask = by_sidecar if door == "sidecar" else by_call
        order = [tenant for _ in range(MANY) for tenant in pair]
        answers = await asyncio.gather(*(ask(tenant) for tenant in order))
    seen = Counter((tenant.id, json.loads(answer)["token"]) for tenant, answer in zip(order, answers, strict=True))
    assert seen == {(tenant.id, f"Bearer {tenant.token}"): MANY for tenant in pair}


async def test_no_secret_of_a_run_is_in_any_log(desk: Desk, canary: Canary, tmp_path: Path) -> None:
    """Attack 25: tokens and keys of calls that worked, and of calls that were refused."""
    tenant, other = await desk.tenant(), await desk.tenant()
    async with httpx2.AsyncClient(trust_env=False, timeout=SOON) as http:
        for key in (tenant.key, other.key, "no-key-at-all"):
            reply = await http.get(
                f"{desk.base_url(tenant)}/v1/blocks/p1/children", headers={"Authorization": f"Bearer {key}"}
            )
            canary.heard(reply.text)
            canary.heard(reply.headers)
    assert canary.find(tenant.token, other.token, tenant.key, other.key) == []
