"""Keeps the cache's doubts up to date: one watch on the server, begun again whenever it breaks. Knows no socket."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Protocol

from connectors_grpc.gen.connectors.v1 import proxy_service_pb2 as pb
from connectors_grpc.logs import get
from sidecar.leases import Leases
from sidecar.server import Denied, Unreachable, draw, pause

log = get("sidecar.watch")


class Events(Protocol):
    """Who tells what changed."""

    def events(self) -> AsyncIterator[pb.WatchLeasesResponse]:
        """One watch until it breaks. Raises: Denied, Unreachable."""


async def watch(source: Events, leases: Leases, held: Callable[[pb.CredentialHeld], None]) -> None:
    """Apply events for ever; holds are for `held`. Without a live watch every lease is confirmed after UNWATCHED_TTL."""
    attempt = 0
    while True:
        reason, retry_after = "ended", None
        try:
            async for event in source.events():
                if not leases.watched:
                    log.info("watch.begun")
                    leases.watched, attempt = True, 0
                if event.HasField("credential_held"):
                    held(event.credential_held)
                else:
                    leases.apply(event)
        except (Denied, Unreachable) as error:
            reason, retry_after = error.reason, error.retry_after
        if leases.watched or attempt == 0:
            log.warning("watch.broken", reason=reason)
        leases.unwatched()
        await asyncio.sleep(pause(attempt, draw(), retry_after))
        attempt += 1
