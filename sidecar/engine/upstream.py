"""One connection to a provider: finds heads, hands the rest to its exchange, goes back to its origin afterwards."""

from __future__ import annotations

import asyncio
import math
from typing import TYPE_CHECKING, cast

from sidecar.engine.side import GONE
from sidecar.framing import LONGEST_HEAD, Malformed, parse_response, still_text
from sidecar.problem import Problem

if TYPE_CHECKING:
    from sidecar.engine.exchange import Exchange
    from sidecar.engine.pool import Origin


class Upstream:
    """A `Side`. Idle in its origin's pool, or in one exchange's hands. `served` counts answers: 0 is a new connection."""

    __slots__ = (
        "blocked",
        "exchange",
        "idle_since",
        "in_body",
        "origin",
        "partial",
        "paused",
        "retires",
        "served",
        "transport",
        "view",
    )

    def __init__(self, origin: Origin) -> None:
        self.origin = origin
        self.view = origin.engine.view
        self.exchange: Exchange | None = None
        self.partial = b""
        self.in_body = False
        self.blocked = False
        self.paused = False
        self.served = 0
        self.idle_since = 0.0
        self.retires = math.inf

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """For asyncio."""
        self.transport = cast(asyncio.Transport, transport)

    def get_buffer(self, _sizehint: int) -> memoryview:
        """For asyncio: one buffer for all, since it is read before the next is filled."""
        return self.view

    def buffer_updated(self, nbytes: int) -> None:
        """For asyncio."""
        exchange = self.exchange
        if exchange is None:  # nobody asked
            self.discard()
            return
        data = bytes(self.view[:nbytes])
        exchange.heard = True
        try:
            if self.in_body:
                exchange.download(data)
            else:
                self._head(exchange, data)
        except Malformed:
            exchange.fail(Problem("UPSTREAM_UNREACHABLE", "The upstream's answer broke the protocol."))

    def _head(self, exchange: Exchange, data: bytes) -> None:
        if self.partial:
            start = max(0, len(self.partial) - 3)
            data = self.partial + data
        else:
            start = 0
        while True:
            end = data.find(b"\r\n\r\n", start)
            if end < 0:
                if len(data) > LONGEST_HEAD or not still_text(data, b""):
                    raise Malformed("The head does not end.")
                self.partial = data
                return
            self.partial = b""
            assert exchange.held is not None
            response = parse_response(data[: end + 4], exchange.head.method, exchange.held.plan.policy.returned.known)
            data = data[end + 4 :]
            if response.status >= 200 or (response.status == 101 and exchange.upgrade):
                self.in_body = True
                exchange.answered(response, data)
                return
            exchange.interim(response)
            start = 0
            if not data:
                return

    def eof_received(self) -> bool:
        """For asyncio: the provider is done; connection_lost follows."""
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """For asyncio."""
        exchange, self.exchange = self.exchange, None
        self.transport = GONE
        self.origin.lost(self)
        if exchange is not None:
            exchange.upstream_lost(self, clean=exc is None)

    def pause_writing(self) -> None:
        """For asyncio: the provider reads slowly, so the app is not read."""
        self.blocked = True
        if self.exchange is not None:
            self.exchange.upload_blocked(True)

    def resume_writing(self) -> None:
        """For asyncio."""
        self.blocked = False
        if self.exchange is not None:
            self.exchange.upload_blocked(False)

    def begin(self, exchange: Exchange) -> None:
        """Take an exchange."""
        self.exchange = exchange
        self.in_body = False

    def hold(self, hold: bool) -> None:
        """Stop, or go on, reading the answer."""
        if hold != self.paused and not self.transport.is_closing():
            self.paused = hold
            if hold:
                self.transport.pause_reading()
            else:
                self.transport.resume_reading()

    def release(self, now: float, *, reusable: bool) -> None:
        """The exchange is over: back to the pool, or closed."""
        self.exchange = None
        self.served += 1
        if reusable and not self.blocked and not self.transport.is_closing():
            if self.paused:
                self.hold(False)
            self.origin.released(self, now)
        else:
            self.discard()

    def discard(self) -> None:
        """Close at once, unsent data or not; the pool forgets it."""
        self.exchange = None
        self.origin.lost(self)
        self.transport.abort()
