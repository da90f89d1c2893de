"""A place on this replica's own disk for answers that the Vault could not take. What comes here is sealed already.

One file an answer, 0600, written whole or not at all. Bounded: past `MOST` files an answer is only kept in memory.
"""

from __future__ import annotations

import fcntl
import os
import re
import secrets
from pathlib import Path

MOST = 10_000
MOST_BYTES = 256 * 1024
NAME = re.compile(r"[a-z0-9.-]{1,200}\.sealed")


class SpillDirectory:
    """`ports.Spill` on a directory that one process holds at a time.

    `replica` is the id that stands in it: the same after a restart, for the lock proves that the earlier process is gone. If
    another process holds the directory, or there is none to be had, this one spills nowhere and calls itself anew.
    """

    def __init__(self, directory: Path | None) -> None:
        self.replica = secrets.token_hex(8)
        self._directory: Path | None = None
        self._lock: int | None = None
        if directory is not None:
            self._open(directory)

    def _open(self, directory: Path) -> None:
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._lock = os.open(directory / "replica", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            known = os.read(self._lock, 64).decode("ascii", "replace")
            if re.fullmatch(r"[0-9a-f]{16}", known):
                self.replica = known
            else:
                os.ftruncate(self._lock, 0)
                os.pwrite(self._lock, self.replica.encode(), 0)
                os.fsync(self._lock)
            self._directory = directory
        except OSError:
            self.close()

    def close(self) -> None:
        """Let the directory go."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None
        self._directory = None

    @property
    def durable(self) -> bool:
        """Whether there is a directory at all."""
        return self._directory is not None

    def names(self) -> list[str]:
        """What lies here, oldest name first."""
        if self._directory is None:
            return []
        return sorted(path.name for path in self._directory.iterdir() if NAME.fullmatch(path.name))

    def read(self, name: str) -> bytes:
        """One of them. Raises: OSError."""
        assert self._directory is not None
        with (self._directory / name).open("rb") as file:
            return file.read(MOST_BYTES + 1)

    def put(self, name: str, sealed: bytes) -> bool:
        """Keep it; False if it can't be. Replaces what has the name."""
        if self._directory is None or NAME.fullmatch(name) is None or len(sealed) > MOST_BYTES:
            return False
        draft = self._directory / f".{name}"
        try:
            if len(self.names()) >= MOST:
                return False
            descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(sealed)
                file.flush()
                os.fsync(file.fileno())
            draft.replace(self._directory / name)
            folder = os.open(self._directory, os.O_RDONLY | os.O_CLOEXEC)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
        except OSError:
            return False
        return True

    def remove(self, name: str) -> None:
        """It is stored now, or worth nothing any more."""
        if self._directory is not None:
            (self._directory / name).unlink(missing_ok=True)
