"""An upgraded connection: after a 101 its bytes pass both ways as they come, and mean nothing to us.

WebSocket only. The request's head was checked and injected as any other's; what follows is the app's and the provider's.
Source: RFC 9110 section 7.8, RFC 6455 section 4.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sidecar.engine import heads
from sidecar.engine.upload import Upload
from sidecar.framing import Malformed, RequestHead, ResponseHead
from sidecar.held import Held
from sidecar.problem import Problem

if TYPE_CHECKING:
    from sidecar.engine.exchange import Exchange

_LINES = b"Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n"


class Opaque:
    """A body without an end of its own, for either direction."""

    __slots__ = ("done",)

    def __init__(self) -> None:
        self.done = False

    def feed(self, data: bytes) -> tuple[bytes, bytes]:
        """As Body says."""
        return data, b""

    def end(self) -> bytes:
        """As Body says: the connection's end is the tunnel's."""
        return b""


def asks(head: RequestHead) -> bool:
    """Whether the request asks for a WebSocket. Other protocols are not offered to the provider, which is no refusal.

    Raises: Problem (it asks for it in a way that is none).
    """
    wanted = head.marks.get(b"upgrade")
    if wanted is None or b"websocket" not in wanted.lower():
        return False
    options = [option.strip() for option in head.marks.get(b"connection", b"").lower().split(b",")]
    if wanted.lower() != b"websocket" or b"upgrade" not in options or head.method != b"GET" or head.length != 0:
        raise Problem("NOT_IMPLEMENTED", "The only upgrade is a WebSocket's: GET without a body, Connection: Upgrade.")
    return head.http_1_1


def upgrading(head: bytes) -> bytes:
    """A head's bytes with the lines that ask for, or grant, the upgrade: they were stripped as hop-by-hop."""
    return head[:-2] + _LINES


def check_granted(response: ResponseHead) -> None:
    """A 101 must name what was asked for. Raises: Malformed."""
    named = [value.lower() for name, value in response.fields if name.lower() == b"upgrade"]
    if named != [b"websocket"]:
        raise Malformed("The upstream switches to another protocol than was asked for.")


def switch(exchange: Exchange, held: Held, response: ResponseHead, data: bytes) -> None:
    """From here on both connections are one tunnel; the origin's pool forgets its end. Raises: Malformed."""
    check_granted(response)
    upstream, down = exchange.upstream, exchange.down
    assert upstream is not None
    exchange.response = response
    upstream.origin.lost(upstream)
    exchange.tunnelled = True
    exchange.engine.tunnels += 1
    exchange.upload, exchange.out_body = Upload(exchange.engine, Opaque()), Opaque()
    exchange.upload.forget()  # what follows is sent once
    down.keep_alive = False
    exchange.engine.metrics.answered(held.integration, 101)
    down.write(upgrading(heads.interim(response, held.plan)) + data)
    exchange.moved()
    early = down.taken()
    if early:
        exchange.more(early)
