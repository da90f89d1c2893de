"""What a child writes: kept in a file of bounded size, and shown on the terminal where that is wanted."""

from __future__ import annotations

import contextlib
import os
import sys
from asyncio import StreamReader
from pathlib import Path
from typing import Final

from connectors_grpc.embedded.files import PRIVATE_FILE, shift, size_of

MAX_BYTES: Final = 8 << 20
KEEP: Final = 3
LAST_LINES: Final = 5
_CHUNK: Final = 1 << 16
_TAIL: Final = 1 << 14


class Journal:
    """One child's log file.  Bounds: (KEEP + 1) times MAX_BYTES on disk, one chunk in memory."""

    def __init__(self, name: str, path: Path, *, echo: bool, max_bytes: int = MAX_BYTES) -> None:
        self.path = path
        self._name = name
        self._echo = echo
        self._max = max_bytes
        self._since = 0

    def begin(self) -> None:
        """Remember where this start's lines begin."""
        self._since = size_of(self.path)

    async def follow(self, stream: StreamReader) -> None:
        """Take what comes until the child closes its end. A disk that is full costs lines, never the child."""
        while chunk := await stream.read(_CHUNK):
            try:
                self._write(chunk)
            except OSError:
                continue

    def last_words(self) -> list[str]:
        """The last lines since `begin`, printable."""
        try:
            with self.path.open("rb") as stream:
                stream.seek(max(min(self._since, size_of(self.path)), size_of(self.path) - _TAIL))
                told = _lines(stream.read(_TAIL))
        except OSError:
            return []
        return [_printable(line)[:500] for line in told[-LAST_LINES:]]

    def _write(self, chunk: bytes) -> None:
        if self._echo:
            with contextlib.suppress(OSError, ValueError):
                sys.stderr.write("".join(f"{self._name} | {_printable(line)}\n" for line in _lines(chunk)))
        if size_of(self.path) + len(chunk) > self._max:
            shift(self.path, KEEP)
            self._since = 0
        fd = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC, PRIVATE_FILE)
        try:
            os.write(fd, chunk)
        finally:
            os.close(fd)


def _lines(content: bytes) -> list[str]:
    return content.decode("utf-8", "replace").splitlines()


def _printable(line: str) -> str:
    """The line, unable to steer a terminal."""
    return "".join(char if char.isprintable() else "?" for char in line)
