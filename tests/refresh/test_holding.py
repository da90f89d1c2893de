"""Holds over two replicas in one process, by journals in memory: who is waited for, who is told, and what it costs nobody."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field, replace

import pytest

from connectors_grpc.credentials import holding as module
from connectors_grpc.credentials.holding import Holding
from connectors_grpc.credentials.inflight import InFlight
from connectors_grpc.domain.ids import CredentialId, KeyId, TenantId, TenantUid
from connectors_grpc.domain.records import (
    ApiKey,
    Role,
    Scope,
    Tenant,
    TenantState,
)
from connectors_grpc.errors import ConnectorsError, Reason
from connectors_grpc.journals import JournaledChanges, Pace
from connectors_grpc.memory import MemoryDocuments, Outage
from connectors_grpc.ports import Change, Json, Told
from tests.refresh.records import NOTION, NOW

PACE = Pace(poll=0.1, soon=0.02, gap=0.02, beat=0.1, alone=2.0, deadline=0.5, longest_pause=0.2)
ACME = Tenant(TenantId("acme"), TenantUid("u-1"), "", TenantState.ACTIVE, {}, NOW, NOW)
USED = replace(NOTION, generation=3)
USE = (ACME.uid, USED.id, 3)
CHANGED = Change(tenant=ACME.id, credential=USED.id)
LONG = 20.0


class Writes(MemoryDocuments):
    """Counts them."""

    def __init__(self, outage: Outage | None = None) -> None:
        super().__init__(outage)
        self.count = 0

    async def write(self, path: str, data: Json, *, cas: int | None) -> int:
        self.count += 1
        return await super().write(path, data, cas=cas)


@dataclass
class Replica:
    """One of them."""

    documents: Writes
    changes: JournaledChanges
    calls: InFlight
    holding: Holding

    def refresh(self, outcome: Callable[[], object] = lambda: None, longest: float = LONG) -> asyncio.Task[None]:
        """A refresh of USED that holds, and then does that."""

        async def run() -> None:
            async with self.holding.held(ACME, USED, longest):
                outcome()

        return asyncio.create_task(run())

    def refreshed(self) -> None:
        """What a refresh that succeeded says."""
        self.changes.publish(CHANGED)


def key(name: str = "side", scope: Scope | None = None) -> ApiKey:
    """A sidecar's."""
    return ApiKey(KeyId(name), "", frozenset({Role.SIDECAR}), scope or Scope(None), "00" * 32, NOW)


@dataclass
class Sidecar:
    """One that watches a replica: what it was told, in order."""

    holding: Holding
    key: ApiKey
    told: list[Told] = field(default_factory=list)

    @property
    def ids(self) -> list[str]:
        """Of the holds that it was told of."""
        return [each.hold_id for each in self.told]

    def answer(self) -> None:
        """It has nothing under way."""
        for hold_id in self.ids:
            self.holding.answer(self.key, hold_id)


@contextmanager
def sidecar(replica: Replica, scope: Scope | None = None, name: str = "side"):  # type: ignore[no-untyped-def]
    """A sidecar that watches."""
    made = Sidecar(replica.holding, key(name, scope))
    with replica.holding.watch(made.key, made.told.append):
        yield made


async def until(fact: Callable[[], bool], within: float = 30.0) -> None:
    """Wait on a fact that tells nobody."""
    async with asyncio.timeout(within):
        while not fact():  # noqa: ASYNC110
            await asyncio.sleep(0.005)


@asynccontextmanager
async def fleet(count: int = 2, shared: MemoryDocuments | None = None) -> AsyncIterator[list[Replica]]:
    """Replicas that know each other."""
    stored = (shared or MemoryDocuments())._stored
    async with AsyncExitStack() as stack:
        made = []
        for _ in range(count):
            documents = Writes()
            documents._stored = stored
            changes = JournaledChanges(documents, pace=PACE)
            calls = InFlight()
            holding = Holding(changes, calls)
            await stack.enter_async_context(changes)
            made.append(Replica(documents, changes, calls, await stack.enter_async_context(holding)))
        for replica in made:
            await until(lambda replica=replica: len(replica.changes.others()) >= count - 1)  # type: ignore[misc]
        yield made


@pytest.fixture
async def two() -> AsyncIterator[list[Replica]]:
    """Two of them."""
    async with fleet() as found:
        yield found


async def test_alone_and_unwatched_nothing_is_said_and_nothing_awaited() -> None:
    """The block is reached without once giving way to anybody, and nothing is written for it."""
    async with fleet(1) as (one,):
        written = one.documents.count
        heard = one.changes.subscribe()
        holds = one.holding.held(ACME, USED, LONG)
        with pytest.raises(StopIteration):
            holds.__aenter__().send(None)
        assert one.holding.stands(USE)
        await holds.__aexit__(None, None, None)
        assert not one.holding.stands(USE)
        one.changes.publish(CHANGED)
        assert await anext(heard) == CHANGED
        await until(lambda: one.documents.count > written)
        assert one.documents.count == written + 1


async def test_our_own_sidecar_is_told_and_waited_for() -> None:
    """Without another replica nothing is written for it."""
    async with fleet(1) as (one,):
        with sidecar(one) as side:
            written = one.documents.count
            refresh = one.refresh(one.refreshed)
            await until(lambda: bool(side.told))
            assert not refresh.done()
            (told,) = side.told
            assert (told.hold.tenant, told.hold.uid, told.hold.credential, told.hold.generation) == (ACME.id, *USE)
            assert 0 < told.left <= module.LIFE
            assert one.documents.count == written
            side.answer()
            await refresh
            assert side.told == [told, replace(told, left=0.0)], "that it is over is said under the same id"


async def test_a_refresh_that_failed_ends_its_hold_too() -> None:
    """Whatever the block raises, calls may begin again."""
    async with fleet(1) as (one,):
        with sidecar(one) as side:
            refresh = one.refresh(lambda: 1 / 0)
            await until(lambda: bool(side.told))
            side.answer()
            with pytest.raises(ZeroDivisionError):
                await refresh
            assert [told.left > 0 for told in side.told] == [True, False]
            assert not one.holding.stands(USE)


async def test_the_other_replicas_calls_and_sidecars_are_waited_for(two: list[Replica]) -> None:
    """First its own call, then its sidecar; no call begins there meanwhile, and all are told how it went."""
    one, other = two
    with sidecar(other) as side, ExitStack() as call:
        call.enter_context(other.calls.call(USE))
        refresh = one.refresh(one.refreshed)
        await until(lambda: bool(side.told))
        assert other.holding.stands(USE)
        side.answer()
        await asyncio.sleep(0)
        assert not refresh.done()
        call.close()
        await refresh
        await other.holding.over(USE)
        assert not other.holding.stands(USE)
        assert [told.left > 0 for told in side.told] == [True, False]
    assert one.changes.others()[other.changes.name].holds == ()


async def test_who_does_not_answer_is_waited_for_no_longer_than_allowed(two: list[Replica]) -> None:
    """A sidecar that hangs, and a replica whose Vault is away: the refresh goes on after its bound."""
    one, other = two
    with sidecar(one):
        await one.refresh(longest=0.05)
    other.documents.outage.down = True
    await one.refresh(longest=0.05)
    one.documents.outage.down = True
    await one.refresh(longest=0.05)


async def test_a_replica_that_dies_is_waited_for_no_longer() -> None:
    """It falls silent, and its calls have ended with it."""
    async with fleet(1) as (one,), AsyncExitStack() as life:
        dying = JournaledChanges(one.documents, pace=PACE)
        await life.enter_async_context(dying)
        await until(lambda: len(one.changes.others()) == 1)
        refresh = one.refresh()
        for task in dying._tasks:
            task.cancel()
        await refresh


async def test_a_sidecar_that_is_gone_is_waited_for_no_longer() -> None:
    """The end of its watch counts as its answer, and what it was told is nobody's any more."""
    async with fleet(1) as (one,):
        with sidecar(one) as side:
            refresh = one.refresh()
            await until(lambda: bool(side.told))
        await refresh
        with pytest.raises(ConnectorsError):
            side.answer()


async def test_a_sidecar_hears_of_what_lies_in_its_scope_only() -> None:
    """Not of another credential, another tenant, or the tenant that had the name before (attack 38): they hold nothing up."""
    acme, uid = ACME.id, ACME.uid
    outside = [
        Scope({acme: uid}, frozenset({CredentialId("mail")})),
        Scope({TenantId("globex"): uid}),
        Scope({acme: TenantUid("u-0")}),
        Scope({}),
    ]
    inside = [Scope(None), Scope({acme: uid}), Scope({acme: uid}, frozenset({USED.id}))]
    async with fleet(1) as (one,):
        with ExitStack() as stack:
            strangers = [stack.enter_context(sidecar(one, scope)) for scope in outside]
            others = [stack.enter_context(sidecar(one, scope)) for scope in inside]
            refresh = one.refresh()
            await until(lambda: all(each.told for each in others))
            for each in others:
                each.answer()
            await refresh
            assert [each.told for each in strangers] == [[]] * len(outside)


async def test_only_the_key_that_was_told_answers_and_nobody_learns_more() -> None:
    """Another key's id, an id that nobody has, and one that is over are refused in the same words; twice is no error."""
    async with fleet(1) as (one,):
        with sidecar(one) as side, sidecar(one, name="other") as other:
            refresh = one.refresh()
            await until(lambda: bool(side.ids and other.ids))
            assert side.ids != other.ids
            refusals = []
            for hold_id in (other.ids[0], "nobody's", ""):
                with pytest.raises(ConnectorsError) as caught:
                    one.holding.answer(side.key, hold_id)
                refusals.append((caught.value.reason, caught.value.metadata))
            side.answer()
            side.answer()
            assert not refresh.done()
            other.answer()
            await refresh
            with pytest.raises(ConnectorsError) as caught:
                side.answer()
            refusals.append((caught.value.reason, caught.value.metadata))
            assert refusals == [(Reason.PERMISSION_DENIED, {})] * 4


async def test_who_begins_to_watch_while_a_hold_stands_is_told_of_it(two: list[Replica]) -> None:
    """At the replica that refreshes and at the other one."""
    one, other = two
    with sidecar(one) as first:
        refresh = one.refresh()
        await until(lambda: other.holding.stands(USE))
        with sidecar(one) as late, sidecar(other) as far:
            assert late.ids
            assert far.ids
            assert len({*first.ids, *late.ids, *far.ids}) == 3
            for side in (first, late, far):
                side.answer()
            await refresh


async def test_a_replica_that_joins_hears_what_stands(two: list[Replica]) -> None:
    """Its first reading is a gap, but what stands is a state and not a change that one can miss."""
    one, other = two
    with sidecar(one) as side:
        refresh = one.refresh()
        await until(lambda: other.holding.stands(USE))
        async with fleet(1, one.documents) as (third,):
            await until(lambda: third.holding.stands(USE))
            side.answer()
            await refresh
            await until(lambda: not third.holding.stands(USE))


async def test_a_hold_ends_by_itself_where_its_end_is_not_heard(
    two: list[Replica], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever waits goes on after its life."""
    monkeypatch.setattr(module, "LIFE", 0.2)
    one, other = two
    with sidecar(one), sidecar(other) as heard:
        refresh = one.refresh()
        await until(lambda: bool(heard.told))  # whether it stands still when we look is another matter
        await other.holding.over(USE)
        assert not other.holding.stands(USE)
        refresh.cancel()
        await asyncio.gather(refresh, return_exceptions=True)


async def test_holds_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Above the bound a refresh waits for nobody, and a sidecar is not told: neither is held up by it."""
    monkeypatch.setattr(module, "MOST", 1)
    async with fleet(1) as (one,):
        with sidecar(one) as side:
            first = one.refresh()
            await until(lambda: bool(side.told))
            async with one.holding.held(ACME, replace(USED, id=CredentialId("other")), LONG):
                assert len(side.told) == 1
            side.answer()
            await first
        monkeypatch.setattr(module, "MOST_TOLD", 0)
        with sidecar(one) as untold:
            await one.refresh()
            assert untold.told == []
