"""Many mixed requests through a real sidecar, with an upstream that resets, stalls and stops half-way.

    python -m bench.sidecar.soak                        # 100,000 requests: some minutes
    python -m bench.sidecar.soak --requests 1000000

For a tenth of the way the server is gone. Every answer must belong to its request and its tenant, every fault must be told
as one, and memory must not grow.
Bounds: at most a million requests; loopback only; the sidecar is ended by its pid.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import hashlib
import itertools
import random
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import grpc.aio
import uvloop

from bench.sidecar.peers.base import Setup
from bench.sidecar.peers.ours import Ours, leases
from bench.sidecar.upstream import Upstream, certificates
from connectors_grpc.gen.connectors.v1 import proxy_service_pb2_grpc as stubs
from tests.ports import free_port
from tests.sidecar.harness import Key, Leaser, read_body

TENANTS = 20
CLIENTS = 48
MOST = 1_000_000
AWAY = 5
"""For the tenth of the requests after so many, the server is gone: what is leased goes on."""
GROWTH = 12.0
"""MiB that may be added between a tenth of the way and the end."""
KINDS = ("get",) * 8 + (
    "chunked",
    "post",
    "post",
    "upload",
    "close",
    "head",
    "stranger",
    "reset",
    "half",
    "broken",
    "stall",
)


class Wrong(Exception):
    """What must never happen. `args` say which request."""


def body_of(number: int, token: str) -> bytes:
    """What the upstream answers: from 40 bytes to 60 KiB, and nobody else's."""
    line = f"{number} {token}\n".encode()
    return line * (1 + (number % 7) ** 4 // 2)


class Provider:
    """Answers by the path's first part; says which token it saw, and what body."""

    def __init__(self) -> None:
        self.stalled = asyncio.Event()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            while await self._one(reader, writer):
                pass
        writer.close()

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = await reader.readuntil(b"\r\n\r\n")
        kind, number = head.split(b" ", 2)[1].decode().strip("/").split("/")
        given = await read_body(head, reader)
        tokens = [line[22:] for line in head.split(b"\r\n") if line.lower().startswith(b"authorization: bearer ")]
        body = body_of(int(number), b",".join(tokens).decode()) + hashlib.sha256(given).hexdigest().encode()
        match kind:
            case "reset":
                writer.transport.abort()
                return False
            case "half":
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body) + 1, body))
                await writer.drain()
                return False
            case "broken":
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabc")
                return False
            case "stall":
                await self.stalled.wait()
                return False
            case "close":
                writer.write(b"HTTP/1.0 200 OK\r\n\r\n" + body)
                await writer.drain()
                return False
            case "chunked":
                half = len(body) // 2
                pieces = b"%x\r\n%b\r\n%x;a=b\r\n%b\r\n0\r\n\r\n" % (half, body[:half], len(body) - half, body[half:])
                writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + pieces)
            case "head":
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body))
            case _:
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
        await writer.drain()
        return True


class Client:
    """One app's connection after the other; each request checked."""

    def __init__(self, setup: Setup, port: int, key: Key, told: Counter[str]) -> None:
        self.setup, self.port, self.key, self.told = setup, port, key, told
        self.draw = random.Random(id(self))
        self.streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def run(self, numbers: Iterator[int]) -> None:
        for number in numbers:
            kind = self.draw.choice(KINDS)
            try:
                async with asyncio.timeout(0.02 if kind == "stall" else 30):
                    outcome = await self._ask(kind, number)
            except (OSError, asyncio.IncompleteReadError, TimeoutError) as error:
                outcome = "left" if isinstance(error, TimeoutError) and kind == "stall" else "broken"
                self.close()
            if outcome not in EXPECTED[kind]:
                raise Wrong(kind, number, outcome)
            self.told[f"{kind}: {outcome}"] += 1
        self.close()

    def close(self) -> None:
        if self.streams is not None:
            self.streams[1].transport.abort()
            self.streams = None

    async def _ask(self, kind: str, number: int) -> str:
        if self.streams is None:
            self.streams = await asyncio.open_connection("127.0.0.1", self.port, limit=1 << 20)
        reader, writer = self.streams
        tenant = "stranger" if kind == "stranger" else f"t{self.draw.randrange(TENANTS)}"
        method = {"post": "POST", "upload": "POST", "head": "HEAD"}.get(kind, "GET")
        given = self.draw.randbytes(self.draw.choice((10, 5_000, 300_000)) if method == "POST" else 0)
        lines = f"{method} /~{tenant}/notes/{kind}/{number} HTTP/1.1\r\nHost: 127.0.0.1:{self.port}\r\n".encode()
        if kind == "upload":
            framed = b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(given), given)
        else:
            framed = (b"Content-Length: %d\r\n" % len(given) if given else b"") + b"\r\n" + given
        writer.write(lines + self.key.bearer + framed)
        await writer.drain()
        head = await reader.readuntil(b"\r\n\r\n")
        body = b"" if method == "HEAD" else await read_body(head, reader)
        if b"\r\nconnection: close" in head.lower():
            self.close()
        status = head.split(b" ", 2)[1].decode()
        if status == "200" and method != "HEAD":
            wanted = body_of(number, self.setup.tokens[tenant]) + hashlib.sha256(given).hexdigest().encode()
            if body != wanted:
                raise Wrong("another's answer", kind, number, tenant)
        return status


EXPECTED: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("get", "chunked", "post", "upload", "close", "head"), ("200",)),
    "stranger": ("403", "404", "503"),
    "reset": ("502",),
    "half": ("broken",),
    "broken": ("502",),
    "stall": ("left",),
}


async def serve(leaser: Leaser, where: str) -> grpc.aio.Server:
    """The server, at that address."""
    server = grpc.aio.server()
    stubs.add_ProxyServiceServicer_to_server(leaser, server)  # type: ignore[no-untyped-call]
    server.add_insecure_port(where)
    await server.start()
    return server


async def soak(requests: int, work: Path) -> None:
    provider, leaser, key, told = Provider(), Leaser(), Key.of("soak"), Counter[str]()
    listener = await asyncio.start_server(provider.serve, "127.0.0.1", 0, backlog=1024)
    port = listener.sockets[0].getsockname()[1]
    where = f"127.0.0.1:{free_port()}"
    server = await serve(leaser, where)
    Ours.server = where
    certificates(work)
    setup = Setup.of(work, Upstream(port, 0, 0, work / "ca.pem", None), False, TENANTS)
    leases(leaser, setup, key)
    ours = Ours(setup)
    await asyncio.to_thread(ours.start)
    began = time.monotonic()
    numbers = iter(range(requests))
    marks: list[tuple[int, float]] = []
    try:
        for upto in range(requests // 10, requests + 1, requests // 10):
            if len(marks) == AWAY:
                await server.stop(None)
            elif len(marks) == AWAY + 1:
                server = await serve(leaser, where)
            part = itertools.islice(numbers, upto - (marks[-1][0] if marks else 0))
            async with asyncio.TaskGroup() as tasks:
                for _ in range(CLIENTS):
                    tasks.create_task(Client(setup, ours.port, key, told).run(part))
            provider.stalled.set()
            provider.stalled = asyncio.Event()
            marks.append((upto, ours.process.rss()))
            files = len(list(Path(f"/proc/{ours.process.pid}/fd").iterdir()))
            print(
                f"{upto} requests, {time.monotonic() - began:.0f} s, RSS {marks[-1][1]:.1f} MiB, {files} descriptors",
                flush=True,
            )
        cpu = sum(ours.process.cpu())
    finally:
        ours.process.stop()
        provider.stalled.set()
        listener.close()
        await server.stop(None)
    print(
        f"{requests} requests in {time.monotonic() - began:.0f} s, {cpu / requests * 1e6:.0f} us of CPU each; by kind:"
    )
    for name, count in sorted(told.items()):
        print(f"  {name:16} {count}")
    if marks[-1][1] - marks[0][1] > GROWTH:
        raise Wrong("memory grew", marks)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.sidecar.soak")
    parser.add_argument("--requests", type=int, default=100_000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="soak-", dir="/tmp") as folder:
        uvloop.run(soak(min(MOST, max(1_000, options.requests)), Path(folder)))


if __name__ == "__main__":
    main()
