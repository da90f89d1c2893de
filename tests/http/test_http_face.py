"""The HTTP port itself: health, headers, what is not there, and what it never believes or writes down."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import urlsplit

import httpx2
import pytest

from connectors_grpc.http import protocol
from tests.openbao import OpenBao
from tests.running import Server, running_server
from tests.worlds import Canary, World

PATHS = ["/health", "/connect/" + "x" * 43, "/oauth/callback/notes?state=x&code=y", "/nothing"]


@pytest.fixture
async def http(server: Server) -> AsyncIterator[httpx2.AsyncClient]:
    """An HTTP client that follows nothing."""
    async with httpx2.AsyncClient(base_url=server.http_url, trust_env=False, timeout=20) as client:
        yield client


async def raw(url: str, request: bytes) -> bytes:
    """What the port answers to bytes, until it closes the connection."""
    where = urlsplit(url)
    reader, writer = await asyncio.open_connection(where.hostname, where.port)
    try:
        async with asyncio.timeout(60):
            writer.write(request)
            await writer.drain()
            return await reader.read()
    except ConnectionResetError:
        return b""
    finally:
        writer.close()


@pytest.mark.parametrize("path", PATHS)
async def test_every_answer_carries_the_security_headers(http: httpx2.AsyncClient, path: str) -> None:
    """No store, no framing, no scripts, no referrer that could carry a code; and never a CORS header (attack 2)."""
    reply = await http.get(path, headers={"Origin": "https://evil.example"})
    assert reply.headers["cache-control"] == "no-store"
    assert "default-src 'none'" in reply.headers["content-security-policy"]
    assert "frame-ancestors 'none'" in reply.headers["content-security-policy"]
    assert "script-src" not in reply.headers["content-security-policy"]
    assert reply.headers["referrer-policy"] == "no-referrer"
    assert reply.headers["x-content-type-options"] == "nosniff"
    assert reply.headers["x-frame-options"] == "DENY"
    assert not [name for name in reply.headers if name.startswith("access-control-")]
    assert "server" not in reply.headers


async def test_a_preflight_gets_nothing(http: httpx2.AsyncClient) -> None:
    """OPTIONS from a page is refused without a CORS header."""
    asked = {"Origin": "https://evil.example", "Access-Control-Request-Method": "POST"}
    reply = await http.options("/connect/" + "x" * 43, headers=asked)
    assert reply.status_code in (404, 405)
    assert not [name for name in reply.headers if name.startswith("access-control-")]


@pytest.mark.parametrize("path", ["/", "/nothing", "/connect", "/connect/", "/connect/a/b", "/oauth/callback", "/docs"])
async def test_unknown_paths_are_not_found(http: httpx2.AsyncClient, path: str) -> None:
    """As a problem document, without saying more."""
    reply = await http.get(path)
    assert reply.status_code == 404
    assert reply.headers["content-type"] == "application/problem+json"
    assert json.loads(reply.text)["status"] == 404


@pytest.mark.parametrize("path", ["/health/", "/connect/x/", "/oauth/callback/notes/"])
async def test_the_host_header_never_becomes_a_redirect(http: httpx2.AsyncClient, path: str) -> None:
    """A slash too many is not found; nobody is sent to whatever Host says."""
    reply = await http.get(path, headers={"Host": "evil.example"})
    assert reply.status_code == 404
    assert "location" not in reply.headers


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "TRACE", "FOO"])
async def test_other_methods_are_not_found(http: httpx2.AsyncClient, method: str) -> None:
    """Health and the callback are for GET."""
    for path in ("/health", "/oauth/callback/notes"):
        assert (await http.request(method, path)).status_code in (400, 404, 405)


async def test_health_says_ok_by_get_and_head(http: httpx2.AsyncClient) -> None:
    """Without a key and without detail."""
    reply = await http.get("/health")
    assert (reply.status_code, reply.json()) == (200, {"status": "ok"})
    head = await http.head("/health")
    assert (head.status_code, head.text) == (200, "")


async def test_health_follows_the_vault(private_openbao: OpenBao, tmp_path: Path) -> None:
    """503 while the Vault is gone, 200 once it is back; the server lives through it."""
    async with (
        running_server(private_openbao, tmp_path) as server,
        httpx2.AsyncClient(base_url=server.http_url, trust_env=False, timeout=20) as http,
    ):
        assert (await http.get("/health")).status_code == 200
        await private_openbao.kill()
        reply = await http.get("/health")
        assert (reply.status_code, reply.json()) == (503, {"status": "unavailable"})
        page = await http.get("/connect/" + "x" * 43)
        assert page.status_code == 503
        await private_openbao.vault.start()
        assert (await http.get("/health")).status_code == 200


@pytest.mark.parametrize(
    "handle",
    ["x", "x" * 42, "x" * 44, "x" * 5000, "%00" * 20, "..%2f..%2fhealth", "%2e%2e", "a'b\"<script>", "%ff" * 43],
)
async def test_a_handle_of_any_shape_is_not_found(http: httpx2.AsyncClient, handle: str) -> None:
    """A page, no stack, nothing of it repeated."""
    for method in ("GET", "POST"):
        reply = await http.request(method, f"/connect/{handle}")
        assert reply.status_code == 404
        assert "<script>" not in reply.text


async def test_headers_are_bounded(server: Server) -> None:
    """Attack: a head without end is cut off, not kept."""
    line = b"X-Filler: " + b"a" * 60_000 + b"\r\n"
    assert await raw(server.http_url, b"GET /health HTTP/1.1\r\nHost: x\r\n" + line * 20) == b""


async def test_a_head_that_never_ends_is_given_up(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Slow senders don't hold connections for ever; not on a connection that has served before either."""
    monkeypatch.setattr(protocol, "HEAD_DEADLINE", 0.2)
    assert await raw(server.http_url, b"GET /health HT") == b""
    assert await raw(server.http_url, b"") == b""
    monkeypatch.setattr(protocol, "HEAD_DEADLINE", 1.5)  # the first head is to be in time, however busy the machine is
    answer = await raw(server.http_url, b"GET /health HTTP/1.1\r\nHost: x\r\n\r\nGET /health HT")
    assert answer.startswith(b"HTTP/1.1 200 ")


async def test_two_framings_are_refused(server: Server) -> None:
    """Attack 20 on this port: Content-Length beside Transfer-Encoding."""
    request = (
        b"POST /connect/x HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"0\r\n\r\nGET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    )
    assert b'{"status": "ok"}' not in await raw(server.http_url, request)


async def test_forwarded_headers_are_not_believed(http: httpx2.AsyncClient, world: World) -> None:
    """Attack 9: neither Host nor X-Forwarded-* becomes part of the redirect URI."""
    forged = {
        "Host": "evil.example",
        "X-Forwarded-Host": "evil.example",
        "X-Forwarded-Proto": "https",
        "Forwarded": "host=evil.example;proto=https",
    }
    async with httpx2.AsyncClient(trust_env=False, timeout=20) as client:
        reply = await client.post(await world.link(), headers=forged)
    assert reply.status_code == 303
    assert "evil.example" not in reply.headers["location"]
    assert "evil.example" not in str(reply.headers)


async def test_neither_code_nor_state_nor_handle_is_ever_logged(world: World, canary: Canary) -> None:
    """Attack 25: a whole connection, and a failed one, at the most talkative log level."""
    link = await world.link()
    async with httpx2.AsyncClient(trust_env=False, timeout=20) as client:
        begun = await client.post(link)
        state = dict(pair.split("=", 1) for pair in urlsplit(begun.headers["location"]).query.split("&"))["state"]
        (cookie,) = client.cookies.jar
        assert cookie.value is not None
        url = f"{world.server.http_url}/oauth/callback/{world.integration}"
        page = await client.get(url, params={"state": state, "code": "a-code-that-is-secret", "iss": world.sim.url})
    assert page.status_code == 403
    canary.heard(page.text)
    handle = urlsplit(link).path.rpartition("/")[2]
    assert canary.find(handle, state, cookie.value, "a-code-that-is-secret", *world.secrets) == []
