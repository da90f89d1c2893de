"""Keeps idle credentials alive: a refresh token that nobody uses dies at many providers, so it is used before that.

Tenants are dealt into shards by their id; a shard is swept by one replica at a time, at most every `EVERY`, and where it was
left when that replica dies. Two replicas on one shard would only waste reads: refreshing itself takes turns.
"""

from __future__ import annotations

import asyncio
import hashlib
import random
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from connectors_grpc import codec, lifecycle, logs
from connectors_grpc.credentials.keeping import Keeper
from connectors_grpc.credentials.refreshing import Refreshing
from connectors_grpc.domain.definition import OAuth
from connectors_grpc.domain.ids import TenantId
from connectors_grpc.domain.records import Credential, CredentialState, Tenant, TenantState
from connectors_grpc.errors import Conflict, ConnectorsError, Reason, VaultUnavailable
from connectors_grpc.integrations import Integrations
from connectors_grpc.ports import Clock, Documents
from connectors_grpc.tenants import Tenants

SHARDS = 16
EVERY = timedelta(hours=1)
HELD_FOR = timedelta(minutes=5)
"""A sweeper says again that it lives at least so often; by the wall clock, for nothing depends on it but cost."""
PAUSE = 0.2
"""Seconds between two refreshes: at most five a second and replica, so that a sweep never looks like an attack."""
MOST_FAILED = 10
"""Of one tenant in a round, at providers that do not answer: then it is the next tenant's turn."""
PAGE = 100

log = logs.get("sweep")


@dataclass(frozen=True, slots=True)
class Sweep:
    """The document of `sweeps/{shard}`. `cursor` is the last tenant that is done; empty at the start of a round."""

    owner: str
    until: datetime
    cursor: str
    done_time: datetime | None = None


def shard_of(tenant: str) -> int:
    """Which shard a tenant is in: the same on every replica."""
    return hashlib.sha256(tenant.encode()).digest()[0] % SHARDS


def spread(credential: Credential) -> float:
    """A credential's own place in [0, 1): those that were connected together are not refreshed together."""
    digest = hashlib.sha256(f"{credential.tenant}/{credential.id}".encode()).digest()
    return int.from_bytes(digest[:4], "big") / 2**32


def idle_life(credential: Credential, oauth: OAuth) -> timedelta | None:
    """How long the refresh token lives unused: as the provider said of this one, else as the definition does."""
    last = credential.refresh_time or credential.issue_time
    if credential.refresh_expire_time is None or last is None or credential.refresh_expire_time <= last:
        return oauth.refresh_token_idle_ttl
    return credential.refresh_expire_time - last


def idle_due(credential: Credential, now: datetime, idle_ttl: timedelta | None) -> bool:
    """Whether the refresh token is to be used lest it dies: at 80 to 85 % of its idle life."""
    if idle_ttl is None or credential.state is not CredentialState.ACTIVE or not credential.enabled:
        return False
    at = lifecycle.renew_at(replace(credential, expire_time=None), spread(credential), idle_ttl=idle_ttl)
    return at is not None and now >= at


class Sweeping:
    """One replica's sweeper. `owner` is the replica's id."""

    def __init__(
        self,
        documents: Documents,
        tenants: Tenants,
        integrations: Integrations,
        keeper: Keeper,
        refreshing: Refreshing,
        clock: Clock,
        owner: str,
    ) -> None:
        self._documents = documents
        self._tenants = tenants
        self._integrations = integrations
        self._keeper = keeper
        self._refreshing = refreshing
        self._clock = clock
        self._owner = owner

    async def round(self) -> int:
        """Sweep every shard that is due and free; says how many credentials were refreshed. Raises: VaultUnavailable."""
        refreshed = 0
        for shard in range(SHARDS):
            sweep = await self._claim(shard)
            if sweep is not None:
                refreshed += await self._sweep(shard, *sweep)
        return refreshed

    async def _claim(self, shard: int) -> tuple[Sweep, int] | None:
        path = f"sweeps/{shard}"
        document = await self._documents.read(path)
        there = None if document is None else codec.load(Sweep, document.data)
        now = self._clock.now()
        if there is not None:
            if there.owner not in ("", self._owner) and now < there.until:
                return None
            if not there.cursor and there.done_time is not None and now < there.done_time + EVERY:
                return None
        claimed = Sweep(self._owner, now + HELD_FOR, there.cursor if there else "", there.done_time if there else None)
        return await self._save(shard, claimed, 0 if document is None else document.version)

    async def _save(self, shard: int, sweep: Sweep, version: int) -> tuple[Sweep, int] | None:
        try:
            return sweep, await self._documents.write(f"sweeps/{shard}", codec.dump(sweep), cas=version)
        except Conflict:
            return None

    async def _sweep(self, shard: int, sweep: Sweep, version: int) -> int:
        refreshed, more = 0, True
        while more:
            page = await self._tenants.names(after=sweep.cursor, limit=PAGE)
            for name in page.names:
                if shard_of(name) == shard:
                    refreshed += await self._tenant(TenantId(name))
            more = page.more and bool(page.names)
            now = self._clock.now()
            cursor = page.names[-1] if more else ""
            ended = Sweep(self._owner if more else "", now + HELD_FOR, cursor, sweep.done_time if more else now)
            saved = await self._save(shard, ended, version)
            if saved is None:
                return refreshed  # another replica took the shard: it goes on from the last cursor
            sweep, version = saved
        return refreshed

    async def _tenant(self, tenant_id: TenantId) -> int:
        """A record that can't be read is left behind, and nothing else with it.

        In another order each time: of a tenant whose providers take long to fail, only so many are tried in a round.
        """
        refreshed = failed = 0
        try:
            tenant = await self._tenants.any(tenant_id)
        except codec.RecordMalformed as error:
            log.warning("record_malformed", tenant=tenant_id, error=str(error))
            return 0
        if tenant is None or tenant.state is not TenantState.ACTIVE:
            return 0
        names = await self._keeper.all_names(tenant)
        for name in random.sample(names, len(names)):
            try:
                held = await self._keeper.read(tenant, name)
                kept = None if held is None else await self._credential(tenant, held.credential)
            except codec.RecordMalformed:
                log.warning("record_malformed", tenant=tenant.id, credential=name)
                continue
            refreshed += kept is True
            failed += kept is False
            if failed >= MOST_FAILED:
                break
        return refreshed

    async def _credential(self, tenant: Tenant, credential: Credential) -> bool | None:
        """Whether it was kept alive; None if that was not due, or it is not the provider that is in the way."""
        if not credential.refreshable or not tenant.may_use(credential.integration):
            return None
        try:
            oauth = (await self._integrations.get(credential.integration)).oauth
            if oauth is None or not idle_due(credential, self._clock.now(), idle_life(credential, oauth)):
                return None
            await self._refreshing.refresh(tenant, credential.id)
        except VaultUnavailable:
            raise
        except ConnectorsError as error:
            # Refused, or the provider is down: it is recorded where it happened, and tried again next time.
            log.warning("not_kept_alive", tenant=tenant.id, credential=credential.id, reason=error.reason.value)
            return False if error.reason is Reason.PROVIDER_UNAVAILABLE else None
        log.info("kept_alive", tenant=tenant.id, credential=credential.id)
        await asyncio.sleep(PAUSE)
        return True
