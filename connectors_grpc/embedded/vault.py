"""A real OpenBao under our care: started, waited for, tended, stopped, started again.

The order of steps is here; what they are is in the other modules. It must not know the server's adapters.
"""

import asyncio
import contextlib
import logging
import os
import secrets
import shutil
from asyncio.subprocess import Process
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from connectors_grpc.embedded import api, process
from connectors_grpc.embedded.api import AppRole
from connectors_grpc.embedded.boot import SEAL_KEY_BYTES, Boot, Found, decide, observe, seal_key_id, served_mark
from connectors_grpc.embedded.config import FirstBoot, SealKey, render
from connectors_grpc.embedded.errors import EmbeddedVaultError
from connectors_grpc.embedded.files import size_of, sync_directory, write_private
from connectors_grpc.embedded.layout import StateLayout, prepare
from connectors_grpc.embedded.lock import StateLock
from connectors_grpc.embedded.policies import renew_policies
from connectors_grpc.embedded.process import EmbeddedSettings
from connectors_grpc.embedded.setup import RESTORE, SERVER, UPKEEP, Role
from connectors_grpc.embedded.wayin import exchange, read_approle

log = logging.getLogger(__name__)
_POLL: Final = 0.02


class EmbeddedVault:
    """One OpenBao on one state directory.

    `async with EmbeddedVault(layout) as vault` holds it for a block; after `wait_exit` has returned, `start` brings
    it up again on the same object. Call `start` on the main thread: OpenBao dies with the thread that began it.
    `roles` are those that a first boot makes; `older_key` is the one that the data may still be sealed with, while the
    seal key is rotated.
    """

    def __init__(
        self,
        layout: StateLayout,
        settings: EmbeddedSettings | None = None,
        *,
        roles: Sequence[Role] = (SERVER, UPKEEP),
        older_key: Path | None = None,
    ) -> None:
        self.layout = layout
        self.settings = settings or EmbeddedSettings()
        self._roles = tuple(roles)
        self._older_key = older_key
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
            boot = decide(self._observed(), self.layout)
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

    def _observed(self) -> Found:
        """What is there, as those see it who restore or rotate: what stops others is their own doing."""
        found = observe(self.layout)
        if self._roles == (RESTORE,):
            return replace(found, restoring=False)
        if self._older_key is not None:
            known = found.served_seal_key in (found.seal_key, seal_key_id(self._older_key))
            return replace(found, seal_key=found.served_seal_key) if known else found
        return found

    async def _start_again(self) -> None:
        self._role_id = read_approle(self.layout.approle).role_id
        write_private(self.layout.config, render(self.layout, self._seal()).encode())
        await self._run(())
        await asyncio.to_thread(renew_policies, self.layout)

    def _seal(self) -> list[SealKey]:
        keys = [(seal_key_id(path), path) for path in (self.layout.seal_key, self._older_key) if path is not None]
        return [SealKey(key_id, path) for key_id, path in keys if key_id is not None]

    async def _start_first(self, boot: Boot) -> None:
        """The first boot: from nothing to AppRoles that nobody but us has ever seen.

        The secret ids that OpenBao is told of go through pipes: they are in no environment, no argument and no file,
        and they are dead before this returns.
        """
        if boot is Boot.WIPE_THEN_FIRST:
            log.warning("openbao_first_boot_repeated")
            await asyncio.to_thread(_forget, self.layout)
        write_private(self.layout.initialising, b"")
        if seal_key_id(self.layout.seal_key) is None:
            write_private(self.layout.seal_key, secrets.token_hex(SEAL_KEY_BYTES).encode())
        once = {role: AppRole(secrets.token_hex(16), secrets.token_hex(32)) for role in self._roles}
        with contextlib.ExitStack() as pipes:
            told = [(role, way, pipes.enter_context(_piped(way.secret_id))) for role, way in once.items()]
            first = [FirstBoot(role, way.role_id, f"/dev/fd/{fd}") for role, way, fd in told]
            write_private(self.layout.config, render(self.layout, self._seal(), first).encode())
            await self._run([fd for _, _, fd in told])
        for role, way in once.items():
            await asyncio.to_thread(exchange, self.layout, role, way)
        write_private(self.layout.served, served_mark(self._seal()[0].id))
        self.layout.initialising.unlink()
        sync_directory(self.layout.vault)
        self._role_id = once[self._roles[0]].role_id
        write_private(self.layout.config, render(self.layout, self._seal()).encode())

    async def _run(self, keep_open: Sequence[int]) -> None:
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


@contextlib.contextmanager
def _piped(text: str) -> Iterator[int]:
    """The reading end of a pipe that holds the text."""
    reading, writing = os.pipe()
    try:
        os.write(writing, text.encode())
        os.close(writing)
        yield reading
    finally:
        os.close(reading)


def _forget(layout: StateLayout) -> None:
    """Remove what an unfinished first boot left. The seal key stays: it may be somebody else's."""
    shutil.rmtree(layout.data)
    for role in (SERVER, UPKEEP, RESTORE):
        layout.way_in(role.label).unlink(missing_ok=True)
    prepare(layout)
