"""ProxyService.Call: what goes out, what comes back, and what does neither."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import grpc
import pytest
import pytest_asyncio

from connectors_grpc.gen.connectors.v1 import integration_service_pb2 as integrations
from connectors_grpc.gen.connectors.v1 import proxy_service_pb2 as proxy
from connectors_grpc.outbound import MOST_CONNECTIONS
from connectors_grpc.proxying import MOST_REPLY_BODY
from tests.canary import planted
from tests.providers import RecordingUpstream, recording_upstream
from tests.raw_calls import RPCS, ask, bearer, ended
from tests.running import Client, Refused, Server, fresh_id, refused

pytestmark = pytest.mark.usefixtures("heard")
MIB = 1024 * 1024
CALL = next(rpc for rpc in RPCS if rpc.name == "Call")


class Line:
    """One integration at an upstream, and an app that calls it."""

    def __init__(
        self, server: Server, upstream: RecordingUpstream, app: Client, tenant: str, name: str, key: str
    ) -> None:
        self.server, self.upstream, self.app, self.tenant, self.name, self.key = (
            server,
            upstream,
            app,
            tenant,
            name,
            key,
        )

    async def call(
        self, path: str = "/v1/x", headers: dict[str, str] | None = None, **fields: object
    ) -> proxy.CallResponse:
        """Call."""
        lines = [proxy.Header(name=name, value=value) for name, value in (headers or {}).items()]
        return await self.app.proxied(self.tenant, self.name, path, headers=lines, **fields)

    async def refused(
        self, field: str, path: str = "/v1/x", headers: dict[str, str] | None = None, **fields: object
    ) -> None:
        """The call must be refused for that field, and nothing may go out."""
        before = len(self.upstream.requests)
        with pytest.raises(Refused) as caught:
            await self.call(path, headers, **fields)
        assert (caught.value.reason, caught.value.fields) == ("INVALID_FIELD", [field])
        assert len(self.upstream.requests) == before


@pytest_asyncio.fixture(loop_scope="session")
async def line(server: Server) -> AsyncIterator[Line]:
    """One of this test's own, with a constant header and two OAuth endpoints."""
    tenant, key = (await server.admin.create_tenant()).id, planted()
    async with recording_upstream() as upstream:
        name = await server.admin.keyed_api(
            tenant,
            upstream.url,
            key,
            oauth={
                "authorization_endpoint": f"{upstream.url}/v1/oauth/authorize",
                "token_endpoint": f"{upstream.url}/v1/oauth/token",
            },
            default_headers={"Notion-Version": "2022-06-28"},
        )
        yield Line(server, upstream, await server.app(tenant), tenant, name, key)


async def test_method_path_headers_and_body_go_out_as_they_are(line: Line) -> None:
    """And the answer comes back as it is, whatever its status."""
    line.upstream.reply = b"HTTP/1.1 418 Teapot\r\nX-A: 1\r\nX-A: 2\r\nContent-Length: 4\r\n\r\n\x00\xffok"
    answer = await line.call("/v1/a%2Fb?x=%20&y", {"X-Mine": "a b"}, method="PATCH", body=b"\x00\xff")
    assert (answer.http_status, answer.body) == (418, b"\x00\xffok")
    assert [header.value for header in answer.headers if header.name.lower() == "x-a"] == ["1", "2"]
    seen = line.upstream.requests[-1]
    assert seen.request_line == b"PATCH /v1/a%2Fb?x=%20&y HTTP/1.1"
    assert (seen.header("x-mine"), seen.body) == (["a b"], b"\x00\xff")


async def test_constant_headers_are_set_unless_the_app_sets_them(line: Line) -> None:
    """An app may want another version of the API."""
    await line.call()
    assert line.upstream.requests[-1].header("notion-version") == ["2022-06-28"]
    await line.call(headers={"notion-version": "2030-01-01"})
    assert line.upstream.requests[-1].header("notion-version") == ["2030-01-01"]


@pytest.mark.parametrize("name", ["authorization", "AUTHORIZATION", "Authorization", "X-Api-Key", "x_api_key"])
async def test_attack_16_exactly_one_authorization_goes_out_and_it_is_ours(line: Line, name: str) -> None:
    """Whatever the app calls its own."""
    await line.call(headers={name: line.app.key})
    seen = line.upstream.requests[-1]
    assert seen.header("authorization") == [f"Bearer {line.key}"]
    assert line.app.key.encode() not in seen.head


async def test_attack_17_connection_does_not_take_the_credential_off(line: Line) -> None:
    """Nor Host. What it names of the app's goes."""
    await line.call(headers={"Connection": "Authorization, Host, X-Mine, close", "X-Mine": "1"})
    seen = line.upstream.requests[-1]
    assert seen.header("authorization") == [f"Bearer {line.key}"]
    assert seen.header("host") == [line.upstream.url.removeprefix("http://")]
    assert seen.header("x-mine") == []


async def test_attack_18_hop_by_hop_control_and_cookie_headers_stay_here(line: Line) -> None:
    """None reaches the upstream."""
    names = [
        "X-Tenant-Id", "X-Connectors-Key", "X-Connectors-Anything", "Proxy-Authorization", "X-Forwarded-For", "Forwarded",
        "Via", "X-Real-Ip", "Cookie", "TE", "Trailer", "Upgrade", "Keep-Alive", "Proxy-Connection", "Transfer-Encoding",
    ]  # fmt: skip
    await line.call(headers=dict.fromkeys(names, "planted-control-value"))
    assert b"planted-control-value" not in line.upstream.requests[-1].head


async def test_the_apps_length_and_host_do_not_count(line: Line) -> None:
    """Framing is the sender's."""
    await line.call(headers={"Content-Length": "999", "Host": "evil.example.com"}, method="POST", body=b"ab")
    seen = line.upstream.requests[-1]
    assert (seen.header("content-length"), seen.body) == (["2"], b"ab")
    assert seen.header("host") == [line.upstream.url.removeprefix("http://")]


@pytest.mark.parametrize(
    "method", ["TRACE", "trace", "CONNECT", "Connect", "GET /evil", "G\r\nX: 1", "", "É", "M" * 33]
)
async def test_attack_34_methods_that_echo_tunnel_or_break_lines_are_refused(line: Line, method: str) -> None:
    """An empty one is GET."""
    if method:
        await line.refused("method", method=method)
    else:
        await line.call(method=method)
        assert line.upstream.requests[-1].method == "GET"


@pytest.mark.parametrize(
    "path",
    [
        "/../x", "/a/%2e%2e/b", "/a/..", "/%252e%252e/x", "/a\\b", "/a%5Cb", "/a%00b", "/a#b", "/a b", "/ä", "x", "//../x",
        "/x\r\nX-Evil: 1", "http://evil.example.com/", "/a%zz", "/x?y#z", "/" + "x" * 8192,
    ],
)  # fmt: skip
async def test_attack_15_a_path_that_two_readers_could_read_differently_is_refused(line: Line, path: str) -> None:
    """One canonical form serves policy and wire."""
    await line.refused("path", path)


async def test_attack_10_an_authority_in_the_path_stays_a_path(line: Line) -> None:
    """`//evil` is a path of two empty beginnings, at the integration's own host."""
    await line.call("//evil.example.com/x")
    assert line.upstream.requests[-1].target == "//evil.example.com/x"


@pytest.mark.parametrize(
    "path",
    [
        "/v1/oauth/token",
        "/v1/oauth/token/",
        "/V1/OAuth/Token?x=1",
        "/v1//oauth/token",
        "/v1/oauth%2Ftoken",
        "/v1/oauth/%74oken",
        "/v1/oauth/authorize",
    ],
)
async def test_attack_34_the_providers_oauth_endpoints_are_never_called(line: Line, path: str) -> None:
    """However they are written."""
    with refused("PATH_NOT_ALLOWED"):
        await line.call(path, method="POST")
    assert line.upstream.requests == []


@pytest.mark.parametrize(
    ("name", "value", "field"),
    [
        ("X-A", "a\r\nX-Evil: 1", "headers[0].value"),
        ("X-A", "a\0", "headers[0].value"),
        ("X-A", " a", "headers[0].value"),
        ("X-A", "\N{GREEK SMALL LETTER ALPHA}", "headers[0].value"),
        ("X A", "a", "headers[0].name"),
        ("X-A:", "a", "headers[0].name"),
        ("", "a", "headers[0].name"),
        (":path", "/evil", "headers[0].name"),
    ],
)
async def test_attack_19_header_lines_are_refused_not_skipped(line: Line, name: str, value: str, field: str) -> None:
    """Named by their place."""
    await line.refused(field, headers={name: value})


async def test_more_than_a_hundred_header_lines_are_refused(line: Line) -> None:
    """A hundred pass."""
    await line.call(headers={f"X-{n}": "v" for n in range(100)})
    await line.refused("headers", headers={f"X-{n}": "v" for n in range(101)})


async def test_attack_13_a_redirect_is_passed_back_and_not_followed(line: Line) -> None:
    """Elsewhere the credential has nothing to do."""
    async with recording_upstream() as elsewhere:
        line.upstream.reply = f"HTTP/1.1 307 Go\r\nLocation: {elsewhere.url}/x\r\nContent-Length: 0\r\n\r\n".encode()
        answer = await line.call(method="POST", body=b"x")
        assert answer.http_status == 307
        assert [header.value for header in answer.headers if header.name == "Location"] == [f"{elsewhere.url}/x"]
        assert elsewhere.connections == 0


async def test_attacks_24_34_35_a_replys_headers_are_filtered(line: Line) -> None:
    """No cookie, no `Alt-Svc`, nothing of ours, nothing that echoes the credential, nothing hop-by-hop."""
    line.upstream.reply = (
        "HTTP/1.1 200 OK\r\nSet-Cookie: a=b\r\nAlt-Svc: h3=1\r\nX-Connectors-Error: NEEDS_REAUTH\r\nConnection: X-Hop\r\n"
        f"X-Hop: 1\r\nX-Echo: Bearer {line.key}\r\nX-Fine: 1\r\nContent-Length: 0\r\n\r\n"
    ).encode()
    names = {header.name.lower() for header in (await line.call()).headers}
    assert names & {"set-cookie", "alt-svc", "x-connectors-error", "connection", "x-hop", "x-echo"} == set()
    assert "x-fine" in names


async def test_bodies_are_bounded_in_both_directions_with_the_limit_in_the_error(line: Line) -> None:
    """4 MiB out, and back what fits, with its headers, in the 4 MiB that gRPC clients take; more is refused in words."""
    whole = b"x" * (4 * MIB)
    reply = whole[:MOST_REPLY_BODY]
    line.upstream.reply = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(reply), reply)
    answer = await line.call(method="POST", body=whole)
    assert (len(line.upstream.requests[-1].body), len(answer.body)) == (4 * MIB, len(reply))
    sent = len(line.upstream.requests)
    with refused("BODY_TOO_LARGE", limit_bytes=str(4 * MIB)):
        await line.call(method="POST", body=whole + b"x")
    assert len(line.upstream.requests) == sent
    line.upstream.reply = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(reply) + 1, reply + b"x")
    with refused("BODY_TOO_LARGE", limit_bytes=str(MOST_REPLY_BODY)):
        await line.call()


async def test_an_upstream_that_is_down_or_breaks_off_is_unavailable(line: Line) -> None:
    """With the host, and whether the request may have got there."""
    line.upstream.reply = b""
    with refused("PROVIDER_UNAVAILABLE", host=line.upstream.url.removeprefix("http://"), sent="maybe"):
        await line.call()
    async with recording_upstream() as gone:
        pass
    wanted = integrations.Integration(id=line.name, api={"base_url": gone.url})  # type: ignore[arg-type]
    request = integrations.UpdateIntegrationRequest(integration=wanted)
    request.update_mask.paths.append("api")
    request.integration.api.placement.headers["Authorization"] = "Bearer {api_key}"
    await line.server.admin.call("UpdateIntegration", request)
    await line.server.admin.store(line.tenant, line.name, api_key={"api_key": planted()})
    with refused("PROVIDER_UNAVAILABLE", problem="unreachable", sent="no"):
        await line.call()


async def test_attack_11_a_private_address_is_refused_unless_the_definition_allows_it(line: Line) -> None:
    """The name is resolved, and what it resolves to is judged."""
    name = fresh_id("inside")
    api = {"base_url": "https://localhost:1", "placement": {"headers": {"X-Api-Key": "{api_key}"}}}
    await line.server.admin.create_integration(name, api=api)
    await line.server.admin.store(line.tenant, name, api_key={"api_key": planted()})
    with refused("ADDRESS_NOT_ALLOWED", host="localhost:1"):
        await line.app.proxied(line.tenant, name, "/x")


async def test_a_caller_that_gives_up_leaves_no_connection_behind(line: Line) -> None:
    """By its deadline, or by cancelling: the upstream sees the end of the connection at once."""
    request = proxy.CallRequest(tenant=line.tenant, credential=line.name, path="/v1/slow")
    for cancelled in (False, True):
        came, left = asyncio.Event(), asyncio.Event()

        async def hang(
            _head: bytes,
            reader: asyncio.StreamReader,
            _writer: asyncio.StreamWriter,
            came: asyncio.Event = came,
            left: asyncio.Event = left,
        ) -> None:
            came.set()
            assert await reader.read() == b""
            left.set()

        line.upstream.handler = hang
        timeout = 20 if cancelled else 2
        asked = asyncio.create_task(ask(line.server.channel, CALL, request, bearer(line.app.key), timeout))
        await asyncio.wait_for(came.wait(), 60)
        if cancelled:
            asked.cancel()
        else:
            assert (await asked).code is grpc.StatusCode.DEADLINE_EXCEEDED
        await asyncio.wait_for(left.wait(), 60)


async def test_an_api_that_hangs_for_one_tenant_leaves_room_for_the_others(server: Server, line: Line) -> None:
    """However many calls it has: so many are under way, the rest wait their turn, and come to it."""
    came, over = 0, asyncio.Event()
    full = asyncio.Event()

    async def hang(_head: bytes, _reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal came
        came += 1
        if came == MOST_CONNECTIONS // 2:
            full.set()
        await over.wait()
        writer.write(b"HTTP/1.1 204 X\r\nConnection: close\r\n\r\n")
        writer.close()

    other, key = (await server.admin.create_tenant()).id, planted()
    async with recording_upstream() as free:
        name = await server.admin.keyed_api(other, free.url, key)
        app = await server.app(other)
        line.upstream.handler = hang
        calls = [asyncio.create_task(line.call()) for _ in range(120)]
        async with asyncio.timeout(60):
            await full.wait()
            assert (await app.proxied(other, name, "/v1/x")).http_status == 200
            assert came == MOST_CONNECTIONS // 2
            over.set()
            assert {answer.http_status for answer in await asyncio.gather(*calls)} == {204}


async def test_a_stream_of_what_is_no_message_is_refused(line: Line) -> None:
    """Before anything is asked of it."""
    stream = line.server.channel.stream_stream("/connectors.v1.ProxyService/CallStream", bytes, bytes)
    answer = await ended(stream(iter([b"\xff"]), metadata=bearer(line.app.key), timeout=20))
    assert (answer.code, answer.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "MALFORMED_REQUEST")


async def test_what_a_call_lacks_is_named(line: Line) -> None:
    """All of it at once, after permission."""
    admin_app = await line.server.admin.create_key([4], ["*"])
    with pytest.raises(Refused) as caught:
        await line.server.client(admin_app).call("Call", proxy.CallRequest())
    assert caught.value.fields == ["tenant", "credential", "path"]
