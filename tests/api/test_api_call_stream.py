"""ProxyService.CallStream: bodies of any size both ways, one piece at a time, and what ends a stream."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from typing import Any

import pytest
import pytest_asyncio

from connectors_grpc.gen.connectors.v1 import proxy_service_pb2 as pb
from connectors_grpc.gen.connectors.v1 import proxy_service_pb2_grpc as stubs
from connectors_grpc.simulator.misbehaviour import Endpoint, Misbehaviour, Queued
from sidecar.server import heard_out
from tests.canary import planted
from tests.providers import RecordingUpstream, recording_upstream
from tests.running import Client, Refused, Server, refusals, refused
from tests.worlds import World

pytestmark = pytest.mark.usefixtures("heard")
PIECE = 64 * 1024
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


@dataclass
class Line:
    """One integration at an upstream, and an app that streams to it."""

    server: Server
    upstream: RecordingUpstream
    app: Client
    tenant: str
    name: str
    key: str

    def start(self, path: str = "/v1/x", headers: dict[str, str] | None = None, **fields: Any) -> pb.CallStreamRequest:
        """A first part."""
        lines = [pb.Header(name=name, value=value) for name, value in (headers or {}).items()]
        return pb.CallStreamRequest(
            start=pb.CallRequest(
                **{"tenant": self.tenant, "credential": self.name, "path": path, "headers": lines, **fields}
            )
        )

    def open(self, parts: Any = None, key: str | None = None) -> Any:
        """A stream under way."""
        metadata = (("authorization", f"Bearer {key or self.app.key}"),)
        return heard_out(stubs.ProxyServiceStub(self.app.channel).CallStream(parts, metadata=metadata, timeout=30))

    async def call(
        self, parts: Iterable[pb.CallStreamRequest], key: str | None = None
    ) -> tuple[pb.CallResponse, bytes]:
        """One whole stream. Raises: Refused."""
        with refusals():
            answers = [answer async for answer in self.open(iter(parts), key)]
        assert [answer.WhichOneof("part") for answer in answers[:1]] == ["start"]
        assert all(0 < len(answer.body) <= PIECE for answer in answers[1:])
        return answers[0].start, b"".join(answer.body for answer in answers[1:])


@pytest_asyncio.fixture(loop_scope="session")
async def line(server: Server) -> AsyncIterator[Line]:
    """One of this test's own."""
    tenant, key = (await server.admin.create_tenant()).id, planted()
    async with recording_upstream() as upstream:
        version = {"Notion-Version": "2022-06-28"}
        name = await server.admin.keyed_api(tenant, f"{upstream.url}/base", key, default_headers=version)
        yield Line(server, upstream, await server.app(tenant), tenant, name, key)


def body(*pieces: bytes) -> list[pb.CallStreamRequest]:
    """Parts of a body."""
    return [pb.CallStreamRequest(body=piece) for piece in pieces]


async def test_a_call_without_a_body_goes_out_as_call_sends_it(line: Line) -> None:
    """Method, path, headers, the credential; and a 404 of the provider is an answer."""
    line.upstream.reply = b"HTTP/1.1 404 X\r\nX-A: 1\r\nX-A: 2\r\nAlt-Svc: h2\r\nContent-Length: 2\r\n\r\nno"
    head, content = await line.call([line.start("/v1/a%2Fb?x=1", {"Authorization": "mine", "X-Mine": "1"})])
    assert (head.http_status, content) == (404, b"no")
    assert [header.value for header in head.headers if header.name == "X-A"] == ["1", "2"]
    assert not [header for header in head.headers if header.name == "Alt-Svc"]
    assert head.base_url == f"{line.upstream.url}/base"
    seen = line.upstream.requests[-1]
    assert seen.request_line == b"GET /base/v1/a%2Fb?x=1 HTTP/1.1"
    assert seen.header("authorization") == [f"Bearer {line.key}"]
    assert (seen.header("x-mine"), seen.header("notion-version")) == (["1"], ["2022-06-28"])
    assert seen.header("transfer-encoding") + seen.header("content-length") == []


@pytest.mark.parametrize("sized", [True, False])
async def test_bodies_beyond_the_bound_of_call_stream_both_ways(line: Line, sized: bool) -> None:
    """12 MiB up, by length or in chunks, and the same down."""
    pieces = [bytes([number % 251]) * PIECE for number in range(192)]
    whole = b"".join(pieces)
    line.upstream.reply = lambda got: CHUNKED + b"%x\r\n%b\r\n0\r\n\r\n" % (len(got.body), got.body)
    headers = {"Content-Length": str(len(whole))} if sized else {}
    head, content = await line.call([line.start(method="POST", headers=headers), *body(*pieces)])
    assert head.http_status == 200
    assert hashlib.sha256(content).digest() == hashlib.sha256(whole).digest()
    seen = line.upstream.requests[-1]
    assert seen.header("transfer-encoding") == ([] if sized else ["chunked"])
    assert seen.header("content-length") == ([str(len(whole))] if sized else [])


async def test_a_piece_arrives_before_the_next_is_sent(line: Line) -> None:
    """Both ways: nothing waits for the whole."""

    async def play(head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert await reader.readuntil(b"one\r\n") == b"3\r\none\r\n"
        came.set()
        await reader.readuntil(b"0\r\n\r\n")
        writer.write(CHUNKED + b"1\r\na\r\n")
        await writer.drain()
        await read.wait()
        writer.write(b"1\r\nb\r\n0\r\n\r\n")
        await writer.drain()

    came, read = asyncio.Event(), asyncio.Event()
    line.upstream.handler = play
    call = line.open()
    await call.write(line.start(method="POST"))
    await call.write(pb.CallStreamRequest(body=b"one"))
    async with asyncio.timeout(60):
        await came.wait()
        await call.write(pb.CallStreamRequest(body=b"two"))
        await call.done_writing()
        assert (await call.read()).start.http_status == 200
        assert (await call.read()).body == b"a"
        read.set()
        assert (await call.read()).body == b"b"


async def test_a_slow_provider_holds_the_app_back(line: Line) -> None:
    """Backpressure: what is accepted while the provider reads nothing is bounded by the sockets' buffers."""

    async def play(_head: bytes, _reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        stopped.set()
        await done.wait()

    stopped, done = asyncio.Event(), asyncio.Event()
    line.upstream.handler = play
    call = line.open()
    await call.write(line.start(method="POST"))
    await call.write(pb.CallStreamRequest(body=b"x" * PIECE))
    async with asyncio.timeout(60):
        await stopped.wait()
    sent = 1
    try:
        async with asyncio.timeout(2):
            while sent < 4096:
                await call.write(pb.CallStreamRequest(body=b"x" * PIECE))
                sent += 1
    except TimeoutError:
        pass
    assert sent < 1024  # 64 MiB; 256 MiB were offered
    call.cancel()
    done.set()


async def test_an_app_that_leaves_ends_the_providers_connection(line: Line) -> None:
    """Cancelling mid-body."""

    async def play(_head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(CHUNKED + b"1\r\na\r\n")
        await writer.drain()
        await reader.read()
        ended.set()

    ended = asyncio.Event()
    line.upstream.handler = play
    call = line.open(iter([line.start()]))
    async with asyncio.timeout(60):
        assert (await call.read()).start.http_status == 200
        assert (await call.read()).body == b"a"
        call.cancel()
        await ended.wait()


async def test_a_body_that_breaks_off_is_an_error_after_the_head(line: Line) -> None:
    """The caller can't take half an answer for a whole one."""
    line.upstream.reply = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf"
    line.upstream.close_after_reply = True
    with refused("PROVIDER_UNAVAILABLE", problem="protocol"):
        await line.call([line.start()])


async def test_what_is_no_stream_is_refused_and_nothing_goes_out(line: Line) -> None:
    """Order, sizes, lengths, methods; each names the field."""
    for parts, field in (
        ([], "start"),
        (body(b"x"), "start"),
        ([pb.CallStreamRequest()], "start"),
        ([line.start(), line.start()], "body"),
        ([line.start(method="POST"), *body(b"x" * (PIECE + 1))], "body"),
        ([line.start(method="POST", body=b"x" * (PIECE + 1))], "start.body"),
        ([line.start(method="POST", headers={"Content-Length": "1"}), *body(b"xx")], "body"),
        ([line.start(method="POST", headers={"Content-Length": "x"})], "headers"),
        ([line.start(method="CONNECT")], "method"),
        ([line.start("/v1/../x")], "path"),
        ([line.start(tenant="No Label")], "tenant"),
    ):
        with pytest.raises(Refused) as caught:
            await line.call(parts)
        assert caught.value.fields == [field], (field, caught.value)
    assert line.upstream.requests == []


async def test_a_shorter_body_than_said_never_becomes_a_request(line: Line) -> None:
    """The provider's connection is cut: what came is not whole."""
    with refused("INVALID_FIELD"):
        await line.call([line.start(method="POST", headers={"Content-Length": "5"}), *body(b"abc")])
    assert line.upstream.requests == []


async def test_scope_and_role_are_checked_as_for_call(line: Line) -> None:
    """Another tenant's key, another credential's, a sidecar's: refused alike; a bound key may leave the tenant out."""
    other = (await line.server.admin.create_tenant()).id
    narrow = await line.server.app(line.tenant, credentials=["another"])
    for key in ((await line.server.app(other)).key, narrow.key, line.server.sidecar.key, line.server.admin.key):
        with refused("PERMISSION_DENIED"):
            await line.call([line.start()], key)
    with refused("API_KEY_INVALID"):
        await line.call([line.start()], "cnk_nobody_" + "x" * 43)
    assert line.upstream.requests == []
    assert (await line.call([line.start(tenant="")]))[0].http_status == 200


async def test_a_401_is_cured_by_one_refresh_if_the_body_is_whole(world: World) -> None:
    """Sent again with the new token, at once: the stream itself is not waited for. Too long a body passes the 401 on."""
    await world.connect()
    world.pass_time(31)

    async def status(*pieces: bytes) -> int:
        start = pb.CallRequest(tenant=world.tenant, credential=world.integration, path="/v1/whoami", method="GET")
        parts = iter([pb.CallStreamRequest(start=start), *body(*pieces)])
        world.sim.next_replies.append(Queued(Misbehaviour.UNAUTHORIZED, world.client_id, Endpoint.API))
        metadata = (("authorization", f"Bearer {world.app.key}"),)
        call = stubs.ProxyServiceStub(world.app.channel).CallStream(parts, metadata=metadata, timeout=30)
        with refusals():
            return next(iter([answer.start.http_status async for answer in call if answer.HasField("start")]))

    assert await status(*[b"x" * PIECE] * 17) == 401
    assert len(world.asked()) == 0
    assert await status(b"short", b"body") == 200
    assert len(world.asked()) == 1


# --- trailers


def trailers(*lines: tuple[str, str]) -> pb.CallStreamRequest:
    """The last part."""
    return pb.CallStreamRequest(trailers=pb.Trailers(headers=[pb.Header(name=n, value=v) for n, v in lines]))


async def test_trailers_pass_both_ways_but_for_what_could_be_a_header_of_ours(line: Line) -> None:
    """None that frames, none like the credential's, none that only we may say."""
    line.upstream.reply = (
        CHUNKED + b"2\r\nok\r\n0\r\nX-Sum: abc\r\nContent-Length: 5\r\nX-Connectors-Error: forged\r\n\r\n"
    )
    last = trailers(("X-Checksum", "1f"), ("Authorization", "mine"), ("Content-Length", "9"), ("Notion-Version", "0"))
    answers = [answer async for answer in line.open(iter([line.start(method="POST"), *body(b"abc"), last]))]
    assert [answer.WhichOneof("part") for answer in answers] == ["start", "body", "trailers"]
    assert [(each.name, each.value) for each in answers[-1].trailers.headers] == [("X-Sum", "abc")]
    seen = line.upstream.requests[-1]
    assert seen.raw_body == b"3\r\nabc\r\n0\r\nX-Checksum: 1f\r\n\r\n"
    line.upstream.reply = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
    # The connection is used again: nothing was left on it.
    head, content = await line.call([line.start()])
    assert (head.http_status, content, line.upstream.connections) == (200, b"ok", 1)


async def test_trailers_behind_a_sized_body_are_dropped(line: Line) -> None:
    """HTTP has no place for them."""
    start = line.start(method="POST", headers={"Content-Length": "3"})
    assert (await line.call([start, *body(b"abc"), trailers(("X-Checksum", "1f"))]))[0].http_status == 200
    assert line.upstream.requests[-1].raw_body == b"abc"


@pytest.mark.parametrize(
    "last",
    [
        [trailers(*[("X-A", "1")] * 65)],
        [trailers(("X-A", "x" * 9000))],
        [trailers(("X-\xc4", "1"))],
        [trailers(("X-A", "1")), *body(b"more")],
        [trailers(("X-A", "1")), trailers(("X-A", "1"))],
        [trailers(("X-A", "1\r\nX-B: 2"))],
    ],
)
async def test_trailers_that_can_not_be_passed_are_refused(line: Line, last: list[pb.CallStreamRequest]) -> None:
    """Too many, too large, no HTTP, or something behind them."""
    with refused("INVALID_FIELD"):
        await line.call([line.start(method="POST"), *body(b"abc"), *last])


async def test_a_provider_with_too_many_trailers_broke_the_protocol(line: Line) -> None:
    """The answer had begun: it is cut."""
    line.upstream.reply = CHUNKED + b"2\r\nok\r\n0\r\n" + b"X-A: 1\r\n" * 100 + b"\r\n"
    with refused("PROVIDER_UNAVAILABLE"):
        await line.call([line.start()])
