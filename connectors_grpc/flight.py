"""One call for many waiters: the same work asked for by several callers at once is done once, and nobody's leaving stops it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, Self, TypeVar

from connectors_grpc.errors import ConnectorsError, Reason

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")


class SingleFlight(Generic[Key, Value]):
    """Owns the tasks that it starts: leaving the context waits for them, up to `drain` seconds, then cancels."""

    def __init__(self, *, drain: float = 30.0) -> None:
        self._drain = drain
        self._flights: dict[Key, asyncio.Task[Value]] = {}

    async def run(self, key: Key, work: Callable[[], Awaitable[Value]]) -> Value:
        """Join the flight of `key`, or start it. A cancelled caller leaves the flight to the others, and to its end.

        Raises: what `work` raises; SERVER_UNAVAILABLE where the flight was cut because the server stops.
        """
        task = self._flights.get(key)
        if task is None:
            task = asyncio.ensure_future(work())
            self._flights[key] = task
            task.add_done_callback(lambda done: self._landed(key, done))
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            passenger = asyncio.current_task()
            if task.cancelled() and not (passenger and passenger.cancelling()):
                raise ConnectorsError(Reason.SERVER_UNAVAILABLE, retry_after=1.0) from None
            raise

    def flying(self, key: Key) -> bool:
        """Whether there is a flight to join."""
        return key in self._flights

    def _landed(self, key: Key, task: asyncio.Task[Value]) -> None:
        del self._flights[key]
        if not task.cancelled():
            task.exception()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_exc: object) -> None:
        if self._flights:
            _, late = await asyncio.wait(list(self._flights.values()), timeout=self._drain)
            for task in late:
                task.cancel()
