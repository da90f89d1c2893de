"""The end of all that a tenant has: each grant is ended at its provider, with a few more tries where that fails, and purged.

It is all before the tenant's key goes: no try is possible after. So tries are few, and what still fails then is named and goes
too: no provider holds up a deletion.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass

from connectors_grpc.codec import RecordMalformed
from connectors_grpc.credentials.keeping import Keeper
from connectors_grpc.credentials.revoking import ProviderResult, Revoking
from connectors_grpc.domain.ids import CredentialId
from connectors_grpc.domain.records import Tenant
from connectors_grpc.integrations import Integrations
from connectors_grpc.several import several

PAUSES = (2.0, 10.0)
"""Seconds before each further try."""
MOST_LATE = 100
"""Credentials that wait for another try; of more, the first one counts."""
MOST_NAMED = 1000
"""In a receipt, which has to fit into a document."""


@dataclass(frozen=True, slots=True)
class Receipt:
    """What the purge of a tenant did. Grants that are not named were ended, or there was nothing to end."""

    purged: int = 0
    revocations_failed: tuple[CredentialId, ...] = ()


class Purging:
    """The purge of tenants that are being deleted. `pauses` are for tests to shorten."""

    def __init__(
        self, integrations: Integrations, keeper: Keeper, revoking: Revoking, pauses: tuple[float, ...] = PAUSES
    ) -> None:
        self._integrations = integrations
        self._keeper = keeper
        self._revoking = revoking
        self._pauses = pauses

    async def purge(self, tenant: Tenant, so_far: Receipt, tell: Callable[[Receipt], None]) -> Receipt:
        """Revoke and remove every credential, try once more what failed before, then remove the OAuth clients of its own.

        `tell` hears of each. Doing it again, with the receipt `so_far`, goes on where it ended. Raises: VAULT_UNAVAILABLE.
        """
        receipt, late, pauses = so_far, set[CredentialId](), list(self._pauses)

        async def end(name: CredentialId) -> None:
            nonlocal receipt
            failed = await self._fails(tenant, name)
            if failed and pauses and len(late) < MOST_LATE:
                late.add(name)
                return
            await self._keeper.purge(tenant, name)
            named = (*receipt.revocations_failed, *([name] if failed else []))
            receipt = Receipt(receipt.purged + 1, named[:MOST_NAMED])
            tell(receipt)

        while names := await self._keeper.names(tenant):
            left = [name for name in names if name not in late]
            if not left:
                await asyncio.sleep(pauses.pop(0))
                left = [*names]
                late.clear()
            await several(end, left)
        last = await self._revoking.last_tries(tenant)
        receipt = Receipt(receipt.purged, (*receipt.revocations_failed, *last)[:MOST_NAMED])
        tell(receipt)
        await self._integrations.tenant_clients.purge_all(tenant)
        return receipt

    async def _fails(self, tenant: Tenant, name: CredentialId) -> bool:
        """Whether its grant could not be ended. A damaged record stops nothing."""
        held = None
        with contextlib.suppress(RecordMalformed):
            held = await self._keeper.read(tenant, name)
        return held is not None and await self._revoking.revoke(tenant, held, again=False) is ProviderResult.FAILED
