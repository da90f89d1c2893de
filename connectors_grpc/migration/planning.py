"""`plan`: what there is, under which names it would be, and what stands in the way. Only reads."""

from __future__ import annotations

from collections.abc import Mapping

from connectors_grpc.legacy import FormUnknown
from connectors_grpc.migration.items import Item, items_of
from connectors_grpc.migration.journal import Journal, Step
from connectors_grpc.migration.server import NewSide
from connectors_grpc.migration.work import Migration, Options
from connectors_grpc.several import several
from connectors_grpc.vault.old_layout import OldVault


async def found(
    old: OldVault, new: NewSide, journal: Journal, names: Mapping[str, str], options: Options, *, fresh: bool
) -> list[Item]:
    """Every credential of the old layout, and those that the journal knows and that are there no more."""
    unreadable = []

    async def listed(tenant: str) -> list[str]:
        try:
            return list(await old.integrations(tenant))
        except FormUnknown as error:
            unreadable.append(Item(tenant, "", "", f"the tenant's name can't be asked for: {error}"))
            return []

    tenants = list(await old.tenants())
    integrations = await several(listed, tenants, most=options.concurrency)
    known = await new.integrations()
    items = items_of(dict(zip(tenants, integrations, strict=True)), names, place=old.place, fresh=fresh, known=known)
    there = {(item.old_tenant, item.integration, item.tenant) for item in items}
    gone = [item for item in journal.items() if (item.old_tenant, item.integration, item.tenant) not in there]
    return unreadable + items + [item for item in gone if names.get(item.old_tenant, item.tenant) == item.tenant]


async def plan(migration: Migration) -> None:
    """Say of each item what `run` would do. Records are opened, to see their form."""
    async for batch in migration.batches(migration.items):
        taken, wrong = await migration.take(batch)
        for item in batch:
            step = migration.journal.step(item)
            if item.problem:
                migration.told(item, "left alone", item.problem)
            elif step is Step.FINISHED:
                migration.told(item, step.value)
            elif item in wrong:
                migration.told_wrong(item, wrong[item])
            else:
                migration.told(item, step.value if step else f"to migrate: {taken[item].credential.kind}")
