"""A worker's end: the sockets that its supervisor opened, and the line between the two. Ends when the line does."""

from __future__ import annotations

import asyncio
import json
import os
import socket
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from sidecar.exposition import Family

VARIABLE = "CONNECTORS_SIDECAR_WORKER"
"""How a worker is told what it inherits: `LINE:SOCKET,SOCKET,...`, file descriptors. Set by the supervisor alone."""
READY = b"ready\n"


@dataclass(frozen=True, slots=True)
class Inherited:
    """What a worker gets: the line to its supervisor, and a bound socket for each listener, the main one first."""

    line: socket.socket
    listeners: tuple[socket.socket, ...]

    @classmethod
    def here(cls) -> Inherited | None:
        """What this process inherits; None if it is no worker. Its children will not be told."""
        text = os.environ.pop(VARIABLE, None)
        if text is None:
            return None
        line, _, listeners = text.partition(":")
        return cls(socket.socket(fileno=int(line)), tuple(socket.socket(fileno=int(fd)) for fd in listeners.split(",")))

    def sockets(self) -> Iterator[socket.socket]:
        """In the order of the listeners."""
        for each in self.listeners:
            each.setblocking(False)
            yield each


async def report(line: socket.socket, measure: Callable[[], Iterable[Family]], stop: asyncio.Event) -> None:
    """Say that all is ready, then answer each line, a number, with it and the measurements. The supervisor's end is ours too."""
    reader, writer = await asyncio.open_unix_connection(sock=line)
    try:
        writer.write(READY)
        while number := await reader.readline():
            writer.write(json.dumps([int(number), list(measure())]).encode() + b"\n")
            await writer.drain()
    except (OSError, RuntimeError):  # uvloop: RuntimeError, of a line that is closed
        pass
    finally:
        writer.close()
        stop.set()
