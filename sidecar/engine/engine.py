"""What runs: apps' connections, exchanges, origins, and one tick that keeps every time-out."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Sequence
from typing import Any, Protocol

from connectors_grpc.gen.connectors.v1 import proxy_service_pb2 as pb
from connectors_grpc.logs import get
from connectors_grpc.quota import NO_QUOTA, Quota
from sidecar.admission import Door
from sidecar.engine import late, standing
from sidecar.engine.dial import Dialler
from sidecar.engine.downstream import Downstream
from sidecar.engine.exchange import Exchange
from sidecar.engine.over import Over, over
from sidecar.engine.pool import Origin
from sidecar.engine.relayed import Relayed, Relaying
from sidecar.engine.side import Face
from sidecar.engine.upload import Upload
from sidecar.exposition import Family
from sidecar.held import OriginKey
from sidecar.holds import Answers, Hold
from sidecar.leases import Leases, Spawner
from sidecar.limits import Limits
from sidecar.metrics import Metrics
from sidecar.problem import Problem
from sidecar.quota import Quotas

log = get("sidecar.engine")

MOST_ORIGINS = 1024


class Observer(Protocol):
    """Who is told of each request that is over. Must not wait, and must not fail."""

    def tell(self, record: Over) -> None:
        """One request."""

    def families(self) -> Iterable[Family]:
        """What it measures of itself."""


class Guarded:
    """Tasks of a group, of which one with a bug ends by itself, and no other."""

    def __init__(self, tasks: asyncio.TaskGroup) -> None:
        self._tasks = tasks

    def create_task(self, coro: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run it."""
        return self._tasks.create_task(self._run(coro))

    async def _run(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except Exception as error:  # the boundary of background work
            log.exception("engine.bug", error=type(error).__name__)


class Engine:
    """Belongs to one event loop. `tasks` owns what it spawns."""

    def __init__(
        self,
        leases: Leases,
        tasks: Spawner,
        *,
        limits: Limits,
        dialler: Dialler,
        metrics: Metrics,
        reachable: Callable[[], bool],
        relay: Relaying | None = None,
        quota: Quota | None = None,
        observers: Sequence[Observer] = (),
        clock: Callable[[], float] | None = None,
    ) -> None:
        self.leases = leases
        self.limits = limits
        self.dialler = dialler
        self.metrics = metrics
        self.observers = tuple(observers)
        self.clock = clock or asyncio.get_running_loop().time
        self.view = memoryview(bytearray(limits.receive))
        self.connections: set[Downstream] = set()
        self.origins: dict[OriginKey, Origin] = {}
        self.kept_total = 0
        self.no_upload = Upload(self, None)
        self.tunnels = 0
        self.upstreams = 0
        self.draining = False
        self.relay = relay
        self.quotas = Quotas(quota or NO_QUOTA)
        leases.bounded = leases.bounded or bool(quota)
        self.exchange: type[Exchange] = Exchange if relay is None else Relayed
        self._tasks = tasks
        self._reachable = reachable
        self._idle = asyncio.Event()

    def protocol(self, door: Door) -> Callable[[], asyncio.BaseProtocol]:
        """For `loop.create_server`."""
        return lambda: Face(Downstream(self, door))

    @property
    def exchanges(self) -> list[Exchange]:
        """Those under way: one a connection, at most."""
        return [each.exchange for each in self.connections if each.exchange is not None and not each.exchange.ended]

    def ready(self) -> bool:
        """Whether requests can be served: the server is reached, or leases are held."""
        return not self.draining and (self._reachable() or len(self.leases) > 0)

    def over(self, exchange: Exchange, whole: bool, now: float) -> None:
        """An exchange ended; `whole` if its answer did, too. Whoever asked for it is told."""
        took = now - exchange.began
        held = exchange.held
        if held is not None:
            self.metrics.took(held.integration, took)
            if self.metrics.most_tenants:
                response = exchange.response
                self.metrics.of_tenant(held.tenant, "refused" if response is None else f"{response.status // 100}xx")
        if self.observers:
            record = over(exchange, whole, took if exchange.began else 0.0)
            for observer in self.observers:
                observer.tell(record)

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run in the background."""
        return self._tasks.create_task(work)

    def origin(self, key: OriginKey) -> Origin:
        """The pool of one origin. Raises: Problem (LIMIT_EXCEEDED)."""
        found = self.origins.get(key)
        if found is None:
            if len(self.origins) >= MOST_ORIGINS:
                self._forget_origins()
            found = self.origins[key] = Origin(self, key)
        return found

    def _forget_origins(self) -> None:
        for key in [key for key, origin in self.origins.items() if not origin.every and not origin.waiting]:
            del self.origins[key]
        if len(self.origins) >= MOST_ORIGINS:
            raise Problem("LIMIT_EXCEEDED", "Too many upstreams at once.")

    def hold(self, event: pb.CredentialHeld, server: Answers) -> None:
        """Begin no call with that generation, and answer once none is under way; or begin them again."""
        hold = self.leases.hold(event)
        if hold is not None:
            self.spawn(self.leases.holds.answer(hold, self._under_way, server))

    def _under_way(self, hold: Hold) -> bool:
        return any(standing.holds_up(exchange, hold) for exchange in self.exchanges)

    def forget(self, exchange: Exchange) -> None:
        """It waits for no connection any more."""
        if exchange.held is not None and exchange.held.origin in self.origins:
            self.origins[exchange.held.origin].forget(exchange)

    def joined(self, connection: Downstream) -> bool:
        """Whether an app's connection is taken."""
        if self.draining or len(self.connections) >= self.limits.connections:
            return False
        self.connections.add(connection)
        return True

    def left(self, connection: Downstream) -> None:
        """An app's connection ended."""
        self.connections.discard(connection)
        if self.draining and not self.connections:
            self._idle.set()

    async def keep_time(self) -> None:
        """End what took too long, for ever. One tick for all: a timer a request would cost more than the request's head."""
        while True:
            await asyncio.sleep(self.limits.tick)
            now = self.clock()
            for exchange in [each for each in self.exchanges if each.deadline <= now]:
                late.expired(exchange)
            if self.limits.whole:
                for exchange in [each for each in self.exchanges if 0 < each.began <= now - self.limits.whole]:
                    late.overdue(exchange)
            for exchange in [each for each in self.exchanges if each.held is not None]:
                standing.confirm(exchange, now)
            for connection in [each for each in self.connections if each.exchange is None and each.deadline <= now]:
                connection.sweep(now)
            for origin in self.origins.values():
                origin.sweep(now)

    async def drain(self) -> None:
        """Finish what is in flight, for at most `drain` seconds, then cut. Listeners are closed already."""
        self.draining = True
        for connection in list(self.connections):
            if connection.exchange is None:
                connection.transport.close()
            else:
                connection.exchange.head.keep_alive = connection.keep_alive = False
        if self.connections:
            try:
                async with asyncio.timeout(self.limits.drain):
                    await self._idle.wait()
            except TimeoutError:
                log.warning("drain.cut")
        for connection in list(self.connections):
            connection.transport.abort()
        for origin in self.origins.values():
            origin.close()
