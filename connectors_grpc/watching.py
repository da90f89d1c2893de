"""What a sidecar hears of: changes and holds that its key may know of, filtered at each event, with a heartbeat between them.

A key that was revoked is cut off at its own event or, if that was missed, at the next heartbeat (attack 40). So is everybody
while this replica can't hear the others: a sidecar without a watch confirms what it holds every four seconds.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from enum import Enum

from connectors_grpc import policy
from connectors_grpc.access import Access
from connectors_grpc.credentials.holding import Holding
from connectors_grpc.domain.ids import KeyId
from connectors_grpc.domain.records import ApiKey
from connectors_grpc.errors import ConnectorsError, Reason, VaultUnavailable
from connectors_grpc.ports import Change, Changes, Subscription, Told
from connectors_grpc.shares import Shares
from connectors_grpc.tenants import Tenants

HEARTBEAT = 10.0
MOST_WATCHERS = 1000
"""For all keys; each has a share of them."""
AGAIN_AFTER = 5.0


class Signal(Enum):
    """What is said besides changes."""

    RESYNC = "anything may have changed"
    HEARTBEAT = "nothing did"


Event = Change | Told | Signal


class Watching:
    """The use cases of WatchLeases and YieldLease."""

    def __init__(self, changes: Changes, holding: Holding, access: Access, tenants: Tenants) -> None:
        self._changes = changes
        self._holding = holding
        self._access = access
        self._tenants = tenants
        self._shares: Shares[KeyId] = Shares(MOST_WATCHERS)

    @property
    def open(self) -> int:
        """How many watches there are."""
        return len(self._shares)

    async def events(self, caller: ApiKey) -> AsyncIterator[Event]:
        """RESYNC first, then changes and heartbeats without end.

        Raises: LIMIT_EXCEEDED, API_KEY_INVALID once revoked, VAULT_UNAVAILABLE while other replicas can't be heard.
        """
        if not self._shares.room(caller.id):
            raise ConnectorsError(Reason.LIMIT_EXCEEDED, {"limit": "watches of one key"}, retry_after=AGAIN_AFTER)
        with self._shares.place(caller.id):
            subscription = self._changes.subscribe()
            self._check_hearing()
            yield Signal.RESYNC
            with self._holding.watch(caller, subscription.put):
                while True:
                    event = await self._next(caller, subscription)
                    if event is not None:
                        yield event

    async def _next(self, caller: ApiKey, subscription: Subscription) -> Event | None:
        """What comes next, in ten seconds at most; None if it is not for this caller. Raises: as `events`."""
        item: Change | Told | Signal | None = Signal.HEARTBEAT
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(HEARTBEAT):
                item = await anext(subscription)
        await self._access.prove(caller.id, bytes.fromhex(caller.sha256))
        self._check_hearing()
        if item is None or (isinstance(item, Change) and item.integration is not None):
            # Which leases hang on an integration only the sidecar could know; such changes are an admin's, and rare.
            return Signal.RESYNC
        if isinstance(item, Change) and not await self._concerns(caller, item):
            return None
        return item

    def yielded(self, caller: ApiKey, hold_id: str) -> None:
        """The sidecar has no call left with what it was told of by that id. Raises: PERMISSION_DENIED."""
        self._holding.answer(caller, hold_id)

    def _check_hearing(self) -> None:
        if not self._changes.hears():
            raise VaultUnavailable

    async def _concerns(self, caller: ApiKey, change: Change) -> bool:
        """App keys' ids are no secret, and a sidecar can't tell beforehand which it will meet: it hears of every revoked one.

        Of a tenant that was re-created under a name in its scope it hears nothing (attack 38).
        """
        if change.key is not None:
            return True
        if change.credential is not None and not policy.covers_credential(caller.scope, change.credential):
            return False
        if change.tenant is None or caller.scope.tenants is None:
            return True
        uid = caller.scope.tenants.get(change.tenant)
        return uid is not None and not await self._tenants.succeeded(change.tenant, uid)
