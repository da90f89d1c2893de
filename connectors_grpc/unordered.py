"""Answers to a stream of items, several at once: what is not taken is not read.

It must not know what an item is. Nothing is read while `most` items are under way or wait to be taken, so that a slow reader
of answers slows the writer of items.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable, Hashable
from typing import TypeVar

Item = TypeVar("Item")
Value = TypeVar("Value")


async def unordered(
    items: AsyncIterable[Item],
    work: Callable[[Item], Awaitable[Value]],
    *,
    most: int,
    key: Callable[[Item], Hashable],
) -> AsyncGenerator[Value, None]:
    """What `work` gives for each item, as it is ready. Items of one `key` are worked at one after the other, as they came.

    Leaving ends what is under way.  Bounds: `most` items at once, answers that wait to be taken among them.
    Raises: what `items` and `work` raise, after the answers to what came before.
    """
    free = asyncio.Semaphore(most)
    ready: asyncio.Queue[asyncio.Task[Value] | None] = asyncio.Queue()
    under_way: dict[Hashable, asyncio.Task[Value]] = {}
    tasks: set[asyncio.Task[Value]] = set()

    async def begin(item: Item) -> None:
        name = key(item)
        if (before := under_way.get(name)) is not None:
            await asyncio.wait({before})
        task = under_way[name] = asyncio.ensure_future(work(item))
        tasks.add(task)
        task.add_done_callback(ready.put_nowait)

    async def read() -> None:
        source = aiter(items)
        while True:
            await free.acquire()
            try:
                item = await anext(source)
            except StopAsyncIteration:
                return
            await begin(item)

    reading = asyncio.ensure_future(read())
    # Whatever is under way when reading ends is answered first: then nothing more can become ready.
    reading.add_done_callback(lambda _: ready.put_nowait(None))
    ended = False
    try:
        while not ended or tasks:
            task = await ready.get()
            if task is None:
                ended = True
                continue
            tasks.discard(task)
            for name in [name for name, other in under_way.items() if other is task]:
                del under_way[name]
            yield task.result()
            free.release()
        await reading
    finally:
        for left in (reading, *tasks):
            left.cancel()
        await asyncio.gather(reading, *tasks, return_exceptions=True)
