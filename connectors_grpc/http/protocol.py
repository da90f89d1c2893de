"""uvicorn's protocol on httptools, with the bounds on a request's head that it lacks: bytes, and time.

httptools refuses two framings at once and bare line ends (attack 20), which uvicorn's other protocol lets pass.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from connectors_grpc.errors import ConnectorsError, Reason
from connectors_grpc.http.transcoding import problem

MOST_HEAD = 32 * 1024
"""Bytes of a head's target, names and values, and of a head that came in several reads."""
MOST_LINES = 100
HEAD_DEADLINE = 10.0
"""Seconds from the connection, or from a head's first byte, to the head's end."""


class BoundedProtocol(HttpToolsProtocol):
    """Closes connections whose head is too long or too slow. Nobody who writes HTTP properly meets it."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # Whatever handlers somebody gives uvicorn's logger: request lines hold codes, states and handles.
        self.access_log = False
        self._head: int | None = 0
        self._size, self._hosted = 0, False
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
        self._size, self._hosted = 0, False
        if self._head is None:
            self._await_head()

    def on_url(self, url: bytes) -> None:
        """Some of the target."""
        super().on_url(url)
        self._count(len(url))

    def on_header(self, name: bytes, value: bytes) -> None:
        """A line. Two hosts are none (attack 8)."""
        super().on_header(name, value)
        self._count(len(name) + len(value))
        if len(self.headers) > MOST_LINES or (name.lower() == b"host" and self._hosted):
            raise ValueError("too many header lines")
        self._hosted = self._hosted or name.lower() == b"host"

    def _count(self, size: int) -> None:
        """However many reads it came in. The parser turns what is raised here into a refusal."""
        self._size += size
        if self._size > MOST_HEAD:
            raise ValueError("the head is too long")

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002
        """As problem+json, and the connection ends: nobody knows where the next request would begin (attack 20)."""
        body = json.dumps(problem(ConnectorsError(Reason.MALFORMED_REQUEST))).encode()
        head = (
            "HTTP/1.1 400 Bad Request\r\nContent-Type: application/problem+json\r\nCache-Control: no-store\r\n"
            f"X-Connectors-Error: {Reason.MALFORMED_REQUEST}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        )
        self.transport.write(head.encode() + body)
        self.transport.close()

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
