"""Names to addresses by the system's resolver, without one name's holding up another. Shared with the sidecar; no policy."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

Resolver = Callable[[str, int], Awaitable[Sequence[str]]]
"""Gives the IP addresses of a host, in the order to try them. Raises: OSError."""

LookUp = Callable[..., Sequence[Any]]
"""`socket.getaddrinfo`, or what stands in for it."""

LOOKUP = 5.0
"""Seconds. As long as the system's resolver waits for one server before it asks the next."""
MOST_LOOKUPS = 16


class SystemResolver:
    """`Resolver` by the system; it also reads `127.1` and its kind, so that those are checked as what they mean.

    In threads of its own, since a lookup can't be ended, and one for each name however many ask: a name whose servers hang
    holds up itself, and neither other names nor whatever else waits for a thread of the process.
    One event loop's.  Bounds: `most` threads; each answer is there within `deadline` seconds, or not at all.
    """

    def __init__(
        self, *, deadline: float = LOOKUP, most: int = MOST_LOOKUPS, look_up: LookUp = socket.getaddrinfo
    ) -> None:
        self._threads = ThreadPoolExecutor(most, thread_name_prefix="dns")
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
        look_up = partial(self._look_up, host, port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP)
        begun = asyncio.get_running_loop().run_in_executor(self._threads, look_up)
        self._under_way[host, port] = begun

        def over(ended: asyncio.Future[Sequence[Any]]) -> None:
            del self._under_way[host, port]
            if not ended.cancelled():
                ended.exception()  # perhaps nobody waits for it any more

        begun.add_done_callback(over)
        return begun

    def close(self) -> None:
        """Begin no lookup any more; those that hang are not waited for."""
        self._threads.shutdown(wait=False, cancel_futures=True)
