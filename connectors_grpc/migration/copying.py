"""`run`: every old record is staged in the new layout and compared there; nothing old is touched, and nothing new is in use.

found -> written -> verified. A record that changes between reading and comparing is taken anew.
"""

from __future__ import annotations

from functools import partial
from typing import Final

from connectors_grpc.cli.errors import CallFailed
from connectors_grpc.gen.connectors.v1 import credential_service_pb2 as pb
from connectors_grpc.migration.items import Item
from connectors_grpc.migration.journal import Step
from connectors_grpc.migration.server import is_ours, is_staged
from connectors_grpc.migration.work import Migration, Taken, problem_of, refused
from connectors_grpc.several import several

SETTLED: Final = frozenset((Step.CUT_OVER, Step.FINISHING, Step.FINISHED))
"""What is in use, or further: no longer for `run` to write."""


async def copy(migration: Migration) -> None:
    """Stage and verify every item that can be. What was verified before is compared again."""
    items = await _with_tenants(migration, migration.todo(SETTLED))
    async for batch in migration.batches(items):
        await migration.settle(batch, partial(_once, migration))


async def _with_tenants(migration: Migration, items: list[Item]) -> list[Item]:
    """Those whose tenants are there, made where they were not."""
    old_names = {item.tenant: item.old_tenant for item in items}

    async def make(tenant: str) -> str:
        try:
            await migration.new.create_tenant(tenant, old_names[tenant])
        except CallFailed as failed:
            return problem_of(failed)
        return ""

    problems = dict(zip(old_names, await several(make, old_names, most=migration.options.concurrency), strict=True))
    for item in items:
        if problems[item.tenant]:
            migration.told(item, "left alone", f"its tenant can't be made: {problems[item.tenant]}")
    return [item for item in items if not problems[item.tenant]]


async def _once(migration: Migration, batch: list[Item]) -> list[Item]:
    """Stage and verify; those whose old records changed meanwhile come back."""
    taken = await migration.readable(batch)
    written: dict[Item, pb.Credential] = {}
    same: dict[Item, pb.ImportCredentialsResponse] = {}
    for item, answer in (await migration.stage(taken)).items():
        if problem := refused(answer):
            migration.told(item, "left alone", problem)
        elif _settle(migration, item, answer.credential):
            written[item] = answer.credential
            if answer.unchanged:
                same[item] = answer
    migration.journal.note(written, Step.WRITTEN, {item: there.generation for item, there in written.items()})
    return await _verify(migration, {item: taken[item] for item in written}, same)


def _settle(migration: Migration, item: Item, there: pb.Credential) -> bool:
    """Whether it is staged, and so is to be verified. What is in use already is the same, and stays as it is."""
    if is_staged(there):
        return True
    step = Step.CUT_OVER if is_ours(item, there) else Step.PRESENT
    migration.journal.note([item], step, {item: there.generation})
    migration.told(item, step.value)
    return False


async def _verify(
    migration: Migration, taken: dict[Item, Taken], same: dict[Item, pb.ImportCredentialsResponse]
) -> list[Item]:
    """Compare what was stored; what was there unchanged, the server has compared already. Those that changed come back."""
    answers = same | await migration.compare({item: each for item, each in taken.items() if item not in same})
    steady = await migration.unchanged(taken)
    good = [item for item, answer in answers.items() if answer.unchanged and item in steady]
    migration.journal.note(good, Step.VERIFIED)
    for item in good:
        migration.told(item, Step.VERIFIED.value)
    left = []
    for item, answer in answers.items():
        if item not in steady:
            left.append(item)
        elif not answer.unchanged:
            migration.told(item, "not verified", refused(answer) or "what is stored is not what was sent: run again")
    return left
