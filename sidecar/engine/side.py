"""What an event loop sees of a connection: asyncio wants a subclass of its own, which mypyc can't make a native class."""

from __future__ import annotations

import asyncio
from typing import Generic, Protocol, TypeVar


class Side(Protocol):
    """One side of the engine, in asyncio's words."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The connection stands."""

    def connection_lost(self, exc: Exception | None) -> None:
        """It is gone, by whichever side."""

    def get_buffer(self, sizehint: int) -> memoryview:
        """Where to read to."""

    def buffer_updated(self, nbytes: int) -> None:
        """So much was read."""

    def eof_received(self) -> bool:
        """The other side has no more to say."""

    def pause_writing(self) -> None:
        """What was written waits."""

    def resume_writing(self) -> None:
        """It waits no longer."""


S = TypeVar("S", bound=Side)


class Face(asyncio.BufferedProtocol, Generic[S]):
    """Hands the loop a side's own methods, so that nothing stands between them."""

    __slots__ = (
        "buffer_updated", "connection_lost", "connection_made", "eof_received", "get_buffer", "pause_writing", "resume_writing",
        "side",
    )  # fmt: skip

    def __init__(self, side: S) -> None:
        self.side = side
        for name in self.__slots__[:-1]:
            setattr(self, name, getattr(side, name))


class Gone(asyncio.Transport):
    """In place of a connection that ended. The loop's own would hold, and be held by, its side: with TLS that is a third of a MiB
    and more, which only the collector would find.
    """

    def is_closing(self) -> bool:
        """For ever."""
        return True

    def abort(self) -> None:
        """There is nothing left."""


GONE = Gone()
