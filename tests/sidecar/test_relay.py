"""`--relay`: every call goes by the server, and no credential ever reaches the app's host."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path

import httpx
import notion_client
import pytest
import pytest_asyncio

from connectors_grpc.gen.connectors.v1.credential_service_pb2 import RevokeCredentialRequest
from connectors_grpc.quota import Quota
from connectors_grpc.secret import Secret
from sidecar.main import run
from sidecar.refused import SettingsRefused
from sidecar.route import Credential, Fixed, Tenant
from sidecar.server import Address
from sidecar.settings import Dedicated, SidecarSettings, Tcp, Unix, parse
from tests.canary import planted
from tests.providers import RecordingUpstream, recording_upstream
from tests.running import Client, Server
from tests.sidecar.harness import QUICK, SOON, Answer, App

CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
PIECE = 64 * 1024


@dataclass
class Desk:
    """An app's machine with a relaying sidecar that has no key of its own."""

    server: Server
    upstream: RecordingUpstream
    app: Client
    tenant: str
    name: str
    token: str
    addresses: list[str]

    def request(self, path: str = "/v1/x", lines: bytes = b"", method: bytes = b"GET", key: str | None = None) -> bytes:
        """A request by the usual address."""
        shown = b"Authorization: Bearer %b\r\n" % (key or self.app.key).encode()
        where = f"/~{self.tenant}/{self.name}{path}".encode()
        return b"%b %b HTTP/1.1\r\nHost: %b\r\n%b%b\r\n" % (method, where, self.addresses[0].encode(), shown, lines)

    @contextlib.asynccontextmanager
    async def connection(self, at: int = 0) -> AsyncIterator[App]:
        """The app's, raw."""
        host, _, port = self.addresses[at].rpartition(":")
        reader, writer = await asyncio.open_connection(host, int(port), limit=1 << 24)
        try:
            yield App(reader, writer)
        finally:
            writer.close()

    async def ask(self, data: bytes, method: str = "GET") -> Answer:
        """One request on a connection of its own."""
        async with self.connection() as app:
            return await app.ask(data, method)


@contextlib.asynccontextmanager
async def relaying(settings: SidecarSettings) -> AsyncIterator[list[str]]:
    """A sidecar; its addresses."""
    addresses: list[str] = []
    stop = asyncio.Event()
    task = asyncio.create_task(run(settings, addresses.append, stop))
    try:
        async with asyncio.timeout(SOON):
            while len(addresses) < 1 + len(settings.dedicated):
                assert not task.done(), task.result()
                await asyncio.sleep(0.005)
        yield [address.removeprefix("http://") for address in addresses]
    finally:
        stop.set()
        await task


@pytest_asyncio.fixture(loop_scope="session")
async def desk(server: Server) -> AsyncIterator[Desk]:
    """One of this test's own."""
    tenant, token = (await server.admin.create_tenant()).id, planted()
    async with recording_upstream() as upstream:
        name = await server.admin.keyed_api(tenant, f"{upstream.url}/base", token)
        settings = SidecarSettings(
            listen=Tcp("127.0.0.1", 0),
            server=Address(server.grpc_address),
            dedicated=(Dedicated(Tcp("127.0.0.1", 0), Fixed(Tenant(tenant), Credential(name))),),
            relay=True,
            limits=QUICK,
        )
        async with relaying(settings) as addresses:
            yield Desk(server, upstream, await server.app(tenant), tenant, name, token, addresses)


@contextlib.asynccontextmanager
async def bounded(desk: Desk, quota: Quota) -> AsyncIterator[Desk]:
    """The same, by another sidecar, which has bounds."""
    settings = SidecarSettings(
        listen=Tcp("127.0.0.1", 0), server=Address(desk.server.grpc_address), relay=True, quota=quota
    )
    async with relaying(settings) as addresses:
        yield replace(desk, addresses=addresses)


async def test_who_has_no_key_takes_nothing_of_a_credentials_quota(desk: Desk) -> None:
    """The relay can't tell a good key from a wrong one, or another's, before the server does."""
    other = (await desk.server.app((await desk.server.admin.create_tenant()).id)).key
    async with bounded(desk, Quota(rate=2)) as mine:
        assert (await mine.ask(mine.request())).status == 200
        for key in (other, desk.app.key[:-8] + "A" * 8) * 3:
            assert (await mine.ask(mine.request(key=key))).status in (401, 403, 429)
        assert (await mine.ask(mine.request())).status == 200


async def test_a_call_that_was_let_in_counts_as_its_credentials(desk: Desk) -> None:
    """However long it lasts: it keeps out the next one of that key, and no key that was not seen before."""
    over = asyncio.Event()

    async def slowly(_head: bytes, _reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n")
        await writer.drain()
        await over.wait()
        writer.write(b"ok")
        await writer.drain()

    async with bounded(desk, Quota(concurrent=1)) as mine, mine.connection() as app:
        desk.upstream.handler = slowly
        await app.send(mine.request())
        assert b"200" in await app.reader.readuntil(b"\r\n\r\n")
        desk.upstream.handler = None
        assert (await mine.ask(mine.request())).status == 429
        assert (await mine.ask(mine.request(key=(await desk.server.app(desk.tenant)).key))).status == 200
        over.set()
        assert await app.reader.readexactly(2) == b"ok"


async def test_a_call_goes_out_with_the_credential_that_the_sidecar_never_had(desk: Desk) -> None:
    """The provider's status, lines and body are the answer; the connection goes on."""
    desk.upstream.reply = b"HTTP/1.1 404 X\r\nX-A: 1\r\nX-A: 2\r\nContent-Length: 2\r\n\r\nno"
    async with desk.connection() as app:
        for _ in range(2):
            answer = await app.ask(desk.request("/v1/a%2Fb?x=1", b"X-Mine: 1\r\nCookie: c\r\n"))
            assert (answer.status, answer.body, answer.reason) == (404, b"no", "")
            assert answer.all(b"X-A") == [b"1", b"2"]
    seen = desk.upstream.requests[-1]
    assert seen.request_line == b"GET /base/v1/a%2Fb?x=1 HTTP/1.1"
    assert (seen.header("authorization"), seen.header("x-mine")) == ([f"Bearer {desk.token}"], ["1"])
    assert desk.app.key.encode() not in seen.head
    assert b"c" not in [value.encode() for value in seen.header("cookie")]


@pytest.mark.parametrize("sized", [True, False])
async def test_large_bodies_stream_both_ways(desk: Desk, sized: bool) -> None:
    """8 MiB each way, by length or in chunks."""
    whole = b"".join(bytes([number % 251]) * PIECE for number in range(128))
    desk.upstream.reply = lambda got: CHUNKED + b"%x\r\n%b\r\n0\r\n\r\n" % (len(got.body), got.body)
    if sized:
        data = desk.request(method=b"PUT", lines=b"Content-Length: %d\r\n" % len(whole)) + whole
    else:
        chunks = [b"%x\r\n%b\r\n" % (PIECE, whole[at : at + PIECE]) for at in range(0, len(whole), PIECE)]
        data = desk.request(method=b"PUT", lines=b"Transfer-Encoding: chunked\r\n") + b"".join(chunks) + b"0\r\n\r\n"
    answer = await desk.ask(data)
    assert hashlib.sha256(answer.body).digest() == hashlib.sha256(whole).digest()
    assert desk.upstream.requests[-1].header("content-length") == ([str(len(whole))] if sized else [])


async def test_a_slow_app_holds_the_provider_back(desk: Desk) -> None:
    """Backpressure through three processes' worth of buffers: what the provider gets rid of is bounded."""

    async def play(_head: bytes, _reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(CHUNKED)
        try:
            async with asyncio.timeout(2):
                while len(sent) < 4096:
                    writer.write(b"%x\r\n%b\r\n" % (PIECE, b"x" * PIECE))
                    await writer.drain()
                    sent.append(PIECE)
        except TimeoutError:
            stalled.set()
        await ended.wait()

    sent: list[int] = []
    stalled, ended = asyncio.Event(), asyncio.Event()
    desk.upstream.handler = play
    host, _, port = desk.addresses[0].rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port), limit=PIECE)
    writer.write(desk.request())
    async with asyncio.timeout(SOON):
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
        await stalled.wait()
    assert len(sent) < 1024  # 64 MiB; 256 MiB were offered
    writer.close()
    ended.set()


async def test_an_app_that_leaves_ends_the_providers_connection(desk: Desk) -> None:
    """Within a moment, by way of the server."""

    async def play(_head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(CHUNKED + b"1\r\na\r\n")
        await writer.drain()
        await reader.read()
        left.set()

    left = asyncio.Event()
    desk.upstream.handler = play
    async with desk.connection() as app:
        await app.send(desk.request())
        async with asyncio.timeout(SOON):
            await app.reader.readuntil(b"\r\n\r\n")
    async with asyncio.timeout(SOON):
        await left.wait()


async def pour(app: App) -> None:
    """A body without an end, until nobody takes it."""
    with contextlib.suppress(OSError):
        while True:
            await app.send(b"%x\r\n%b\r\n" % (PIECE, b"x" * PIECE))


async def test_a_refusal_while_the_body_is_sent_reaches_the_app_with_its_reason(desk: Desk) -> None:
    """The server ends the call in the middle of the upload; the app is told why, and not that nobody can be reached."""

    async def swallow(_head: bytes, reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        while await reader.read(PIECE):
            begun.set()

    begun = asyncio.Event()
    desk.upstream.handler = swallow
    async with desk.connection() as app, asyncio.timeout(SOON):
        await app.send(desk.request(method=b"PUT", lines=b"Transfer-Encoding: chunked\r\n"))
        pouring = asyncio.create_task(pour(app))
        await begun.wait()
        revoke = RevokeCredentialRequest(tenant=desk.tenant, credential=desk.name)
        await desk.server.admin.call("RevokeCredential", revoke)
        assert (await app.answer()).reason == "CREDENTIAL_REVOKED"
        pouring.cancel()
        await asyncio.gather(pouring, return_exceptions=True)


async def test_a_body_that_breaks_off_cuts_the_apps_connection(desk: Desk) -> None:
    """Half an answer never looks whole."""
    desk.upstream.reply = CHUNKED + b"5\r\nhal"
    desk.upstream.close_after_reply = True
    async with desk.connection() as app:
        await app.send(desk.request())
        with pytest.raises((asyncio.IncompleteReadError, OSError)):
            await app.answer()


async def test_links_lead_back_to_the_sidecar(desk: Desk) -> None:
    """By the path and by a port of its own: the server says where the API is."""
    own = f"{desk.upstream.url}/base"
    links = f'Location: {own}/b\r\nLink: <{own}/a?p=2>; rel="next"\r\n'
    desk.upstream.reply = f"HTTP/1.1 302 X\r\n{links}Content-Length: 0\r\n\r\n".encode()
    answer = await desk.ask(desk.request())
    ours = f"http://{desk.addresses[0]}/~{desk.tenant}/{desk.name}"
    assert answer.all(b"Location") == [f"{ours}/b".encode()]
    assert answer.all(b"Link") == [f'<{ours}/a?p=2>; rel="next"'.encode()]
    async with desk.connection(1) as app:
        lines = f"Host: {desk.addresses[1]}\r\nAuthorization: Bearer {desk.app.key}\r\n\r\n".encode()
        answer = await app.ask(b"GET /v1 HTTP/1.1\r\n" + lines)
    assert answer.all(b"Location") == [f"http://{desk.addresses[1]}/b".encode()]


async def test_a_key_bound_to_one_tenant_needs_no_other_word_of_it(desk: Desk) -> None:
    """`/{credential}/...`: the server knows whose key it is."""
    path = f"GET /{desk.name}/v1 HTTP/1.1\r\nHost: {desk.addresses[0]}\r\nX-Api-Key: {desk.app.key}\r\n\r\n"
    answer = await desk.ask(path.encode())
    assert (answer.status, answer.all(b"Vary")) == (200, [b"X-Tenant-Id"])


async def test_the_servers_refusals_are_the_sidecars_answers(desk: Desk) -> None:
    """Scope, key, credential, path, a provider that is away: each as without a relay."""
    other = (await desk.server.admin.create_tenant()).id
    foreign = (await desk.server.app(other)).key
    nobody = "cnk_nobody_" + "x" * 43
    everything = await desk.server.admin.create_key([4], ["*"])
    missing = desk.request(key=everything).replace(f"/{desk.name}/".encode(), b"/nothing/")
    cases: list[tuple[bytes, int, str]] = [
        (desk.request(key=foreign), 403, "PERMISSION_DENIED"),
        (desk.request(key=nobody), 403, "API_KEY_INVALID"),
        (desk.request(key="dummy"), 403, "API_KEY_INVALID"),
        (desk.request("/a/%2e%2e/b"), 400, "MALFORMED_REQUEST"),
        (desk.request(lines=b"Origin: http://evil.example.com\r\n"), 403, "BROWSER_REFUSED"),
        (missing, 404, "CREDENTIAL_NOT_FOUND"),
    ]
    for data, status, reason in cases:
        answer = await desk.ask(data)
        assert (answer.status, answer.reason) == (status, reason)
    assert desk.upstream.requests == []
    desk.upstream.reply = b""
    desk.upstream.close_after_reply = True
    answer = await desk.ask(desk.request())
    assert (answer.status, answer.reason) == (502, "UPSTREAM_UNREACHABLE")


async def test_head_and_continue_and_old_apps_are_served(desk: Desk) -> None:
    """HEAD has no body; Expect is answered here; HTTP/1.0 gets its body until the end."""
    desk.upstream.reply = b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n"
    answer = await desk.ask(desk.request(method=b"HEAD"), "HEAD")
    assert (answer.status, answer.all(b"Content-Length")) == (200, [b"7"])
    desk.upstream.reply = CHUNKED + b"2\r\nok\r\n0\r\n\r\n"
    async with desk.connection() as app:
        await app.send(desk.request(method=b"POST", lines=b"Expect: 100-continue\r\nContent-Length: 3\r\n"))
        assert (await app.answer()).status == 100
        assert (await app.ask(b"abc")).body == b"ok"
    assert desk.upstream.requests[-1].body == b"abc"
    answer = await desk.ask(desk.request().replace(b"HTTP/1.1", b"HTTP/1.0"))
    assert (answer.body, answer.all(b"Transfer-Encoding"), answer.all(b"Connection")) == (b"ok", [], [b"close"])


async def test_a_unix_socket_uses_the_apps_key_from_its_file(desk: Desk, tmp_path: Path) -> None:
    """`--app-key-file`: of whoever shows none; one that is shown still counts."""
    (tmp_path / "app.key").write_text(desk.app.key)
    settings = SidecarSettings(
        listen=Unix(tmp_path / "s"),
        server=Address(desk.server.grpc_address),
        relay=True,
        relay_key=Secret(desk.app.key),
    )
    path = f"GET /~{desk.tenant}/{desk.name}/v1 HTTP/1.1\r\nHost: localhost\r\n"
    async with relaying(settings):
        for lines, status in (("", 200), (f"X-Connectors-Key: cnk_nobody_{'x' * 43}\r\n", 403)):
            reader, writer = await asyncio.open_unix_connection(str(tmp_path / "s"))
            answer = await App(reader, writer).ask(f"{path}{lines}\r\n".encode())
            writer.close()
            assert answer.status == status
    assert parse(relay=True, app_key_file=str(tmp_path / "app.key")).relay_key is not None
    with pytest.raises(SettingsRefused, match="--app-key-file"):
        parse(app_key_file=str(tmp_path / "app.key"))


async def test_notions_sdk_works_through_a_relay(desk: Desk) -> None:
    """A whole SDK, unchanged."""
    body = b'{"object":"list","results":[{"id":"p1"}],"has_more":false}'
    desk.upstream.reply = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (
        len(body),
        body,
    )
    url = f"http://{desk.addresses[0]}/~{desk.tenant}/{desk.name}"

    def use() -> object:
        with httpx.Client(trust_env=False) as http:
            return notion_client.Client(auth=desk.app.key, base_url=url, client=http).search(query="x")

    answer = await asyncio.to_thread(use)
    assert isinstance(answer, dict)
    assert answer["results"][0]["id"] == "p1"
    assert desk.upstream.requests[-1].header("authorization") == [f"Bearer {desk.token}"]


async def test_trailers_pass_both_ways(desk: Desk) -> None:
    """As without a relay; to an app of HTTP/1.0, which has no chunks, none go back."""
    desk.upstream.reply = CHUNKED + b"2\r\nok\r\n0\r\nX-Sum: abc\r\nX-Connectors-Error: forged\r\n\r\n"
    chunks = b"3\r\nabc\r\n0\r\nX-Checksum: 1f\r\nAuthorization: mine\r\n\r\n"
    request = desk.request(method=b"PUT", lines=b"Transfer-Encoding: chunked\r\n") + chunks
    async with desk.connection() as app:
        for _ in range(2):
            assert (await app.ask(request)).body == b"okX-Sum: abc\r\n"  # as the harness joins them
    assert desk.upstream.requests[-1].raw_body == b"3\r\nabc\r\n0\r\nX-Checksum: 1f\r\n\r\n"
    assert (await desk.ask(desk.request().replace(b"HTTP/1.1", b"HTTP/1.0"))).body == b"ok"
