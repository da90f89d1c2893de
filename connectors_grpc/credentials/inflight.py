"""Calls under way, by the material they went out with: where a refresh ends the old access token, they are let end first.

Of this process only; the others', and sidecars', are `Holding`'s. Later calls wait for the refresh itself, so that what is
waited for can only get less.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from connectors_grpc.domain.ids import CredentialId

LONGEST = 5.0
"""Seconds that a refresh waits at most: a call that takes longer meets a dead token, as it might have anyway."""

Use = tuple[str, CredentialId, int]
"""Tenant's uid, credential, generation."""


class InFlight:
    """Counts calls. One for the process."""

    def __init__(self) -> None:
        self._calls: Counter[Use] = Counter()
        self._waiting: dict[Use, asyncio.Event] = {}

    @contextmanager
    def call(self, use: Use) -> Iterator[None]:
        """A call with that material is under way for the block."""
        self._calls[use] += 1
        try:
            yield
        finally:
            self._calls[use] -= 1
            if not self._calls[use]:
                del self._calls[use]
                if use in self._waiting:
                    self._waiting.pop(use).set()

    async def ended(self, use: Use, longest: float = LONGEST) -> bool:
        """Wait until no call is under way with it; False if some still were after `longest` seconds. Any number may wait."""
        if use not in self._calls:
            return True
        event = self._waiting.setdefault(use, asyncio.Event())
        try:
            async with asyncio.timeout(longest):
                await event.wait()
        except TimeoutError:
            return False
        return True
