"""WebSockets through the sidecar: the head is injected and checked as any other's, then bytes pass both ways."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
import pytest_asyncio
import websockets
from websockets.asyncio.client import ClientConnection, connect
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed, InvalidStatus

from connectors_grpc.gen.connectors.v1 import proxy_service_pb2 as pb
from tests.sidecar.harness import QUICK, SOON, App, Clock, World, world

ASK = (
    b"Connection: keep-alive, Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: a2V5\r\n"
)
GRANT = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: WebSocket\r\nX-A: 1\r\n\r\n"


class Echo:
    """A real WebSocket server that repeats, and keeps the heads it got."""

    def __init__(self) -> None:
        self.heads: list[websockets.Headers] = []
        self.ended = asyncio.Event()

    async def __call__(self, connection: ServerConnection) -> None:
        assert connection.request is not None
        self.heads.append(connection.request.headers)
        try:
            async for message in connection:
                await connection.send(message)
        finally:
            self.ended.set()


@pytest_asyncio.fixture
async def echo(w: World) -> AsyncIterator[Echo]:
    """It, as acme's credential `ws`."""
    behaviour = Echo()
    async with serve(behaviour, "127.0.0.1", 0, max_size=None) as server:
        authority = f"127.0.0.1:{next(iter(server.sockets)).getsockname()[1]}"
        w.connect("acme", "ws", base_url=f"http://{authority}/base", allowed_hosts=[authority])
        yield behaviour


def dial(w: World, credential: str = "ws") -> connect:
    """A real WebSocket client."""
    return connect(
        f"ws://{w.address}/~acme/{credential}/echo?x=1",
        additional_headers={"Authorization": f"Bearer {w.key.text}"},
        proxy=None,
        max_size=None,
        ping_interval=None,
    )


async def test_a_real_client_and_a_real_server_talk(w: World, echo: Echo) -> None:
    """Text, binary, a megabyte, a ping, and the closing handshake; with the tenant's credential and not the app's."""
    async with asyncio.timeout(SOON), dial(w) as client:
        for message in ("Ä", b"\x00\xff", b"x" * 1_000_000):
            await client.send(message)
            assert await client.recv() == message
        await (await client.ping())
    async with asyncio.timeout(SOON):
        await echo.ended.wait()
    (head,) = echo.heads
    assert head.get_all("Authorization") == [w.token("acme", "ws").decode()]
    assert w.key.text not in str(head)
    assert "permessage-deflate" in head["Sec-WebSocket-Extensions"]


async def test_many_talk_at_once_and_the_pool_is_not_theirs(w: World, echo: Echo) -> None:
    """Twenty tunnels beside usual requests."""
    async with contextlib.AsyncExitStack() as stack, asyncio.timeout(SOON):
        clients: list[ClientConnection] = [await stack.enter_async_context(dial(w)) for _ in range(20)]
        await asyncio.gather(*(client.send(str(number)) for number, client in enumerate(clients)))
        assert [await client.recv() for client in clients] == [str(number) for number in range(20)]
        assert (await w.ask()).status == 200
        assert b"connectors_sidecar_websockets 20\n" in (await w.metrics()).body
        assert b"connectors_sidecar_upstream_connections 1\n" in (await w.metrics()).body
    await w.shows("websockets 0")


async def opened(w: World, lines: bytes = b"") -> App:
    """A raw tunnel."""
    w.provider.replies.append(GRANT)
    app = await w.app()
    answer = await app.ask(w.request(lines=w.key.bearer + ASK + lines))
    assert answer.status == 101
    assert answer.all(b"Upgrade") == [b"websocket"]
    assert answer.all(b"Connection") == [b"Upgrade"]
    assert answer.all(b"X-A") == [b"1"]
    return app


async def test_the_heads_name_the_upgrade_once_and_nothing_else_of_the_hop(w: World) -> None:
    """As written to the provider."""
    await opened(w)
    got = w.provider.got[0]
    assert got.all(b"upgrade") == [b"websocket"]
    assert got.all(b"connection") == [b"Upgrade"]
    assert got.all(b"authorization") == [w.token()]


async def test_bytes_sent_before_the_answer_are_the_tunnels(w: World) -> None:
    """And so are those that come with the 101."""
    came = asyncio.Event()
    early: list[bytes] = []

    async def play(head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        writer.write(GRANT + b"first")
        early.append(await reader.readexactly(5))
        came.set()
        return True

    w.provider.on_head = play
    app = await w.app()
    answer = await app.ask(w.request(lines=w.key.bearer + ASK) + b"early")
    assert answer.status == 101
    async with asyncio.timeout(SOON):
        assert await app.reader.readexactly(5) == b"first"
        await came.wait()
    assert early == [b"early"]


@pytest.mark.parametrize(
    "reply",
    [
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
    ],
)
async def test_another_protocol_than_was_asked_for_is_refused(w: World, reply: bytes) -> None:
    """502, and no byte of it passes."""
    w.provider.replies = [reply + b"bytes"]
    assert (await w.ask(lines=w.key.bearer + ASK)).reason == "UPSTREAM_UNREACHABLE"


async def test_a_provider_that_does_not_upgrade_answers_as_usual(w: World, echo: Echo) -> None:
    """Its 403 is an answer, and the connection goes on."""
    app = await w.app()
    w.provider.replies = [b"HTTP/1.1 403 X\r\nContent-Length: 2\r\n\r\nno"]
    answer = await app.ask(w.request(lines=w.key.bearer + ASK))
    assert (answer.status, answer.body, answer.reason) == (403, b"no", "")
    assert (await app.ask(w.request())).status == 200
    w.provider.replies = [b"HTTP/1.1 404 X\r\nContent-Length: 0\r\n\r\n"]
    with pytest.raises(InvalidStatus):
        async with dial(w, "notes"):
            pass


@pytest.mark.parametrize(
    ("method", "lines"),
    [
        ("POST", ASK),
        ("GET", b"Upgrade: websocket\r\n"),
        ("GET", b"Connection: Upgrade\r\nUpgrade: websocket, h2c\r\n"),
        ("GET", ASK + b"Content-Length: 3\r\n"),
    ],
)
async def test_what_only_looks_like_a_websocket_is_refused(w: World, method: str, lines: bytes) -> None:
    """501, and nothing is sent."""
    assert (await w.ask(lines=w.key.bearer + lines, method=method)).reason == "NOT_IMPLEMENTED"
    assert w.provider.got == []


async def test_a_browsers_page_opens_none(w: World) -> None:
    """Attack 2: a page may open WebSockets to anywhere, but says its Origin."""
    answer = await w.ask(lines=w.key.bearer + ASK + b"Origin: http://evil.example.com\r\n")
    assert answer.reason == "BROWSER_REFUSED"


async def test_a_revoked_key_a_changed_tenant_and_a_lost_credential_end_open_tunnels(w: World) -> None:
    """Within seconds, though nothing is sent."""
    for what in ("key", "tenant", "credential"):
        app = await opened(w)
        match what:
            case "key":
                grant = w.server.grants.pop(w.key.key_id)
                w.server.tell(pb.WatchLeasesResponse(api_key_changed=pb.ApiKeyChanged(key_id=w.key.key_id)))
            case "tenant":
                lease = w.server.leases.pop(("acme", "notes"))
                w.server.tell(pb.WatchLeasesResponse(tenant_changed=pb.TenantChanged(tenant="acme")))
            case _:
                lease = w.server.leases.pop(("acme", "notes"))
                changed = pb.CredentialChanged(tenant="acme", credential="notes")
                w.server.tell(pb.WatchLeasesResponse(credential_changed=changed))
        assert await app.closed()
        if what == "key":
            w.server.grants[w.key.key_id] = grant
            w.server.tell(pb.WatchLeasesResponse(resync=pb.Resync()))
        else:
            w.server.leases["acme", "notes"] = lease
            w.server.tell(pb.WatchLeasesResponse(resync=pb.Resync()))
        async with asyncio.timeout(SOON):
            while (await w.ask()).status != 200:
                pass


async def test_an_idle_tunnel_ends_and_their_number_is_bounded() -> None:
    """`idle` for both directions; beyond `tunnels` 429."""
    clock = Clock()
    async with world(limits=replace(QUICK, idle=60.0, tunnels=1), clock=clock) as w:
        first = await opened(w)
        answer = await w.ask(lines=w.key.bearer + ASK)
        assert (answer.status, answer.reason) == (429, "LIMIT_EXCEEDED")
        clock.advance(60)
        assert await first.closed()
        (await opened(w)).close()


async def test_either_end_ends_the_other(w: World, echo: Echo) -> None:
    """The app's and the provider's."""
    async with asyncio.timeout(SOON):
        client = await dial(w)
        client.transport.abort()
        await echo.ended.wait()
        app = await opened(w)
        for writer in w.provider.writers:
            writer.close()
        assert await app.closed()
        client = await dial(w)
        await client.close()
        with pytest.raises(ConnectionClosed):
            await client.recv()
