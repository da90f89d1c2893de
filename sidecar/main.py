"""Joins the parts and runs them, until it is told to stop. The command line is `command`."""

from __future__ import annotations

import asyncio
import gc
import signal
from collections.abc import Callable
from functools import partial

from connectors_grpc import logs
from connectors_grpc.certificates import CertificateRefused, Contexts
from connectors_grpc.resolving import SystemResolver
from sidecar import compiled
from sidecar.descriptors import fitted
from sidecar.engine import Engine, Guarded
from sidecar.engine.dial import Dialler, tls_context
from sidecar.engine.measured import measured
from sidecar.engine.relayed import Relaying
from sidecar.exposition import render
from sidecar.held import Chosen
from sidecar.leases import Leases
from sidecar.listeners import listen, listen_for_metrics, unlink
from sidecar.metrics import Metrics
from sidecar.observing import observers
from sidecar.refused import SettingsRefused
from sidecar.server import Server
from sidecar.settings import SidecarSettings
from sidecar.watch import watch
from sidecar.worker import Inherited, report

log = logs.get("sidecar")


async def run(
    settings: SidecarSettings,
    ready: Callable[[str], None],
    stop: asyncio.Event | None = None,
    inherited: Inherited | None = None,
    *,
    clock: Callable[[], float] | None = None,
) -> None:
    """Serve until SIGTERM or SIGINT (or `stop`), then drain. `ready` gets each app-facing listener's address, the main one first.

    A worker of several inherits its sockets, and tells its supervisor instead. By the loop's clock unless another is given.
    Raises: SettingsRefused, before anything is served.
    """
    stop = stop or stop_by_signal()
    ca = str(settings.upstream_ca) if settings.upstream_ca else None
    try:
        contexts = Contexts(lambda: tls_context(ca), settings.client_certificates)
    except CertificateRefused as error:
        raise SettingsRefused("--client-cert", str(error)) from None
    resolver = SystemResolver()
    refused: list[SettingsRefused] = []
    async with Server(settings.server) as server:
        try:
            async with asyncio.TaskGroup() as tasks:
                dialler = Dialler(resolver, contexts)
                now = clock or asyncio.get_running_loop().time
                await _serve(settings, server, tasks, dialler, ready, stop, inherited, now)
                raise _Stopped
        except* _Stopped:
            log.info("stopped")
        except* SettingsRefused as group:
            refused.append(next(each for each in group.exceptions if isinstance(each, SettingsRefused)))
        finally:
            resolver.close()
    if refused:
        raise refused[0]


class _Stopped(Exception):
    """Ends the task group: whatever still runs in the background is cancelled."""


async def _serve(
    settings: SidecarSettings,
    server: Server,
    tasks: asyncio.TaskGroup,
    dialler: Dialler,
    ready: Callable[[str], None],
    stop: asyncio.Event,
    inherited: Inherited | None,
    clock: Callable[[], float],
) -> None:
    told = tuple(observers(settings.observing))
    leases = Leases(
        server,
        tasks,
        clock=clock,
        chosen=Chosen(dialler.certified, settings.retried, settings.workers),
    )
    relay = Relaying(server.call_stream, settings.relay_key) if settings.relay else None
    engine = Engine(
        leases,
        Guarded(tasks),
        limits=fitted(settings.limits),
        dialler=dialler,
        metrics=Metrics(settings.observing.tenants),
        reachable=server.reachable,
        relay=relay,
        quota=settings.quota.part(settings.workers),
        observers=told,
        clock=clock,
    )
    servers = await _open(settings, engine, inherited, ready)
    try:
        if relay is None:
            tasks.create_task(watch(server, leases, lambda event: engine.hold(event, server)))
        tasks.create_task(engine.keep_time())
        if inherited is not None:
            tasks.create_task(report(inherited.line, partial(measured, engine), stop))
        gc.collect()
        gc.freeze()  # what lives as long as the process is not looked at again by the collector
        await stop.wait()
        for each in servers:
            each.close()
        await engine.drain()
    finally:
        if inherited is None:
            unlink([settings.listen, *(each.listen for each in settings.dedicated)])
        for observer in told:
            await asyncio.to_thread(observer.close)


async def _open(
    settings: SidecarSettings, engine: Engine, inherited: Inherited | None, ready: Callable[[str], None]
) -> list[asyncio.AbstractServer]:
    wanted = [(settings.listen, None), *((each.listen, each.fixed) for each in settings.dedicated)]
    sockets = [None] * len(wanted) if inherited is None else list(inherited.sockets())
    servers: list[asyncio.AbstractServer] = []
    addresses = []
    try:
        for (where, fixed), sock in zip(wanted, sockets, strict=True):
            server, address = await listen(settings, where, fixed, engine.protocol, sock)
            servers.append(server)
            addresses.append(address)
        if settings.metrics_listen is not None and inherited is None:
            server, address = await listen_for_metrics(settings.metrics_listen, partial(_page, engine))
            servers.append(server)
            log.info("metrics", listen=address)
    except SettingsRefused:
        for server in servers:
            server.close()
        raise
    if settings.open_door:
        log.warning("OPEN: any local program may use every tenant's credential here; for development only")
    for address in addresses if inherited is None else ():
        log.info("listening", listen=address, compiled=compiled())
        ready(address)
    return servers


async def _page(engine: Engine) -> str:
    return render(measured(engine))


def stop_by_signal() -> asyncio.Event:
    """Is set by the first SIGTERM or SIGINT."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    return stop
