"""Stores what a provider answered, come what may: over rivals' writes, through outages, over our own death by our own disk."""

from __future__ import annotations

import asyncio
import contextlib

from connectors_grpc import logs
from connectors_grpc.codec import RecordMalformed
from connectors_grpc.credentials.answer import Answer
from connectors_grpc.credentials.keeping import Held, Keeper, MaterialLost
from connectors_grpc.credentials.sealing import open_envelope, read_envelope, seal
from connectors_grpc.credentials.settling import settle
from connectors_grpc.domain.definition import RefreshRotation
from connectors_grpc.domain.ids import CredentialId
from connectors_grpc.domain.records import Credential, Tenant
from connectors_grpc.errors import Conflict, ConnectorsError, KeyMissing, Reason, VaultUnavailable
from connectors_grpc.integrations import Integrations
from connectors_grpc.ports import Audit, Change, Changes, Clock, DataKey, Spill
from connectors_grpc.tenants import Tenants

FIRST_PAUSE, LONGEST_PAUSE = 0.1, 2.0
"""Between two tries to store an answer. Short at its longest: nobody else may ask before we have had our try."""
PATIENCE = 0.3
"""Seconds that a write may take before the answer is laid on our own disk too: who dies while the Vault is slow loses nothing."""
GIVE_UP_AFTER = 1800.0
"""Seconds after which an answer is left to our disk, where the next refresh finds it. One that lies on no disk is never left."""

log = logs.get("refresh")


class Storing:
    """One for the process: what an earlier life of this replica left on its disk is stored before anything is refreshed."""

    def __init__(
        self,
        keeper: Keeper,
        tenants: Tenants,
        integrations: Integrations,
        spill: Spill,
        changes: Changes,
        audit: Audit,
        clock: Clock,
    ) -> None:
        self._keeper = keeper
        self._tenants = tenants
        self._integrations = integrations
        self._spill = spill
        self._changes = changes
        self._audit = audit
        self._clock = clock
        self._left_behind = spill.names()
        self._recovering = asyncio.Lock()

    async def store(self, tenant: Tenant, answer: Answer, rotation: RefreshRotation, key: DataKey) -> Held | None:
        """Store the answer, over whatever happened beside it; the Vault may be down for a while.

        None if what is there is to stay.  Raises: VAULT_UNAVAILABLE once it is left to our disk.
        """
        began, pause, spilled = self._clock.monotonic(), FIRST_PAUSE, ""
        while True:
            writing = asyncio.ensure_future(self._write(tenant, answer, rotation))
            try:
                if not (await asyncio.wait((writing,), timeout=PATIENCE))[0]:
                    spilled = spilled or await self.lay_by(answer, key)
                written = await writing
            except VaultUnavailable:
                spilled = spilled or await self.lay_by(answer, key)
                if spilled and self._clock.monotonic() - began > GIVE_UP_AFTER:
                    self._left_behind.append(spilled)
                    problem = {"problem": "answer_not_stored"}
                    raise ConnectorsError(Reason.VAULT_UNAVAILABLE, problem, retry_after=1.0) from None
                await asyncio.sleep(pause)
                pause = min(pause * 2, LONGEST_PAUSE)
                continue
            finally:
                writing.cancel()
            if spilled:
                self._spill.remove(spilled)
            self._told(answer, written, "refreshed")
            return written

    def _told(self, answer: Answer, written: Held | None, result: str) -> None:
        record = answer.record if written is None else written.credential
        action = "RefreshCredential" if _is_refreshed(answer.record) else "CompleteAuthorization"
        audit_refresh(self._audit, record, "superseded" if written is None else result, action)
        if written is not None:
            self._changes.publish(Change(tenant=record.tenant, credential=record.id))

    async def _write(self, tenant: Tenant, answer: Answer, rotation: RefreshRotation) -> Held | None:
        """Write once, settling with rivals; None if what is there is to stay. Raises: VaultUnavailable."""
        record = answer.record
        while True:
            try:
                ciphertext = await self._keeper.seal(tenant, record.id, answer.material)
                return await self._keeper.write(tenant, Held(record, ciphertext))
            except KeyMissing:
                return None
            except Conflict:
                current = await self._keeper.read(tenant, record.id)
                there = None if current is None else current.credential
                if current is not None and _is_ours(current.credential, record):
                    return current  # an attempt that seemed to fail
                settled = settle(there, answer.record, answer.base_generation, rotation)
                if settled is None:
                    return None
                record = settled

    async def lay_by(self, answer: Answer, key: DataKey) -> str:
        """Onto our own disk, sealed. Says under which name; empty if that could not be."""
        kind = "sealed" if _is_refreshed(answer.record) else "granted.sealed"
        name = f"{answer.tenant}.{answer.record.id}.{answer.record.generation}.{kind}"
        kept = await asyncio.to_thread(self._spill.put, name, seal(answer, key))
        log.warning(
            "refresh_not_stored_yet",
            tenant=answer.tenant,
            credential=answer.record.id,
            result="spilled" if kept else "in memory",
        )
        return name if kept else ""

    def done_with(self, name: str, *, wanted: bool) -> None:
        """What was laid by is left to the next that looks, or removed."""
        if wanted:
            self._left_behind.append(name)
        else:
            self._spill.remove(name)

    async def recover(self) -> None:
        """Store what an earlier life of this replica left on its disk, before anything is refreshed.

        What can't be opened any more (the tenant was deleted: its key is gone) is removed. What can't be read or stored for now
        stays, holds up nothing but its own credential, and is tried again.
        """
        async with self._recovering:
            for name in tuple(self._left_behind):
                try:
                    await self._restore(name)
                except MaterialLost:
                    log.warning("spilled_answer_lost", target=name)
                    self._spill.remove(name)
                except FileNotFoundError:
                    log.warning("spilled_answer_lost", target=name)
                except (OSError, ConnectorsError, RecordMalformed) as error:
                    log.warning("spilled_answer_kept", target=name, error=type(error).__name__)
                    continue
                self._left_behind.remove(name)

    def check_recovered(self, tenant: Tenant, credential_id: CredentialId) -> None:
        """The stored refresh token is not to be sent while our disk has a newer one. Raises: VAULT_UNAVAILABLE."""
        prefix = f"{tenant.id}.{credential_id}."
        if any(name.startswith(prefix) for name in self._left_behind):
            # Not `VaultUnavailable`, which is waited for: this does not pass by itself.
            raise ConnectorsError(Reason.VAULT_UNAVAILABLE, {"problem": "answer_not_recovered"}, retry_after=1.0)

    async def _restore(self, name: str) -> None:
        envelope = read_envelope(self._spill.read(name))
        tenant = await self._tenants.of_uid(envelope.tenant, envelope.tenant_uid)
        if tenant is None:
            raise MaterialLost
        key = await self._keeper.unwrap(tenant, envelope.credential, envelope.wrapped)
        answer = open_envelope(envelope, key)
        rotation = RefreshRotation.AT_ONCE
        with contextlib.suppress(ConnectorsError):
            integration = await self._integrations.get(answer.record.integration)
            rotation = integration.oauth.refresh_rotation if integration.oauth else rotation
        written = await self._write(tenant, answer, rotation)
        self._spill.remove(name)
        self._told(answer, written, "recovered")


def audit_refresh(audit: Audit, credential: Credential, result: str, action: str = "RefreshCredential") -> None:
    """One line a refresh, however it ended."""
    audit.record(
        action,
        caller="platform",
        tenant=credential.tenant,
        target=credential.id,
        generation=credential.generation,
        result=result,
    )


def _is_refreshed(record: Credential) -> bool:
    """Whether it is an answer to a refresh, and not to a consent."""
    return record.refresh_time is not None


def _is_ours(current: Credential, record: Credential) -> bool:
    """Whether what is stored is what we wanted to store."""
    ours = (record.generation, record.issue_time, record.parent)
    return (current.generation, current.issue_time, current.parent) == ours
