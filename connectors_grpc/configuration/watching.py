"""Notices that files have changed, and that they are at rest again. By what a stat says, so that links' targets count too."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from threading import Event
from typing import TypeAlias

Mark: TypeAlias = tuple[int, ...]
Marks: TypeAlias = Mapping[Path, Mark]
POLL = 0.5
"""Seconds between two looks."""
QUIET = 0.3
"""Seconds without a change after which files are whole: who writes several of them, or one in pieces, is waited for."""


def marks(files: Iterable[Path]) -> Marks:
    """What changes when a file does; of one that is not there, nothing."""
    return {path: _look(path) for path in files}


def _look(path: Path) -> Mark:
    try:
        return mark(path.stat())
    except OSError:
        return ()


def mark(found: os.stat_result) -> Mark:
    """What changes when a file does, from its stat."""
    return found.st_mtime_ns, found.st_size, found.st_ino


def wait(known: Marks, stop: Event, *, until: float | None = None) -> bool:
    """Wait until files differ from `known` and are at rest; True then. False once stopped, or at `until` (monotonic)."""
    watched = tuple(known)
    while not stop.wait(POLL if until is None else min(POLL, max(0.0, until - time.monotonic()))):
        now = marks(watched)
        if now != known:
            while not stop.wait(QUIET) and (then := marks(watched)) != now:
                now = then
            return not stop.is_set()
        if until is not None and time.monotonic() >= until:
            return False
    return False
