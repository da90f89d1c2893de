"""The engine's measurements as families: what it counts, and how things stand just now."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from sidecar import compiled
from sidecar.exposition import Family, counter, gauge

if TYPE_CHECKING:
    from sidecar.engine.engine import Engine


def measured(engine: Engine) -> Iterator[Family]:
    """All of it."""
    yield from engine.metrics.families()
    yield from _connections(engine)
    yield gauge("connectors_sidecar_compiled", "Whether the hot path runs compiled, or as Python.", int(compiled()))
    leases = engine.leases
    yield gauge("connectors_sidecar_leases", "Leases that are held.", len(leases))
    yield gauge(
        "connectors_sidecar_leases_held",
        "Credentials whose refresh waits for calls, here or elsewhere.",
        len(leases.holds),
    )
    yield gauge(
        "connectors_sidecar_watch_up", "Watches on the server that are up: one for each process.", int(leases.watched)
    )
    yield counter("connectors_sidecar_lease_hits_total", "Requests served by a lease that was held.", leases.hits)
    yield counter("connectors_sidecar_lease_misses_total", "Leases that the server was asked for.", leases.misses)
    yield counter(
        "connectors_sidecar_lease_answers_total",
        "What came of asking the server: granted, or the reason why not.",
        {(("result", result),): count for result, count in leases.answers.items()},
    )
    for observer in engine.observers:
        yield from observer.families()


def _connections(engine: Engine) -> Iterator[Family]:
    origins = engine.origins.values()
    every, idle = sum(len(origin.every) for origin in origins), sum(len(origin.idle) for origin in origins)
    waiting, dialling = sum(len(origin.waiting) for origin in origins), sum(origin.dialling for origin in origins)
    for name, text, value in (
        ("app_connections", "Connections of apps.", len(engine.connections)),
        ("requests_in_flight", "Requests whose answers are not whole yet.", len(engine.exchanges)),
        ("websockets", "WebSockets that are open.", engine.tunnels),
        ("origins", "Upstream origins that are known.", len(engine.origins)),
        ("upstream_connections", "Connections to upstreams.", every),
        ("upstream_connections_idle", "Those of them that wait for a request.", idle),
        ("upstream_connections_dialling", "Connections to upstreams that are being made.", dialling),
        ("upstream_waiting", "Requests that wait for a connection to an upstream.", waiting),
        ("kept_body_bytes", "Bytes of requests' bodies that are kept for a resend.", engine.kept_total),
    ):
        yield gauge(f"connectors_sidecar_{name}", text, value)
