"""Calls under way are let end before a refresh kills their token."""

from __future__ import annotations

import asyncio

from connectors_grpc.credentials.inflight import InFlight
from connectors_grpc.domain.ids import CredentialId

OLD = ("uid", CredentialId("gitlab"), 3)
NEW = ("uid", CredentialId("gitlab"), 4)


async def test_nothing_under_way_is_waited_for() -> None:
    """The usual case costs nothing."""
    assert await InFlight().ended(OLD, longest=0)


async def test_a_refresh_waits_for_the_last_call_with_the_old_token() -> None:
    """And not for those with another."""
    calls = InFlight()
    with calls.call(NEW):
        with calls.call(OLD), calls.call(OLD):
            waiting = asyncio.create_task(calls.ended(OLD))
            await asyncio.sleep(0)
            assert not waiting.done()
        assert await waiting


async def test_it_waits_no_longer_than_it_may() -> None:
    """A call that hangs holds no refresh up for ever."""
    calls = InFlight()
    with calls.call(OLD):
        assert not await calls.ended(OLD, longest=0.01)
    assert await calls.ended(OLD, longest=0)


async def test_one_who_gives_up_takes_nothing_from_another_who_waits() -> None:
    """Two replicas' refreshes may wait for one call."""
    calls = InFlight()
    with calls.call(OLD):
        waiting = asyncio.create_task(calls.ended(OLD))
        assert not await calls.ended(OLD, longest=0.01)
        assert not waiting.done()
    assert await waiting


async def test_a_call_that_fails_counts_as_ended() -> None:
    """Whatever it fails by."""
    calls = InFlight()
    try:
        with calls.call(OLD):
            raise ValueError
    except ValueError:
        pass
    assert await calls.ended(OLD, longest=0)
