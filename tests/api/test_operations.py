"""Long work: told by any replica, done by one, taken over when that one dies, and never by two for long."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta

import pytest

from connectors_grpc import operation_run
from connectors_grpc import operations as module
from connectors_grpc.domain.ids import KeyId, OperationId, TenantId, TenantUid
from connectors_grpc.domain.operation import Deletion, Operation, Rotation
from connectors_grpc.domain.records import ApiKey, Role, Scope
from connectors_grpc.errors import ConnectorsError, Reason, VaultUnavailable
from connectors_grpc.memory import MemoryDocuments, Outage
from connectors_grpc.operation_run import Run
from connectors_grpc.operations import POLL, TTL, Operations
from connectors_grpc.ports import Json
from tests.clock import ManualClock

ACME, UID = TenantId("acme"), TenantUid("uid-1")
WORK = Deletion()


def key(*roles: Role, tenants: dict[TenantId, TenantUid] | None = None) -> ApiKey:
    """A key of those roles."""
    return ApiKey(KeyId("k"), "", frozenset(roles), Scope(tenants), "", ManualClock().now())


ADMIN = key(Role.ADMIN)


class Wire(MemoryDocuments):
    """A replica's way to documents that all share. Cut, it is as if the process were dead."""

    def __init__(self, shared: MemoryDocuments) -> None:
        super().__init__(Outage())
        self._stored = shared._stored
        self.lose_answers = 0

    async def write(self, path: str, data: Json, *, cas: int | None) -> int:
        """Write; some answers get lost on the way back."""
        version = await super().write(path, data, cas=cas)
        if self.lose_answers:
            self.lose_answers -= 1
            raise VaultUnavailable
        return version


class Replicas:
    """Some replicas over one store, whose work is what `work` says."""

    def __init__(self) -> None:
        self.shared = MemoryDocuments()
        self.clock = ManualClock()
        self.release = asyncio.Event()
        self.working = asyncio.Event()
        self.begun: list[str] = []

    def replica(self, name: str, work: Callable[[Run], Awaitable[None]] | None = None) -> tuple[Operations, Wire]:
        """One more, which is not looking by itself."""
        wire = Wire(self.shared)
        made = Operations(wire, self.clock)

        async def wait(run: Run) -> None:
            self.begun.append(name)
            self.working.set()
            await self.release.wait()
            run.note(items_done=1, items_total=1)

        made.carry_out("delete-tenant", work or wait)
        made.carry_out("rotate-platform-key", work or wait)
        return made, wire

    async def watched(self, by: Operations, seconds: float) -> None:
        """Have a replica look, as often as it does, for so long."""
        for _ in range(int(seconds // POLL) + 2):
            await by.look()
            self.clock.advance(POLL)


@pytest.fixture
def at(monkeypatch: pytest.MonkeyPatch) -> Replicas:
    """No replica yet; beats are short."""
    monkeypatch.setattr(operation_run, "BEAT", 0.005)
    monkeypatch.setattr(module, "FIRST_PAUSE", 0.005)
    return Replicas()


async def ended(replica: Operations, operation: Operation) -> Operation:
    """Wait for the end, wherever the work is done."""
    async with asyncio.timeout(60):
        while not (found := await replica.get(ADMIN, operation.id)).done:  # noqa: ASYNC110
            await asyncio.sleep(0.002)
    return found


async def test_what_ends_soon_is_done_when_the_call_returns_and_any_replica_tells(at: Replicas) -> None:
    """And the receipt says who and when."""
    one, _ = at.replica("one")
    at.release.set()
    operation = await one.wait(await one.begin(ADMIN, ACME, UID, WORK), 5)
    assert operation.done
    other, _ = at.replica("other")
    told = await other.get(ADMIN, operation.id)
    assert (told.tenant, told.items_done, told.caller, told.done_time) == (ACME, 1, "k", at.clock.now())
    assert (told.owner, told.error) == ("", "")


async def test_while_it_runs_there_is_only_one_whoever_asks(at: Replicas) -> None:
    """Twenty calls at two replicas get the same operation, and it is begun once."""
    one, _ = at.replica("one")
    two, _ = at.replica("two")
    begun = await asyncio.gather(*((one, two)[n % 2].begin(ADMIN, ACME, UID, WORK) for n in range(20)))
    assert len({operation.id for operation in begun}) == 1
    await at.working.wait()
    at.release.set()
    await ended(one, begun[0])
    assert len(at.begun) == 1


async def test_after_the_end_another_begins_and_other_tenants_never_meet(at: Replicas) -> None:
    """Ids differ by run, by tenant, and by uid: a re-created tenant inherits no operation."""
    one, _ = at.replica("one")
    at.release.set()
    ids = [
        (await one.wait(await one.begin(ADMIN, tenant, uid, WORK), 5)).id
        for tenant, uid in ((ACME, UID), (ACME, UID), (TenantId("acm"), UID), (ACME, TenantUid("uid-2")))
    ]
    assert len(set(ids)) == 4


async def test_a_dead_replicas_work_is_taken_over_and_a_live_ones_is_not(at: Replicas) -> None:
    """While it beats it is left alone; then its document stands still, and another begins where it was."""
    one, wire = at.replica("one")
    two, _ = at.replica("two")
    operation = await one.begin(ADMIN, ACME, UID, WORK)
    await at.working.wait()
    for _ in range(12):
        before = (await two.get(ADMIN, operation.id)).version
        await two.look()
        at.clock.advance(POLL)
        while (await two.get(ADMIN, operation.id)).version == before:  # noqa: ASYNC110
            await asyncio.sleep(0.002)
    assert at.begun == ["one"]
    wire.outage.down = True
    await one.__aexit__()
    await at.watched(two, TTL)
    at.release.set()
    assert (await ended(two, operation)).items_done == 1
    assert at.begun == ["one", "two"]


async def test_a_replica_that_stops_hands_over_at_once(at: Replicas) -> None:
    """No waiting: the next look takes it."""
    one, _ = at.replica("one")
    two, _ = at.replica("two")
    operation = await one.begin(ADMIN, ACME, UID, WORK)
    await at.working.wait()
    await one.__aexit__()
    await two.look()
    at.release.set()
    await ended(two, operation)
    assert at.begun == ["one", "two"]


async def test_asking_again_takes_up_what_nobody_works_at(at: Replicas) -> None:
    """A later call resumes, without waiting for a look."""
    one, _ = at.replica("one")
    two, _ = at.replica("two")
    operation = await one.begin(ADMIN, ACME, UID, WORK)
    await at.working.wait()
    await one.__aexit__()
    at.release.set()
    again = await two.wait(await two.begin(ADMIN, ACME, UID, WORK), 5)
    assert (again.id, again.done) == (operation.id, True)


async def test_who_was_thought_dead_stops_as_soon_as_it_writes(at: Replicas) -> None:
    """It was cut off and came back: its work is cancelled, and the other's receipt stands."""
    cancelled = asyncio.Event()

    async def stubborn(_run: Run) -> None:
        at.begun.append("one")
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    one, wire = at.replica("one", stubborn)
    two, _ = at.replica("two")
    operation = await one.begin(ADMIN, ACME, UID, WORK)
    await asyncio.sleep(0)
    wire.outage.down = True
    await at.watched(two, TTL)
    await at.working.wait()
    wire.outage.down = False
    async with asyncio.timeout(60):
        await cancelled.wait()
    at.release.set()
    assert (await ended(two, operation)).items_done == 1


async def test_time_without_the_vault_counts_for_nothing(at: Replicas) -> None:
    """A replica that could not look for long begins its watch anew: the owner gets the time to write first."""
    one, wire = at.replica("one")
    two, _ = at.replica("two")
    await one.begin(ADMIN, ACME, UID, WORK)
    await at.working.wait()
    wire.outage.down = True
    await two.look()
    at.clock.advance(TTL * 4)
    await two.look()
    assert at.begun == ["one"]


async def test_an_outage_delays_the_work_and_no_more(at: Replicas) -> None:
    """It is called again until it has its way; a lost answer is not taken for another's write."""
    tries = 0

    async def work(run: Run) -> None:
        nonlocal tries
        tries += 1
        await run.save(items_done=tries)
        if tries < 3:
            raise VaultUnavailable

    one, wire = at.replica("one", work)
    operation = await one.begin(ADMIN, ACME, UID, WORK)
    wire.lose_answers = 2
    assert (await ended(one, operation)).error == ""
    assert tries >= 3


@pytest.mark.parametrize(
    ("failure", "reason"),
    [(ConnectorsError(Reason.TENANT_NOT_FOUND), "TENANT_NOT_FOUND"), (RuntimeError("hunter2"), "INTERNAL")],
)
async def test_work_that_fails_ends_with_its_reason(
    at: Replicas, failure: Exception, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A bug's text goes nowhere; and the next call begins anew."""

    async def fail(_run: Run) -> None:
        raise failure

    one, _ = at.replica("one", fail)
    operation = await one.wait(await one.begin(ADMIN, ACME, UID, WORK), 5)
    assert (operation.done, operation.error) == (True, reason)
    assert "hunter2" not in caplog.text
    assert (await one.begin(ADMIN, ACME, UID, WORK)).id != operation.id


async def test_who_may_not_see_it_learns_nothing(at: Replicas) -> None:
    """The same refusal for another's and for none; the platform's are for admins of all tenants."""
    one, _ = at.replica("one")
    at.release.set()
    theirs = await one.wait(await one.begin(ADMIN, ACME, UID, WORK), 5)
    none = TenantUid("")
    platforms = await one.wait(await one.begin(ADMIN, TenantId(""), none, Rotation("rotate-platform-key")), 5)
    operator = key(Role.OPERATOR, tenants={ACME: UID})
    assert (await one.get(operator, theirs.id)).done
    for caller, asked in (
        (key(Role.OPERATOR, tenants={TenantId("other"): UID}), theirs.id),
        (key(Role.OPERATOR, tenants={ACME: TenantUid("uid-2")}), theirs.id),
        (operator, OperationId("op-none")),
        (operator, platforms.id),
        (key(Role.OPERATOR), platforms.id),
    ):
        with pytest.raises(ConnectorsError) as refused:
            await one.get(caller, asked)
        assert refused.value.reason is Reason.PERMISSION_DENIED
    with pytest.raises(ConnectorsError) as unknown:
        await one.get(ADMIN, OperationId("op-none"))
    assert unknown.value.reason is Reason.OPERATION_NOT_FOUND


async def test_receipts_are_kept_for_a_day_and_what_runs_for_as_long_as_it_takes(at: Replicas) -> None:
    """Then they are unknown, and removed; what is no operation goes too."""
    one, _ = at.replica("one")
    at.release.set()
    old = await one.wait(await one.begin(ADMIN, ACME, UID, WORK), 5)
    at.release.clear()
    running = await one.begin(ADMIN, TenantId("other"), UID, WORK)
    await at.shared.write("operations/op-odd", {"purged": 1}, cas=0)
    await one.sweep()
    assert (await at.shared.list("operations")).names == tuple(sorted((old.id, running.id)))
    at.clock.advance(timedelta(days=1, seconds=1))
    with pytest.raises(ConnectorsError):
        await one.get(ADMIN, old.id)
    await one.sweep()
    assert (await at.shared.list("operations")).names == (running.id,)
    await one.__aexit__()


async def test_who_is_woken_and_stopped_at_once_stops(at: Replicas) -> None:
    """An operation that ends while the process is told to: the watch must not go on for ever."""
    one, _ = at.replica("one")
    async with asyncio.timeout(60):
        await one.__aenter__()
        while not one._wake._waiters:  # noqa: ASYNC110 - it has looked, and waits
            await asyncio.sleep(0)
        one._wake.set()
        await one.__aexit__()


async def test_one_process_works_at_so_many_and_the_rest_wait_their_turn(
    at: Replicas, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The others are stored without an owner, for whoever has room; entered, a replica takes them up by itself."""
    monkeypatch.setattr(module, "MOST_RUNS", 2)
    async with at.replica("one")[0] as one:
        begun = [await one.begin(ADMIN, TenantId(f"t-{n}"), UID, WORK) for n in range(5)]
        assert [bool(operation.owner) for operation in begun] == [True, True, False, False, False]
        at.release.set()
        for operation in begun:
            await ended(one, operation)
    assert len(at.begun) == 5
