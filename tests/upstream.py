"""A raw HTTP/1.1 server that keeps the exact bytes it was sent, and answers the exact bytes it was told."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass

DEADLINE = 60.0
DEFAULT_REPLY = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\r\nok"


@dataclass(frozen=True, slots=True)
class UpstreamRequest:
    """One request as its bytes came. `body` is without chunked framing, `raw_body` with it."""

    connection: int
    head: bytes
    body: bytes
    raw_body: bytes

    @property
    def request_line(self) -> bytes:
        """The first line, without its end."""
        return self.head.partition(b"\r\n")[0]

    @property
    def method(self) -> str:
        """The method."""
        return self.request_line.split(b" ")[0].decode("latin-1")

    @property
    def target(self) -> str:
        """The request target, as sent."""
        return self.request_line.split(b" ")[1].decode("latin-1")

    @property
    def headers(self) -> list[tuple[str, str]]:
        """Every header in order, with its name as sent."""
        lines = self.head.removesuffix(b"\r\n\r\n").split(b"\r\n")[1:]
        pairs = (line.decode("latin-1").partition(":") for line in lines)
        return [(name, value.strip()) for name, _, value in pairs]

    def header(self, name: str) -> list[str]:
        """Every value of one header."""
        return [value for key, value in self.headers if key.lower() == name.lower()]


Reply = bytes | Callable[[UpstreamRequest], bytes | Awaitable[bytes]]
Handler = Callable[[bytes, asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class RecordingUpstream:
    """An HTTP/1.1 server of bytes.

    `reply`: the raw reply, or what makes one from the request; empty bytes close without a reply.
    `replies`: raw replies that come first, in order.
    `handler`: where set, gets head, reader and writer in place of all that; the connection closes after it.
    `close_after_reply`: end the connection after each reply. `connections` counts those accepted.
    """

    def __init__(self) -> None:
        self.reply: Reply = DEFAULT_REPLY
        self.replies: list[Reply] = []
        self.handler: Handler | None = None
        self.close_after_reply = False
        self.requests: list[UpstreamRequest] = []
        self.heads: list[bytes] = []
        self.connections = 0
        self.port = 0
        self.url = ""
        self._changed = asyncio.Condition()
        self._tasks: set[asyncio.Task[None]] = set()

    async def seen(self, count: int) -> list[UpstreamRequest]:
        """Wait until `count` whole requests came. Raises: TimeoutError after 60 s."""
        async with asyncio.timeout(DEADLINE), self._changed:
            await self._changed.wait_for(lambda: len(self.requests) >= count)
        return self.requests

    async def seen_heads(self, count: int) -> list[bytes]:
        """Wait until `count` heads came, whatever of the bodies. Raises: TimeoutError after 60 s."""
        async with asyncio.timeout(DEADLINE), self._changed:
            await self._changed.wait_for(lambda: len(self.heads) >= count)
        return self.heads

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection until either side ends it."""
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.connections += 1
        number = self.connections
        try:
            while await self._one(number, reader, writer):
                pass
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, asyncio.CancelledError):
            pass  # the peer left, or the test is over
        finally:
            self._tasks.discard(task)
            writer.close()
            with contextlib.suppress(OSError, asyncio.CancelledError):
                await writer.wait_closed()

    async def stop(self) -> None:
        """End every connection."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _one(self, number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Serve one request; whether the connection goes on."""
        head = await reader.readuntil(b"\r\n\r\n")
        async with self._changed:
            self.heads.append(head)
            self._changed.notify_all()
        if self.handler is not None:
            await self.handler(head, reader, writer)
            return False
        if b"\r\nexpect: 100-continue\r\n" in head.lower():
            writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        body, raw = await _read_body(head, reader)
        request = UpstreamRequest(number, head, body, raw)
        async with self._changed:
            self.requests.append(request)
            self._changed.notify_all()
        chosen = self.replies.pop(0) if self.replies else self.reply
        made = chosen if isinstance(chosen, bytes) else chosen(request)
        reply = await made if inspect.isawaitable(made) else made
        writer.write(reply)
        await writer.drain()
        wants_close = b"\r\nconnection: close\r\n" in reply.partition(b"\r\n\r\n")[0].lower() + b"\r\n"
        return bool(reply) and not wants_close and not self.close_after_reply


async def _read_body(head: bytes, reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    """The body that a head announces: without framing, and raw."""
    fields = UpstreamRequest(0, head, b"", b"")
    if "chunked" in "".join(fields.header("transfer-encoding")).lower():
        body = raw = b""
        while True:
            line = await reader.readuntil(b"\r\n")
            size = int(line.partition(b";")[0], 16)
            chunk = await reader.readexactly(size + 2) if size else b""
            body, raw = body + chunk[:size], raw + line + chunk
            if not size:
                while (trailer := await reader.readuntil(b"\r\n")) != b"\r\n":
                    raw += trailer
                return body, raw + b"\r\n"
    length = int((fields.header("content-length") or ["0"])[0])
    body = await reader.readexactly(length)
    return body, body


@contextlib.asynccontextmanager
async def recording_upstream(
    reply: Reply = DEFAULT_REPLY, tls: ssl.SSLContext | None = None
) -> AsyncIterator[RecordingUpstream]:
    """A recording upstream on a free loopback port."""
    upstream = RecordingUpstream()
    upstream.reply = reply
    server = await asyncio.start_server(upstream.serve, "127.0.0.1", 0, limit=1024 * 1024, ssl=tls)
    upstream.port = server.sockets[0].getsockname()[1]
    upstream.url = f"{'https' if tls else 'http'}://127.0.0.1:{upstream.port}"
    try:
        yield upstream
    finally:
        server.close()
        await upstream.stop()
        await server.wait_closed()
