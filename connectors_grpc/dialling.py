"""Connections to third parties: resolved, checked and dialled in one place, over verified TLS. Knows nothing of HTTP."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import certifi
import httpcore2
from anyio.streams.tls import TLSStream

from connectors_grpc.inject.address import allowed_addresses
from connectors_grpc.network import Network
from connectors_grpc.resolving import Resolver

MOST_ADDRESSES = 4
"""Of one name, so many are tried, each with an even share of the time."""


class AddressRefused(Exception):
    """A resolved address is private or reserved."""


class PinningBackend(httpcore2.AsyncNetworkBackend):
    """Resolves, checks and dials in one place: what passed the check is what is dialled (attacks 11 and 12).

    TLS above it still verifies the host's name, which the transport keeps for that.
    """

    def __init__(self, resolve: Resolver, *, private: bool) -> None:
        self._resolve = resolve
        self._allow_private = private
        self._dialler = Network()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        """Dial the first checked address that answers.  Raises: AddressRefused, OSError, ConnectError, ConnectTimeout."""
        resolved = await self._resolve(host, port)
        addresses = allowed_addresses(resolved, private=self._allow_private)[:MOST_ADDRESSES]
        if not addresses:
            raise AddressRefused if resolved else socket.gaierror("no address")
        share = None if timeout is None else timeout / len(addresses)
        last: Exception | None = None
        for address in addresses:
            try:
                return Stream(await self._dialler.connect_tcp(address, port, share, local_address, socket_options))
            except (httpcore2.ConnectError, httpcore2.ConnectTimeout) as error:
                last = error
        raise last or OSError("no address")


class Stream(httpcore2.AsyncNetworkStream):
    """A dialled connection that can be marked as not to be used again, and that ends with a cancelled TLS handshake.

    The transport would leave the latter open, and asks `is_readable` before it uses a kept connection.
    """

    def __init__(self, stream: httpcore2.AsyncNetworkStream) -> None:
        self._stream = stream
        self.spent = False

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """What came, up to `max_bytes`."""
        return await self._stream.read(max_bytes, timeout)

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """Send it all."""
        await self._stream.write(buffer, timeout)

    async def aclose(self) -> None:
        """Close; twice is no error."""
        await self._stream.aclose()

    async def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore2.AsyncNetworkStream:
        """The same over TLS, verified for `server_hostname`; closed if that fails or is cancelled."""
        try:
            return Stream(await self._stream.start_tls(ssl_context, server_hostname, timeout))
        except BaseException:
            await self._stream.aclose()
            raise

    def get_extra_info(self, info: str) -> Any:
        """As the connection has it; a spent one is always readable, which makes the transport drop it.

        So is one with bytes that were received and not read: the socket that the transport asks has them no more, and they
        would be taken for the answer to the next request.
        """
        if info == "is_readable" and (self.spent or _left_over(self._stream)):
            return True
        return self._stream.get_extra_info(info)


def _left_over(stream: Any) -> bool:
    """Whether bytes wait between the socket and whoever reads: in the event loop's queue, or within TLS.

    The library shows neither in public; a test holds this to what it is inside.
    """
    inner = stream._stream  # noqa: SLF001
    if isinstance(inner, TLSStream):
        if inner._read_bio.pending or inner._ssl_object.pending():  # noqa: SLF001
            return True
        inner = inner.transport_stream
    return bool(inner._protocol.read_queue)  # noqa: SLF001


def tls_context(ca_file: Path | None = None) -> ssl.SSLContext:
    """Verifying, TLS 1.2 or newer; `ca_file` adds roots to the system's, it does not replace them."""
    context = ssl.create_default_context()
    paths = ssl.get_default_verify_paths()
    if paths.cafile is None and paths.capath is None:
        context.load_verify_locations(cafile=certifi.where())
    if ca_file is not None:
        context.load_verify_locations(cafile=ca_file)
    return context
