"""Whether the addresses are free, and who holds those that are not. Looked at before anything is started."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from connectors_grpc.addresses import Address
from connectors_grpc.supervisor.problem import Problem

# What a killed predecessor held is free a moment after it; that moment is waited out.
PATIENCE: Final = 2.0
_RETRY: Final = 0.05
_LISTENING: Final = "0A"


def check(listeners: Mapping[str, Address], patience: float = PATIENCE) -> None:
    """See that every address can be listened on; `listeners` is by the setting's name.

    Units: patience in seconds.  Raises: Problem naming port, setting and holder.
    """
    taken: dict[str, str] = {}
    for setting, address in listeners.items():
        if (other := taken.setdefault(str(address), setting)) != setting:
            raise Problem(f"{other} and {setting} are both {address}.", f"Give {_flag(setting)} another port.")
    until = time.monotonic() + patience
    for setting, address in listeners.items():
        while (error := _try(address)) is not None:
            if error.errno != errno.EADDRINUSE:
                raise Problem(
                    f"{address} ({setting}) can't be listened on: {error.strerror}.", f"Give another {_flag(setting)}."
                )
            if time.monotonic() > until:
                raise _in_use(setting, address)
            time.sleep(_RETRY)


def _in_use(setting: str, address: Address) -> Problem:
    where = f"The socket {address.path}" if address.path else f"Port {address.port} ({address})"
    other = f"{_flag(setting)} unix:/another/path" if address.path else f"{_flag(setting)} {address.host}:PORT"
    return Problem(
        f"{where}, where {setting} should listen, is in use by {holder(address) or 'a process of another user'}.",
        f"End that process, or give {other}.",
    )


def _flag(setting: str) -> str:
    return "--" + setting.replace("_", "-")


def _try(address: Address) -> OSError | None:
    """Why the address can't be listened on; None if it can. A Unix socket is taken if somebody answers."""
    if address.path:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            try:
                probe.connect(address.path)
            except OSError:
                return None
            return OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))
    try:
        kind, _, _, _, where = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)[0]
        with socket.socket(kind, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(where)
            probe.listen(1)
    except OSError as error:
        return error
    return None


def holder(address: Address) -> str:
    """The process that listens there, as `process 123 (nginx)`; empty if it can't be seen (Linux, own processes)."""
    inodes = {inode for table in ("tcp", "tcp6") for inode in _listening(Path("/proc/net") / table, address.port)}
    if not inodes:
        return ""
    wanted = {f"socket:[{inode}]" for inode in inodes}
    for process in Path("/proc").iterdir():
        if process.name.isdigit() and _holds(process, wanted):
            with contextlib.suppress(OSError):
                return f"process {process.name} ({(process / 'comm').read_text().strip()})"
    return ""


def _listening(table: Path, port: int) -> list[str]:
    """Inodes of sockets that listen on `port`.  Source: proc_net(5)."""
    try:
        rows = table.read_text().splitlines()[1:]
    except OSError:
        return []
    fields = [row.split() for row in rows]
    return [row[9] for row in fields if row[3] == _LISTENING and int(row[1].rpartition(":")[2], 16) == port]


def _holds(process: Path, wanted: set[str]) -> bool:
    try:
        return any(os.readlink(entry) in wanted for entry in (process / "fd").iterdir())  # noqa: PTH115
    except OSError:
        return False
