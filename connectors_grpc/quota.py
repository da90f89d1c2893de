"""What may be used of one process: calls at once, calls a second, bytes a second. Pure; no clock.

Written once, for server and sidecar.

One busy job must not eat a provider's rate limit, or the connections, of all others. Nothing is queued: what is over is refused,
with the time after which it is worth asking again.
"""

from __future__ import annotations

from dataclasses import dataclass

MOST_SHARES = 10_000
BURST = 10.0
"""Seconds' worth of bytes that may be used at once; of calls it is one second's."""


@dataclass(frozen=True, slots=True)
class Quota:
    """0: no bound. Units: calls, calls a second, bytes a second of both bodies together."""

    concurrent: int = 0
    rate: int = 0
    volume: int = 0

    def __bool__(self) -> bool:
        return bool(self.concurrent or self.rate or self.volume)

    def part(self, parts: int) -> Quota:
        """What each of so many processes may use, so that all together use no more than this, but for the rounding up."""
        if parts == 1:
            return self
        return Quota(-(-self.concurrent // parts), -(-self.rate // parts), -(-self.volume // parts))


NO_QUOTA = Quota()


class Over(Exception):
    """A bound is reached. `limit` says which; `retry_after` in seconds, None where nobody knows."""

    def __init__(self, limit: str, retry_after: float | None = None) -> None:
        super().__init__(limit)
        self.limit = limit
        self.retry_after = retry_after


@dataclass(slots=True, eq=False)
class Share:
    """What one name uses of its quota. `calls` and `bytes` are what is left; bytes are paid afterwards, so may be owed."""

    at: float
    quota: Quota = NO_QUOTA
    calls: float = 0.0
    bytes: float = 0.0
    open: int = 0

    def refill(self, quota: Quota, now: float) -> None:
        """What came back with time. What had no bound before has all of it now: nothing is owed for that time."""
        passed, self.at = max(0.0, now - self.at), now
        calls, volume = float(quota.rate), quota.volume * BURST
        self.calls = min(calls, self.calls + passed * quota.rate) if self.quota.rate else calls
        self.bytes = min(volume, self.bytes + passed * quota.volume) if self.quota.volume else volume
        self.quota = quota

    def check(self) -> None:
        """Whether a call may begin. Raises: Over."""
        quota = self.quota
        if quota.concurrent and self.open >= quota.concurrent:
            raise Over("calls at once")
        if quota.rate and self.calls < 1:
            raise Over("calls a second", (1 - self.calls) / quota.rate)
        if quota.volume and self.bytes < 0:
            raise Over("bytes a second", -self.bytes / quota.volume)


@dataclass(frozen=True, slots=True)
class Use:
    """A call under way, counted in each of its shares."""

    shares: tuple[Share, ...] = ()

    def pay(self, size: int) -> None:
        """So many bytes passed."""
        for share in self.shares:
            share.bytes -= size

    def leave(self) -> None:
        """The call is over."""
        for share in self.shares:
            share.open -= 1


class Quotas:
    """Bounds: MOST_SHARES; the one that was used longest ago, and has no call open, is forgotten."""

    def __init__(self, most: int = MOST_SHARES) -> None:
        self._most = most
        self._shares: dict[tuple[str, ...], Share] = {}

    def __len__(self) -> int:
        return len(self._shares)

    def enter(self, now: float, *bounds: tuple[tuple[str, ...], Quota]) -> Use:
        """Begin a call within all of these bounds, each of a name's; `leave` ends it. Raises: Over, and it counts in none."""
        shares = tuple(self._share(name, quota, now) for name, quota in bounds if quota)
        for share in shares:
            share.check()
        for share in shares:
            share.calls -= 1
            share.open += 1
        return Use(shares)

    def _share(self, name: tuple[str, ...], quota: Quota, now: float) -> Share:
        share = self._shares.pop(name, None) or Share(now)
        self._bound()
        self._shares[name] = share
        share.refill(quota, now)
        return share

    def _bound(self) -> None:
        if len(self._shares) >= self._most:
            idle = next((name for name, share in self._shares.items() if not share.open), None)
            if idle is None:
                raise Over("names at once")
            del self._shares[idle]
