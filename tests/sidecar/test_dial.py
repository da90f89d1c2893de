"""How upstream connections are made: addresses raced, certificates shown, pools apart, connections retired."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import ssl
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from connectors_grpc.certificates import CertificateRefused, ClientCertificate, Contexts, read_certificates
from connectors_grpc.resolving import SystemResolver
from sidecar.engine.dial import Dialler, tls_context
from sidecar.engine.race import interleaved, race
from sidecar.held import OriginKey
from sidecar.problem import Problem
from tests.ports import free_port
from tests.sidecar.harness import OK, QUICK, SOON, Clock, Got, Provider, World, world
from tests.sidecar.test_process import certificate


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ([], []),
        (["1.1.1.1"], ["1.1.1.1"]),
        (["2::1", "2::2", "2::3", "1.1.1.1"], ["2::1", "1.1.1.1", "2::2", "2::3"]),
        (["1.1.1.1", "1.1.1.2", "2::1", "2::2"], ["1.1.1.1", "2::1", "1.1.1.2", "2::2"]),
    ],
)
def test_families_take_turns_beginning_with_the_resolvers_first(given: list[str], wanted: list[str]) -> None:
    """None is lost, none is doubled, and each family keeps its order."""
    assert interleaved(given) == wanted


@pytest.fixture
def deaf() -> Iterator[socket.socket]:
    """127.0.0.2, where no connection is ever finished: its backlog is full."""
    with contextlib.ExitStack() as stack:
        sock = stack.enter_context(socket.socket())
        sock.bind(("127.0.0.2", free_port()))
        sock.listen(0)
        for _ in range(4):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(sock.getsockname())
        yield sock


@contextlib.asynccontextmanager
async def hearing(port: int, host: str = "127.0.0.1") -> AsyncIterator[Provider]:
    """An upstream at that port."""
    provider = Provider(port)
    server = await asyncio.start_server(provider.serve, host, port)
    try:
        yield provider
    finally:
        server.close()
        for task in list(provider.tasks):
            task.cancel()
        await asyncio.gather(*provider.tasks, return_exceptions=True)


async def test_an_address_that_says_nothing_does_not_hold_up_the_next(deaf: socket.socket) -> None:
    """The second begins a moment later, and wins; the first is given up."""
    port = deaf.getsockname()[1]
    async with hearing(port), asyncio.timeout(SOON):
        address, sock = await race(["127.0.0.2", "127.0.0.1"], port, stagger=0.01)
    assert (address, sock.getpeername()) == ("127.0.0.1", ("127.0.0.1", port))
    sock.close()


async def test_an_address_that_refuses_lets_the_next_begin_at_once() -> None:
    """A stagger as long as this test may take is not waited for."""
    port = free_port()
    async with hearing(port), asyncio.timeout(SOON):
        address, sock = await race(["127.0.0.3", "127.0.0.2", "127.0.0.1"], port, stagger=10 * SOON)
    assert address == "127.0.0.1"
    sock.close()


async def test_if_all_fail_the_last_failure_is_told() -> None:
    """And nothing is left open."""
    with pytest.raises(ConnectionRefusedError):
        await race(["127.0.0.2", "127.0.0.1"], free_port())


async def test_a_loser_that_connects_too_is_closed() -> None:
    """Both at once: one is kept, and the other's peer sees its end."""
    port = free_port()
    async with hearing(port) as one, hearing(port, "127.0.0.2") as two, asyncio.timeout(SOON):
        _, sock = await race(["127.0.0.2", "127.0.0.1"], port, stagger=0.0)
        while one.open + two.open != 1:  # noqa: ASYNC110 - the peers' doing
            await asyncio.sleep(0.005)
        sock.close()
        while one.open + two.open:  # noqa: ASYNC110
            await asyncio.sleep(0.005)


async def test_whoever_gives_up_leaves_no_attempt_behind(deaf: socket.socket) -> None:
    """A socket that stayed open would be a warning, which fails."""
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await race(["127.0.0.2"], deaf.getsockname()[1])


def names(*addresses: str) -> SystemResolver:
    """A system that knows every name by these addresses."""

    def look_up(_host: str, port: int, **_: object) -> Sequence[tuple[object, ...]]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in addresses]

    return SystemResolver(look_up=look_up)


async def dialled(resolver: SystemResolver, port: int, *, private: bool = True, within: float = SOON) -> str:
    """The address that a connection came to."""
    dialler = Dialler(resolver, Contexts(tls_context))
    try:
        protocol = await dialler.dial(OriginKey(False, "api.test", port, private), _Kept, within)
    finally:
        resolver.close()
    protocol.transport.close()
    return str(protocol.transport.get_extra_info("peername")[0])


class _Kept(asyncio.Protocol):
    transport: Any

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport


async def test_12_only_addresses_that_were_checked_are_dialled() -> None:
    """A public one beside a private one refuses both; the name is asked once a connection."""
    async with hearing(0):
        with pytest.raises(Problem, match="ADDRESS_NOT_ALLOWED"):
            await dialled(names("1.1.1.1", "127.0.0.1"), 443, private=False)


async def test_a_name_with_several_addresses_is_reached_by_one_that_answers(deaf: socket.socket) -> None:
    """Through the resolver, the check and the race."""
    port = deaf.getsockname()[1]
    async with hearing(port):
        assert await dialled(names("127.0.0.2", "127.0.0.1"), port) == "127.0.0.1"


async def test_a_resolver_that_hangs_is_a_time_out_and_holds_up_no_other_name() -> None:
    """504 for it; others are resolved meanwhile."""
    provider = Provider()
    server = await asyncio.start_server(provider.serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    over = asyncio.Event()
    loop = asyncio.get_running_loop()

    def look_up(host: str, port: int, **_: object) -> Sequence[tuple[object, ...]]:
        if host == "hung.test":
            asyncio.run_coroutine_threadsafe(over.wait(), loop).result(SOON)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))]

    resolver = SystemResolver(look_up=look_up, most=2)
    dialler = Dialler(resolver, Contexts(tls_context))
    hung = [
        asyncio.ensure_future(dialler.dial(OriginKey(False, "hung.test", port, True), _Kept, 0.2)) for _ in range(20)
    ]
    protocol = await dialler.dial(OriginKey(False, "fine.test", port, True), _Kept, SOON)
    protocol.transport.close()
    for outcome in await asyncio.gather(*hung, return_exceptions=True):
        assert isinstance(outcome, Problem)
        assert outcome.reason == "UPSTREAM_TIMEOUT"
    over.set()
    resolver.close()
    server.close()


async def test_tls_that_fails_at_one_address_is_tried_at_the_next(tmp_path: Path) -> None:
    """One backend of a name may be broken while it still takes connections."""
    cert, key = certificate(tmp_path, "localhost")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(cert, key)

    async def hang_up(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    provider, port = Provider(), free_port()
    good = await asyncio.start_server(provider.serve, "127.0.0.1", port, ssl=context)
    bad = await asyncio.start_server(hang_up, "127.0.0.2", port)
    resolver = names("127.0.0.2", "127.0.0.1")
    dialler = Dialler(resolver, Contexts(lambda: tls_context(str(cert))))
    protocol = await dialler.dial(OriginKey(True, "localhost", port, True), _Kept, SOON)
    assert protocol.transport.get_extra_info("peername")[0] == "127.0.0.1"
    protocol.transport.close()
    resolver.close()
    good.close()
    bad.close()
    for task in list(provider.tasks):
        task.cancel()


# --- client certificates


@contextlib.asynccontextmanager
async def demanding(folder: Path) -> AsyncIterator[tuple[World, list[str], Path]]:
    """A provider that wants a client certificate, and the names that it saw; integration `bank` has one."""
    cert, key = certificate(folder, "localhost")
    (folder / "client").mkdir()
    chain, client_key = certificate(folder / "client", "first")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(chain))
    context.load_cert_chain(cert, key)
    context.verify_mode = ssl.CERT_REQUIRED
    pair = ClientCertificate(chain, client_key)
    async with world(tls=context, upstream_ca=cert, client_certificates={"bank": pair}, limits=QUICK) as w:
        seen: list[str] = []

        async def note(_got: Got, writer: asyncio.StreamWriter) -> bytes:
            shown = writer.get_extra_info("ssl_object").getpeercert()
            seen.append(dict(part[0] for part in shown["subject"])["commonName"])
            return OK

        w.provider.reply = note
        authority = f"localhost:{w.provider.port}"
        for integration in ("bank", "notes"):
            w.connect(
                "acme", integration, integration=integration, base_url=f"https://{authority}", allowed_hosts=[authority]
            )
        yield w, seen, folder / "client"


async def test_an_integration_shows_its_client_certificate_and_no_other_uses_its_connections(tmp_path: Path) -> None:
    """The same origin, another integration: another pool, without the certificate."""
    async with demanding(tmp_path) as (w, seen, _):
        assert (await w.ask("/~acme/bank/x")).status == 200
        refused = await w.ask("/~acme/notes/x")
        assert (refused.status, refused.reason) == (502, "UPSTREAM_UNREACHABLE")
        assert (await w.ask("/~acme/bank/x")).status == 200
    assert seen == ["first", "first"]


async def test_a_certificate_is_read_anew_when_its_files_change(tmp_path: Path) -> None:
    """And a half-written one leaves the last in use."""
    cert, key = certificate(tmp_path, "one")
    pair = ClientCertificate(cert, key)
    contexts = Contexts(tls_context, {"bank": pair})
    first = contexts.of("bank")
    assert contexts.of("bank") is first
    assert contexts.of("notes") is contexts.of("") is not first
    good = key.read_bytes()
    key.write_text("half")
    assert contexts.of("bank") is first
    key.write_bytes(good)
    os.utime(key, ns=(1, 1))
    assert contexts.of("bank") is not first


def test_a_client_certificate_that_can_not_be_used_is_refused_at_the_start(tmp_path: Path) -> None:
    """A file that is not there, one with a passphrase, another's key; none is quoted."""
    cert, key = certificate(tmp_path, "one")
    (tmp_path / "two").mkdir()
    other, _ = certificate(tmp_path / "two", "two")
    for pair in (
        ClientCertificate(tmp_path / "none", key),
        ClientCertificate(other, key),
        ClientCertificate(key, cert),
    ):
        with pytest.raises(CertificateRefused, match="bank"):
            Contexts(tls_context, {"bank": pair})
    assert read_certificates(["bank=/a,/b"]) == {"bank": ClientCertificate(Path("/a"), Path("/b"))}
    for entries in (["bank"], ["bank=/a"], ["bank=/a,"], ["Bank=/a,/b"], ["bank=/a,/b,/c"], ["bank=/a,/b"] * 2):
        with pytest.raises(CertificateRefused, match="INTEGRATION=CHAIN,KEY"):
            read_certificates(entries)


# --- age, and the whole time


async def test_a_connection_that_is_old_takes_no_further_request() -> None:
    """So that a name's new addresses, and a new certificate, come into use."""
    async with world(limits=replace(QUICK, pool_age=0.0)) as w:
        app = await w.app()
        for _ in range(3):
            assert (await app.ask(w.request())).status == 200
        assert w.provider.connections == 3


async def test_the_whole_of_a_call_may_be_bounded() -> None:
    """Cut in the middle of an answer that never ends; 504 where none has begun."""
    clock = Clock()
    async with world(limits=replace(QUICK, whole=60.0), clock=clock) as w:

        async def drip(_got: Got, writer: asyncio.StreamWriter) -> None:
            writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
            with contextlib.suppress(OSError):
                while not writer.is_closing():
                    writer.write(b"1\r\nx\r\n")
                    await writer.drain()
                    await asyncio.sleep(0.01)

        async def never(_got: Got, _writer: asyncio.StreamWriter) -> None:
            await asyncio.Event().wait()

        w.provider.replies = [drip, never]
        app = await w.app()
        await app.send(w.request())
        async with asyncio.timeout(SOON):
            await app.reader.readuntil(b"x\r\n")
            clock.advance(60)
            with contextlib.suppress(OSError):
                assert not (await app.reader.read()).endswith(b"0\r\n\r\n")
        asking = asyncio.create_task(w.ask())
        await w.until(lambda: len(w.provider.got) > 1)
        clock.advance(60)
        answer = await asking
        assert (answer.status, answer.reason) == (504, "UPSTREAM_TIMEOUT")
