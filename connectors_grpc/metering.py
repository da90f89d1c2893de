"""Holds the server's own calls to their tenant's quota, before anything is read for them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from connectors_grpc.domain.ids import TenantId
from connectors_grpc.domain.records import ApiKey
from connectors_grpc.errors import ConnectorsError, Reason
from connectors_grpc.ports import Clock
from connectors_grpc.quota import Over, Quotas, Use
from connectors_grpc.tenants import Tenants

AGAIN_AFTER = 1.0
"""Seconds to wait where only another call's end makes room."""


class Metering:
    """One for the process: what is bounded is each tenant's use of this server."""

    def __init__(self, tenants: Tenants, clock: Clock) -> None:
        self._tenants = tenants
        self._clock = clock
        self._quotas = Quotas()

    @asynccontextmanager
    async def call(self, caller: ApiKey, tenant_id: TenantId) -> AsyncIterator[Use]:
        """A call of the tenant's, counted until the block ends. Raises: LIMIT_EXCEEDED, and what `Tenants.usable` raises."""
        tenant = await self._tenants.usable(caller, tenant_id)
        try:
            use = self._quotas.enter(self._clock.monotonic(), ((tenant.uid,), tenant.quota))
        except Over as over:
            metadata = {"tenant": tenant_id, "limit": over.limit}
            raise ConnectorsError(
                Reason.LIMIT_EXCEEDED, metadata, retry_after=over.retry_after or AGAIN_AFTER
            ) from None
        try:
            yield use
        finally:
            use.leave()
