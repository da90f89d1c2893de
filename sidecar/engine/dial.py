"""Makes an upstream connection: resolve, check every address, dial the very address that was checked (attacks 11, 12)."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable
from typing import TypeVar

from connectors_grpc.inject.address import allowed_addresses
from sidecar.held import OriginKey
from sidecar.problem import Problem

P = TypeVar("P", bound=asyncio.BaseProtocol)

PER_ADDRESS = 4.0
"""Seconds for one address before the next is tried."""
MOST_ADDRESSES = 8


def tls_context(ca_file: str | None = None) -> ssl.SSLContext:
    """Verified, HTTP/1.1 only. `ca_file` is trusted besides the system's."""
    context = ssl.create_default_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if ca_file is not None:
        context.load_verify_locations(ca_file)
    context.set_alpn_protocols(["http/1.1"])
    return context


async def dial(key: OriginKey, make: Callable[[], P], tls: ssl.SSLContext, within: float) -> P:
    """One connection. Raises: Problem (ADDRESS_NOT_ALLOWED, UPSTREAM_UNREACHABLE, UPSTREAM_TIMEOUT)."""
    try:
        async with asyncio.timeout(within):
            addresses = await _addresses(key)
            return await _first(key, addresses[:MOST_ADDRESSES], make, tls)
    except TimeoutError:
        raise Problem("UPSTREAM_TIMEOUT", "The upstream did not accept a connection in time.") from None
    except ssl.SSLError:  # its text may quote the peer's certificate
        raise Problem("UPSTREAM_UNREACHABLE", "The upstream's TLS could not be verified.") from None
    except OSError:
        raise Problem("UPSTREAM_UNREACHABLE") from None


async def _addresses(key: OriginKey) -> list[str]:
    loop = asyncio.get_running_loop()
    try:
        infos = await loop.getaddrinfo(key.host, key.port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        raise Problem("UPSTREAM_UNREACHABLE", "The upstream's name does not resolve.") from None
    addresses = allowed_addresses((str(info[4][0]) for info in infos), private=key.private)
    if not addresses:
        raise Problem("ADDRESS_NOT_ALLOWED")
    return addresses


async def _first(key: OriginKey, addresses: list[str], make: Callable[[], P], tls: ssl.SSLContext) -> P:
    loop = asyncio.get_running_loop()
    last = len(addresses) - 1
    for at, address in enumerate(addresses):
        try:
            async with asyncio.timeout(None if at == last else PER_ADDRESS):
                if key.tls:
                    _, protocol = await loop.create_connection(
                        make, address, key.port, ssl=tls, server_hostname=key.host
                    )
                else:
                    _, protocol = await loop.create_connection(make, address, key.port)
                return protocol
        except (OSError, TimeoutError):
            if at == last:
                raise
    raise OSError
