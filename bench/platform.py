"""A platform of its own for a benchmark: `connectors up` on free ports and a scratch directory, and what it costs in CPU."""

from __future__ import annotations

import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.ports import free_port

TICK = os.sysconf("SC_CLK_TCK")
BIN = Path(sys.executable).parent


@dataclass(frozen=True)
class Platform:
    """A running platform."""

    state: Path
    grpc: str
    http: str
    sidecar: str
    pid: int

    def key(self, name: str) -> str:
        """A key's text."""
        return (self.state / "keys" / f"{name}.key").read_text().strip()

    def processes(self) -> dict[str, int]:
        """Pids by what they are."""
        found = {}
        for path in Path("/proc").glob("[0-9]*/stat"):
            try:
                parent = int(path.read_text().rpartition(")")[2].split()[1])
                words = (path.parent / "cmdline").read_bytes().decode().split("\0")
            except (OSError, ValueError):
                continue
            if parent == self.pid:
                names = {"serve": "server", "sidecar": "sidecar", "server": "OpenBao", "simulate": "simulator"}
                found[next((names[word] for word in words[1:5] if word in names), words[0])] = int(path.parent.name)
        return found

    def cpu(self) -> dict[str, float]:
        """Seconds of CPU so far, by process."""
        return {name: cpu_seconds(pid) for name, pid in self.processes().items()}

    def resident(self) -> dict[str, float]:
        """MiB of resident memory, by process."""
        everything = {**self.processes(), "supervisor": self.pid}
        return {name: resident_mib(pid) for name, pid in everything.items()}


def cpu_seconds(pid: int) -> float:
    """User and system time of a process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICK


def resident_mib(pid: int) -> float:
    """Resident memory of a process."""
    match = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    return int(match[1]) / 1024 if match else 0.0


@contextmanager
def platform(*flags: str) -> Iterator[Platform]:
    """`connectors up` until the block ends."""
    with tempfile.TemporaryDirectory(prefix="bench-") as scratch:
        ports = {name: f"127.0.0.1:{free_port()}" for name in ("grpc", "http", "sidecar", "simulator")}
        listen = [part for name, where in ports.items() for part in (f"--{name}-listen", where)]
        command = [BIN / "connectors", "up", "--state-dir", f"{scratch}/state", *listen, *flags]
        with Path(f"{scratch}/out").open("w+") as out:
            process = subprocess.Popen(command, stdout=out, stderr=out)
            try:
                deadline = time.monotonic() + 60
                while "Connectors is up" not in Path(f"{scratch}/out").read_text():
                    if process.poll() is not None or time.monotonic() > deadline:
                        raise SystemExit(Path(f"{scratch}/out").read_text())
                    time.sleep(0.05)
                yield Platform(
                    Path(scratch) / "state",
                    ports["grpc"],
                    f"http://{ports['http']}",
                    f"http://{ports['sidecar']}",
                    process.pid,
                )
            finally:
                process.terminate()
                process.wait(30)


def row(name: str, seconds: list[float], cpu: float | None = None) -> str:
    """One line of a table: median, 99th percentile, CPU a call."""
    ordered = sorted(seconds)
    p99 = ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))]
    text = f"{name:<46} {len(ordered):>6} {statistics.median(ordered) * 1e6:>9.0f} {p99 * 1e6:>9.0f}"
    return text if cpu is None else f"{text} {cpu / len(ordered) * 1e6:>9.0f}"


HEADER = f"{'':<46} {'calls':>6} {'p50 us':>9} {'p99 us':>9} {'CPU us':>9}"
