"""Several at once, but not too many."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import TypeVar

Item = TypeVar("Item")
Value = TypeVar("Value")

MOST = 8


async def several(work: Callable[[Item], Awaitable[Value]], items: Iterable[Item], *, most: int = MOST) -> list[Value]:
    """What `work` gives for each item, in their order, up to `most` at a time. The first that raises ends the others.

    Raises: what `work` raises.
    """
    free = asyncio.Semaphore(most)

    async def one(item: Item) -> Value:
        async with free:
            return await work(item)

    tasks = [asyncio.ensure_future(one(item)) for item in items]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
