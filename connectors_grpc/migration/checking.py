"""How the two layouts relate, credential by credential. Decides; what follows from it, the steps do."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from connectors_grpc.credentials.checks import FORGOTTEN
from connectors_grpc.gen.connectors.v1 import credential_service_pb2 as pb
from connectors_grpc.migration.items import Item
from connectors_grpc.migration.journal import Mark, Step
from connectors_grpc.migration.server import is_staged
from connectors_grpc.migration.work import Migration, is_absent, refused


class Relation(StrEnum):
    """How the new layout relates to the old."""

    ABSENT = "not migrated"
    STAGED = "verified"
    STAGED_OLD = "changed"
    IN_USE = "in use"
    RENEWED = "renewed here"
    OLD_NEWER = "old is newer"
    ENDED = "ended here"
    CONFLICT = "conflict"
    REFUSED = "refused"


FINE = frozenset((Relation.STAGED, Relation.IN_USE, Relation.RENEWED))
ADVICE = {
    Relation.ABSENT: "run migrates it",
    Relation.STAGED_OLD: "the old record changed since it was copied: run takes it anew",
    Relation.OLD_NEWER: "the old system wrote it after the cut-over: stop that, and cutover takes the newer one",
    Relation.ENDED: "the provider refused it since, it expired, or was revoked: the tenant connects again",
    Relation.CONFLICT: "both sides have newer material: the tenant connects again, or what is wrong is removed by hand",
}


@dataclass(frozen=True, slots=True)
class Checked:
    """One credential's relation, and what the server said of it."""

    relation: Relation
    there: pb.Credential
    problem: str = ""


def relate(answer: pb.ImportCredentialsResponse, mark: Mark | None) -> Checked:
    """The relation that a comparison tells.

    What is in use and differs: where its generation is still the one that was cut over, the new side has never written it, so
    that the old is the newer one. Else both have written, and which refresh token is good, nobody can tell.
    """
    there = answer.credential
    forgotten = there.state == pb.Credential.STATE_REVOKED and there.state_detail == FORGOTTEN
    if is_absent(answer) or (forgotten and not answer.unchanged):
        return Checked(Relation.ABSENT, there, ADVICE[Relation.ABSENT])
    if problem := refused(answer):
        return Checked(Relation.REFUSED, there, problem)
    if is_staged(there):
        relation = Relation.STAGED if answer.unchanged else Relation.STAGED_OLD
    elif answer.unchanged:
        relation = Relation.RENEWED if answer.renewed else Relation.IN_USE
    elif there.state != pb.Credential.STATE_ACTIVE:
        relation = Relation.ENDED
    elif mark is not None and mark.step is not Step.PRESENT and mark.generation == there.generation:
        relation = Relation.OLD_NEWER
    else:
        relation = Relation.CONFLICT
    return Checked(relation, there, ADVICE.get(relation, ""))


async def check(migration: Migration) -> dict[Item, Relation]:
    """Every item, compared now and told; the relations of those that could be. Nothing is changed anywhere."""
    found: dict[Item, Relation] = {}
    async for batch in migration.batches(migration.todo((Step.FINISHED,))):
        for item, answer in (await migration.compare(await migration.readable(batch))).items():
            checked = relate(answer, migration.journal.of(item))
            found[item] = checked.relation
            migration.told(item, checked.relation.value, checked.problem)
    return found
