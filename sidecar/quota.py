"""What a tenant's credential may use of this sidecar, by its own flags, and the tenant itself, by its lease. No clock."""

from __future__ import annotations

from connectors_grpc.quota import MOST_SHARES, NO_QUOTA, Over, Quota, Use
from connectors_grpc.quota import Quotas as Shared
from sidecar.problem import Problem

WHOSE = {"calls at once", "calls a second", "bytes a second"}


class Quotas:
    """`quota` is each (tenant, credential)'s. Bounds: as connectors_grpc.quota."""

    def __init__(self, quota: Quota = NO_QUOTA, most: int = MOST_SHARES) -> None:
        self.quota = quota
        self._shares = Shared(most)

    def __len__(self) -> int:
        return len(self._shares)

    def enter(self, tenant: str, credential: str, now: float, of_tenant: Quota = NO_QUOTA) -> Use:
        """Begin a call; the use's `leave` ends it. Raises: Problem (LIMIT_EXCEEDED, with what and how long)."""
        try:
            return self._shares.enter(now, ((tenant, credential), self.quota), ((tenant,), of_tenant))
        except Over as over:
            raise _problem(over) from None


def _problem(over: Over) -> Problem:
    if over.limit not in WHOSE:
        return Problem("LIMIT_EXCEEDED", "Too many credentials are in use at once.")
    detail = f"The bound of this credential, or of its tenant, is reached: {over.limit}."
    return Problem("LIMIT_EXCEEDED", detail, metadata={"limit": over.limit}, retry_after=over.retry_after)
