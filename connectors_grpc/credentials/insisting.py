"""Stores what a provider gave us, however long the Vault is away: a token that nobody stored may be the only good one."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from connectors_grpc import logs
from connectors_grpc.domain.ids import CredentialId, TenantId
from connectors_grpc.errors import VaultUnavailable

Value = TypeVar("Value")

ATTEMPTS = 40
"""How often, before it is given up: with the pauses below, about ten minutes of a Vault that is down."""
FIRST_PAUSE = 0.25
LONGEST_PAUSE = 20.0

log = logs.get("store")


async def insist(store: Callable[[], Awaitable[Value]], tenant: TenantId, credential: CredentialId) -> Value:
    """What `store` gives, tried again while the Vault does not answer. Run it in a flight: callers don't wait so long.

    `store` must bear that an attempt which seemed to fail was carried out after all.
    Bounds: ATTEMPTS.  Raises: VAULT_UNAVAILABLE in the end, and what `store` raises.
    """
    for attempt in range(ATTEMPTS - 1):
        try:
            return await store()
        except VaultUnavailable:
            pause = min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** min(attempt, 16))
            log.warning("not_stored_yet", tenant=tenant, credential=credential, attempt=attempt + 1, retry_in_s=pause)
            await asyncio.sleep(pause)
    return await store()
