"""The access log: one JSON object a line for each request that is over, of fields from a list. Whoever serves never waits for it.

Lines go into a bounded buffer and a thread of its own writes them; what does not fit is dropped and counted, and so is what
the disk does not take. Knows no socket and no exchange.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from json.encoder import encode_basestring_ascii
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING

from connectors_grpc.logs import get
from sidecar.exposition import Family, counter
from sidecar.tracing import trace_id

if TYPE_CHECKING:
    from sidecar.engine.over import Over

log = get("sidecar.access_log")

FIELDS: dict[str, Callable[[Over], object]] = {
    **{
        name: attrgetter(name)
        for name in (
            "tenant", "credential", "integration", "key_id", "method", "path", "status", "reason", "whole", "resent",
        )
    },
    "duration_ms": lambda over: round(over.took * 1000, 1),
    "trace_id": lambda over: trace_id(over.parent),
}  # fmt: skip
"""What a line may have besides `time`. A path may name people, or be a secret itself (webhooks): only if it is asked for."""
USUAL = tuple(name for name in FIELDS if name != "path")
MOST_BYTES = 4 << 20
"""Of lines that wait to be written: about twenty thousand."""
PIECE = 4096
"""Bytes of one write: a pipe takes as many at once, so that lines of several processes don't mix.  Source: POSIX PIPE_BUF."""
EVERY = 0.2
"""Seconds between two looks at the buffer."""
LAST = 2.0
"""Seconds for what is left at the end."""
COMPLAIN = 60.0
"""Seconds between two complaints about the file."""


class AccessLog:
    """An engine's observer. `where` is a file, appended to, or None for standard output. Use `close` at the end.

    A file that was moved away, as logrotate does, is begun anew. Raises: OSError (the file can't be opened).
    """

    def __init__(
        self,
        where: Path | None,
        fields: Iterable[str] = USUAL,
        *,
        most: int = MOST_BYTES,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._fields = [(f',"{name}":', FIELDS[name]) for name in fields]
        self._where = where
        self._most = most
        self._wall = wall
        self._lines: list[bytes] = []
        self._size = 0
        self._second, self._date = -1, ""
        self._torn = False
        self._complained = -COMPLAIN
        self.written = 0
        self.dropped = 0
        self._lock = threading.Lock()
        self._fd = 1 if where is None else _open(where)
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, name="access-log", daemon=True)
        self._thread.start()

    def tell(self, record: Over) -> None:
        """One line, or one dropped."""
        parts = [f'{{"time":"{self._stamp(self._wall())}"']
        for key, read in self._fields:
            value = read(record)
            if isinstance(value, str):
                if value:
                    parts.append(key + encode_basestring_ascii(value))
            else:
                parts.append(key + str(value).lower())  # a number, true or false
        text = "".join(parts).encode() + b"}\n"
        with self._lock:
            if self._size + len(text) > self._most:
                self.dropped += 1
                return
            self._lines.append(text)
            self._size += len(text)

    def _stamp(self, now: float) -> str:
        """ISO 8601 in UTC, to the millisecond; what changes once a second is kept."""
        second = int(now)
        if second != self._second:
            self._second, self._date = second, datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%S")
        return f"{self._date}.{int((now - second) * 1000):03}+00:00"

    def families(self) -> Iterable[Family]:
        """How many lines there were."""
        yield counter(
            "connectors_sidecar_access_log_lines_total",
            "Lines of the access log: written, or dropped because the buffer or the disk was full.",
            {(("result", "written"),): self.written, (("result", "dropped"),): self.dropped},
        )

    def close(self) -> None:
        """Write what is left, for a moment at most."""
        self._end.set()
        self._thread.join(LAST)

    # --- the thread's

    def _run(self) -> None:
        while not self._end.wait(EVERY):
            self._write()
        self._write()

    def _write(self) -> None:
        with self._lock:
            lines, self._lines, self._size = self._lines, [], 0
        if not lines:
            return
        try:
            self._again()
        except OSError as error:
            self._failed(error, len(lines))
            return
        for piece in _pieces(lines):
            data = b"".join(piece)
            try:
                self._all(data)
            except OSError as error:
                self._failed(error, len(piece))
            else:
                self.written += len(piece)

    def _again(self) -> None:
        """Open the file anew if it is not there any more under its name."""
        if self._where is None:
            return
        try:
            there = self._where.stat()
        except FileNotFoundError:
            there = None
        mine = os.fstat(self._fd)
        if there is None or (there.st_dev, there.st_ino) != (mine.st_dev, mine.st_ino):
            fresh = _open(self._where)
            os.close(self._fd)
            self._fd, self._torn = fresh, False

    def _all(self, data: bytes) -> None:
        if self._torn:
            data = b"\n" + data
        while data:
            count = os.write(self._fd, data)
            self._torn = count < len(data)
            data = data[count:]

    def _failed(self, error: OSError, lines: int) -> None:
        with self._lock:  # `tell` counts there too
            self.dropped += lines
        now = time.monotonic()
        if now - self._complained >= COMPLAIN:
            self._complained = now
            log.warning("access_log.lines_dropped", error=os.strerror(error.errno or 0))


def _open(where: Path) -> int:
    """For appending; made with mode 0600. Where a pipe's reader is slow, what does not fit is dropped like any other line."""
    return os.open(where, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK, 0o600)


def _pieces(lines: list[bytes]) -> Iterable[list[bytes]]:
    """Whole lines, up to PIECE bytes together."""
    piece: list[bytes] = []
    size = 0
    for line in lines:
        if piece and size + len(line) > PIECE:
            yield piece
            piece, size = [], 0
        piece.append(line)
        size += len(line)
    if piece:
        yield piece
