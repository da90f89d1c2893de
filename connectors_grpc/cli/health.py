"""The standard health call, without its package: one empty message out, one enum back.  Source: grpc.health.v1."""

from __future__ import annotations

from typing import Final

import grpc

_SERVING: Final = b"\x08\x01"  # field 1, varint, SERVING


def is_serving(channel: grpc.Channel, timeout: float) -> bool:
    """Whether the server as a whole says that it serves.  Raises: grpc.RpcError if it does not say."""
    check: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(
        "/grpc.health.v1.Health/Check", request_serializer=None, response_deserializer=None
    )
    return check(b"", timeout=timeout) == _SERVING
