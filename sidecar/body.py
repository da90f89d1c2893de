"""Where a body ends, and its bytes as they are passed on. Pure: bytes in, bytes out, nothing kept but a line begun."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Protocol

from sidecar.framing import CHUNKED, UNTIL_CLOSE, Fields, Malformed, parse_trailers

LONGEST_LINE = 4096
LONGEST_TRAILERS = 8 * 1024

_SIZE = re.compile(rb"([0-9A-Fa-f]{1,15})")
_LOOSE_SIZE = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;[\t\x20-\x7e\x80-\xff]*)?")
_LINE, _DATA, _END, _TRAILERS = range(4)


class Body(Protocol):
    """One body under way."""

    done: bool

    def feed(self, data: bytes) -> tuple[bytes, bytes]:
        """What to pass on, and what came after the body's end. Raises: Malformed."""

    def end(self) -> bytes:
        """The connection ended in order: what is left to pass on. Raises: Malformed if the body had not ended."""


class Sized:
    """A body of a known length."""

    __slots__ = ("done", "left")

    def __init__(self, length: int) -> None:
        self.left = length
        self.done = length == 0

    def feed(self, data: bytes) -> tuple[bytes, bytes]:
        """As Body says."""
        left = self.left
        if len(data) < left:
            self.left = left - len(data)
            return data, b""
        self.left = 0
        self.done = True
        if len(data) == left:
            return data, b""
        return data[:left], data[left:]

    def end(self) -> bytes:
        """As Body says."""
        if not self.done:
            raise Malformed("The body ended before its length.")
        return b""


class UntilClose:
    """A body that ends with the connection; passed on in chunks if `chunk`, so that its end can be told from a break."""

    __slots__ = ("chunk", "done")

    def __init__(self, chunk: bool) -> None:
        self.chunk = chunk
        self.done = False

    def feed(self, data: bytes) -> tuple[bytes, bytes]:
        """As Body says."""
        if self.chunk and data:
            data = b"%x\r\n%b\r\n" % (len(data), data)
        return data, b""

    def end(self) -> bytes:
        """As Body says."""
        self.done = True
        return b"0\r\n\r\n" if self.chunk else b""


class Chunked:
    """A chunked body, passed on chunk by chunk as it came, or decoded.

    `strict` refuses extensions (attack 20); otherwise they are dropped, as RFC 9112 section 7.1.1 allows. `keep` chooses the
    trailer fields that pass. Bounds: a size line 4 KiB, trailers 8 KiB.
    """

    __slots__ = ("decode", "done", "keep", "left", "line", "size", "state")

    def __init__(self, *, strict: bool, keep: Callable[[Fields], Fields], decode: bool = False) -> None:
        self.size = _SIZE if strict else _LOOSE_SIZE
        self.keep = keep
        self.decode = decode
        self.done = False
        self.state = _LINE
        self.left = 0
        self.line = b""

    def feed(self, data: bytes) -> tuple[bytes, bytes]:
        """As Body says."""
        if self.state == _DATA and len(data) < self.left:
            self.left -= len(data)
            return data, b""
        out: list[bytes] = []
        if self.line:
            data, self.line = self.line + data, b""
        at = 0
        while at < len(data) and not self.done:
            if self.state == _DATA:
                at = self._data(data, at, out)
            elif self.state == _END:
                at = self._end(data, at, out)
            elif self.state == _LINE:
                at = self._line(data, at, out)
            else:
                at = self._trailers(data, at, out)
        return (out[0] if len(out) == 1 else b"".join(out)), data[at:]

    def _data(self, data: bytes, at: int, out: list[bytes]) -> int:
        piece = data[at : at + self.left]
        out.append(piece)
        self.left -= len(piece)
        if not self.left:
            self.state = _END
        return at + len(piece)

    def _end(self, data: bytes, at: int, out: list[bytes]) -> int:
        ending = data[at : at + 2]
        if not b"\r\n".startswith(ending):
            raise Malformed("A chunk is longer than its size.")
        if len(ending) < 2:
            self.line = ending
            return len(data)
        if not self.decode:
            out.append(ending)
        self.state = _LINE
        return at + 2

    def _line(self, data: bytes, at: int, out: list[bytes]) -> int:
        end = data.find(b"\r\n", at, at + LONGEST_LINE)
        if end < 0:
            return self._hold(data, at, LONGEST_LINE)
        match = self.size.fullmatch(data, at, end)
        if match is None:
            raise Malformed("A chunk's size is malformed.")
        self.left = int(match[1], 16)
        if not self.left:
            self.state = _TRAILERS
            return end + 2
        self.state = _DATA
        if not self.decode:
            out.append(match[1] + b"\r\n")
        return end + 2

    def _trailers(self, data: bytes, at: int, out: list[bytes]) -> int:
        if data.startswith(b"\r\n", at):
            end, fields = at, []
        else:
            end = data.find(b"\r\n\r\n", at, at + LONGEST_TRAILERS)
            if end < 0:
                return self._hold(data, at, LONGEST_TRAILERS)
            end += 2
            fields = self.keep(parse_trailers(data[at : end + 2]))
        if not self.decode:
            out.append(b"0\r\n" + b"".join(b"%b: %b\r\n" % pair for pair in fields) + b"\r\n")
        self.done = True
        return end + 2

    def _hold(self, data: bytes, at: int, most: int) -> int:
        """Keep a line begun, unless it can't become a good one."""
        line = data[at:]
        if len(line) >= most or b"\n" in line.replace(b"\r\n", b"") or b"\0" in line:
            raise Malformed("A line of the chunked body is malformed.")
        if self.state == _LINE and self.size.fullmatch(line.removesuffix(b"\r")) is None:
            raise Malformed("A chunk's size is malformed.")
        self.line = line
        return len(data)

    def end(self) -> bytes:
        """As Body says."""
        if not self.done:
            raise Malformed("The body ended before its last chunk.")
        return b""


def of_answer(length: int, *, chunk: bool, keep: Callable[[Fields], Fields]) -> Body:
    """How an answer's body is read, by its head's `length`. `chunk`: its reader takes chunks; `keep` chooses its trailers."""
    if length == CHUNKED:
        return Chunked(strict=False, keep=keep, decode=not chunk)
    return UntilClose(chunk) if length == UNTIL_CLOSE else Sized(length)
