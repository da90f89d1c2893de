"""Processes: started on one core, measured from /proc, ended by pid."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

TICK = os.sysconf("SC_CLK_TCK")
CORES = sorted(os.sched_getaffinity(0))
PROXY, LOAD = ({CORES[0]}, set(CORES[1:])) if len(CORES) > 1 else (set(CORES), set(CORES))
"""The proxy has a core of its own; upstream, loader and this process share the others."""


class Process:
    """One child. Its output goes to a file beside its configuration."""

    def __init__(self, args: Sequence[str], log: Path, cores: set[int], env: dict[str, str] | None = None) -> None:
        self.log = log
        with log.open("wb") as out:
            self._child = subprocess.Popen(
                list(args), stdin=subprocess.DEVNULL, stdout=out, stderr=out, env={**os.environ, **(env or {})}
            )
        os.sched_setaffinity(self._child.pid, cores)

    @property
    def pid(self) -> int:
        return self._child.pid

    def cpu(self) -> tuple[float, float]:
        """User and system seconds of all its threads."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return int(fields[11]) / TICK, int(fields[12]) / TICK

    def rss(self) -> float:
        """Resident MiB."""
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) / 1024
        return 0.0

    def listening(self, port: int, within: float = 60.0) -> None:
        """Wait until it takes connections. Raises: RuntimeError, with the end of its output."""
        end = time.monotonic() + within
        while time.monotonic() < end and self._child.poll() is None:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                return
            time.sleep(0.05)
        self.stop()
        raise RuntimeError(self.log.read_text(errors="replace")[-600:])

    def stop(self) -> None:
        """End it, and wait for that."""
        self._child.terminate()
        try:
            self._child.wait(5)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait()
