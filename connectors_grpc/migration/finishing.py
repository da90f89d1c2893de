"""`finish`: the old records go, after each was compared once more and found in use in the new layout."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from connectors_grpc.errors import Conflict
from connectors_grpc.migration.checking import Relation, relate
from connectors_grpc.migration.items import Item
from connectors_grpc.migration.journal import Step
from connectors_grpc.migration.work import GONE, Migration, Taken
from connectors_grpc.several import several
from connectors_grpc.vault.old_layout import key_name

NOT_IN_USE: Final = "it is not cut over: cutover does that"
READY: Final = frozenset((Relation.IN_USE, Relation.RENEWED))


async def finish(migration: Migration, *, destroy: bool) -> None:
    """Delete what is in use in the new layout, and leave all else. `destroy`: for good, and the old keys too."""
    async for batch in migration.batches(migration.todo((Step.FINISHED,))):
        taken, wrong = await migration.take(batch)
        begun = [item for item, why in wrong.items() if why == GONE and migration.journal.step(item) is Step.FINISHING]
        for item, problem in wrong.items():
            if item not in begun:
                migration.told_wrong(item, problem)
        ready = await _ready(migration, taken)
        migration.journal.note(ready, Step.FINISHING)
        todo = [(item, taken.get(item)) for item in (*ready, *begun)]
        deleted = await several(
            lambda pair: _delete(migration, *pair, destroy=destroy), todo, most=migration.options.concurrency
        )
        done = [item for item, good in zip((*ready, *begun), deleted, strict=True) if good]
        if destroy:
            await several(migration.old.delete_key, _spare_keys(migration, done), most=migration.options.concurrency)
        migration.journal.note(done, Step.FINISHED)
        for item in done:
            migration.told(item, Step.FINISHED.value)
        migration.journal.note([item for item in ready if item not in done], Step.CUT_OVER)


async def _delete(migration: Migration, item: Item, taken: Taken | None, *, destroy: bool) -> bool:
    """Delete what was compared, and nothing that the old system has written since."""
    if taken is None:
        return True  # it was deleted before the run was killed
    try:
        await migration.old.delete(item.old_tenant, item.integration, taken.record, destroy=destroy)
    except Conflict:
        migration.told(item, "left alone", "the old system wrote it this very moment: stop that, then verify")
        return False
    return True


def _spare_keys(migration: Migration, done: Collection[Item]) -> list[str]:
    """The keys of what was deleted, but for those that open something else still: `x-a` of `b` has the key of `x` of `a-b`."""
    left = (item for item in migration.items if item not in done and migration.journal.step(item) is not Step.FINISHED)
    kept = {key_name(item.old_tenant, item.integration) for item in left}
    return sorted({key_name(item.old_tenant, item.integration) for item in done} - kept)


async def _ready(migration: Migration, taken: dict[Item, Taken]) -> list[Item]:
    """Those that are the same in the new layout, or renewed from it, and in use."""
    ready = []
    for item, answer in (await migration.compare(taken)).items():
        checked = relate(answer, migration.journal.of(item))
        if checked.relation in READY:
            ready.append(item)
        else:
            migration.told(item, "left alone", checked.problem or NOT_IN_USE)
    return ready
