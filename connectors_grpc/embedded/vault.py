"""A real OpenBao under our care: started, waited for, tended, stopped, started again.

The order of steps is here; what they are is in the other modules. It must not know the server's adapters.
"""

import asyncio
import contextlib
import json
import logging
import os
import secrets
import shutil
from asyncio.subprocess import Process
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from connectors_grpc.embedded import api, process
from connectors_grpc.embedded.api import AppRole
from connectors_grpc.embedded.boot import SEAL_KEY_BYTES, Boot, decide, observe, seal_key_id, served_mark
from connectors_grpc.embedded.config import FirstBoot, render
from connectors_grpc.embedded.errors import EmbeddedVaultError
from connectors_grpc.embedded.files import size_of, sync_directory, write_private
from connectors_grpc.embedded.layout import StateLayout, prepare
from connectors_grpc.embedded.lock import StateLock
from connectors_grpc.embedded.process import EmbeddedSettings

log = logging.getLogger(__name__)
_POLL: Final = 0.02


class EmbeddedVault:
    """One OpenBao on one state directory.

    `async with EmbeddedVault(layout) as vault` holds it for a block; after `wait_exit` has returned, `start` brings
    it up again on the same object. Call `start` on the main thread: OpenBao dies with the thread that began it.
    """

    def __init__(self, layout: StateLayout, settings: EmbeddedSettings | None = None) -> None:
        self.layout = layout
        self.settings = settings or EmbeddedSettings()
        self._lock: StateLock | None = None
        self._process: Process | None = None
        self._tending: asyncio.Task[None] | None = None
        self._role_id = ""

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    @property
    def socket_path(self) -> Path:
        """The Unix socket of OpenBao's API."""
        return self.layout.socket

    @property
    def role_id(self) -> str:
        """The server's AppRole id. A name, not a secret."""
        return self._role_id

    @property
    def secret_id_file(self) -> Path:
        """A JSON file, 0600, with `role_id` and `secret_id`."""
        return self.layout.approle

    @property
    def pid(self) -> int | None:
        """OpenBao's process id while it runs."""
        running = self._process is not None and self._process.returncode is None
        return self._process.pid if self._process is not None and running else None

    async def start(self) -> None:
        """Bring OpenBao up and return once it serves.

        Bounds: `settings.start_deadline`, and 3 s more for the lock.
        Raises: EmbeddedVaultError, with what to do; nothing is left running then.
        """
        if self.pid is not None:
            raise EmbeddedVaultError("OpenBao runs already.", "Stop it first.")
        since = size_of(self.layout.log)
        try:
            await asyncio.to_thread(prepare, self.layout)
            if self._lock is None:
                self._lock = await asyncio.to_thread(StateLock.take, self.layout.lock)
            boot = decide(observe(self.layout), self.layout)
            async with asyncio.timeout(self.settings.start_deadline):
                await (self._start_again() if boot is Boot.AGAIN else self._start_first(boot))
        except TimeoutError:
            await self.stop()
            raise process.failure(self.layout, since) from None
        except BaseException:
            await self.stop()
            raise
        self._tending = asyncio.create_task(self._tend(), name="openbao-logs")

    async def stop(self) -> None:
        """End OpenBao and let go of the state directory. Safe at any time, and more than once."""
        try:
            await self._stop_tending()
            if self._process is not None:
                await process.terminate(self._process, self.settings.stop_deadline)
        finally:
            if self._lock is not None:
                self._lock.release()
                self._lock = None

    async def wait_exit(self) -> int:
        """Wait until OpenBao ends, by whatever cause; its exit code, negative for a signal."""
        if self._process is None:
            raise EmbeddedVaultError("OpenBao was never started.", "Start it first.")
        code = await self._process.wait()
        await self._stop_tending()
        return code

    async def rotate_audit(self) -> None:
        """Rotate the audit log now, whatever its size. Raises: OSError, TimeoutError."""
        if self._process is not None and self.pid is not None:
            await process.rotate_audit(self.layout, self.settings, self._process)

    async def _start_again(self) -> None:
        key_id = seal_key_id(self.layout)
        assert key_id is not None  # decide() saw it
        self._role_id = read_approle(self.layout.approle).role_id
        write_private(self.layout.config, render(self.layout, key_id, None).encode())
        await self._run(())

    async def _start_first(self, boot: Boot) -> None:
        """The first boot: from nothing to an AppRole that nobody but us has ever seen.

        The secret id that OpenBao is told of goes through a pipe: it is in no environment, no argument and no file,
        and it is dead before this returns.
        """
        if boot is Boot.WIPE_THEN_FIRST:
            log.warning("openbao_first_boot_repeated")
            await asyncio.to_thread(_forget, self.layout)
        write_private(self.layout.initialising, b"")
        if seal_key_id(self.layout) is None:
            write_private(self.layout.seal_key, secrets.token_hex(SEAL_KEY_BYTES).encode())
        key_id = seal_key_id(self.layout)
        assert key_id is not None
        once = AppRole(role_id=secrets.token_hex(16), secret_id=secrets.token_hex(32))
        reading, writing = os.pipe()
        try:
            os.write(writing, once.secret_id.encode())
            os.close(writing)
            first = FirstBoot(once.role_id, f"/dev/fd/{reading}")
            write_private(self.layout.config, render(self.layout, key_id, first).encode())
            await self._run((reading,))
        finally:
            os.close(reading)
        await asyncio.to_thread(_exchange, self.layout, once)
        write_private(self.layout.served, served_mark(key_id))
        self.layout.initialising.unlink()
        sync_directory(self.layout.vault)
        self._role_id = once.role_id
        write_private(self.layout.config, render(self.layout, key_id, None).encode())

    async def _run(self, keep_open: tuple[int, ...]) -> None:
        assert self._lock is not None
        since = size_of(self.layout.log)
        binary = process.find_binary(self.settings)
        self.layout.socket.unlink(missing_ok=True)  # the lock is ours, so whatever is there is a remnant
        self._process = await process.spawn(self.layout, binary, (self._lock.fd, *keep_open))
        while not await asyncio.to_thread(api.is_serving, self.layout.socket):
            if self._process.returncode is not None or process.is_hopeless(self.layout, since):
                raise process.failure(self.layout, since)
            await asyncio.sleep(_POLL)

    async def _tend(self) -> None:
        while self._process is not None and self._process.returncode is None:
            await asyncio.sleep(self.settings.tend_every)
            try:
                await process.tend_logs(self.layout, self.settings, self._process)
            except (OSError, TimeoutError):
                log.exception("openbao_log_rotation_failed")

    async def _stop_tending(self) -> None:
        if self._tending is not None:
            self._tending.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._tending
            self._tending = None


def read_approle(path: Path) -> AppRole:
    """The server's way in. Raises: EmbeddedVaultError if the file is missing or damaged."""
    try:
        content = json.loads(path.read_bytes())
        return AppRole(str(content["role_id"]), str(content["secret_id"]))
    except (OSError, ValueError, TypeError, KeyError):
        raise EmbeddedVaultError(f"{path} can't be read.", "Restore it from a backup of the state directory.") from None


def _forget(layout: StateLayout) -> None:
    """Remove what an unfinished first boot left. The seal key stays: it may be somebody else's."""
    shutil.rmtree(layout.data)
    layout.approle.unlink(missing_ok=True)
    prepare(layout)


def _exchange(layout: StateLayout, once: AppRole) -> None:
    """Trade the secret id of the first boot for one that OpenBao made, and see the old one refused.

    Raises: EmbeddedVaultError.
    """
    token = api.login(layout.socket, once)
    fresh = api.issue_secret_id(layout.socket, token) if token else None
    if token is None or fresh is None:
        raise EmbeddedVaultError("The first login at OpenBao was refused.", f"Start again; see {layout.audit}.")
    content = json.dumps({"role_id": once.role_id, "secret_id": fresh})
    write_private(layout.approle, content.encode())
    proven = api.login(layout.socket, AppRole(once.role_id, fresh))
    destroyed = proven is not None and api.destroy_secret_id(layout.socket, proven, once.secret_id)
    if proven is None or not destroyed or api.login(layout.socket, once) is not None:
        raise EmbeddedVaultError(
            "The secret id of the first boot could not be ended.", f"Start again; see {layout.audit}."
        )
    api.revoke_self(layout.socket, token)
    api.revoke_self(layout.socket, proven)
