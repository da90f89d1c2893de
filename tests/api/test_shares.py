"""Shares of so many places: whoever has none finds one, and none is lost."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors_grpc.shares import Shares


def fill(shares: Shares[int], name: int, stack: ExitStack) -> int:
    """Take all that the name may have; says how many that were."""
    count = 0
    while shares.room(name):
        stack.enter_context(shares.place(name))
        count += 1
    return count


@pytest.mark.parametrize(
    ("places", "spare", "alone", "names"), [(100, 1, 50, 7), (100, 3, 25, 14), (1000, 1, 500, 10), (1, 1, 1, 1)]
)
def test_one_has_a_part_and_it_takes_many_to_leave_none(places: int, spare: int, alone: int, names: int) -> None:
    """Each takes all that it may, one after the other; nobody can have more by another order."""
    shares, count = Shares[int](places, spare), 0
    with ExitStack() as stack:
        assert fill(shares, 0, stack) == alone
        while shares.room(count + 1):
            count += 1
            fill(shares, count, stack)
    assert count + 1 == names
    assert len(shares) == 0


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(1, 60), st.booleans()), max_size=100))
def test_six_never_fill_what_takes_seven(steps: list[tuple[int, int, bool]]) -> None:
    """However they come and go."""
    shares, held = Shares[int](100), {name: list[ExitStack]() for name in range(6)}
    with ExitStack() as all_of_them:
        for name, times, leaves in steps:
            for _ in range(times):
                if leaves and held[name]:
                    held[name].pop().close()
                elif not leaves and shares.room(name):
                    held[name].append(all_of_them.enter_context(ExitStack()))
                    held[name][-1].enter_context(shares.place(name))
            assert shares.room(6)
            assert len(shares) == sum(map(len, held.values()))


async def test_those_who_wait_come_in_order_but_who_has_none_comes_first() -> None:
    """Of one name the first that came; of several names that which has fewest."""
    shares, came = Shares[str](3), list[str]()

    async def enter(name: str, label: str) -> None:
        async with shares.turn(name):
            came.append(label)

    with ExitStack() as stack:
        for name in ("greedy", "other"):
            stack.enter_context(shares.place(name))
        with ExitStack() as last:
            last.enter_context(shares.place("third"))
            wanted = (("greedy", "greedy 1"), ("greedy", "greedy 2"), ("modest", "modest"))
            waiting = [asyncio.create_task(enter(*each)) for each in wanted]
            await asyncio.sleep(0)
            assert came == []
        await waiting[2]
    await asyncio.gather(*waiting)
    assert came == ["modest", "greedy 1", "greedy 2"]
    assert len(shares) == 0


async def test_who_gives_up_leaves_no_place_behind() -> None:
    """Cancelled while it waits, and in the very moment in which its place came."""
    shares = Shares[str](2)

    async def enter() -> None:
        async with shares.turn("one"):
            raise AssertionError

    for freed in (False, True):
        with ExitStack() as stack:
            stack.enter_context(shares.place("one"))
            waiting = asyncio.create_task(enter())
            await asyncio.sleep(0)
            if freed:
                stack.close()
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)
            assert waiting.cancelled()
        assert len(shares) == 0
        assert shares.room("one")
