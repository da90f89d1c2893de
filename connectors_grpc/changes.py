"""The feed of changes within one process. Replicas need more: connectors_grpc.journals puts it around this."""

from __future__ import annotations

import asyncio
import weakref
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Final

from connectors_grpc.ports import Change, Said, Told

CAPACITY: Final = 1024


class ChangeFeed:
    """`Changes` of one process, and `Replicas` of one that is alone.

    Every subscriber has a bounded queue of its own, so a slow one never holds up the others.
    One event loop's: publish and subscribe on it.  Bounds: `capacity` changes a subscriber.
    """

    def __init__(self, capacity: int = CAPACITY) -> None:
        if capacity < 1:
            raise ValueError("a queue holds at least one change")
        self._capacity = capacity
        # Weak, so that a subscriber that is gone without a word leaves nothing behind.
        self._subscriptions: weakref.WeakSet[Subscription] = weakref.WeakSet()
        self._caches: list[Callable[[Change | None], None]] = []

    def on_change(self, forget: Callable[[Change | None], None]) -> None:
        """Have a cache of this process forget, before any subscriber hears of it; None: everything. Must not raise."""
        self._caches.append(forget)

    def publish(self, change: Change) -> None:
        """See ports.Changes."""
        self._tell(change)

    def resync(self) -> None:
        """Tell all that something was missed: None, whose meaning is to read everything again."""
        self._tell(None)

    def _tell(self, change: Change | None) -> None:
        for forget in self._caches:
            forget(change)
        for subscription in list(self._subscriptions):
            subscription.put(change)

    def hears(self) -> bool:
        """See ports.Changes. There is nobody else to hear."""
        return True

    def others(self) -> Mapping[str, Said]:
        """See ports.Replicas. There are none."""
        return {}

    def say(self, said: Said) -> None:
        """See ports.Replicas. Nobody hears it."""

    def on_heard(self, heard: Callable[[], None]) -> None:
        """See ports.Replicas. Nothing ever is."""

    def subscribe(self) -> Subscription:
        """See ports.Changes. Counts from this call, not from the first read; ends when it is closed or dropped."""
        subscription = Subscription(self._capacity)
        self._subscriptions.add(subscription)
        return subscription


class Subscription(AsyncIterator[Change | Told | None]):
    """`ports.Subscription`. For one reader at a time."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._queue: deque[Change | Told | None] = deque()
        self._ready = asyncio.Event()
        self._closed = False

    def put(self, item: Change | Told | None) -> None:
        """Add one. Over the bound, or before a None, all changes that wait give way to one None: read everything again."""
        if self._closed:
            return
        if item is None or len(self._queue) >= self._capacity:
            self._queue.clear()
            self._queue.append(None)
        if item is None:
            self._ready.set()
            return
        # Behind a None the change must stay: the reader may read everything before this change has landed.
        self._queue.append(item)
        self._ready.set()

    def close(self) -> None:
        """End the subscription: the reader's loop ends too. Safe more than once."""
        self._closed = True
        self._queue.clear()
        self._ready.set()

    async def __anext__(self) -> Change | Told | None:
        while not self._queue:
            if self._closed:
                raise StopAsyncIteration
            self._ready.clear()
            await self._ready.wait()
        return self._queue.popleft()
