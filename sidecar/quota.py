"""What one credential of one tenant may use of this sidecar: calls at once, calls a second, bytes a second. Pure; no clock.

One busy job must not eat a provider's rate limit, or the connections, of all others. Nothing is queued: what is over is 429,
with the time after which it is worth asking again.
"""

from __future__ import annotations

from dataclasses import dataclass

from sidecar.problem import Problem

MOST_SHARES = 10_000
BURST = 10.0
"""Seconds' worth of bytes that may be used at once; of calls it is one second's."""


@dataclass(frozen=True, slots=True)
class Quota:
    """Of each (tenant, credential). 0: no bound. Units: calls, calls a second, bytes a second of both bodies together."""

    concurrent: int = 0
    rate: int = 0
    volume: int = 0

    def __bool__(self) -> bool:
        return bool(self.concurrent or self.rate or self.volume)


@dataclass(slots=True, eq=False)
class Share:
    """What one (tenant, credential) uses. `calls` and `bytes` are what is left; bytes are paid afterwards, so may be owed."""

    at: float
    calls: float
    bytes: float
    open: int = 0


class Quotas:
    """Bounds: MOST_SHARES; the one that was used longest ago, and has no call open, is forgotten."""

    def __init__(self, quota: Quota, most: int = MOST_SHARES) -> None:
        self.quota = quota
        self._most = most
        self._shares: dict[tuple[str, str], Share] = {}

    def __len__(self) -> int:
        return len(self._shares)

    def enter(self, tenant: str, credential: str, now: float) -> Share:
        """Begin a call; `leave` ends it. Raises: Problem (LIMIT_EXCEEDED, with what and how long)."""
        quota = self.quota
        share = self._shares.pop((tenant, credential), None) or Share(now, float(quota.rate), quota.volume * BURST)
        self._bound()
        self._shares[tenant, credential] = share
        passed, share.at = max(0.0, now - share.at), now
        share.calls = min(float(quota.rate), share.calls + passed * quota.rate)
        share.bytes = min(quota.volume * BURST, share.bytes + passed * quota.volume)
        if quota.concurrent and share.open >= quota.concurrent:
            raise _over("calls at once", None)
        if quota.rate and share.calls < 1:
            raise _over("calls a second", (1 - share.calls) / quota.rate)
        if quota.volume and share.bytes < 0:
            raise _over("bytes a second", -share.bytes / quota.volume)
        share.calls -= 1
        share.open += 1
        return share

    @staticmethod
    def leave(share: Share) -> None:
        """The call is over."""
        share.open -= 1

    def _bound(self) -> None:
        if len(self._shares) >= self._most:
            idle = next((name for name, share in self._shares.items() if not share.open), None)
            if idle is None:
                raise Problem("LIMIT_EXCEEDED", "Too many credentials are in use at once.")
            del self._shares[idle]


def _over(what: str, retry_after: float | None) -> Problem:
    detail = f"The sidecar's bound for this credential is reached: {what}."
    return Problem("LIMIT_EXCEEDED", detail, metadata={"limit": what}, retry_after=retry_after)
