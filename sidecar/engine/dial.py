"""Makes upstream connections: resolve, check every address, dial the very addresses that were checked (attacks 11, 12)."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from ipaddress import ip_address
from typing import TypeVar

from connectors_grpc.certificates import Contexts
from connectors_grpc.inject.address import allowed_addresses
from connectors_grpc.resolving import Resolver
from sidecar.engine.race import interleaved, race
from sidecar.held import OriginKey
from sidecar.problem import Problem

P = TypeVar("P", bound=asyncio.BaseProtocol)

MOST_ADDRESSES = 8


def tls_context(ca_file: str | None = None) -> ssl.SSLContext:
    """Verified, HTTP/1.1 only. `ca_file` is trusted besides the system's."""
    context = ssl.create_default_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if ca_file is not None:
        context.load_verify_locations(ca_file)
    context.set_alpn_protocols(["http/1.1"])
    return context


class Dialler:
    """One event loop's. Nothing of an answer is kept: each connection asks the resolver anew."""

    def __init__(self, resolve: Resolver, contexts: Contexts) -> None:
        self._resolve = resolve
        self._contexts = contexts

    @property
    def certified(self) -> frozenset[str]:
        """The integrations whose connections show a client certificate."""
        return self._contexts.identities

    async def dial(self, key: OriginKey, make: Callable[[], P], within: float) -> P:
        """One connection. Raises: Problem (ADDRESS_NOT_ALLOWED, UPSTREAM_UNREACHABLE, UPSTREAM_TIMEOUT)."""
        try:
            async with asyncio.timeout(within):
                addresses = await self._addresses(key)
                return await self._first(key, interleaved(addresses[:MOST_ADDRESSES]), make)
        except TimeoutError:
            raise Problem("UPSTREAM_TIMEOUT", "The upstream did not accept a connection in time.") from None
        except ssl.SSLError:  # its text may quote the peer's certificate
            raise Problem("UPSTREAM_UNREACHABLE", "The upstream's TLS could not be verified.") from None
        except OSError:
            raise Problem("UPSTREAM_UNREACHABLE") from None

    async def _addresses(self, key: OriginKey) -> list[str]:
        try:
            found = [key.host] if _literal(key.host) else await self._resolve(key.host, key.port)
        except TimeoutError:
            raise Problem("UPSTREAM_TIMEOUT", "The upstream's name was not resolved in time.") from None
        except OSError:
            raise Problem("UPSTREAM_UNREACHABLE", "The upstream's name does not resolve.") from None
        addresses = allowed_addresses(found, private=key.private)
        if not addresses:
            raise Problem("ADDRESS_NOT_ALLOWED")
        return addresses

    async def _first(self, key: OriginKey, addresses: list[str], make: Callable[[], P]) -> P:
        """TCP is raced; TLS is then done with the winner, and with another if that fails."""
        loop = asyncio.get_running_loop()
        tls = self._contexts.of(key.identity) if key.tls else None
        while True:
            address, sock = await race(addresses, key.port)
            try:
                _, protocol = await loop.create_connection(
                    make, sock=sock, ssl=tls, server_hostname=key.host if key.tls else None
                )
            except OSError:
                addresses.remove(address)
                if not addresses:
                    raise
            else:
                return protocol


def _literal(host: str) -> bool:
    """Whether it is an address already. `127.1` and its kind are not: the system's resolver reads them."""
    try:
        ip_address(host)
    except ValueError:
        return False
    return "%" not in host
