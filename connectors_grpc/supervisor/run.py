"""`connectors up`, in order: lock, ports, start, demo, say what is where; keep up until told to end; end in order."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Iterable

from connectors_grpc.embedded import EmbeddedVaultError, StateLayout
from connectors_grpc.embedded.layout import prepare
from connectors_grpc.embedded.lock import StateLock
from connectors_grpc.settings import UpSettings
from connectors_grpc.supervisor import ports
from connectors_grpc.supervisor.keeper import keep
from connectors_grpc.supervisor.parts import Parts, demo_home, listeners, parts_of
from connectors_grpc.supervisor.problem import Problem
from connectors_grpc.supervisor.report import Report
from connectors_grpc.supervisor.service import Service
from connectors_grpc.supervisor.summary import summary

INTERRUPTED = 130


async def run(settings: UpSettings, *, verbose: bool = False, report: Report | None = None) -> int:
    """Run everything until SIGTERM or SIGINT; the exit code. Call it on the main thread: children die with it.

    Raises: Problem if something can't be started; nothing is left running then.
    """
    told: asyncio.Queue[signal.Signals] = asyncio.Queue()
    loop = asyncio.get_running_loop()
    report = report or Report()

    def tell(number: signal.Signals) -> None:
        if not told.empty() or work.cancelling():
            if number is signal.SIGINT:  # the second Ctrl-C: everything dies with us, at once
                os._exit(INTERRUPTED)
            return
        told.put_nowait(number)
        work.cancel()

    work = asyncio.create_task(_up(settings, report, verbose=verbose))
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN or number is not signal.SIGHUP:  # nohup means: go on
            loop.add_signal_handler(number, tell, number)
    with contextlib.suppress(asyncio.CancelledError):
        await work
    return INTERRUPTED if not told.empty() and told.get_nowait() is signal.SIGINT else 0


async def _up(settings: UpSettings, report: Report, *, verbose: bool) -> None:
    layout = StateLayout.at(settings.state_dir, settings.seal_key)
    lock = await asyncio.to_thread(_claim, layout)
    try:
        await asyncio.to_thread(ports.check, listeners(settings))
        if settings.demo:
            demo_home(layout).mkdir(mode=0o700, exist_ok=True)
        parts = parts_of(settings, layout, verbose=verbose)
        try:
            await _start_and_keep(parts, settings, layout, report)
        except BaseExceptionGroup as group:
            raise _first_problem(group) from None
        finally:
            await _stop(parts.to_stop(), report)
    finally:
        lock.release()


def _claim(layout: StateLayout) -> StateLock:
    """One supervisor a state directory.  Raises: Problem naming the pid of the other."""
    try:
        prepare(layout)
        return StateLock.take(layout.root / "up.lock")
    except EmbeddedVaultError as error:
        raise Problem(error.message, error.fix) from None


async def _start_and_keep(parts: Parts, settings: UpSettings, layout: StateLayout, report: Report) -> None:
    began = time.monotonic()
    async with asyncio.TaskGroup() as keepers:
        async with asyncio.TaskGroup() as starting:
            for service in parts.first:
                starting.create_task(_start(service, report))
        for service in parts.first:
            keepers.create_task(keep(service, report), name=f"keep {service.name}")
        for service in parts.then:
            await _start(service, report)
            keepers.create_task(keep(service, report), name=f"keep {service.name}")
        demo_line = None
        if settings.demo:
            from connectors_grpc.supervisor.demo import set_up

            demo_line = await asyncio.to_thread(set_up, settings, layout, report)
        report.summary(summary(settings, layout, demo_line, time.monotonic() - began))
        await asyncio.Event().wait()


async def _start(service: Service, report: Report) -> None:
    report.starting(service.name)
    began = time.monotonic()
    await service.start()
    report.ready(service.name, time.monotonic() - began)


async def _stop(services: Iterable[Service], report: Report) -> None:
    """End them one after the other: a sidecar before the server that it asks, that before the Vault."""
    for service in services:
        if service.pid is not None:
            await service.stop()
            report.note(f"{service.name:<10} stopped")
        else:
            await service.stop()


def _first_problem(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The problem in a group, or what else it holds."""
    problems, rest = group.split(Problem)
    found: BaseException = problems if problems is not None else rest or group
    while isinstance(found, BaseExceptionGroup):
        found = found.exceptions[0]
    return found
