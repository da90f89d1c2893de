"""What is measured: a base case, and cases in which one factor differs from it."""

from __future__ import annotations

from dataclasses import dataclass, replace

REQUEST_HEADERS = {
    "User-Agent": "notionhq-client/5.0.0",
    "Accept": "application/json",
    "Accept-Encoding": "gzip, deflate, br",
    "Accept-Language": "*",
    "Content-Type": "application/json",
    "Notion-Version": "2025-09-03",
    "X-Request-Id": "5f2b6c1e-6d3f-4c53-9a55-0a8b7f2d9c11",
    "Traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
    "Sec-Fetch-Mode": "cors",
    "Cache-Control": "no-cache",
    "Idempotency-Key": "1f0c9b52-3d1c-4f60-8a65-27a3b1f5f0a2",
    "Priority": "u=4",
}
"""With Host and Authorization: fourteen."""

KIB = 1024


@dataclass(frozen=True, slots=True)
class Case:
    """One way to call. Units: bytes; `down` and `up` are the answer's and the request's body."""

    name: str
    tls: bool = True
    headers: bool = True
    connections: int = 32
    down: int = 512
    up: int = 0
    tenants: int = 1

    @property
    def path(self) -> str:
        """At the upstream."""
        if not self.headers:
            return "/minimal"
        if self.up:
            return "/upload"
        return {512: "/v1/pages", 256 * KIB: "/files/256k", 8192 * KIB: "/files/8m"}[self.down]

    @property
    def setup(self) -> tuple[bool, int]:
        """What the proxies have to be set up for."""
        return self.tls, self.tenants


BASE = Case("base")
CASES = (
    BASE,
    replace(BASE, name="plain upstream", tls=False),
    replace(BASE, name="minimal headers", headers=False),
    replace(BASE, name="1 connection", connections=1),
    replace(BASE, name="256 connections", connections=256),
    replace(BASE, name="256 KiB down", down=256 * KIB),
    replace(BASE, name="8 MiB down", down=8192 * KIB),
    replace(BASE, name="256 KiB up", up=256 * KIB),
    replace(BASE, name="8 MiB up", up=8192 * KIB),
    replace(BASE, name="100 tenants", tenants=100),
    replace(BASE, name="10,000 tenants", tenants=10_000),
)
