"""The proxies. For /~{tenant}/notes/rest each puts in that tenant's bearer, or refuses, and passes the rest on."""

from bench.sidecar.peers.base import NotInstalled, Peer, Setup
from bench.sidecar.peers.native import Envoy, EnvoyInjector, Haproxy, Nginx
from bench.sidecar.peers.ours import Compiled, Ours
from bench.sidecar.peers.scripted import Aiohttp, Httpx, Mitmproxy, Undici

ALL: tuple[type[Peer], ...] = (Ours, Compiled, Haproxy, Nginx, Envoy, EnvoyInjector, Undici, Aiohttp, Httpx, Mitmproxy)
SLOW = frozenset(("httpx", "mitmproxy"))
"""Measured in few cases."""

__all__ = ["ALL", "SLOW", "NotInstalled", "Peer", "Setup"]
