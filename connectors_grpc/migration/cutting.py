"""`cutover`: the new side takes charge of what is verified, one credential at a time.

Two writers of one rotating refresh token lose it. So a credential whose token is about to end is left to the old system first;
the old record is compared right before the new one is switched on, and read again right after: what the old system wrote in
between is taken, if the new side has not refreshed by then, which compare-and-set tells.
"""

from __future__ import annotations

from functools import partial

from connectors_grpc.cli.errors import CallFailed
from connectors_grpc.migration.checking import Checked, Relation, relate
from connectors_grpc.migration.items import Item
from connectors_grpc.migration.journal import Step
from connectors_grpc.migration.server import is_ours
from connectors_grpc.migration.work import Migration, Taken, problem_of, refused
from connectors_grpc.several import several


async def cut_over(migration: Migration) -> None:
    """Take charge of every item that was verified, and of what the old system wrote after an earlier cut-over."""
    async for batch in migration.batches(migration.todo((Step.PRESENT, Step.FINISHING, Step.FINISHED))):
        await migration.settle(batch, partial(_once, migration))


async def _once(migration: Migration, batch: list[Item]) -> list[Item]:
    """One try; those that are to be tried again come back."""
    taken = await migration.readable(batch)
    answers = await migration.compare(taken)
    checked = {item: relate(answer, migration.journal.of(item)) for item, answer in answers.items()}
    changed = []
    stale = {item: taken[item] for item, each in checked.items() if each.relation is Relation.STAGED_OLD}
    for item, answer in (await migration.stage(stale)).items():
        if problem := refused(answer):
            migration.told(item, "left alone", problem)
        else:
            changed.append(item)
            migration.journal.note([item], Step.WRITTEN, {item: answer.credential.generation})
    ready = [item for item in checked if _may(migration, item, checked[item], taken[item])]
    # What is in use from here on must be known as ours, with its generation, before it is.
    migration.journal.note(ready, Step.VERIFIED, {item: checked[item].there.generation for item in ready})
    done = await several(
        lambda item: _switch(migration, item, checked[item], taken[item]), ready, most=migration.options.concurrency
    )
    problems = {item: problem for item, problem in zip(ready, done, strict=True) if problem}
    on = [item for item in ready if item not in problems]
    migration.journal.note(on, Step.CUT_OVER)
    steady = await migration.unchanged({item: taken[item] for item in on})
    for item in steady:
        migration.told(item, Step.CUT_OVER.value)
    again = [item for item, problem in problems.items() if problem.startswith("CONFLICT")]
    for item in problems.keys() - set(again):
        migration.told(item, "not cut over", problems[item])
    return [*changed, *again, *(item for item in on if item not in steady)]


def _may(migration: Migration, item: Item, checked: Checked, taken: Taken) -> bool:
    """Whether something is to be done about it now; else it is told why not."""
    match checked.relation:
        case Relation.STAGED if due := migration.due(taken.credential):
            migration.told(item, "due", due)
        case Relation.STAGED | Relation.OLD_NEWER:
            return True
        case Relation.IN_USE | Relation.RENEWED:
            step = Step.CUT_OVER if migration.journal.step(item) or is_ours(item, checked.there) else Step.PRESENT
            if migration.journal.step(item) is not step:
                migration.journal.note([item], step, {item: checked.there.generation})
            migration.told(item, step.value)
        case Relation.STAGED_OLD:
            pass  # staged anew; it comes again
        case _:
            migration.told(item, checked.relation.value, checked.problem)
    return False


async def _switch(migration: Migration, item: Item, checked: Checked, taken: Taken) -> str:
    """Switch it on, or take what the old system wrote since; empty if that was done, else why not."""
    try:
        if checked.relation is Relation.STAGED:
            await migration.new.switch(item, checked.there.etag, enabled=True)
        else:
            stored = await migration.new.replace(item, taken.credential, checked.there.etag)
            migration.journal.note([item], Step.CUT_OVER, {item: stored.generation})
    except CallFailed as failed:
        return problem_of(failed)
    return ""
