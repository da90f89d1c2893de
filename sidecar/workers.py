"""`--workers`: several processes on the same addresses, kept alive by this one, which serves no request itself.

Each worker has a socket of its own for each port (SO_REUSEPORT: the kernel spreads connections), bound here, so that connections
that wait survive a worker that dies. A Unix socket is one, shared by all. Nothing else is shared: leases, pools, counts.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial

from connectors_grpc.logs import get
from sidecar.exposition import Family, counter, gauge, lasting, merged, render, told
from sidecar.listeners import address_of, listen_for_metrics, open_sockets, unlink
from sidecar.settings import SidecarSettings
from sidecar.worker import READY, VARIABLE

log = get("sidecar.workers")

MOST_WORKERS = 64
START = 30.0
"""Seconds for a worker to be ready."""
ANSWER = 2.0
"""Seconds for a worker's measurements."""
LONGEST_PAGE = 16 << 20
GRACE = 5.0
"""Seconds beyond a worker's own drain."""
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 5.0
"""Seconds before a worker that died is started again, and the most after many deaths."""
STEADY = 30.0
"""Seconds after which a worker's death is no longer a beginning's."""


def _all(ready: Callable[[str], None], addresses: Sequence[str]) -> None:
    for address in addresses:
        log.info("listening", listen=address)
        ready(address)


class WorkerFailed(Exception):
    """A worker could not start; it said why itself. `code` is its exit code."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


@dataclass(slots=True, eq=False)
class Worker:
    """One of them, running. One page at a time asks it; `asked` tells its answer from a late one."""

    process: asyncio.subprocess.Process
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    asking: asyncio.Lock = field(default_factory=asyncio.Lock)
    asked: int = 0
    ready: bool = False
    last: list[Family] = field(default_factory=list)

    async def measurements(self) -> list[Family]:
        """What it counts; what it counted last if it does not answer in time: a sum that falls would read as a restart."""
        try:
            async with self.asking, asyncio.timeout(ANSWER):
                self.asked += 1
                self.writer.write(b"%d\n" % self.asked)
                while True:
                    number, document = json.loads(await self.reader.readline())
                    if number == self.asked:
                        self.last = told(document)
                        break
        except (OSError, RuntimeError, TimeoutError, ValueError):  # uvloop: RuntimeError, of a line that is closed
            pass
        return self.last


class Supervisor:
    """`command` starts one worker. Use `run`."""

    def __init__(self, settings: SidecarSettings, command: Sequence[str]) -> None:
        self._settings = settings
        self._command = command
        self._workers: dict[int, Worker] = {}
        self._restarts = 0
        self._past: list[Family] = []
        self._draining = settings.limits.drain

    async def run(self, ready: Callable[[str], None], stop: asyncio.Event) -> None:
        """Serve until `stop`, then let the workers drain. Raises: SettingsRefused, WorkerFailed."""
        listens = [self._settings.listen, *(each.listen for each in self._settings.dedicated)]
        sockets: list[list[socket.socket]] = []
        page: asyncio.AbstractServer | None = None
        failed: list[WorkerFailed] = []
        try:
            sockets.extend(open_sockets(where, self._settings.workers) for where in listens)
            if self._settings.metrics_listen is not None:
                page, address = await listen_for_metrics(self._settings.metrics_listen, self._page)
                log.info("metrics", listen=address)
            addresses = [address_of(where, group[0]) for where, group in zip(listens, sockets, strict=True)]
            await self._serve(sockets, partial(_all, ready, addresses), stop)
        except* WorkerFailed as group:
            failed.append(next(each for each in group.exceptions if isinstance(each, WorkerFailed)))
        finally:
            if page is not None:
                page.close()
            for each in {sock for group in sockets for sock in group}:
                each.close()  # before the workers end: what would wait for them here is refused instead
            await self._end()
            unlink(listens[: len(sockets)])  # what could not be opened is another's
        if failed:
            raise failed[0]

    async def _serve(self, sockets: list[list[socket.socket]], ready: Callable[[], None], stop: asyncio.Event) -> None:
        mine = [[group[number % len(group)] for group in sockets] for number in range(self._settings.workers)]
        async with asyncio.TaskGroup() as tasks:
            await asyncio.gather(*[tasks.create_task(self._start(number, fds)) for number, fds in enumerate(mine)])
            keeping = [tasks.create_task(self._keep(number, fds)) for number, fds in enumerate(mine)]
            ready()
            await stop.wait()
            for each in keeping:
                each.cancel()

    # --- one worker

    async def _start(self, number: int, fds: list[socket.socket]) -> None:
        """Raises: WorkerFailed."""
        ours, theirs = socket.socketpair()
        passed = [theirs.fileno(), *(sock.fileno() for sock in fds)]
        told_of = f"{passed[0]}:{','.join(map(str, passed[1:]))}"
        with theirs:
            process = await asyncio.create_subprocess_exec(
                *self._command, pass_fds=passed, env={**os.environ, VARIABLE: told_of}, stdin=asyncio.subprocess.DEVNULL
            )
        reader, writer = await asyncio.open_unix_connection(sock=ours, limit=LONGEST_PAGE)
        worker = self._workers[number] = Worker(process, reader, writer)
        line = b""
        with suppress(TimeoutError, OSError):
            async with asyncio.timeout(START):
                line = await reader.readline()
        if line != READY:
            writer.close()
            raise WorkerFailed(await _ended(process, GRACE))
        worker.ready = True
        log.info("worker.ready", pid=process.pid)

    async def _keep(self, number: int, fds: list[socket.socket]) -> None:
        """Start it again whenever it ends."""
        pause, loop = FIRST_PAUSE, asyncio.get_running_loop()
        while True:
            worker, began = self._workers[number], loop.time()
            code = await worker.process.wait()
            worker.ready = False
            worker.writer.close()
            self._past = merged([self._past, lasting(worker.last)])
            log.warning("worker.ended", pid=worker.process.pid, code=code)
            pause = FIRST_PAUSE if loop.time() - began >= STEADY else pause
            while True:
                await asyncio.sleep(pause)
                pause = min(LONGEST_PAUSE, pause * 2)
                self._restarts += 1
                with suppress(WorkerFailed):
                    await self._start(number, fds)
                    break

    async def _end(self) -> None:
        """Let each drain; whoever does not end is ended."""
        for worker in self._workers.values():
            with suppress(ProcessLookupError):
                worker.process.send_signal(signal.SIGTERM)
        within = self._draining + GRACE
        await asyncio.gather(*(_ended(worker.process, within) for worker in self._workers.values()))
        for worker in self._workers.values():
            worker.writer.close()

    # --- all of them

    async def _page(self) -> str:
        workers = [worker for worker in self._workers.values() if worker.ready]
        parts = await asyncio.gather(*(worker.measurements() for worker in workers))
        own = [
            gauge("connectors_sidecar_workers", "Processes that serve.", len(parts)),
            counter("connectors_sidecar_worker_restarts_total", "Workers that were started again.", self._restarts),
        ]
        return render([*merged([*parts, self._past]), *own])


async def _ended(process: asyncio.subprocess.Process, within: float) -> int:
    """Its exit code, once it ended by itself, or was ended."""
    try:
        async with asyncio.timeout(within):
            return await process.wait()
    except TimeoutError:
        log.warning("worker.killed", pid=process.pid)
        with suppress(ProcessLookupError):
            process.kill()
    return await process.wait()
