"""A gate between a server and its OpenBao: a proxy on a Unix socket that notes every request, and can hold or cut some.

`async with vault_gate(openbao.socket_path, path) as gate`, and give a server `gate.address` as its Vault's. Rules see one
line a request, `POST connectors/data/refresh/acme.notion`, with its query if it has one. It knows nothing of what they mean.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

DEADLINE = 60.0
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)\r\n", re.IGNORECASE)
_CHUNKED = re.compile(rb"\r\ntransfer-encoding: *chunked\r\n", re.IGNORECASE)


class At(Enum):
    """Where a rule stops what it is about."""

    REQUEST = "request"
    """Before the Vault sees it."""
    REPLY = "reply"
    """After the Vault did it, before the server knows."""


class _Cut(Exception):
    """The server's connection ends here."""


@dataclass(eq=False)
class Held:
    """A rule in force: requests that fit are held, but for the first `after`, until `cut`."""

    pattern: re.Pattern[str]
    at: At
    after: int = 0
    lines: list[str] = field(default_factory=list)
    _over: asyncio.Event = field(default_factory=asyncio.Event)
    _changed: asyncio.Condition = field(default_factory=asyncio.Condition)

    def wants(self, line: str) -> bool:
        """Whether this request is one to hold."""
        if self._over.is_set() or self.pattern.search(line) is None:
            return False
        self.after -= 1
        return self.after < 0

    async def stop(self, line: str) -> None:
        """Hold it here, until its connection is to end. Raises: _Cut."""
        self.lines.append(line)
        async with self._changed:
            self._changed.notify_all()
        await self._over.wait()
        raise _Cut

    async def reached(self, count: int = 1) -> None:
        """Wait until so many are held. Raises: TimeoutError after 60 s."""
        async with asyncio.timeout(DEADLINE), self._changed:
            await self._changed.wait_for(lambda: len(self.lines) >= count)

    def cut(self) -> None:
        """Close their connections; the rule is over."""
        self._over.set()


@dataclass
class Stale:
    """A rule in force: replies that fit are remembered, and the next `times` are answered as the last one was."""

    pattern: re.Pattern[str]
    times: int = 0
    replies: dict[str, bytes] = field(default_factory=dict)


class VaultGate:
    """The gate while it is up.

    `seen`: every request that came, in order; `watchers` are told of each. `refused`: how many connections were.
    """

    def __init__(self, upstream: Path, socket: Path) -> None:
        self.upstream = upstream
        self.socket = socket
        self.seen: list[str] = []
        self.watchers: list[Callable[[str], None]] = []
        self.refusing = False
        self.refused = 0
        self._rules: list[Held] = []
        self._stale: list[Stale] = []
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def address(self) -> str:
        """What a server is told."""
        return f"unix://{self.socket}"

    def hold(self, pattern: str, at: At = At.REQUEST, *, after: int = 0) -> Held:
        """Hold requests, or their replies, whose line has a match of the pattern, but for the first `after` of them."""
        rule = Held(re.compile(pattern), at, after)
        self._rules.append(rule)
        return rule

    def remember(self, pattern: str) -> Stale:
        """Remember replies, to be a standby that is behind for as many requests as its `times` is set to."""
        rule = Stale(re.compile(pattern))
        self._stale.append(rule)
        return rule

    def refuse(self) -> None:
        """As if the Vault were gone: every connection ends, none is taken."""
        self.refusing = True
        for writer in list(self._writers):
            writer.transport.abort()

    def serve_again(self) -> None:
        """The end of `refuse`."""
        self.refusing = False

    def lines(self, pattern: str = "") -> list[str]:
        """What came and has a match."""
        return [line for line in self.seen if re.search(pattern, line)]

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection of the server's, and ours to the Vault beside it."""
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self._writers.add(writer)
        onward: asyncio.StreamWriter | None = None
        try:
            if self.refusing:
                self.refused += 1
                return
            back, onward = await asyncio.open_unix_connection(str(self.upstream), limit=1 << 21)
            while True:
                await self._one(reader, writer, back, onward)
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError, _Cut):
            pass  # either side left, it was cut, or the test is over
        finally:
            self._tasks.discard(task)
            self._writers.discard(writer)
            for each in (writer, onward):
                if each is not None:
                    each.transport.abort()

    async def _one(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        back: asyncio.StreamReader,
        onward: asyncio.StreamWriter,
    ) -> None:
        request = await _message(reader)
        method, target = request.split(b" ", 2)[:2]
        line = f"{method.decode()} {target.decode().removeprefix('/v1/')}"
        self.seen.append(line)
        for watcher in self.watchers:
            watcher(line)
        await self._stop(line, At.REQUEST)
        stale = next((rule for rule in self._stale if rule.pattern.search(line)), None)
        if stale is not None and stale.times > 0:
            stale.times -= 1
            writer.write(stale.replies[line])
            return
        onward.write(request)
        await onward.drain()
        reply = await _message(back, bodiless=method == b"HEAD")
        if stale is not None:
            stale.replies[line] = reply
        await self._stop(line, At.REPLY)
        writer.write(reply)
        await writer.drain()

    async def _stop(self, line: str, at: At) -> None:
        rule = next((rule for rule in self._rules if rule.at is at and rule.wants(line)), None)
        if rule is not None:
            await rule.stop(line)

    async def close(self) -> None:
        """End everything."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _message(reader: asyncio.StreamReader, *, bodiless: bool = False) -> bytes:
    """One HTTP/1.1 message as its bytes came."""
    head = await reader.readuntil(b"\r\n\r\n")
    if bodiless or head.startswith((b"HTTP/1.1 204", b"HTTP/1.1 304")):
        return head
    found = _LENGTH.search(head)
    if found is not None:
        return head + await reader.readexactly(int(found[1]))
    if _CHUNKED.search(head) is None:
        return head
    chunks = [head]
    while True:
        size = await reader.readuntil(b"\r\n")
        chunks += [size, await reader.readexactly(int(size, 16) + 2)]
        if int(size, 16) == 0:
            return b"".join(chunks)


@contextlib.asynccontextmanager
async def vault_gate(upstream: Path, socket: Path) -> AsyncIterator[VaultGate]:
    """A gate to the OpenBao whose socket is `upstream`, listening on `socket`, whose path must be short."""
    gate = VaultGate(upstream, socket)
    # As many as may come before the loop takes them: a full queue refuses, which no Vault's of that size does.
    server = await asyncio.start_unix_server(gate.serve, str(socket), limit=1 << 21, backlog=1024)
    try:
        yield gate
    finally:
        server.close()
        await gate.close()
        await server.wait_closed()
