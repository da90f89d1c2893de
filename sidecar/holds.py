"""Generations that no call is to begin with: a refresh is about to end their token, and waits until none is under way here.

The server says so (`credential_held`) and is answered (YieldLease). Knows no socket; whether calls are under way is told to it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from connectors_grpc.gen.connectors.v1 import proxy_service_pb2 as pb
from sidecar.held import Held
from sidecar.server import Denied, Unreachable

MOST = 1000
"""At once. Of one above that the server hears nothing, and goes on after its bound."""
LONGEST = 30.0
"""Seconds that one lasts, whatever the server says."""
LOOK = 0.05
"""Seconds between two looks whether calls have ended. Looked for, not counted: no call must pay for what is this rare."""
TRIES = 3
"""Of answering: a balancer that spreads calls may bring the answer to another replica than the one that asked."""


class Answers(Protocol):
    """Who is answered."""

    async def yield_lease(self, hold_id: str) -> None:
        """YieldLease. Raises: Denied, Unreachable."""


@dataclass(eq=False, slots=True)
class Hold:
    """One of them. Units: `until` is a time of the loop's clock."""

    tenant: str
    tenant_uid: str
    credential: str
    generation: int
    hold_id: str
    until: float
    over: asyncio.Event = field(default_factory=asyncio.Event)

    def concerns(self, held: Held) -> bool:
        """Whether it is about that very material."""
        there = (held.tenant, held.tenant_uid, held.credential, held.generation)
        return there == (self.tenant, self.tenant_uid, self.credential, self.generation)


class Holds:
    """By (tenant, credential): a later one takes the place of an earlier."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._holds: dict[tuple[str, str], Hold] = {}

    def __len__(self) -> int:
        return len(self._holds)

    def hear(self, event: pb.CredentialHeld) -> Hold | None:
        """One that begins; None if it is one that ends, or if there are too many."""
        now, name = self._clock(), (event.tenant, event.credential)
        for old in [old for old, hold in self._holds.items() if hold.until <= now]:
            self._end(old)
        ttl = min(event.ttl.ToTimedelta().total_seconds(), LONGEST)
        if ttl <= 0:
            if name in self._holds and self._holds[name].hold_id == event.hold_id:
                self._end(name)
            return None
        self._end(name)
        if len(self._holds) >= MOST:
            return None
        hold = Hold(event.tenant, event.tenant_uid, event.credential, event.generation, event.hold_id, now + ttl)
        self._holds[name] = hold
        return hold

    def _end(self, name: tuple[str, str]) -> None:
        hold = self._holds.pop(name, None)
        if hold is not None:
            hold.over.set()

    def end_all(self) -> None:
        """Their ends can't be heard. Whoever leases meanwhile is made to wait by the server."""
        for name in list(self._holds):
            self._end(name)

    def on(self, held: Held, now: float) -> Hold | None:
        """What keeps a lease from being used."""
        hold = self._holds.get((held.tenant, held.credential))
        return hold if hold is not None and now < hold.until and hold.concerns(held) else None

    async def passed(self, hold: Hold) -> None:
        """Wait until it is over."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(0.0, hold.until - self._clock())):
                await hold.over.wait()

    async def answer(self, hold: Hold, under_way: Callable[[Hold], bool], server: Answers) -> None:
        """Say that no call is under way with it, once that is so. Nothing is said of one that is over before."""
        for _ in range(TRIES):
            while under_way(hold):
                await asyncio.sleep(LOOK)
                if hold.over.is_set() or self._clock() >= hold.until:
                    return
            try:
                await server.yield_lease(hold.hold_id)
            except (Denied, Unreachable):
                await asyncio.sleep(LOOK)
            else:
                return
