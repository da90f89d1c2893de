"""What the supervisor looks after: a thing that is started until it is ready, waited for, and stopped."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from asyncio.subprocess import DEVNULL, PIPE, STDOUT, Process
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, Protocol

from connectors_grpc import embedded
from connectors_grpc.embedded import EmbeddedVault, EmbeddedVaultError
from connectors_grpc.settings import CONFIG_VARIABLE, UpSettings, variable
from connectors_grpc.supervisor.journal import Journal
from connectors_grpc.supervisor.problem import Problem

START_DEADLINE: Final = 60.0
_POLL: Final = 0.05
_LAUNCHER: Final = Path(embedded.__file__).with_name("launch.py")
Probe = Callable[[], bool]
"""Whether it is ready, now; blocking, bounded, and never raises."""


class Service(Protocol):
    """One thing that runs."""

    name: str

    @property
    def pid(self) -> int | None:
        """Its process while it runs."""

    async def start(self) -> None:
        """Start it and return once it is ready.  Raises: Problem; nothing is left running then."""

    async def wait_exit(self) -> int:
        """Wait until it ends by whatever cause; its exit code, negative for a signal."""

    async def stop(self) -> None:
        """End it, in bounded time. Safe on one that does not run."""


class VaultService:
    """The embedded OpenBao as a service."""

    name = "OpenBao"

    def __init__(self, vault: EmbeddedVault) -> None:
        self._vault = vault

    @property
    def pid(self) -> int | None:
        """OpenBao's process id while it runs."""
        return self._vault.pid

    async def start(self) -> None:
        """Bring OpenBao up.  Raises: Problem."""
        try:
            await self._vault.start()
        except EmbeddedVaultError as error:
            raise Problem(error.message, error.fix) from None
        except OSError as error:
            raise _of_the_system(self.name, error) from None

    async def wait_exit(self) -> int:
        """Wait until it ends."""
        return await self._vault.wait_exit()

    async def stop(self) -> None:
        """End it."""
        await self._vault.stop()


class Child:
    """A `python -m connectors_grpc ...` of ours. It dies with us: PDEATHSIG, asked for before it runs."""

    def __init__(
        self, name: str, arguments: Sequence[str], probe: Probe, journal: Journal, stop_deadline: float
    ) -> None:
        self.name = name
        self.journal = journal
        self._arguments = tuple(arguments)
        self._probe = probe
        self._stop_deadline = stop_deadline
        self._process: Process | None = None
        self._following: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int | None:
        """Its process id while it runs."""
        return self._process.pid if self._process is not None and self._process.returncode is None else None

    async def start(self) -> None:
        """Start it and return once its probe says that it is ready.

        Bounds: START_DEADLINE.  Raises: Problem with its last words.
        """
        self.journal.begin()
        try:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-I", "-S", str(_LAUNCHER), str(os.getpid())),
                *(sys.executable, "-P", "-m", "connectors_grpc", *self._arguments),
                stdin=DEVNULL,
                stdout=PIPE,
                stderr=STDOUT,
                env=child_environment(os.environ),
                start_new_session=True,  # the terminal's Ctrl-C is ours alone: we end them in order
            )
            assert self._process.stdout is not None
            self._following = asyncio.create_task(self.journal.follow(self._process.stdout), name=f"{self.name} log")
            async with asyncio.timeout(START_DEADLINE):
                while not await asyncio.to_thread(self._probe):
                    if self._process.returncode is not None:
                        await self._following
                        raise self._failure("It ended at once")
                    await asyncio.sleep(_POLL)
        except TimeoutError:
            await self.stop()
            raise self._failure(f"It was not ready within {START_DEADLINE:g} s") from None
        except OSError as error:
            await self.stop()
            raise _of_the_system(self.name, error) from None
        except BaseException:
            await self.stop()
            raise

    def _failure(self, what: str) -> Problem:
        words = "\n    ".join(self.journal.last_words())
        return Problem(
            f"{self.name} did not come up. {what}." + (f"\n    {words}" if words else ""),
            f"Its log: {self.journal.path}",
        )

    async def wait_exit(self) -> int:
        """Wait until it ends."""
        assert self._process is not None
        return await self._process.wait()

    async def stop(self) -> None:
        """Ask it to end; kill it after the deadline."""
        process = self._process
        if process is None:
            return
        try:
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    process.send_signal(signal.SIGTERM)
                async with asyncio.timeout(self._stop_deadline):
                    await process.wait()
        except TimeoutError:
            pass
        finally:
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
                await process.wait()
            if self._following is not None:
                await asyncio.wait((self._following,), timeout=1)  # a stranger that inherited the pipe may hold it open
                self._following.cancel()
                self._following = None


def _of_the_system(name: str, error: OSError) -> Problem:
    """What the system refused: memory, processes, disk."""
    return Problem(
        f"{name} can't be started: {error.strerror or type(error).__name__}.", "Look at memory, disk and limits."
    )


def child_environment(ours: os._Environ[str]) -> dict[str, str]:
    """Our environment without the settings that children get as flags, so that each is told once."""
    told = {variable(name) for name in UpSettings.model_fields} | {CONFIG_VARIABLE}
    told |= {"CONNECTORS_SERVER", "CONNECTORS_KEY_FILE", "CONNECTORS_SIDECAR_KEY_FILE", "CONNECTORS_CA_FILE"}
    return {name: value for name, value in ours.items() if name not in told} | {"GRPC_VERBOSITY": "NONE"}
