"""The proxies. Each does the same for a request to /~{tenant}/notes/rest: put in that tenant's bearer, or refuse; pass the rest on."""

from bench.sidecar.peers.base import NotInstalled, Peer, Setup
from bench.sidecar.peers.native import Envoy, EnvoyInjector, Haproxy, Nginx
from bench.sidecar.peers.ours import Ours
from bench.sidecar.peers.scripted import Aiohttp, Httpx, Mitmproxy, Undici

ALL: tuple[type[Peer], ...] = (Ours, Haproxy, Nginx, Envoy, EnvoyInjector, Undici, Aiohttp, Httpx, Mitmproxy)
SLOW = frozenset(("httpx", "mitmproxy"))
"""Measured in few cases."""

__all__ = ["ALL", "SLOW", "NotInstalled", "Peer", "Setup"]
