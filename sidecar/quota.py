"""What a tenant's credential may use of this sidecar, by its own flags, and the tenant itself, by its lease. No clock."""

from __future__ import annotations

from connectors_grpc.quota import MOST_SHARES, NO_QUOTA, Over, Quota, Use
from connectors_grpc.quota import Quotas as Shared
from sidecar.problem import Problem

MOST_LET_IN = 10_000
WHOSE = {"calls at once", "calls a second", "bytes a second"}


class Quotas:
    """`quota` is each (tenant, credential)'s. Bounds: as connectors_grpc.quota."""

    def __init__(self, quota: Quota = NO_QUOTA, most: int = MOST_SHARES) -> None:
        self.quota = quota
        self._shares = Shared(most)
        self._let_in: dict[tuple[str, str, bytes], None] = {}

    def __len__(self) -> int:
        return len(self._shares)

    def enter(self, tenant: str, credential: str, now: float, of_tenant: Quota = NO_QUOTA) -> Use:
        """Begin a call; the use's `leave` ends it. Raises: Problem (LIMIT_EXCEEDED, with what and how long)."""
        try:
            return self._shares.enter(now, ((tenant, credential), self.quota), ((tenant,), of_tenant))
        except Over as over:
            raise _problem(over) from None

    def enter_unproven(self, tenant: str, credential: str, key: bytes, now: float) -> Use:
        """The same for a relay, which can't tell itself whether a key is good: until the server has let it in there, it shares
        one quota with all such keys, and takes nothing of the credential's. Raises: as `enter`.
        """
        known = (tenant, credential, key) in self._let_in
        return self.enter(tenant, credential, now) if known else self.enter("", "", now)

    def learn(self, tenant: str, credential: str, key: bytes, *, let_in: bool) -> bool:
        """Note what the server said of a key there; whether it is let in for the first time.

        Bounds: MOST_LET_IN, of which the one let in longest ago is forgotten.
        """
        name = tenant, credential, key
        if not let_in:
            self._let_in.pop(name, None)
            return False
        if name in self._let_in:
            return False
        if len(self._let_in) >= MOST_LET_IN:
            del self._let_in[next(iter(self._let_in))]
        self._let_in[name] = None
        return True


def _problem(over: Over) -> Problem:
    if over.limit not in WHOSE:
        return Problem("LIMIT_EXCEEDED", "Too many credentials are in use at once.")
    detail = f"The bound of this credential, or of its tenant, is reached: {over.limit}."
    return Problem("LIMIT_EXCEEDED", detail, metadata={"limit": over.limit}, retry_after=over.retry_after)
