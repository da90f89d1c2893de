"""Opens the listeners: loopback ports, Unix sockets of mode 0600, and the metrics port. Says where each came to be."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import stat
from collections.abc import Awaitable, Callable, Iterable
from typing import cast

from sidecar.admission import Door
from sidecar.exposition import CONTENT_TYPE
from sidecar.problem import plain
from sidecar.refused import SettingsRefused
from sidecar.route import Fixed
from sidecar.settings import Listen, SidecarSettings, Tcp, Unix

BACKLOG = 1024


async def listen(
    settings: SidecarSettings,
    where: Listen,
    fixed: Fixed | None,
    protocol: Callable[[Door], Callable[[], asyncio.BaseProtocol]],
    sock: socket.socket | None = None,
) -> tuple[asyncio.AbstractServer, str]:
    """One listener for apps and its address; on `sock` if that is bound already. Raises: SettingsRefused (can't be had)."""
    sock = sock or open_sockets(where)[0]
    loop = asyncio.get_running_loop()
    try:
        if isinstance(where, Unix):
            door = Door(None, key_required=False, fixed=fixed)
            return await loop.create_unix_server(protocol(door), sock=sock, backlog=BACKLOG), str(where)
        door = Door(
            _names(sock.getsockname()[1], settings.host_names), key_required=not settings.open_door, fixed=fixed
        )
        return await loop.create_server(protocol(door), sock=sock, backlog=BACKLOG), address_of(where, sock)
    except OSError as error:
        sock.close()
        raise _taken(where, error) from None


def open_sockets(where: Listen, count: int = 1) -> list[socket.socket]:
    """Bound, not listening yet: so many of a port that several processes serve, one of a Unix socket. Raises: SettingsRefused."""
    sockets: list[socket.socket] = []
    try:
        if isinstance(where, Unix):
            return [_unix_socket(where)]
        if count == 1:
            return [_tcp_socket(where)]
        if where.port:
            _tcp_socket(where).close()  # alone, so that another sidecar's port is not shared by mistake
        sockets.append(_tcp_socket(where, shared=True))  # one that the kernel chose is nobody else's
        port = Tcp(where.host, sockets[0].getsockname()[1])
        sockets.extend(_tcp_socket(port, shared=True) for _ in range(count - 1))
    except OSError as error:
        for sock in sockets:
            sock.close()
        raise _taken(where, error) from None
    return sockets


def address_of(where: Listen, sock: socket.socket) -> str:
    """What apps call it by."""
    return str(where) if isinstance(where, Unix) else f"http://{Tcp(where.host, sock.getsockname()[1])}"


def unlink(listens: Iterable[Listen]) -> None:
    """Leave no Unix socket behind."""
    for where in listens:
        if isinstance(where, Unix):
            with contextlib.suppress(OSError):
                where.path.unlink()


def _taken(where: Listen, error: OSError) -> SettingsRefused:
    return SettingsRefused("--listen", f"{where} can't be listened on ({os.strerror(error.errno or 0)})")


def _tcp_socket(where: Tcp, *, shared: bool = False) -> socket.socket:
    sock = socket.socket(socket.AF_INET6 if ":" in where.host else socket.AF_INET, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.bind((where.host, where.port))
    except OSError:
        sock.close()
        raise
    sock.setblocking(False)
    return sock


def _unix_socket(where: Unix) -> socket.socket:
    """Mode 0600 from its first moment (attack 4): the umask stands before bind, not chmod after it."""
    path = where.path
    if path.exists() and stat.S_ISSOCK(path.stat().st_mode):
        _refuse_if_alive(where)
        path.unlink()
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(0o177)
    try:
        sock.bind(str(path))
    except OSError:
        sock.close()
        raise
    finally:
        os.umask(before)
    sock.setblocking(False)
    return sock


def _refuse_if_alive(where: Unix) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(str(where.path))
        except OSError:
            return
    raise SettingsRefused("--listen", f"{where} is another process's: stop it, or choose another path")


def _names(port: int, configured: frozenset[str]) -> frozenset[bytes]:
    """A listener's own names, as they stand in Host."""
    own = [f"{host}:{port}" for host in ("localhost", "127.0.0.1", "[::1]")]
    if port == 80:
        own += ["localhost", "127.0.0.1", "[::1]"]
    return frozenset(name.encode() for name in [*own, *configured])


class MetricsPage(asyncio.Protocol):
    """`GET /-/metrics` and nothing else; one request a connection. Bounds: 8 KiB of request."""

    def __init__(self, names: frozenset[bytes], text: Callable[[], Awaitable[str]]) -> None:
        self.names = names
        self.text = text
        self.head = b""
        self.task: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """For asyncio."""
        self.transport = cast(asyncio.Transport, transport)  # not isinstance: uvloop's is none

    def data_received(self, data: bytes) -> None:
        """For asyncio."""
        self.head += data
        if self.task is not None or (b"\r\n\r\n" not in self.head and len(self.head) < 8192):
            return
        hosts = [line[5:].strip().lower() for line in self.head.split(b"\r\n") if line[:5].lower() == b"host:"]
        if not self.head.startswith(b"GET /-/metrics HTTP/1.") or b"\r\norigin:" in self.head.lower():
            answer = plain(404, "See /-/metrics.\n", head_only=False, keep_alive=False)
        elif len(hosts) != 1 or hosts[0] not in self.names:
            answer = plain(421, "The Host header is not this listener's.\n", head_only=False, keep_alive=False)
        else:
            self.task = asyncio.ensure_future(self._page())
            return
        self.transport.write(answer)
        self.transport.close()

    async def _page(self) -> None:
        try:
            text = await self.text()
            self.transport.write(plain(200, text, head_only=False, keep_alive=False, kind=CONTENT_TYPE))
        finally:
            self.transport.close()

    def connection_lost(self, _exc: Exception | None) -> None:
        """For asyncio."""
        if self.task is not None:
            self.task.cancel()


async def listen_for_metrics(where: Tcp, text: Callable[[], Awaitable[str]]) -> tuple[asyncio.AbstractServer, str]:
    """The metrics port and its address. Raises: SettingsRefused."""
    try:
        sock = _tcp_socket(where)
    except OSError as error:
        raise SettingsRefused("--metrics-listen", os.strerror(error.errno or 0)) from None
    port = sock.getsockname()[1]
    names = _names(port, frozenset())
    server = await asyncio.get_running_loop().create_server(lambda: MetricsPage(names, text), sock=sock, backlog=16)
    return server, f"http://{Tcp(where.host, port)}"
