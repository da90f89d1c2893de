"""The connections to one origin: who gets which, and when a new one is made. Sync; `dial` is the one thing awaited."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from sidecar.engine.side import Face
from sidecar.engine.upstream import Upstream
from sidecar.held import OriginKey
from sidecar.problem import Problem

if TYPE_CHECKING:
    from sidecar.engine.engine import Engine
    from sidecar.engine.exchange import Exchange


def room(engine: Engine) -> bool:
    """Whether one more connection may be made, to whichever origin; the one that was idle longest makes way."""
    if engine.upstreams + engine.tunnels < engine.limits.upstreams:
        return True
    idle = [origin for origin in engine.origins.values() if origin.idle]
    if not idle:
        return False
    min(idle, key=lambda origin: origin.idle[0].idle_since).idle[0].discard()
    return True


class Origin:
    """Bounds: `per_origin` connections (dialling ones counted), `waiting` exchanges."""

    def __init__(self, engine: Engine, key: OriginKey) -> None:
        self.engine = engine
        self.key = key
        self.idle: list[Upstream] = []
        self.every: set[Upstream] = set()
        self.dialling = 0
        self.waiting: deque[Exchange] = deque()

    def take(self) -> Upstream | None:
        """An idle connection, if there is one: the one used last, since the others may grow old and go."""
        while self.idle:
            upstream = self.idle.pop()
            if not upstream.transport.is_closing():
                return upstream
        return None

    def queue(self, exchange: Exchange) -> None:
        """Give it a connection as soon as there is one. Raises: Problem (LIMIT_EXCEEDED)."""
        if len(self.waiting) >= self.engine.limits.waiting:
            raise Problem("LIMIT_EXCEEDED", "Too many requests wait for this upstream.")
        self.waiting.append(exchange)
        self._grow()

    def acquire_new(self, exchange: Exchange) -> None:
        """Never an idle one: those may be as dead as the last one was."""
        while self.idle:
            self.idle.pop().discard()
        self.waiting.appendleft(exchange)
        self._grow()

    def forget(self, exchange: Exchange) -> None:
        """It waits no longer."""
        if exchange in self.waiting:
            self.waiting.remove(exchange)

    def _grow(self) -> None:
        if self.dialling < len(self.waiting) and len(self.every) + self.dialling < self.engine.limits.per_origin:
            if not room(self.engine):
                return  # the next tick asks again
            self.dialling += 1
            self.engine.upstreams += 1
            self.engine.spawn(self._dial())

    async def _dial(self) -> None:
        engine = self.engine
        failure: Problem | None = None
        upstream: Upstream | None = None
        try:
            face = await engine.dialler.dial(self.key, lambda: Face(Upstream(self)), engine.limits.connect)
            upstream = face.side
        except Problem as problem:
            failure = problem
        finally:
            self.dialling -= 1
        engine.metrics.dialled("made" if failure is None else failure.reason)
        if upstream is not None and not upstream.transport.is_closing():
            upstream.retires = engine.clock() + engine.limits.pool_age
            self.every.add(upstream)
            self.released(upstream, engine.clock())
            return
        engine.upstreams -= 1
        if self.waiting:
            self.waiting.popleft().refuse(failure or Problem("UPSTREAM_UNREACHABLE"))
        if self.waiting:
            self._grow()

    def released(self, upstream: Upstream, now: float) -> None:
        """Free again: to the first that waits, or idle; closed if it is old."""
        if now >= upstream.retires and upstream.served:
            upstream.discard()
        elif self.waiting:
            exchange = self.waiting.popleft()
            upstream.begin(exchange)
            exchange.connected(upstream)
        elif self.engine.draining:
            upstream.discard()
        else:
            upstream.idle_since = now
            self.idle.append(upstream)

    def lost(self, upstream: Upstream) -> None:
        """Closed, by whichever side."""
        if upstream in self.every:
            self.every.remove(upstream)
            self.engine.upstreams -= 1
        if upstream in self.idle:
            self.idle.remove(upstream)
        if self.waiting:
            self._grow()

    def sweep(self, now: float) -> None:
        """Close what was idle too long: the oldest stand first."""
        oldest = now - self.engine.limits.pool_idle
        while self.idle and self.idle[0].idle_since < oldest:
            self.idle[0].discard()
        if self.waiting:
            self._grow()

    def close(self) -> None:
        """Close all."""
        for upstream in list(self.every):
            upstream.discard()
