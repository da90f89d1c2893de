"""The short-lived cache: how stale it may be, and that one read serves all who ask."""

from __future__ import annotations

import asyncio

import pytest

from connectors_grpc.recent import Recent
from tests.clock import ManualClock


class Source:
    """Reads that are counted, held back while `gate` is shut, and fail while `failing`."""

    def __init__(self) -> None:
        self.reads = 0
        self.value = "old"
        self.failing = False
        self.gate = asyncio.Event()
        self.gate.set()
        self.begun = asyncio.Event()

    async def read(self, _key: str) -> str:
        """The value as it was when the read began."""
        self.reads += 1
        value, failing = self.value, self.failing
        self.begun.set()
        await self.gate.wait()
        if failing:
            raise OSError
        return value


async def test_within_its_life_a_value_is_read_once_and_after_it_again() -> None:
    """A second, by the clock that does not jump."""
    clock, source = ManualClock(), Source()
    recent: Recent[str, str] = Recent(clock)
    assert [await recent.get("a", source.read) for _ in range(3)] == ["old"] * 3
    clock.advance(0.999)
    await recent.get("a", source.read)
    assert source.reads == 1
    source.value = "new"
    clock.advance(0.001)
    assert await recent.get("a", source.read) == "new"


async def test_however_many_ask_at_once_one_reads_and_a_cancelled_one_takes_nobody_along() -> None:
    """The read is shielded."""
    source = Source()
    recent: Recent[str, str] = Recent(ManualClock())
    source.gate.clear()
    asking = [asyncio.create_task(recent.get("a", source.read)) for _ in range(5)]
    await source.begun.wait()
    asking[0].cancel()
    source.gate.set()
    results = await asyncio.gather(*asking, return_exceptions=True)
    assert isinstance(results[0], asyncio.CancelledError)
    assert results[1:] == ["old"] * 4
    assert source.reads == 1


async def test_a_failure_is_told_to_all_who_wait_and_not_remembered() -> None:
    """The next asks again."""
    source = Source()
    recent: Recent[str, str] = Recent(ManualClock())
    source.failing = True
    results = await asyncio.gather(*(recent.get("a", source.read) for _ in range(2)), return_exceptions=True)
    assert [type(result) for result in results] == [OSError, OSError]
    source.failing = False
    assert await recent.get("a", source.read) == "old"


@pytest.mark.parametrize("everything", [False, True])
async def test_what_was_dropped_while_it_was_read_is_not_kept(everything: bool) -> None:
    """It may be from before the change: the next reads anew, at once."""
    source = Source()
    recent: Recent[str, str] = Recent(ManualClock())
    source.gate.clear()
    first = asyncio.create_task(recent.get("a", source.read))
    await source.begun.wait()
    source.value = "new"
    if everything:
        recent.clear()
    else:
        recent.drop("a")
    second = asyncio.create_task(recent.get("a", source.read))
    source.gate.set()
    assert await second == "new"
    assert await first == "old"
    assert await recent.get("a", source.read) == "new"
    assert source.reads == 2


async def test_it_holds_so_many_and_forgets_the_oldest() -> None:
    """Bounded, whoever asks for what."""
    source = Source()
    recent: Recent[str, str] = Recent(ManualClock(), most=2)
    for key in ("a", "b", "c", "c", "b"):
        await recent.get(key, source.read)
    assert source.reads == 3
    await recent.get("a", source.read)
    assert source.reads == 4
