"""Names to addresses by the system's resolver, without one name's holding up another. Shared with the sidecar; no policy."""

from __future__ import annotations

import asyncio
import math
import socket
import time
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

Resolver = Callable[[str, int], Awaitable[Sequence[str]]]
"""Gives the IP addresses of a host, in the order to try them. Raises: OSError."""

LookUp = Callable[..., Sequence[Any]]
"""`socket.getaddrinfo`, or what stands in for it."""

LOOKUP = 5.0
"""Seconds. As long as the system's resolver waits for one server before it asks the next."""
MOST_LOOKUPS = 16
MOST_WAITING = 1000
"""Of names that are not known to answer: what comes above that is not looked up."""
MOST_KNOWN = 10_000
DOUBT = 600.0
"""Seconds after a lookup that hung in which its name counts as one that is not known to answer."""


class SystemResolver:
    """`Resolver` by the system; it also reads `127.1` and its kind, so that those are checked as what they mean.

    In threads of its own, since a lookup can't be ended, and one for each name however many ask. Tenants may choose names, and
    as many whose servers hang as they like: so names that are known to answer have threads that no other can take. A name
    that hangs holds up itself and strangers; neither those, nor whatever else waits for a thread of the process.
    One event loop's.  Bounds: twice `most` threads; each answer is there within `deadline` seconds, or not at all.
    """

    def __init__(
        self, *, deadline: float = LOOKUP, most: int = MOST_LOOKUPS, look_up: LookUp = socket.getaddrinfo
    ) -> None:
        self._known_threads = ThreadPoolExecutor(most, thread_name_prefix="dns")
        self._other_threads = ThreadPoolExecutor(most, thread_name_prefix="dns-other")
        self._known: dict[str, float] = {}
        self._waiting = 0
        self._under_way: dict[tuple[str, int], asyncio.Future[Sequence[Any]]] = {}
        self._deadline = deadline
        self._look_up = look_up

    async def __call__(self, host: str, port: int) -> Sequence[str]:
        """See Resolver.  Raises: socket.gaierror, TimeoutError."""
        found = self._under_way.get((host, port)) or self._begin(host, port)
        try:
            async with asyncio.timeout(self._deadline):
                addresses = await asyncio.shield(found)
        except UnicodeError:
            raise socket.gaierror("no DNS name") from None
        return [str(address[0]) for *_, address in addresses]

    def _begin(self, host: str, port: int) -> asyncio.Future[Sequence[Any]]:
        """Raises: TimeoutError."""
        known = self._known.get(host, math.inf) <= time.monotonic()
        if not known and self._waiting >= MOST_WAITING:
            raise TimeoutError
        took = 0.0

        def look_up() -> Sequence[Any]:
            nonlocal took
            began = time.monotonic()
            try:
                return self._look_up(host, port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP)
            finally:
                took = time.monotonic() - began

        threads = self._known_threads if known else self._other_threads
        begun = asyncio.get_running_loop().run_in_executor(threads, look_up)
        self._under_way[host, port] = begun
        self._waiting += not known

        def over(ended: asyncio.Future[Sequence[Any]]) -> None:
            del self._under_way[host, port]
            self._waiting -= not known
            # An exception is looked at in any case: perhaps nobody waits for it any more.
            answered = not ended.cancelled() and ended.exception() is None
            self._note(host, answered=answered, hung=took > self._deadline)

        begun.add_done_callback(over)
        return begun

    def _note(self, host: str, *, answered: bool, hung: bool) -> None:
        """Remember from when on a name counts as known: at once, or once it is out of doubt."""
        since = self._known.pop(host, None)
        if hung:
            since = time.monotonic() + DOUBT
        elif answered and since is None:
            since = time.monotonic()
        if since is not None:
            while len(self._known) >= MOST_KNOWN:
                del self._known[next(iter(self._known))]
            self._known[host] = since

    def close(self) -> None:
        """Begin no lookup any more; those that hang are not waited for."""
        for threads in (self._known_threads, self._other_threads):
            threads.shutdown(wait=False, cancel_futures=True)
