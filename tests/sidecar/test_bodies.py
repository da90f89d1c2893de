"""Bodies pass both ways as they come: whole, in order, and without being held."""

from __future__ import annotations

import asyncio
import hashlib
import os
import resource

import pytest

from tests.sidecar.harness import SOON, Got, World, aged

MIB = 1 << 20
SIZE = 64 * MIB
PIECE = os.urandom(MIB)


def memory() -> int:
    """Resident set, in bytes: what /proc says now, not the peak."""
    with open("/proc/self/statm") as file:  # noqa: PTH123 - one line, read often
        return int(file.read().split()[1]) * resource.getpagesize()


async def test_a_64_mib_upload_to_a_slow_provider_is_not_held(w: World) -> None:
    """The app is stopped while the provider does not read, and all of it arrives."""
    go = asyncio.Event()
    digest = hashlib.sha256()

    async def on_head(head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        await go.wait()
        left = SIZE
        while left:
            data = await reader.read(min(left, MIB))
            digest.update(data)
            left -= len(data)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        return True

    w.provider.on_head = on_head
    app = await w.app()
    app.writer.transport.set_write_buffer_limits(MIB)
    await app.send(w.request(method="POST", lines=b"Content-Length: %d\r\n" % SIZE))
    sent, before = 0, memory()
    stuck = False
    while not stuck and sent < SIZE:
        app.writer.write(PIECE)
        sent += MIB
        try:
            async with asyncio.timeout(0.5):
                await app.writer.drain()
        except TimeoutError:
            stuck = True
    assert stuck, "the sidecar took it all"
    assert sent < 24 * MIB  # the kernel's socket buffers, and little more
    assert memory() - before < 24 * MIB
    go.set()
    while sent < SIZE:
        app.writer.write(PIECE)
        sent += MIB
        await app.writer.drain()
    assert (await app.answer()).status == 200
    assert digest.digest() == hashlib.sha256(PIECE * (SIZE // MIB)).digest()


async def test_a_64_mib_download_to_a_slow_app_is_not_held(w: World) -> None:
    """The provider is stopped while the app does not read, and all of it arrives."""
    given = 0
    stuck = asyncio.Event()

    async def pour(got: Got, writer: asyncio.StreamWriter) -> bytes:
        nonlocal given
        writer.transport.set_write_buffer_limits(MIB)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % SIZE)
        while given < SIZE:
            writer.write(PIECE)
            given += MIB
            try:
                async with asyncio.timeout(0.5):
                    await writer.drain()
            except TimeoutError:
                stuck.set()
                await writer.drain()
        return b""

    w.provider.reply = pour
    app = await w.app()
    before = memory()
    await app.send(w.request())
    await app.reader.readuntil(b"\r\n\r\n")
    await asyncio.wait_for(stuck.wait(), SOON)
    assert given < 24 * MIB
    assert memory() - before < 24 * MIB
    digest, left = hashlib.sha256(), SIZE
    while left:
        data = await app.reader.read(min(left, MIB))
        digest.update(data)
        left -= len(data)
    assert digest.digest() == hashlib.sha256(PIECE * (SIZE // MIB)).digest()
    w.provider.reply = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
    assert (await app.ask(w.request())).body == b"ok"
    assert w.provider.connections == 1


async def test_chunks_pass_both_ways_as_they_come(w: World) -> None:
    """Neither side waits for the other's end: what the app sends comes back before it sends more."""

    async def echo(head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while (line := await reader.readuntil(b"\r\n")) != b"0\r\n":
            writer.write(line + await reader.readexactly(int(line, 16) + 2))
        writer.write(b"0\r\n\r\n")
        await reader.readexactly(2)
        return True

    w.provider.on_head = echo
    app = await w.app()
    await app.send(w.request(method="POST", lines=b"Transfer-Encoding: chunked\r\n"))
    await app.reader.readuntil(b"\r\n\r\n")
    for word in (b"one", b"twothree", b"4" * 1000):
        chunk = b"%x\r\n%b\r\n" % (len(word), word)
        await app.send(chunk)
        assert await app.reader.readexactly(len(chunk)) == chunk
    await app.send(b"0\r\n\r\n")
    assert await app.reader.readexactly(5) == b"0\r\n\r\n"


async def test_chunk_framing_split_anywhere_is_understood(w: World) -> None:
    """Every cut of one request, on one connection."""
    app = await w.app()
    request = (
        w.request(method="POST", lines=b"Transfer-Encoding: chunked\r\n") + b"3\r\nabc\r\nA\r\n0123456789\r\n0\r\n\r\n"
    )
    head = request.index(b"\r\n\r\n") + 4
    for cut in range(head, len(request)):
        await app.send(request[:cut])
        await asyncio.sleep(0.002)
        await app.send(request[cut:])
        assert (await app.answer()).status == 200
        assert w.provider.got[-1].body == b"abc0123456789"
    assert w.provider.connections == 1


async def test_trailers_pass_but_for_what_a_header_of_ours_could_be(w: World) -> None:
    """Both ways, by the same filters as headers."""
    w.provider.reply = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    w.provider.reply += b"2;ext=1\r\nok\r\n0\r\nX-Sum: 1\r\nX-Connectors-Error: X\r\n\r\n"
    app = await w.app()
    lines = b"Transfer-Encoding: chunked\r\n"
    body = b"2\r\nhi\r\n0\r\nX-Sum: 2\r\nAuthorization: evil\r\nX-Tenant-Id: evil\r\n\r\n"
    for _ in range(2):
        answer = await app.ask(w.request(method="POST", lines=lines) + body)
        assert answer.body == b"okX-Sum: 1\r\n"
    assert w.provider.got[-1].body == b"hiX-Sum: 2\r\n"


async def test_an_answer_that_ends_with_its_connection_is_passed_in_chunks(w: World) -> None:
    """So that the app can tell its end from a break, and its connection goes on."""

    async def until_close(got: Got, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n\r\nall of it")

    w.provider.replies = [until_close, until_close]
    app = await w.app()
    assert (await app.ask(w.request())).body == b"all of it"
    assert (await app.ask(w.request().replace(b"HTTP/1.1", b"HTTP/1.0"))).body == b"all of it"


async def test_an_answer_that_breaks_off_is_cut_for_the_app_too(w: World) -> None:
    """Never passed as if it were whole."""

    async def half(got: Got, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel")

    w.provider.replies = [half]
    app = await w.app()
    await app.send(w.request())
    with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
        await app.answer()


async def test_an_early_answer_to_an_unfinished_upload_reaches_the_app(w: World) -> None:
    """Then both connections close: nobody knows where the body would end."""

    async def too_large(head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        writer.write(b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 3\r\n\r\nbig")
        await writer.drain()
        return True

    w.provider.on_head = too_large
    app = await w.app()
    await app.send(w.request(method="POST", lines=b"Content-Length: 1000000\r\n") + b"x" * 1000)
    answer = await app.answer()
    assert (answer.status, answer.body, answer.all(b"connection")) == (413, b"big", [b"close"])
    assert await app.closed()


async def test_a_refusal_before_the_body_is_read_reaches_the_app(w: World) -> None:
    """Even while it is still sending."""
    app = await w.app()
    await app.send(w.request("/~acme/unknown/x", method="POST", lines=b"Content-Length: 1000000\r\n") + b"x" * 500_000)
    answer = await app.answer()
    assert (answer.status, answer.all(b"connection")) == (404, [b"close"])


async def test_a_401_is_cured_by_a_newer_generation_and_the_body_is_sent_again(w: World) -> None:
    """The app sees only the good answer."""
    lease = aged(w.server.leases["acme", "notes"], 3600)

    def refresh(lease: object) -> None:
        w.connect(generation=2)

    w.server.refresh = refresh
    first = lease.headers[0].value.encode()

    async def by_token(got: Got, writer: asyncio.StreamWriter) -> bytes:
        if got.all(b"authorization") == [first]:
            return b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 4\r\n\r\nnope"
        return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(got.body), got.body)

    w.provider.reply = by_token
    for lines, body in ((b"", b"hello"), (b"Transfer-Encoding: chunked\r\n", b"")):
        tail = b"5\r\nhello\r\n0\r\n\r\n" if lines else b""
        app = await w.app()
        answer = await app.ask(w.request(method="POST", lines=lines, body=body) + tail)
        assert (answer.status, answer.body) == (200, b"hello")


async def test_a_401_whose_body_was_not_kept_is_passed_with_the_lease_renewed(w: World) -> None:
    """Above 1 MiB; the next call succeeds."""
    lease = aged(w.server.leases["acme", "notes"], 3600)
    first = lease.headers[0].value.encode()

    def refresh(lease: object) -> None:
        w.connect(generation=2)

    w.server.refresh = refresh

    async def by_token(got: Got, writer: asyncio.StreamWriter) -> bytes:
        bad = got.all(b"authorization") == [first]
        return (
            b"HTTP/1.1 401 No\r\nContent-Length: 1\r\n\r\nn"
            if bad
            else b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\ny"
        )

    w.provider.reply = by_token
    app = await w.app()
    body = b"x" * (2 * MIB)
    assert (await app.ask(w.request(method="POST", body=body))).status == 401
    assert (await app.ask(w.request(method="POST", body=body))).status == 200
    assert len(w.provider.got) == 2
