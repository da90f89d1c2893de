"""What every step of a migration shares: batches at a bounded pace, old records read, and what is told of each credential."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Final

from connectors_grpc.cli.errors import INTERRUPTED, NOT_AUTHORISED, UNREACHABLE, CallFailed
from connectors_grpc.gen.connectors.v1 import credential_service_pb2 as pb
from connectors_grpc.gen.connectors.v1.error_reason_pb2 import (
    ERROR_REASON_CREDENTIAL_NOT_FOUND,
    ERROR_REASON_TENANT_NOT_FOUND,
    ErrorReason,
)
from connectors_grpc.legacy import FormUnknown, OldCredential, parse
from connectors_grpc.migration.items import Item
from connectors_grpc.migration.journal import Journal, Step
from connectors_grpc.migration.server import NewSide, said
from connectors_grpc.ports import OldRecord
from connectors_grpc.several import several
from connectors_grpc.vault.old_layout import OldVault

BATCH: Final = 64
"""Credentials between two flushes of the journal; so many are done again, and found done, after a kill."""
ROUNDS: Final = 3
"""How often a record that changes under our hands is taken anew before it is left for the next run."""
NOTHING: Final = frozenset((ERROR_REASON_CREDENTIAL_NOT_FOUND, ERROR_REASON_TENANT_NOT_FOUND))
"""What a comparison is refused for where there is nothing to compare with."""
GONE: Final = "the old record is gone"
DUE: Final = "its token ends within the refresh window: the old system refreshes it first; then run and cutover again"
ENDLESS: Final = (
    "it does not say when its token ends, so the old system may refresh it at any time; stop that, then --old-stopped"
)
AGAIN: Final = "the old system is writing it: run again"


@dataclass(frozen=True, slots=True)
class Options:
    """How to go about it.  Units: `rate` in credentials a second, 0 for no bound."""

    concurrency: int = 16
    rate: float = 0.0
    ignore: frozenset[str] = frozenset()
    refresh_window: timedelta = timedelta(minutes=15)
    old_stopped: bool = False


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one credential: a result in a word or two, and what stands in the way, if anything does."""

    item: Item
    result: str
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Taken:
    """An old record as it was read, and what it says. Holds secrets."""

    record: OldRecord
    credential: OldCredential


@dataclass(slots=True)
class Migration:
    """One migration under way. `tell` hears of each credential, once."""

    old: OldVault
    new: NewSide
    journal: Journal
    items: Sequence[Item]
    options: Options
    tell: Callable[[Outcome], None]
    counted: Counter[str] = field(default_factory=Counter)
    problems: int = 0

    def told(self, item: Item, result: str, problem: str = "") -> None:
        """Say what became of it."""
        self.counted[result] += 1
        self.problems += bool(problem)
        self.tell(Outcome(item, result, problem))

    def told_wrong(self, item: Item, problem: str) -> None:
        """Say why it could not be taken. A record that the old system deleted, before it was ever copied, is no problem."""
        gone = problem == GONE and self.journal.step(item) in (None, Step.FINISHING)
        self.told(item, "deleted" if gone else "left alone", "" if gone else problem)

    def todo(self, ended: Collection[Step]) -> list[Item]:
        """The items that have not come to one of these steps. Of the others it is said why nothing is done about them."""
        left = []
        for item in self.items:
            step = self.journal.step(item)
            if item.problem:
                self.told(item, "left alone", item.problem)
            elif step is not None and step in ended:
                self.told(item, step.value)
            else:
                left.append(item)
        return left

    async def settle(self, batch: list[Item], once: Callable[[list[Item]], Awaitable[list[Item]]]) -> None:
        """Do it once, and a few times more for those that come back because they changed meanwhile."""
        for _ in range(ROUNDS):
            batch = await once(batch)
            if not batch:
                return
        for item in batch:
            self.told(item, "changing", AGAIN)

    async def batches(self, items: Iterable[Item]) -> AsyncIterator[list[Item]]:
        """The items, so many at a time, no faster than the rate allows."""
        todo, rate, began, done = list(items), self.options.rate, time.monotonic(), 0
        size = BATCH if not rate else max(1, min(BATCH, int(rate)))
        for start in range(0, len(todo), size):
            if rate:
                await asyncio.sleep(max(0.0, began + done / rate - time.monotonic()))
            batch = todo[start : start + size]
            yield batch
            done += len(batch)

    async def take(self, items: Collection[Item]) -> tuple[dict[Item, Taken], dict[Item, str]]:
        """What the old layout has of each, and what is wrong with the others."""
        found = await several(self._take, items, most=self.options.concurrency)
        pairs = list(zip(items, found, strict=True))
        good = {item: taken for item, taken in pairs if isinstance(taken, Taken)}
        return good, {item: text for item, text in pairs if isinstance(text, str)}

    async def readable(self, items: Collection[Item]) -> dict[Item, Taken]:
        """What the old layout has of those of which something can be taken; of the others it is said why not."""
        taken, wrong = await self.take(items)
        for item, problem in wrong.items():
            self.told_wrong(item, problem)
        return taken

    async def _take(self, item: Item) -> Taken | str:
        try:
            record = await self.old.read(item.old_tenant, item.integration)
            return GONE if record is None else Taken(record, parse(record.document, ignore=self.options.ignore))
        except FormUnknown as error:
            return str(error)

    async def unchanged(self, taken: Mapping[Item, Taken]) -> set[Item]:
        """Those whose old records are still what was read."""
        again, _ = await self.take(list(taken))
        return {item for item, now in again.items() if now.record == taken[item].record}

    async def compare(self, taken: Mapping[Item, Taken]) -> dict[Item, pb.ImportCredentialsResponse]:
        """How the new layout relates to what was read, told by the server, which alone opens it."""
        return await self.new.send({item: each.credential for item, each in taken.items()}, compare_only=True)

    async def stage(self, taken: Mapping[Item, Taken]) -> dict[Item, pb.ImportCredentialsResponse]:
        """Store what was read, switched off, unless it is there."""
        return await self.new.send({item: each.credential for item, each in taken.items()})

    def due(self, credential: OldCredential) -> str:
        """Why the old system may be about to refresh it, so that it is left to it, unless that has stopped; empty if not."""
        if self.options.old_stopped or credential.refresh_token is None:
            return ""
        if credential.expire_time is None:
            return ENDLESS
        return DUE if credential.expire_time <= datetime.now(UTC) + self.options.refresh_window else ""


def is_absent(answer: pb.ImportCredentialsResponse) -> bool:
    """Whether nothing is there to compare with."""
    return answer.HasField("refusal") and answer.refusal.reason in NOTHING


def refused(answer: pb.ImportCredentialsResponse) -> str:
    """Why the server refused it; empty if it did not."""
    return said(answer.refusal, ErrorReason) if answer.HasField("refusal") else ""


def problem_of(failed: CallFailed) -> str:
    """What a call's failure says of its one credential. Raises: the failure itself, if it is about more than that."""
    if failed.refusal.exit_code in (UNREACHABLE, NOT_AUTHORISED, INTERRUPTED):
        raise failed
    return f"{failed.refusal.reason}: {failed.refusal.message}"
