"""What was read a moment ago: a small cache with a short life, which also reads a thing once however many ask.

It bounds both how stale an answer may be (so that revocation is seen in time) and how often the Vault is asked.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

from connectors_grpc.ports import Clock

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")

TTL = 1.0
"""Seconds."""


class Recent(Generic[Key, Value]):
    """Remembers `most` values for a second each. Failures are not remembered."""

    def __init__(self, clock: Clock, *, most: int = 10_000) -> None:
        self._clock = clock
        self._most = most
        self._values: OrderedDict[Key, tuple[float, Value]] = OrderedDict()
        self._reads: dict[Key, asyncio.Task[Value]] = {}

    async def get(self, key: Key, read: Callable[[Key], Awaitable[Value]]) -> Value:
        """The value, read if it is not here or too old. Cancelling one caller does not cancel the others' read."""
        held = self._values.get(key)
        if held is not None and self._clock.monotonic() - held[0] < TTL:
            return held[1]
        task = self._reads.get(key)
        if task is None:
            task = asyncio.ensure_future(self._read(key, read))
            self._reads[key] = task
            task.add_done_callback(lambda done: self._finished(key, done))
        return await asyncio.shield(task)

    async def _read(self, key: Key, read: Callable[[Key], Awaitable[Value]]) -> Value:
        began = self._clock.monotonic()
        value = await read(key)
        # Not kept if it was dropped meanwhile: what was read may be from before the change.
        if self._reads.get(key) is asyncio.current_task():
            self._values[key] = (began, value)
            self._values.move_to_end(key)
            while len(self._values) > self._most:
                self._values.popitem(last=False)
        return value

    def _finished(self, key: Key, task: asyncio.Task[Value]) -> None:
        if self._reads.get(key) is task:
            del self._reads[key]
        if not task.cancelled():
            task.exception()

    def drop(self, key: Key) -> None:
        """Forget one value, and what a read under way will bring."""
        self._values.pop(key, None)
        self._reads.pop(key, None)

    def clear(self) -> None:
        """Forget everything, and what reads under way will bring."""
        self._values.clear()
        self._reads.clear()
