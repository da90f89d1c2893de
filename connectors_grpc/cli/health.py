"""Whether a server or sidecar serves: the standard health call without its package, and one plain GET."""

from __future__ import annotations

import http.client
import socket
import ssl
from typing import Final

import grpc

from connectors_grpc.addresses import Address

_SERVING: Final = b"\x08\x01"  # field 1, varint, SERVING


def is_serving(channel: grpc.Channel, timeout: float) -> bool:
    """Whether the server as a whole says that it serves.  Raises: grpc.RpcError if it does not say.

    Source: grpc.health.v1: an empty message out, one enum back.
    """
    check: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(
        "/grpc.health.v1.Health/Check", request_serializer=None, response_deserializer=None
    )
    return check(b"", timeout=timeout) == _SERVING


class _UnixConnection(http.client.HTTPConnection):
    """http.client over a Unix socket."""

    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        """Connect to the socket in place of a host."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def http_status(address: Address, path: str, timeout: float, tls: ssl.SSLContext | None = None) -> int | None:
    """The status of one GET; None if nobody answers in HTTP.  Units: timeout in seconds, for each wait."""
    connection: http.client.HTTPConnection
    if address.path:
        connection = _UnixConnection(address.path, timeout)
    elif tls is not None:
        connection = http.client.HTTPSConnection(address.host, address.port, timeout=timeout, context=tls)
    else:
        connection = http.client.HTTPConnection(address.host, address.port, timeout=timeout)
    try:
        connection.request("GET", path)
        return connection.getresponse().status
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()
