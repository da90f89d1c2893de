"""Ports for servers that can't be told «any»: from below the kernel's own range, so that no connection of anybody's takes one."""

from __future__ import annotations

import itertools
import random
import socket
from collections.abc import Iterator

FIRST, LAST = 20_000, 32_000
"""Linux gives out 32,768 and above by itself."""


def _ports() -> Iterator[int]:
    """Round the range for ever, from a place of this process's own: test runs go on beside each other."""
    start = random.SystemRandom().randrange(LAST - FIRST)
    for step in itertools.count():
        yield FIRST + (start + step) % (LAST - FIRST)


_round = _ports()


def free_port() -> int:
    """A loopback port that nobody listens on, and that was not given before in this process."""
    for port in _round:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port
    raise AssertionError


def free_ports(number: int) -> list[int]:
    """So many different ones."""
    return [free_port() for _ in range(number)]
