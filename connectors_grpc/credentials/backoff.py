"""Leaves a provider alone for a while after it failed: what was answered then is the answer until the pause is over.

Knows nothing of credentials; a key stands for whatever failed.
"""

from __future__ import annotations

import random
from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Generic, TypeVar

from connectors_grpc.errors import ConnectorsError
from connectors_grpc.ports import Clock

Key = TypeVar("Key", bound=Hashable)

FIRST = 2.0
LONGEST = 60.0
"""Seconds. A provider's own Retry-After may ask for more."""
JITTER = 0.25


@dataclass(frozen=True, slots=True)
class _Failure:
    error: ConnectorsError
    times: int
    until: float


class Backoff(Generic[Key]):
    """Remembers `most` failures, the latest ones. Units: seconds of the clock's monotonic time."""

    def __init__(self, clock: Clock, *, most: int = 10_000) -> None:
        self._clock = clock
        self._most = most
        self._failures: OrderedDict[Key, _Failure] = OrderedDict()

    def check(self, key: Key) -> None:
        """Raises: what failed, while its pause lasts, with the time that is left of it."""
        failure = self._failures.get(key)
        left = 0.0 if failure is None else failure.until - self._clock.monotonic()
        if failure is not None and left > 0:
            raise ConnectorsError(failure.error.reason, failure.error.metadata, retry_after=left)

    def failed(self, key: Key, error: ConnectorsError) -> None:
        """It failed (again): the pause is what the error says, or twice the last one, give or take a quarter."""
        before = self._failures.pop(key, None)
        times = 1 if before is None else before.times + 1
        pause = min(LONGEST, FIRST * 2.0 ** min(times - 1, 16))
        pause *= 1 + JITTER * random.uniform(-1, 1)  # noqa: S311 - spreads load, guards nothing
        self._failures[key] = _Failure(error, times, self._clock.monotonic() + max(pause, error.retry_after or 0.0))
        while len(self._failures) > self._most:
            self._failures.popitem(last=False)

    def succeeded(self, key: Key) -> None:
        """Forget that it ever failed."""
        self._failures.pop(key, None)
