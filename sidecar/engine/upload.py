"""A request's body on its way: where it ends, what waits for a connection, what is kept for a resend. Knows no socket."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sidecar.body import Body

if TYPE_CHECKING:
    from sidecar.engine.engine import Engine


class Upload:
    """Of one exchange, or, without a body, of all that have none. `done`: all of it came. `kept` is None once it can't be sent a
    second time. `unread` came before anybody knew where it goes.

    Bounds: `kept_body` is kept of one body, `kept_total` of all; over them nothing.
    """

    __slots__ = ("_body", "_engine", "_size", "done", "kept", "unread", "waiting")

    def __init__(self, engine: Engine, body: Body | None) -> None:
        self._engine = engine
        self._body = body
        self._size = 0
        self.done = body is None
        self.kept: list[bytes] | None = []
        self.unread = b""
        self.waiting: list[bytes] = []

    def feed(self, data: bytes) -> tuple[bytes, bytes]:
        """What of it is to be sent, and what lies behind the body. Raises: Malformed."""
        body = self._body
        if body is None:
            return b"", data
        out, rest = body.feed(data)
        self.done = body.done
        return out, rest

    def read_on(self) -> bytes:
        """What was not read."""
        data, self.unread = self.unread, b""
        return data

    def keep(self, piece: bytes) -> None:
        """For a resend."""
        if self.kept is None:
            return
        limits, engine = self._engine.limits, self._engine
        size = len(piece)
        if self._size + size > limits.kept_body or engine.kept_total + size > limits.kept_total:
            self.forget()
            return
        self.kept.append(piece)
        self._size += size
        engine.kept_total += size

    def forget(self) -> None:
        """It is not sent again."""
        if self._body is None:
            return
        self._engine.kept_total -= self._size
        self._size = 0
        self.kept = None

    def rewind(self) -> None:
        """All that is kept is to be sent again."""
        self.waiting = list(self.kept or ())

    def taken(self, head: bytes) -> bytes:
        """A head, with all that waited behind it."""
        waiting, self.waiting = self.waiting, []
        return b"".join((head, *waiting)) if waiting else head
