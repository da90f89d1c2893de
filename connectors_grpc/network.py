"""The network below the HTTP library, which takes a connection that is reset as it is made for an error of the network's.

Under uvloop such a connection has no socket any more, and the library, which asks for it as soon as it is connected and before
each reuse, would fail with an error that nobody expects. Asked for in time, the socket is known to the end.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import httpcore2


class Network(httpcore2.AnyIOBackend):
    """The library's own backend for asyncio; its errors are the only ones."""

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        """Dial.  Raises: ConnectError, ConnectTimeout."""
        return _with_socket(await super().connect_tcp(host, port, timeout, local_address, socket_options))

    async def connect_unix_socket(
        self, path: str, timeout: float | None = None, socket_options: Iterable[Any] | None = None
    ) -> httpcore2.AsyncNetworkStream:
        """Dial.  Raises: ConnectError, ConnectTimeout."""
        return _with_socket(await super().connect_unix_socket(path, timeout, socket_options))


def _with_socket(stream: httpcore2.AsyncNetworkStream) -> httpcore2.AsyncNetworkStream:
    """The stream, its socket known from now on. Raises: ConnectError."""
    try:
        stream.get_extra_info("socket")
    except AttributeError:  # of None, where the socket should be
        raise httpcore2.ConnectError("reset as it was made") from None
    return stream
