"""Turns: of each name so many at once, while the rest wait. So that one's slow peer leaves room for the others.

Knows no deadline: who waits brings one. Bounds: names are forgotten with the last that uses or awaits them.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Hashable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Generic, TypeVar

Name = TypeVar("Name", bound=Hashable)


@dataclass(slots=True)
class _Turn:
    room: asyncio.Semaphore
    users: int = 0


class Turns(Generic[Name]):
    """One event loop's. `most` of one name at once, in the order in which they came."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._turns: dict[Name, _Turn] = {}

    def __len__(self) -> int:
        return len(self._turns)

    @asynccontextmanager
    async def of(self, name: Name) -> AsyncIterator[None]:
        """A turn of that name, for the block."""
        turn = self._turns.setdefault(name, _Turn(asyncio.Semaphore(self._most)))
        turn.users += 1
        try:
            async with turn.room:
                yield
        finally:
            turn.users -= 1
            if not turn.users:
                del self._turns[name]
