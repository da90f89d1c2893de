"""Trailers over the HTTP transport, which knows none: what follows a chunked body, either way.

Connections are the transport's own but for two of its steps: how a body ends that is sent, and how one that comes. Tests hold
this to what the transport is inside.  Source: RFC 9112 section 7.1.2.
"""

from __future__ import annotations

import ssl
from collections.abc import AsyncGenerator, AsyncIterable, Callable
from dataclasses import dataclass, field
from typing import Any

import h11
import httpcore2

Raw = list[tuple[bytes, bytes]]

MOST_LINES = 64
MOST_BYTES = 8 * 1024
EXTENSION = "trailers"
"""Of a request: its `Trailers`."""


@dataclass(slots=True)
class Trailers:
    """Of one exchange. `send` is asked once the request's body ended; `came` is what came behind the answer's."""

    send: Callable[[], Raw]
    came: Raw = field(default_factory=list)


def within_bounds(lines: Raw) -> bool:
    """MOST_LINES, and MOST_BYTES of names and values together."""
    return len(lines) <= MOST_LINES and sum(len(name) + len(value) for name, value in lines) <= MOST_BYTES


class Pool(httpcore2.AsyncConnectionPool):
    """The transport's pool, of connections that pass trailers. `context` is asked for each new one."""

    def __init__(self, *, context: Callable[[], ssl.SSLContext], **options: Any) -> None:
        super().__init__(**options)
        self._context = context

    def create_connection(self, origin: httpcore2.Origin) -> Any:
        """For the transport."""
        return _Connection(
            origin=origin,
            ssl_context=self._context(),
            keepalive_expiry=self._keepalive_expiry,
            network_backend=self._network_backend,
        )


class _Connection(httpcore2.AsyncHTTPConnection):
    async def handle_async_request(self, request: httpcore2.Request) -> httpcore2.Response:
        async with self._request_lock:
            if self._connection is None:
                try:
                    stream = await self._connect(request)
                except BaseException:
                    self._connect_failed = True
                    raise
                self._connection = _Http1(origin=self._origin, stream=stream, keepalive_expiry=self._keepalive_expiry)
        return await super().handle_async_request(request)


class _Http1(httpcore2.AsyncHTTP11Connection):
    async def _send_request_body(self, request: httpcore2.Request) -> None:
        trailers: Trailers | None = request.extensions.get(EXTENSION)
        if trailers is None:
            await super()._send_request_body(request)
            return
        timeout = request.extensions.get("timeout", {}).get("write")
        assert isinstance(request.stream, AsyncIterable)
        async for chunk in request.stream:
            await self._send_event(h11.Data(data=chunk), timeout=timeout)
        try:
            end = h11.EndOfMessage(headers=trailers.send())
        except h11.LocalProtocolError as error:
            raise httpcore2.LocalProtocolError(str(error)) from None
        await self._send_event(end, timeout=timeout)

    async def _receive_response_body(self, request: httpcore2.Request) -> AsyncGenerator[bytes]:
        timeout = request.extensions.get("timeout", {}).get("read")
        while True:
            event = await self._receive_event(timeout=timeout)
            if isinstance(event, h11.Data):
                yield bytes(event.data)
            elif isinstance(event, h11.EndOfMessage):
                self._note(request, list(event.headers.raw_items()))
                return
            elif event is h11.PAUSED:
                return

    @staticmethod
    def _note(request: httpcore2.Request, lines: Raw) -> None:
        trailers: Trailers | None = request.extensions.get(EXTENSION)
        if not within_bounds(lines):
            raise httpcore2.RemoteProtocolError("trailers above the bound")
        if trailers is not None:
            trailers.came += lines
