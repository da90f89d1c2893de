"""Single flight: the same work asked for by many is done once, and nobody's leaving stops it."""

from __future__ import annotations

import asyncio

import pytest

from connectors_grpc.errors import ConnectorsError
from connectors_grpc.flight import SingleFlight


async def test_many_join_one_flight_and_the_next_is_a_new_one() -> None:
    """Keys fly apart."""
    done: list[str] = []
    gate = asyncio.Event()

    async def work(name: str) -> str:
        await gate.wait()
        done.append(name)
        return name

    async with SingleFlight[str, str]() as flights:
        joined = [asyncio.create_task(flights.run("a", lambda: work("a"))) for _ in range(4)]
        joined.append(asyncio.create_task(flights.run("b", lambda: work("b"))))
        gate.set()
        assert await asyncio.gather(*joined) == ["a", "a", "a", "a", "b"]
        assert sorted(done) == ["a", "b"]
        await flights.run("a", lambda: work("a"))
    assert sorted(done) == ["a", "a", "b"]


async def test_a_cancelled_caller_leaves_the_flight_to_its_end() -> None:
    """Even if it was the only one: what a provider answers must be stored."""
    gate, landed, begun = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def work() -> None:
        begun.set()
        await gate.wait()
        landed.set()

    async with SingleFlight[str, None]() as flights:
        only = asyncio.create_task(flights.run("a", work))
        await begun.wait()
        only.cancel()
        with pytest.raises(asyncio.CancelledError):
            await only
        gate.set()
    assert landed.is_set(), "leaving waits for flights"


async def test_a_failure_reaches_all_who_joined_and_is_not_kept() -> None:
    """Nobody hears of a task whose exception was never retrieved, either."""

    async def fail() -> None:
        raise OSError

    async def fine() -> str:
        return "fine"

    flights: SingleFlight[str, object] = SingleFlight()
    results = await asyncio.gather(*(flights.run("a", fail) for _ in range(3)), return_exceptions=True)
    assert [type(result) for result in results] == [OSError] * 3
    assert await flights.run("a", fine) == "fine"


async def test_what_does_not_land_in_time_is_cancelled_when_the_server_stops() -> None:
    """After `drain` seconds."""
    begun, cut = asyncio.Event(), asyncio.Event()

    async def hang() -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            cut.set()

    async with SingleFlight[str, None](drain=0.01) as flights:
        waiting = asyncio.create_task(flights.run("a", hang))
        await begun.wait()
    with pytest.raises(ConnectorsError, match="SERVER_UNAVAILABLE"):
        await waiting
    assert cut.is_set()
