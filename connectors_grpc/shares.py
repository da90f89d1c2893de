"""Shares of so many places: who has many gets another only while many are free, so that one can't take them all.

A name may have one more while `spare` times what it has is fewer than what is free. One alone comes to a part in `spare + 1`, the
next to that part of what it left, and so on: of 100 places with a `spare` of 3 it takes 14 names to leave none, whoever comes
and goes. A place that falls free goes to whoever of those who wait has fewest. Knows no deadline: who waits brings one. Bounds:
names are forgotten with the last that holds or awaits a place.
Source: Choudhury and Hahne, Dynamic Queue Length Thresholds for Shared-Memory Packet Switches (1998).
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import AsyncIterator, Hashable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Generic, TypeVar

Name = TypeVar("Name", bound=Hashable)


class Shares(Generic[Name]):
    """One event loop's."""

    def __init__(self, places: int, spare: int = 1) -> None:
        self._free = places
        self._spare = spare
        self._taken: Counter[Name] = Counter()
        self._waiting: dict[Name, deque[asyncio.Future[None]]] = {}

    def __len__(self) -> int:
        """How many places are taken."""
        return self._taken.total()

    def waiting(self, name: Name) -> int:
        """How many of that name wait for their turn."""
        return len(self._waiting.get(name, ()))

    def room(self, name: Name) -> bool:
        """Whether there is a place for that name at once."""
        return self._taken[name] * self._spare < self._free

    @contextmanager
    def place(self, name: Name) -> Iterator[None]:
        """A place for the block, where `room` has just said that there is one."""
        self._take(name)
        try:
            yield
        finally:
            self._leave(name)

    @asynccontextmanager
    async def turn(self, name: Name) -> AsyncIterator[None]:
        """A place for the block, in the order in which those of its name came."""
        if name in self._waiting or not self.room(name):
            await self._wait(name)
        else:
            self._take(name)
        try:
            yield
        finally:
            self._leave(name)

    def _take(self, name: Name) -> None:
        self._taken[name] += 1
        self._free -= 1

    def _leave(self, name: Name) -> None:
        self._taken[name] -= 1
        self._free += 1
        if not self._taken[name]:
            del self._taken[name]
        self._serve()

    def _serve(self) -> None:
        """Places for those who wait, first for the name that has fewest."""
        while self._waiting:
            name = min(self._waiting, key=self._taken.__getitem__)
            if not self.room(name):
                return
            place = self._waiting[name][0]
            self._drop(name, place)
            if not place.done():  # whoever waits for it is there still
                self._take(name)
                place.set_result(None)

    async def _wait(self, name: Name) -> None:
        """Until `_serve` has taken a place for us."""
        place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(name, deque()).append(place)
        try:
            await place
        except asyncio.CancelledError:
            if place.cancelled():
                self._drop(name, place)
            else:  # it came in the same moment
                self._leave(name)
            raise

    def _drop(self, name: Name, place: asyncio.Future[None]) -> None:
        waiting = self._waiting.get(name, deque())
        if place in waiting:
            waiting.remove(place)
        if not waiting:
            self._waiting.pop(name, None)
