"""One owner of a state directory at a time, by flock: it ends with the process, however that ends."""

import fcntl
import os
import time
from pathlib import Path
from typing import Final

from connectors_grpc.embedded.errors import EmbeddedVaultError
from connectors_grpc.embedded.files import PRIVATE_FILE

# OpenBao inherits the lock: it outlives a killed parent until OpenBao is gone too, a moment that is waited out.
_ORPHAN_GRACE: Final = 3.0
_RETRY: Final = 0.05


class StateLock:
    """A held lock; `fd` is for the child to inherit."""

    __slots__ = ("fd",)

    def __init__(self, fd: int) -> None:
        self.fd = fd

    @classmethod
    def take(cls, path: Path) -> "StateLock":
        """Take the lock of `path`, waiting only for the remains of a holder that has died.

        Raises: EmbeddedVaultError naming the pid of a live holder.
        """
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, PRIVATE_FILE)
        patience = time.monotonic() + _ORPHAN_GRACE
        while not _try(fd):
            holder = _holder(fd)
            if _alive(holder) or time.monotonic() > patience:
                os.close(fd)
                raise EmbeddedVaultError(
                    f"The state directory {path.parent} is in use by process {holder}.",
                    "Stop that process, or choose another state directory.",
                )
            time.sleep(_RETRY)
        os.truncate(fd, 0)
        os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
        return cls(fd)

    def release(self) -> None:
        """Let go. A child that inherited the lock holds it until it ends."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


def _try(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _holder(fd: int) -> int:
    text = os.pread(fd, 32, 0).strip()
    return int(text) if text.isdigit() else 0


def _alive(pid: int) -> bool:
    if pid <= 0:
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
