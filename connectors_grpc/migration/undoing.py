"""`rollback`: what a migration made is taken away again, and no newer token with it.

Each credential is switched off first, so that nothing refreshes it from then on. If the new side has refreshed it since, the
newer tokens go back into the old record, in its own form and under its own key, and are compared there before they are
forgotten here. The provider is told nothing: the grant lives on in the old layout.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Final, Protocol

from connectors_grpc.cli.errors import CallFailed
from connectors_grpc.credentials.keeping import Held, Keeper, MaterialLost
from connectors_grpc.domain.ids import CredentialId, TenantId
from connectors_grpc.domain.records import Material
from connectors_grpc.errors import Conflict, ConnectorsError
from connectors_grpc.gen.connectors.v1 import credential_service_pb2 as pb
from connectors_grpc.legacy import renewed
from connectors_grpc.migration.checking import Checked, Relation, relate
from connectors_grpc.migration.items import Item
from connectors_grpc.migration.journal import Step
from connectors_grpc.migration.server import is_ours
from connectors_grpc.migration.work import Migration, Taken, problem_of
from connectors_grpc.ports import OldRecord
from connectors_grpc.several import several
from connectors_grpc.tenants import Tenants

TRIES: Final = 60
PAUSE: Final = 0.5
UNDER_WAY: Final = "a refresh of it is under way: run rollback again"
UNREADABLE: Final = "it was renewed here, and the new Vault does not let it be read: give --to-* as the policy says"


class Newest(Protocol):
    """What the new layout holds, opened. The server itself never gives a refresh token away."""

    async def __call__(self, item: Item) -> tuple[Held, Material] | None:
        """The credential and its material; None if it can't be had."""


@dataclass(frozen=True, slots=True)
class FromVault:
    """`Newest` by an operator's own way into the new Vault, which may only read there."""

    tenants: Tenants
    keeper: Keeper

    async def __call__(self, item: Item) -> tuple[Held, Material] | None:
        """See Newest."""
        try:
            tenant = await self.tenants.any(TenantId(item.tenant))
            held = None if tenant is None else await self.keeper.read(tenant, CredentialId(item.integration))
            return None if tenant is None or held is None else (held, await self.keeper.open(tenant, held))
        except (MaterialLost, ConnectorsError):
            return None


async def roll_back(migration: Migration, newest: Newest) -> None:
    """Undo every item that this migration made, then the tenants that it made and that are empty again."""
    items = []
    for item in migration.items:
        step = migration.journal.step(item)
        if step in (Step.FINISHING, Step.FINISHED):
            migration.told(item, step.value, "it is finished: the old record is deleted, or about to be")
        elif step is Step.PRESENT:
            migration.told(item, step.value)
        elif not item.problem:
            items.append(item)
    async for batch in migration.batches(items):
        await several(lambda item: _roll_back(migration, newest, item), batch, most=migration.options.concurrency)
    await _tenants(migration, items)


async def _roll_back(migration: Migration, newest: Newest, item: Item) -> None:
    """One credential. What is going on beside it is waited for, not for ever."""
    for number in range(TRIES):
        try:
            done = await _once(migration, newest, item)
        except CallFailed as failed:
            if failed.refusal.reason != "CONFLICT":
                migration.told(item, "not rolled back", problem_of(failed))
                return
            done = False
        except Conflict:
            done = False
        if done:
            return
        await asyncio.sleep(PAUSE if number > 3 else 0)  # the first tries are steps of ours, and no waiting
    migration.told(item, "not rolled back", UNDER_WAY)


async def _once(migration: Migration, newest: Newest, item: Item) -> bool:
    """One try; False if it is to be tried again. Raises: CallFailed, Conflict."""
    taken, wrong = await migration.take([item])
    if item in wrong:
        migration.told_wrong(item, wrong[item])
        return True
    mark = migration.journal.of(item)
    checked = relate((await migration.compare(taken))[item], mark)
    match checked.relation:
        case Relation.ABSENT:
            migration.journal.note([item], Step.ROLLED_BACK)
            migration.told(item, Step.ROLLED_BACK.value)
            return True
        case Relation.STAGED | Relation.STAGED_OLD:
            return await _forget(migration, item, checked)
        case Relation.ENDED if mark is not None and mark.generation == checked.there.generation:
            return await _forget(migration, item, checked)
        case Relation.REFUSED | Relation.CONFLICT | Relation.ENDED:
            migration.told(item, "left alone", checked.problem)
            return True
        case _ if mark is None and not is_ours(item, checked.there):
            migration.told(item, Step.PRESENT.value)
            return True
        case _ if checked.there.enabled:
            await migration.new.switch(item, checked.there.etag, enabled=False)
            return False  # compared anew, now that nothing begins a refresh any more
        case Relation.RENEWED:
            return await _give_back(migration, newest, item, taken[item], checked.there)
        case _:
            return await _forget(migration, item, checked)


async def _forget(migration: Migration, item: Item, checked: Checked) -> bool:
    await migration.new.forget(item, checked.there.etag)
    migration.journal.note([item], Step.ROLLED_BACK)
    migration.told(item, Step.ROLLED_BACK.value)
    return True


async def _give_back(migration: Migration, newest: Newest, item: Item, taken: Taken, there: pb.Credential) -> bool:
    """Put the newer tokens into the old record; forgotten here only once they are found there. Raises: Conflict."""
    found = await newest(item)
    if found is None:
        migration.told(item, "not rolled back", UNREADABLE)
        return True
    held, material = found
    if str(held.credential.version) != there.etag:
        return False
    newer = replace(
        taken.credential,
        fields=material.fields,
        refresh_token=material.refresh_token,
        expire_time=held.credential.expire_time,
        scopes=held.credential.granted_scopes,
    )
    document = renewed(taken.record.document, newer, datetime.now(UTC))
    await migration.old.write(item.old_tenant, item.integration, OldRecord(document, taken.record.version))
    again, _ = await migration.take([item])
    there_now = again[item].credential if item in again else taken.credential
    kept = there_now.fields["access_token"] == material.fields["access_token"]
    if kept and there_now.refresh_token == material.refresh_token:
        migration.journal.note([item], Step.GIVEN_BACK, {item: held.credential.generation})
    return False  # the next try finds both the same, and forgets this one


async def _tenants(migration: Migration, items: list[Item]) -> None:
    old_names: Mapping[str, str] = {item.tenant: item.old_tenant for item in items}

    async def remove(tenant: str) -> None:
        if await migration.new.create_tenant(tenant, old_names[tenant], validate_only=True):
            await migration.new.delete_tenant(tenant)

    await several(remove, old_names, most=migration.options.concurrency)
