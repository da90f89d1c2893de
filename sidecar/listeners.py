"""Opens the listeners: loopback ports, Unix sockets of mode 0600, and the metrics port. Says where each came to be."""

from __future__ import annotations

import asyncio
import os
import socket
import stat
from collections.abc import Callable
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
) -> tuple[asyncio.AbstractServer, str]:
    """One listener and its address, for apps. Raises: SettingsRefused (taken, or not to be made)."""
    loop = asyncio.get_running_loop()
    try:
        if isinstance(where, Unix):
            door = Door(None, key_required=False, fixed=fixed)
            server = await loop.create_unix_server(protocol(door), sock=_unix_socket(where), backlog=BACKLOG)
            return server, str(where)
        sock = _tcp_socket(where)
        port = sock.getsockname()[1]
        door = Door(_names(port, settings.host_names), key_required=not settings.open_door, fixed=fixed)
        server = await loop.create_server(protocol(door), sock=sock, backlog=BACKLOG)
        return server, f"http://{Tcp(where.host, port)}"
    except OSError as error:
        raise SettingsRefused("--listen", f"{where} can't be listened on ({os.strerror(error.errno or 0)})") from None


def _tcp_socket(where: Tcp) -> socket.socket:
    sock = socket.socket(socket.AF_INET6 if ":" in where.host else socket.AF_INET, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
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

    def __init__(self, names: frozenset[bytes], text: Callable[[], str]) -> None:
        self.names = names
        self.text = text
        self.head = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """For asyncio."""
        self.transport = cast(asyncio.Transport, transport)  # not isinstance: uvloop's is none

    def data_received(self, data: bytes) -> None:
        """For asyncio."""
        self.head += data
        if b"\r\n\r\n" not in self.head and len(self.head) < 8192:
            return
        hosts = [line[5:].strip().lower() for line in self.head.split(b"\r\n") if line[:5].lower() == b"host:"]
        if not self.head.startswith(b"GET /-/metrics HTTP/1.") or b"\r\norigin:" in self.head.lower():
            answer = plain(404, "See /-/metrics.\n", head_only=False, keep_alive=False)
        elif len(hosts) != 1 or hosts[0] not in self.names:
            answer = plain(421, "The Host header is not this listener's.\n", head_only=False, keep_alive=False)
        else:
            answer = plain(200, self.text(), head_only=False, keep_alive=False, kind=CONTENT_TYPE)
        self.transport.write(answer)
        self.transport.close()


async def listen_for_metrics(where: Tcp, text: Callable[[], str]) -> tuple[asyncio.AbstractServer, str]:
    """The metrics port and its address. Raises: SettingsRefused."""
    try:
        sock = _tcp_socket(where)
    except OSError as error:
        raise SettingsRefused("--metrics-listen", os.strerror(error.errno or 0)) from None
    port = sock.getsockname()[1]
    names = _names(port, frozenset())
    server = await asyncio.get_running_loop().create_server(lambda: MetricsPage(names, text), sock=sock, backlog=16)
    return server, f"http://{Tcp(where.host, port)}"
