"""Happy eyeballs: the addresses of one name tried one after the other, a moment apart, and the first that connects wins.

Dials the very addresses it is given, and looks nothing up.  Source: RFC 8305.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Sequence
from itertools import chain, zip_longest

STAGGER = 0.25
"""Seconds between the beginnings of two attempts; a failure begins the next at once.  Source: RFC 8305 section 8."""

Connect = Callable[[str, int], Awaitable[socket.socket]]


def interleaved(addresses: Sequence[str]) -> list[str]:
    """IPv6 and IPv4 in turn, beginning with the family that the resolver put first.  Source: RFC 8305 section 4."""
    six, four = ([each for each in addresses if (":" in each) is wanted] for wanted in (True, False))
    first, second = (six, four) if addresses and ":" in addresses[0] else (four, six)
    return [each for each in chain.from_iterable(zip_longest(first, second)) if each is not None]


async def race(
    addresses: Sequence[str], port: int, *, stagger: float = STAGGER, connect: Connect | None = None
) -> tuple[str, socket.socket]:
    """The address that won, and its socket; the losers are closed. Raises: OSError (the last failure, if all fail)."""
    waiting = list(reversed(addresses))
    running: dict[asyncio.Task[socket.socket], str] = {}
    failure = OSError("no address")
    try:
        while waiting or running:
            if waiting:
                address = waiting.pop()
                running[asyncio.ensure_future((connect or tcp)(address, port))] = address
            done, _ = await asyncio.wait(
                running, timeout=stagger if waiting else None, return_when=asyncio.FIRST_COMPLETED
            )
            for task in done:
                error = task.exception()
                if error is None:
                    return running.pop(task), task.result()
                del running[task]
                failure = error if isinstance(error, OSError) else OSError("not connected")
        raise failure
    finally:
        for task in running:
            task.cancel()
        for loser in await asyncio.gather(*running, return_exceptions=True):
            if isinstance(loser, socket.socket):
                loser.close()


async def tcp(address: str, port: int) -> socket.socket:
    """One connection. Raises: OSError."""
    sock = socket.socket(
        socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK
    )
    try:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        await asyncio.get_running_loop().sock_connect(sock, (address, port))
    except BaseException:
        sock.close()
        raise
    return sock
