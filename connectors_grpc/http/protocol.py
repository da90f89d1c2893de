"""uvicorn's protocol on httptools, with the bounds on a request's head that it lacks: bytes, and time.

httptools refuses two framings at once and bare line ends (attack 20), which uvicorn's other protocol lets pass.
"""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MOST_HEAD = 32 * 1024
"""Bytes of a head that came in several reads; one read brings 256 KiB at most."""
HEAD_DEADLINE = 10.0
"""Seconds from the connection, or from a head's first byte, to the head's end."""


class BoundedProtocol(HttpToolsProtocol):
    """Closes connections whose head is too long or too slow. Nobody who writes HTTP properly meets it."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # Whatever handlers somebody gives uvicorn's logger: request lines hold codes, states and handles.
        self.access_log = False
        self._head: int | None = 0
        self._late: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A head is awaited."""
        super().connection_made(transport)
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing is awaited any more."""
        self._headed()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Count what belongs to a head."""
        if self._head is not None:
            self._head += len(data)
        super().data_received(data)
        if self._head is not None and self._head > MOST_HEAD:
            self.transport.close()

    def on_message_begin(self) -> None:
        """The next head begins, perhaps behind an earlier request on the same connection."""
        super().on_message_begin()
        if self._head is None:
            self._await_head()

    def on_headers_complete(self) -> None:
        """It is whole."""
        self._headed()
        super().on_headers_complete()

    def _await_head(self) -> None:
        self._head = 0
        self._late = self.loop.call_later(HEAD_DEADLINE, self.transport.close)

    def _headed(self) -> None:
        self._head = None
        if self._late is not None:
            self._late.cancel()
            self._late = None
