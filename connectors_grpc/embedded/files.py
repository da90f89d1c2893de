"""Files of the state directory: written whole or not at all, private, and bounded in size. Knows nothing of OpenBao."""

import os
import shutil
from pathlib import Path

PRIVATE_FILE = 0o600
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


def write_private(path: Path, content: bytes) -> None:
    """Replace `path` with `content`, mode 0600: a crash leaves the old file or the new one, never half of either."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.unlink(missing_ok=True)
    fd = os.open(draft, _CREATE, PRIVATE_FILE)
    try:
        with open(fd, "wb") as stream:  # noqa: PTH123  (a descriptor, not a path)
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        draft.replace(path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
    sync_directory(path.parent)


def sync_directory(path: Path) -> None:
    """Make renames and removals inside `path` durable."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def size_of(path: Path) -> int:
    """Size in bytes; 0 if there is no such file."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def shift(path: Path, keep: int) -> None:
    """Rename `path` to `path.1`, `path.1` to `path.2` and so on; what would be `path.{keep + 1}` is dropped.

    Bounds: keep >= 1.  A writer that holds `path` open goes on writing into `path.1` until it reopens.
    """
    for number in range(keep, 0, -1):
        older = path.with_name(f"{path.name}.{number}")
        newer = path if number == 1 else path.with_name(f"{path.name}.{number - 1}")
        if newer.exists():
            newer.replace(older)


def copy_and_truncate(path: Path, keep: int) -> None:
    """As `shift`, for a writer that never reopens: it must have `path` open in append mode.

    What is written between the copy and the truncation is lost, which a debug log may and an audit log may not.
    """
    aside = path.with_name(f"{path.name}.part")
    shutil.copyfile(path, aside)
    aside.chmod(PRIVATE_FILE)
    for number in range(keep, 1, -1):
        newer = path.with_name(f"{path.name}.{number - 1}")
        if newer.exists():
            newer.replace(path.with_name(f"{path.name}.{number}"))
    aside.replace(path.with_name(f"{path.name}.1"))
    os.truncate(path, 0)
