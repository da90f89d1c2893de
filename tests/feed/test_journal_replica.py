"""`JournaledChanges` over documents in memory: two replicas at ten times the usual pace, with outages and deaths."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from itertools import pairwise

import pytest

from connectors_grpc import codec
from connectors_grpc.access import Access
from connectors_grpc.audit import LogAudit
from connectors_grpc.changes import ChangeFeed, Subscription
from connectors_grpc.credentials.holding import Holding
from connectors_grpc.credentials.inflight import InFlight
from connectors_grpc.domain.ids import KeyId, TenantId
from connectors_grpc.domain.records import ApiKey, Role
from connectors_grpc.errors import ConnectorsError, Reason, VaultUnavailable
from connectors_grpc.journals import JournaledChanges, Pace
from connectors_grpc.journals.journal import Page
from connectors_grpc.journals.replica import FOLDER
from connectors_grpc.memory import MemoryCiphers, MemoryDocuments, Outage
from connectors_grpc.ports import Change, Document, DocumentPage, Json, Told
from connectors_grpc.tenants import Tenants
from connectors_grpc.watching import MOST_WATCHERS, Event, Signal, Watching
from tests.clock import ManualClock

PACE = Pace(poll=0.1, soon=0.02, gap=0.05, beat=0.1, alone=2.0, deadline=0.5, longest_pause=0.2)


class CountingDocuments(MemoryDocuments):
    """Counts what is asked of it."""

    def __init__(self, outage: Outage | None = None) -> None:
        super().__init__(outage)
        self.writes: list[float] = []
        self.reads = 0
        self.lists = 0

    async def read(self, path: str) -> Document | None:
        self.reads += 1
        return await super().read(path)

    async def list(self, folder: str, *, after: str = "", limit: int = 1000) -> DocumentPage:
        self.lists += 1
        return await super().list(folder, after=after, limit=limit)

    async def write(self, path: str, data: Json, *, cas: int | None) -> int:
        self.writes.append(asyncio.get_running_loop().time())
        return await super().write(path, data, cas=cas)


class View:
    """One replica's own way to the shared documents, with an outage of its own."""

    def __init__(self, shared: MemoryDocuments) -> None:
        self.documents = CountingDocuments()
        self.documents._stored = shared._stored
        self.outage = self.documents.outage


def change(name: str) -> Change:
    """A change of a tenant."""
    return Change(tenant=TenantId(name))


async def hear(subscription: Subscription, wanted: Change | None, within: float = 30.0) -> list[Change | Told | None]:
    """All that came until `wanted` did, with it."""
    heard: list[Change | Told | None] = []
    async with asyncio.timeout(within):
        while not heard or heard[-1] != wanted:
            heard.append(await anext(subscription))
    return heard


async def until(fact: Callable[[], bool], within: float = 30.0) -> None:
    """Wait for a fact of the store, which tells nobody."""
    async with asyncio.timeout(within):
        while not fact():  # noqa: ASYNC110
            await asyncio.sleep(0.005)


@asynccontextmanager
async def replicas(count: int = 2, pace: Pace = PACE) -> AsyncIterator[list[tuple[View, JournaledChanges]]]:
    """Replicas that know each other."""
    shared = MemoryDocuments()
    async with AsyncExitStack() as stack:
        found = []
        for _ in range(count):
            view = View(shared)
            found.append((view, await stack.enter_async_context(JournaledChanges(view.documents, pace=pace))))
        yield found


async def test_a_change_reaches_the_other_replica_once_and_is_not_echoed() -> None:
    """Each hears its own at once and the other's soon; nothing comes back to who said it."""
    async with replicas() as ((_, one), (_, two)):
        at_one, at_two = one.subscribe(), two.subscribe()
        one.publish(change("a"))
        assert await hear(at_one, change("a"), 0.01) == [change("a")]
        assert await hear(at_two, change("a")) == [change("a")]
        two.publish(change("b"))
        assert await hear(at_two, change("b"), 0.01) == [change("b")]
        assert await hear(at_one, change("b")) == [change("b")]


async def test_caches_forget_before_subscribers_hear() -> None:
    """Who acts on an event must not read what is older than it."""
    async with replicas() as ((_, one), (_, two)):
        forgotten: list[Change | None] = []
        two.on_change(forgotten.append)
        at_two = two.subscribe()
        one.publish(change("a"))
        await hear(at_two, change("a"))
        assert forgotten == [change("a")]


async def test_nothing_said_during_an_outage_is_lost() -> None:
    """The Vault is away for the writer and the reader: each change comes in the end, in order, without a gap.

    The writer is the quicker of the two, or the reader, back first, might take it for dead on a busy machine.
    """
    quick = replace(PACE, gap=0.01, longest_pause=0.01)
    async with replicas(pace=quick) as ((view_one, one), (view_two, two)):
        at_two = two.subscribe()
        view_one.outage.down = view_two.outage.down = True
        one.publish(change("a"))
        tried = len(view_one.documents.writes)
        await until(lambda: len(view_one.documents.writes) >= tried + 3)
        one.publish(change("b"))
        view_one.outage.down = False
        view_two.outage.down = False
        assert await hear(at_two, change("b")) == [change("a"), change("b")]


async def test_more_than_a_journal_holds_is_a_gap() -> None:
    """Over the bound nothing is dropped in silence: None says that something was."""
    async with replicas() as ((view_one, one), (_, two)):
        at_two = two.subscribe()
        view_one.outage.down = True
        for number in range(600):
            one.publish(change(f"t{number}"))
        view_one.outage.down = False
        assert await hear(at_two, None) == [None]


async def test_a_page_that_the_vault_refuses_does_not_silence_a_replica() -> None:
    """Whatever the Vault's bound is: the others are told that they missed something, and hear what comes after it."""

    class Narrow(CountingDocuments):
        async def write(self, path: str, data: Json, *, cas: int | None) -> int:
            if len(codec.load(Page, data).entries) > 5:
                raise VaultUnavailable
            return await super().write(path, data, cas=cas)

    shared = Narrow()
    async with JournaledChanges(shared, pace=PACE) as one, JournaledChanges(shared, pace=PACE) as two:
        at_two = two.subscribe()
        for number in range(6):
            one.publish(change(f"t{number}"))
        assert await hear(at_two, None) == [None]
        await until(lambda: two._follower._known[one.name].last == 6)
        one.publish(change("later"))
        assert set(await hear(at_two, change("later"))) <= {None, change("later")}


async def test_a_killed_replica_is_noticed() -> None:
    """It had something to say and never wrote it: the others take everything for changed."""
    async with replicas() as ((view_one, one), (_, two)):
        at_two = two.subscribe()
        one.publish(change("before"))
        await hear(at_two, change("before"))
        view_one.outage.down = True
        one.publish(change("unwritten"))
        assert await hear(at_two, None) == [None]


async def test_an_orderly_end_says_its_last_words_and_is_no_gap() -> None:
    """A rolling restart must not make every sidecar lease again."""
    shared = MemoryDocuments()
    async with JournaledChanges(shared, pace=PACE) as two:
        at_two = two.subscribe()
        async with JournaledChanges(shared, pace=PACE) as one:
            one.publish(change("a"))
            one.publish(change("last"))
        assert await hear(at_two, change("last")) == [change("a"), change("last")]
        async with JournaledChanges(shared, pace=PACE) as next_one:
            for _ in range(6):
                next_one.publish(change("b"))
                assert await hear(at_two, change("b")) == [change("b")]


async def test_the_dead_are_swept() -> None:
    """A journal that stands still for 60 polls is removed."""
    shared = MemoryDocuments()
    async with JournaledChanges(shared, pace=Pace(poll=0.01, gap=0.005, beat=0.01)) as two:
        async with JournaledChanges(shared, pace=PACE) as one:
            assert one.name in (await shared.list(FOLDER)).names
        await until(lambda: list(shared._stored) == [f"{FOLDER}/{two.name}"], within=60)


async def test_writes_are_coalesced_and_spaced() -> None:
    """A hundred changes in a burst cost few writes, never closer than the gap."""
    async with replicas() as ((view_one, one), (_, two)):
        at_two = two.subscribe()
        view_one.documents.writes.clear()
        began = asyncio.get_running_loop().time()
        for number in range(100):
            one.publish(change(f"t{number}"))
            await asyncio.sleep(0)
        await hear(at_two, change("t99"))
        writes = view_one.documents.writes
        assert len(writes) <= (asyncio.get_running_loop().time() - began) / PACE.gap + 1
        assert all(later - earlier >= PACE.gap for earlier, later in pairwise(writes))


async def test_a_replica_alone_hardly_writes() -> None:
    """Nobody listens, so there is no need to beat; a list a poll finds out when somebody comes."""
    documents = CountingDocuments()
    async with JournaledChanges(documents, pace=replace(PACE, alone=60.0)) as one:
        await until(lambda: documents.lists >= 8)
        assert len(documents.writes) == 1
        assert documents.reads == 0
        async with JournaledChanges(documents, pace=PACE):
            before = len(documents.writes)
            await until(lambda: len(documents.writes) >= before + 6)
        assert one.name in (await documents.list(FOLDER)).names


async def test_what_is_no_journal_is_a_gap_and_stops_nothing() -> None:
    """Damage, or another release's format."""
    async with replicas() as ((view_one, one), (_, two)):
        at_two = two.subscribe()
        await view_one.documents.write(f"{FOLDER}/stranger", {"floor": "much"}, cas=0)
        assert await hear(at_two, None) == [None]
        one.publish(change("a"))
        await hear(at_two, change("a"))


async def test_a_change_of_a_later_kind_is_a_gap() -> None:
    """A later release says something that this one has no word for."""
    async with replicas() as ((view_one, _), (_, two)):
        at_two = two.subscribe()
        entry: Json = {"seq": 1, "change": {"weather": "fine"}}
        later: Json = {"floor": 0, "last": 1, "ended": False, "entries": [entry]}
        await view_one.documents.write(f"{FOLDER}/later", later, cas=0)
        assert await hear(at_two, None) == [None]


async def test_it_starts_while_the_vault_is_away() -> None:
    """What is said before the Vault comes is written when it does."""
    shared = MemoryDocuments(Outage())
    shared.outage.down = True
    async with JournaledChanges(shared, pace=PACE) as one, JournaledChanges(shared, pace=PACE) as two:
        at_two = two.subscribe()
        one.publish(change("a"))
        with pytest.raises(VaultUnavailable):
            await shared.list(FOLDER)
        shared.outage.down = False
        # The first poll that succeeds is a gap; it may come before the journal that says "a" or after.
        assert None in await hear(at_two, None)


async def test_who_can_not_hear_says_so_and_wakes_who_relies_on_it() -> None:
    """None comes when the others can't be heard any more, so that streams end by themselves; later it hears again."""
    async with replicas() as ((_, one), (view_two, two)):
        at_two = two.subscribe()
        assert two.hears()
        view_two.outage.down = True
        assert await hear(at_two, None) == [None]
        assert not two.hears()
        view_two.outage.down = False
        one.publish(change("a"))
        await hear(at_two, change("a"))
        assert two.hears()


async def _drained(events: AsyncIterator[Event]) -> None:
    async for _ in events:
        pass


async def sidecar_key(access: Access, name: str) -> ApiKey:
    """A sidecar's key, as it comes with a call."""
    text = access.new_text(KeyId(name))
    assert await access.bootstrap(KeyId(name), Role.SIDECAR, text)
    return await access.authenticate(text)


async def test_streams_are_cut_while_the_others_can_not_be_heard() -> None:
    """A sidecar without a watch confirms what it holds; one that believed a deaf replica would not."""
    async with replicas() as ((_, _), (view_two, two)):
        access = Access(MemoryDocuments(), two, LogAudit(), ManualClock())
        key = await sidecar_key(access, "sidecar")
        tenants = Tenants(MemoryDocuments(), MemoryCiphers(), two, LogAudit(), ManualClock())
        watching = Watching(two, Holding(two, InFlight()), access, tenants)
        events = watching.events(key)
        assert await anext(events) is Signal.RESYNC
        view_two.outage.down = True
        with pytest.raises(VaultUnavailable):
            await asyncio.wait_for(_drained(events), 60)
        with pytest.raises(VaultUnavailable):
            await anext(watching.events(key))


async def test_a_slow_subscriber_gets_none() -> None:
    """Over its bound all that waits gives way to None, and what comes after stays; others hear everything."""
    shared = MemoryDocuments()
    async with (
        JournaledChanges(shared, pace=PACE) as one,
        JournaledChanges(shared, ChangeFeed(capacity=4), pace=PACE) as two,
    ):
        slow, quick = two.subscribe(), two.subscribe()
        for name in ("a", "b", "c", "d", "e"):
            one.publish(change(name))
            await hear(quick, change(name))
        assert await hear(slow, change("e")) == [None, change("e")]


async def test_a_resync_clears_what_waits() -> None:
    """None covers all that came before it."""
    feed = ChangeFeed()
    subscription = feed.subscribe()
    feed.publish(change("a"))
    feed.resync()
    feed.publish(change("b"))
    assert [await anext(subscription), await anext(subscription)] == [None, change("b")]


async def test_one_keys_watches_leave_room_for_anothers() -> None:
    """However many it opens; one that ends makes room for the next."""
    async with replicas() as ((_, one), _):
        access = Access(MemoryDocuments(), one, LogAudit(), ManualClock())
        tenants = Tenants(MemoryDocuments(), MemoryCiphers(), one, LogAudit(), ManualClock())
        watching = Watching(one, Holding(one, InFlight()), access, tenants)
        greedy, modest = [await sidecar_key(access, name) for name in ("greedy", "modest")]
        events = [watching.events(greedy) for _ in range(MOST_WATCHERS // 2)]
        assert {await anext(each) for each in events} == {Signal.RESYNC}
        with pytest.raises(ConnectorsError) as refused:
            await anext(watching.events(greedy))
        assert (refused.value.reason, refused.value.metadata) == (
            Reason.LIMIT_EXCEEDED,
            {"limit": "watches of one key"},
        )
        assert refused.value.retry_after
        others = watching.events(modest)
        assert await anext(others) is Signal.RESYNC
        for each in (others, events[0]):
            await each.aclose()  # type: ignore[attr-defined]
        again = watching.events(greedy)
        assert await anext(again) is Signal.RESYNC
        assert watching.open == MOST_WATCHERS // 2
        for each in (*events[1:], again):
            await each.aclose()  # type: ignore[attr-defined]
        assert watching.open == 0
