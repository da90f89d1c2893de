"""A peer that speaks as a Vault would, or as none should: a queue-free script, and a record of what was asked."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

TOKEN = "s.CANARY-token-4711"
SECRET_ID = "CANARY-secret-id-4712"
LOGIN = "/v1/auth/approle/login"
LOOKUP = "/v1/auth/token/lookup-self"
RENEW = "/v1/auth/token/renew-self"
REVOKE = "/v1/auth/token/revoke-self"


@dataclass(frozen=True, slots=True)
class Asked:
    """One request as it came."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes


Answer = bytes | Callable[[asyncio.StreamWriter], Awaitable[None]] | None
Script = Callable[[Asked], Answer]


def reply(status: int, body: object = None, *headers: str) -> bytes:
    """A whole HTTP/1.1 answer; `body` is sent as JSON unless it is bytes."""
    content = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
    head = [f"HTTP/1.1 {status} X", f"Content-Length: {len(content)}", "Content-Type: application/json", *headers]
    return "\r\n".join(head).encode() + b"\r\n\r\n" + content


def granted(token: str = TOKEN, ttl: float = 3600, policies: tuple[str, ...] = ("connectors-server",)) -> bytes:
    """The answer to a login."""
    fields = {"client_token": token, "policies": list(policies), "lease_duration": ttl, "renewable": True}
    return reply(200, {"auth": fields})


@dataclass(slots=True)
class VaultPeer:
    """Answers logins, renewals and look-ups by itself; the rest by `script`. None from it is a reset connection."""

    script: Script
    asked: list[Asked] = field(default_factory=list)
    news: asyncio.Condition = field(default_factory=asyncio.Condition)
    address: str = ""
    connections: set[asyncio.Task[None]] = field(default_factory=set)

    def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Begin a connection; `vault_peer` ends it."""
        task = asyncio.create_task(self.serve(reader, writer))
        self.connections.add(task)
        task.add_done_callback(self.connections.discard)

    def count(self, target: str) -> int:
        """How often `target` was asked for."""
        return sum(asked.target == target for asked in self.asked)

    async def until(self, target: str, times: int) -> None:
        """Wait until `target` was asked for that often."""
        async with asyncio.timeout(60), self.news:
            await self.news.wait_for(lambda: self.count(target) >= times)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, until either side ends it."""
        try:
            while (asked := await _request(reader)) is not None:
                async with self.news:
                    self.asked.append(asked)
                    self.news.notify_all()
                answer = self.script(asked)
                if answer is None:
                    break
                if isinstance(answer, bytes):
                    writer.write(answer)
                    await writer.drain()
                    if b"connection: close" in answer.lower():
                        break
                else:
                    await answer(writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.transport.abort()


def usual(script: Script) -> Script:
    """`script`, with the token's own calls answered before it."""

    def answered(asked: Asked) -> Answer:
        fields = {"policies": ["connectors-server"], "ttl": 3600, "renewable": True}
        token = {LOGIN: granted(), RENEW: granted(), REVOKE: reply(204), LOOKUP: reply(200, {"data": fields})}
        return token.get(asked.target) or script(asked)

    return answered


@asynccontextmanager
async def vault_peer(script: Script, tls: ssl.SSLContext | None = None) -> AsyncIterator[VaultPeer]:
    """A peer on a free loopback port."""
    peer = VaultPeer(script)
    server = await asyncio.start_server(peer.accept, "127.0.0.1", 0, ssl=tls)
    port = server.sockets[0].getsockname()[1]
    peer.address = f"{'https' if tls else 'http'}://127.0.0.1:{port}"
    try:
        yield peer
    finally:
        server.close()
        for task in (connections := list(peer.connections)):
            task.cancel()
        await asyncio.gather(*connections, return_exceptions=True)
        # An aborted transport closes its socket in the loop's next turn.
        await asyncio.sleep(0)


async def _request(reader: asyncio.StreamReader) -> Asked | None:
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    except asyncio.IncompleteReadError:
        return None
    method, target, _ = head[0].split(" ")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:] if line)}
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    return Asked(method, target, headers, body)
