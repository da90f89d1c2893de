"""What was worked out about header lines, remembered: bounded, and never of a line whose name says that it holds a secret."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")

MOST = 4096
LONGEST = 256
RESTLESS = 256
"""Lines of one name that are remembered: one with more changes with every message, as request ids do."""
_MOST_NAMES = 2048
_LONGEST_NAME = 64
_SECRETIVE = re.compile(rb"auth|cookie|(?<!idempotency-)key|token|secret|session|signature|password", re.IGNORECASE)


class Memo(Generic[K, V]):
    """Bounds: MOST entries; then it begins anew, since what is used is soon there again. Read `known` with plain `get`."""

    __slots__ = ("_times", "known")

    def __init__(self) -> None:
        self.known: dict[K, V] = {}
        self._times: dict[bytes, int] = {}

    def keep(self, name: bytes, key: K, value: V) -> None:
        """Remember a line of that name; not if it may hold a secret, and not if there were too many of them already."""
        times = self._times.get(name)
        if times is None:
            if len(self._times) >= _MOST_NAMES or len(name) > _LONGEST_NAME:
                return
            times = self._times[name] = RESTLESS if secretive(name) else 0
        if times < RESTLESS:
            self._times[name] = times + 1
            if len(self.known) >= MOST:
                self.known.clear()
            self.known[key] = value


@lru_cache(maxsize=1024)
def shared(value: K) -> K:
    """An equal object that others hold already: for what thousands of leases have in common, never for a secret."""
    return value


@lru_cache(maxsize=1024)
def secretive(name: bytes) -> bool:
    """Whether a line of that name may hold a secret, which must not outlive its request."""
    return _SECRETIVE.search(name) is not None
