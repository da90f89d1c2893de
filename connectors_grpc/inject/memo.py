"""What was worked out about header lines, remembered: bounded, and never of a line whose name says that it holds a secret."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TypeVar

K = TypeVar("K")
V = TypeVar("V")

MOST = 4096
LONGEST = 256
_SECRETIVE = re.compile(rb"auth|cookie|(?<!idempotency-)key|token|secret|session|signature|password", re.IGNORECASE)


class Memo(dict[K, V]):
    """Bounds: MOST entries; then it begins anew, since what is used is soon there again. Read it with plain `get`."""

    __slots__ = ()

    def keep(self, key: K, value: V) -> None:
        """Remember."""
        if len(self) >= MOST:
            self.clear()
        self[key] = value


@lru_cache(maxsize=1024)
def shared(value: K) -> K:
    """An equal object that others hold already: for what thousands of leases have in common, never for a secret."""
    return value


@lru_cache(maxsize=1024)
def secretive(name: bytes) -> bool:
    """Whether a line of that name may hold a secret, which must not outlive its request."""
    return _SECRETIVE.search(name) is not None
