"""Whose turn it is to ask the provider: one holder at a time over all replicas, by compare-and-set on a document.

A lease is never judged by comparing clocks of two machines. It is free when its holder released it, when the holder is this
very replica in an earlier life, when *we* have watched it unchanged for a whole `TTL`, or when it is long dead. The Vault
being away counts for nothing: a holder that could not write its answer meanwhile gets the time to do it after.
Plain KV compare-and-set: HashiCorp Vault does as well as OpenBao.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from connectors_grpc import codec
from connectors_grpc.domain.ids import CredentialId
from connectors_grpc.domain.records import Tenant
from connectors_grpc.errors import Conflict
from connectors_grpc.ports import Clock, Documents

TTL = 25.0
"""Seconds that a holder has. Longer than a token request may take (15 s) and what comes before it."""
LONG_DEAD = timedelta(minutes=10)
"""A lease that ended so long ago by its own word is free at once; no two clocks are that far apart."""
GAP = 2.0
"""Seconds without a look after which watching begins anew: the Vault was away, or we slept."""


@dataclass(frozen=True, slots=True)
class StoredLease:
    """The document of `refresh/{tenant}.{credential}`. `owner` is empty once released.

    `data_version` is the newest version of the credential that its holder knew: when it began, and as it left.
    """

    owner: str
    until: datetime
    tenant_uid: str
    data_version: int


@dataclass(frozen=True, slots=True)
class Grip:
    """A lease that is ours. `follows_crash`: the one before was never released, so its answer may be lost.

    `least`: a credential read at an older version is stale. Standbys of a raft cluster answer reads, and may be behind; that the
    lease itself was not is proved by the compare-and-set.
    """

    path: str
    lease: StoredLease
    version: int
    ends: float
    follows_crash: bool
    least: int = 0


@dataclass(slots=True)
class Watched:
    """What a waiter has seen of somebody else's lease, by its own clock."""

    version: int = 0
    since: float = 0.0
    last: float = 0.0

    def see(self, version: int, now: float) -> float:
        """Note a look; says for how many seconds the lease has been watched unchanged."""
        if version != self.version or now - self.last > GAP:
            self.version, self.since = version, now
        self.last = now
        return now - self.since


class RefreshLeases:
    """Leases of one replica. `owner` is its id: the same after a restart only if the earlier process is surely gone."""

    def __init__(self, documents: Documents, clock: Clock, owner: str) -> None:
        self._documents = documents
        self._clock = clock
        self._owner = owner

    async def acquire(
        self, tenant: Tenant, credential_id: CredentialId, data_version: int, watched: Watched
    ) -> Grip | None:
        """Our turn, or None: somebody else's. Call again with the same `watched`, at least every second."""
        path = f"refresh/{tenant.id}.{credential_id}"
        document = await self._documents.read(path)
        there = None if document is None else codec.load(StoredLease, document.data)
        version = 0 if document is None else document.version
        if there is not None and not self._free(there, tenant, watched.see(version, self._clock.monotonic())):
            return None
        # Counted from before the write: what is left only gets shorter by the store's delay.
        ends = self._clock.monotonic() + TTL
        until = self._clock.now() + timedelta(seconds=TTL)
        lease = StoredLease(self._owner, until, tenant.uid, data_version)
        try:
            written = await self._documents.write(path, codec.dump(lease), cas=version)
        except Conflict:
            return None
        if there is None or there.tenant_uid != tenant.uid:
            return Grip(path, lease, written, ends, follows_crash=False)
        least = 0 if self._long_dead(there) else there.data_version
        return Grip(path, lease, written, ends, follows_crash=there.owner != "", least=least)

    def _long_dead(self, lease: StoredLease) -> bool:
        return lease.until + LONG_DEAD < self._clock.now()

    def _free(self, lease: StoredLease, tenant: Tenant, watched_for: float) -> bool:
        if lease.owner in ("", self._owner) or lease.tenant_uid != tenant.uid:
            return True
        return watched_for >= TTL or self._long_dead(lease)

    async def is_held(self, tenant: Tenant, credential_id: CredentialId) -> bool:
        """Whether somebody may be asking the provider now. A holder that died counts until it is long dead."""
        document = await self._documents.read(f"refresh/{tenant.id}.{credential_id}")
        there = None if document is None else codec.load(StoredLease, document.data)
        return there is not None and there.owner != "" and there.tenant_uid == tenant.uid and not self._long_dead(there)

    def time_left(self, grip: Grip) -> float:
        """Seconds until others may take it. Asked just before the token is sent, not only when the lease was taken."""
        return grip.ends - self._clock.monotonic()

    async def release(self, grip: Grip, data_version: int = 0) -> None:
        """Give it back, if it is still ours. `data_version`: what whoever takes it next must see at least."""
        newest = max(grip.lease.data_version, grip.least, data_version)
        data = codec.dump(StoredLease("", grip.lease.until, grip.lease.tenant_uid, newest))
        try:
            await self._documents.write(grip.path, data, cas=grip.version)
        except Conflict:
            return
