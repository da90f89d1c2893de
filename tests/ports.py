"""Ports for servers that can't be told «any»: from below the kernel's own range, so that no connection of anybody's takes one,
and from a block that is this process's alone, so that no other test run takes one between its choice and its use.
"""

from __future__ import annotations

import functools
import random
import socket
from collections.abc import Iterator
from itertools import chain, cycle

BLOCKS = [range(first, first + 400) for first in range(20_000, 32_000, 400)]
"""Linux gives out 32,768 and above by itself."""


@functools.cache
def _round() -> Iterator[int]:
    """Round this process's block for ever. What holds it until the process ends is a name that only one socket can have.

    Bounds: a process that finds all of them held shares one.
    """
    blocks = random.SystemRandom().sample(BLOCKS, len(BLOCKS))
    mine = blocks[0]
    for block in blocks:
        with socket.socket(socket.AF_UNIX) as name:
            try:
                name.bind(f"\0connectors-tests-ports-{block.start}")
            except OSError:
                continue
            name.detach()  # stays open
        mine = block
        break
    return chain.from_iterable(cycle([mine]))


def free_port() -> int:
    """A loopback port that nobody listens on, and that was not given lately in this process."""
    for port in _round():
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
