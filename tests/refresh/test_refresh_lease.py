"""Whose turn it is to ask the provider: one holder at a time, whatever clocks say and whoever dies."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from connectors_grpc.credentials.refresh_lease import GAP, LONG_DEAD, TTL, Grip, RefreshLeases, Watched
from connectors_grpc.credentials.renewing import MARGIN
from connectors_grpc.domain.ids import CredentialId, TenantId, TenantUid
from connectors_grpc.domain.records import Tenant, TenantState
from connectors_grpc.memory import MemoryDocuments
from connectors_grpc.oauth2.token_request import TIMEOUT
from connectors_grpc.vault.settings import DEFAULT_TIMEOUT
from tests.clock import ManualClock

NOW = datetime(2030, 1, 1, tzinfo=UTC)
ACME = Tenant(TenantId("acme"), TenantUid("u1"), "Acme", TenantState.ACTIVE, {}, NOW, NOW)
REBORN = Tenant(TenantId("acme"), TenantUid("u2"), "Acme", TenantState.ACTIVE, {}, NOW, NOW)
NOTION = CredentialId("notion")


class Replicas:
    """Several replicas over one store, each with a clock of its own."""

    def __init__(self) -> None:
        self.documents = MemoryDocuments()
        self.clocks = {name: ManualClock() for name in "abc"}
        self.leases = {name: RefreshLeases(self.documents, clock, name) for name, clock in self.clocks.items()}
        self.watched = {name: Watched() for name in "abc"}

    async def acquire(self, name: str, tenant: Tenant = ACME) -> Grip | None:
        """One try."""
        return await self.leases[name].acquire(tenant, NOTION, 1, self.watched[name])

    async def watch(self, name: str, seconds: float, step: float = 1.0) -> Grip | None:
        """Try every `step` seconds for so long, by this replica's clock."""
        passed = 0.0
        while passed < seconds:
            grip = await self.acquire(name)
            if grip is not None:
                return grip
            self.clocks[name].advance(step)
            passed += step
        return await self.acquire(name)


@pytest.fixture
def replicas() -> Replicas:
    """Three of them."""
    return Replicas()


async def test_one_of_many_gets_it(replicas: Replicas) -> None:
    """Racing replicas: exactly one holds the lease (attack 26)."""
    grips = await asyncio.gather(*(replicas.acquire(name) for name in "abcabc"))
    assert len([grip for grip in grips if grip is not None]) >= 1
    assert len({grip.lease.owner for grip in grips if grip is not None}) == 1


async def test_a_released_lease_is_free_at_once_and_says_nothing_of_a_crash(replicas: Replicas) -> None:
    """The usual case: no waiting, no suspicion."""
    grip = await replicas.acquire("a")
    assert grip is not None
    assert await replicas.acquire("b") is None
    await replicas.leases["a"].release(grip)
    taken = await replicas.acquire("b")
    assert taken is not None
    assert not taken.follows_crash


async def test_a_dead_holders_lease_is_taken_after_it_was_watched_for_its_whole_time(replicas: Replicas) -> None:
    """Kill -9 of the holder: another replica takes over, and knows that an answer may be lost (attack 27)."""
    assert await replicas.acquire("a") is not None
    assert await replicas.watch("b", TTL - 2) is None
    taken = await replicas.watch("b", 4)
    assert taken is not None
    assert taken.follows_crash


async def test_clocks_that_differ_do_not_free_a_lease(replicas: Replicas) -> None:
    """A replica whose wall clock runs nine minutes ahead must watch as long as any other."""
    replicas.clocks["b"].set(NOW + timedelta(minutes=9))
    assert await replicas.acquire("a") is not None
    assert await replicas.watch("b", TTL - 2) is None


async def test_an_outage_of_the_store_counts_for_nothing(replicas: Replicas) -> None:
    """Who could not look has not watched: the holder gets the time to store what it was answered."""
    assert await replicas.acquire("a") is not None
    assert await replicas.acquire("b") is None
    replicas.clocks["b"].advance(TTL * 4)
    assert await replicas.acquire("b") is None
    assert await replicas.watch("b", TTL - GAP) is None


async def test_a_long_dead_lease_is_free_at_once(replicas: Replicas) -> None:
    """A crash of an hour ago holds nobody up."""
    assert await replicas.acquire("a") is not None
    replicas.clocks["b"].advance(timedelta(seconds=TTL) + LONG_DEAD + timedelta(seconds=1))
    taken = await replicas.acquire("b")
    assert taken is not None
    assert taken.follows_crash


async def test_a_restarted_replica_goes_on_where_it_was_killed(replicas: Replicas) -> None:
    """Its earlier life is surely gone, so it need not wait; but its answer may be lost."""
    assert await replicas.acquire("a") is not None
    again = await replicas.acquire("a")
    assert again is not None
    assert again.follows_crash


async def test_releasing_what_somebody_else_took_changes_nothing(replicas: Replicas) -> None:
    """A holder that was too slow does not free the new holder's lease."""
    slow = await replicas.acquire("a")
    assert slow is not None
    taken = await replicas.watch("b", TTL + 2)
    assert taken is not None
    await replicas.leases["a"].release(slow)
    assert await replicas.acquire("c") is None


async def test_the_lease_of_an_earlier_tenant_of_that_name_is_no_lease(replicas: Replicas) -> None:
    """A tenant that was deleted in mid-refresh does not hold up its successor (attack 38)."""
    assert await replicas.acquire("a") is not None
    taken = await replicas.acquire("b", REBORN)
    assert taken is not None
    assert not taken.follows_crash


async def test_the_time_left_runs_down_from_before_the_write(replicas: Replicas) -> None:
    """What is left is asked just before the token is sent."""
    grip = await replicas.acquire("a")
    assert grip is not None
    assert replicas.leases["a"].time_left(grip) == pytest.approx(TTL)
    replicas.clocks["a"].advance(TTL - 1)
    assert replicas.leases["a"].time_left(grip) == pytest.approx(1)


async def test_the_next_holder_knows_what_it_must_not_miss(replicas: Replicas) -> None:
    """What was written under a lease; not after ten minutes, nor for another tenant of that name."""
    grip = await replicas.acquire("a")
    assert grip is not None
    assert grip.least == 0
    await replicas.leases["a"].release(grip, 7)
    taken = await replicas.acquire("b")
    assert taken is not None
    assert taken.least == 7
    await replicas.leases["b"].release(taken)
    reborn = await replicas.acquire("c", REBORN)
    assert reborn is not None
    assert reborn.least == 0
    await replicas.leases["c"].release(reborn, 9)
    replicas.clocks["a"].advance(timedelta(seconds=TTL) + LONG_DEAD + timedelta(seconds=1))
    late = await replicas.acquire("a", REBORN)
    assert late is not None
    assert late.least == 0


def test_a_lease_outlives_every_answer() -> None:
    """The provider's whole time-out, the margin, and five seconds of a Vault call before it fit into a lease."""
    assert TTL >= TIMEOUT + MARGIN + DEFAULT_TIMEOUT
