"""Joins the parts and runs them: `run` for code, `command` for people."""

from __future__ import annotations

import asyncio
import gc
import signal
import sys
from collections.abc import Callable
from functools import partial

import click
import uvloop

from connectors_grpc import logs
from connectors_grpc.certificates import CertificateRefused, Contexts
from connectors_grpc.quota import Quota
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
from sidecar.limits import Limits
from sidecar.listeners import listen, listen_for_metrics, unlink
from sidecar.metrics import Metrics
from sidecar.observing import Observing, observers
from sidecar.refused import SettingsRefused
from sidecar.server import Server
from sidecar.settings import DEFAULT_LISTEN, DEFAULT_SERVER, SidecarSettings, parse
from sidecar.watch import watch
from sidecar.worker import Inherited, report
from sidecar.workers import MOST_WORKERS, Supervisor, WorkerFailed

log = logs.get("sidecar")


async def run(
    settings: SidecarSettings,
    ready: Callable[[str], None],
    stop: asyncio.Event | None = None,
    inherited: Inherited | None = None,
) -> None:
    """Serve until SIGTERM or SIGINT (or `stop`), then drain. `ready` gets each app-facing listener's address, the main one first.

    A worker of several inherits its sockets, and tells its supervisor instead.
    Raises: SettingsRefused, before anything is served.
    """
    stop = stop or _stop_by_signal()
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
                await _serve(settings, server, tasks, Dialler(resolver, contexts), ready, stop, inherited)
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
) -> None:
    told = tuple(observers(settings.observing))
    leases = Leases(
        server,
        tasks,
        clock=asyncio.get_running_loop().time,
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


def _stop_by_signal() -> asyncio.Event:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    return stop


HELP = """Run the sidecar: it puts a tenant's credential into the requests of the app beside it.

Give an SDK the base URL http://127.0.0.1:15001/~TENANT/CREDENTIAL, and as its token the app's own key.

\b
Examples:
  connectors sidecar --server 127.0.0.1:50051 --key-file sidecar.key
  connectors sidecar --listen unix:/run/connectors/sidecar.sock --key-file sidecar.key
  connectors sidecar --key-file sidecar.key --map 127.0.0.1:15010=acme/stripe
  curl -H "Authorization: Bearer $APP_KEY" http://127.0.0.1:15001/~acme/notion/v1/users/me
"""


@click.command(help=HELP)
@click.option("--listen", envvar="CONNECTORS_SIDECAR_LISTEN", default=DEFAULT_LISTEN, show_default=True,
              help="Loopback host:port, or unix:/path (mode 0600; needs no app key).")  # fmt: skip
@click.option("--server", envvar="CONNECTORS_SERVER", default=DEFAULT_SERVER, show_default=True,
              help="The Connectors server, host:port; https://host:port or --ca-file for TLS.")  # fmt: skip
@click.option("--key-file", envvar="CONNECTORS_SIDECAR_KEY_FILE", help="File with the sidecar's own API key.")
@click.option("--open", "open_door", envvar="CONNECTORS_SIDECAR_OPEN", is_flag=True,
              help="Ask apps for no key. For development only.")  # fmt: skip
@click.option("--ca-file", envvar="CONNECTORS_CA_FILE", help="PEM file of the CA that signed the server's certificate.")
@click.option("--upstream-ca", envvar="CONNECTORS_UPSTREAM_CA_FILE",
              help="PEM file of a CA trusted for upstreams, besides the system's.")  # fmt: skip
@click.option("--map", "maps", envvar="CONNECTORS_SIDECAR_MAP", multiple=True, metavar="LISTEN=TENANT/CREDENTIAL",
              help="A listener of its own for one credential, path untouched. Repeatable.")  # fmt: skip
@click.option("--host-name", "host_names", envvar="CONNECTORS_SIDECAR_HOST_NAMES", multiple=True,
              help="Another name by which apps may call (in Host). Repeatable.")  # fmt: skip
@click.option("--metrics-listen", envvar="CONNECTORS_SIDECAR_METRICS_LISTEN", help="Loopback host:port of /-/metrics.")
@click.option("--relay", envvar="CONNECTORS_SIDECAR_RELAY", is_flag=True,
              help="Let the server make every call, with the app's key: no credential ever reaches this machine.")  # fmt: skip
@click.option("--app-key-file", envvar="CONNECTORS_APP_KEY_FILE",
              help="With --relay: file with the app key of apps that show none (Unix socket, --open).")  # fmt: skip
@click.option("--limit-concurrency", envvar="CONNECTORS_SIDECAR_LIMIT_CONCURRENCY", type=click.IntRange(min=0), default=0,
              help="Calls at once of each tenant's credential; more get 429. Default: no bound.")  # fmt: skip
@click.option("--limit-rate", envvar="CONNECTORS_SIDECAR_LIMIT_RATE", type=click.IntRange(min=0), default=0,
              help="Calls a second of each tenant's credential; more get 429. Default: no bound.")  # fmt: skip
@click.option("--limit-bytes", envvar="CONNECTORS_SIDECAR_LIMIT_BYTES", type=click.IntRange(min=0), default=0,
              help="Bytes a second of bodies of each tenant's credential; who owes gets 429. Default: no bound.")  # fmt: skip
@click.option("--client-cert", "client_certs", envvar="CONNECTORS_SIDECAR_CLIENT_CERT", multiple=True,
              metavar="INTEGRATION=CHAIN,KEY",
              help="PEM files of the client certificate that an integration's API wants. Repeatable.")  # fmt: skip
@click.option("--retry", "retries", envvar="CONNECTORS_SIDECAR_RETRY", multiple=True, metavar="INTEGRATION",
              help="Wait and send idempotent calls again when this API takes none for now. Repeatable.")  # fmt: skip
@click.option("--workers", envvar="CONNECTORS_SIDECAR_WORKERS", type=click.IntRange(1, MOST_WORKERS), default=1,
              show_default=True, help="Processes that serve, one for each core that the sidecar may use.")  # fmt: skip
@click.option("--timeout", envvar="CONNECTORS_SIDECAR_TIMEOUT", type=click.FloatRange(min=0), default=0,
              help="Seconds for each whole call. Default: no bound.")  # fmt: skip
@click.option("--metrics-tenants", envvar="CONNECTORS_SIDECAR_METRICS_TENANTS", type=int, default=0,
              help="Count requests of so many tenants by name in the metrics, further ones together. Default: none.")  # fmt: skip
@click.option("--access-log", envvar="CONNECTORS_SIDECAR_ACCESS_LOG",
              help="A file that gets a line of JSON for each request, or - for standard output. Default: none.")  # fmt: skip
@click.option("--access-log-fields", envvar="CONNECTORS_SIDECAR_ACCESS_LOG_FIELDS",
              help="What its lines have, separated by commas. Default: all but path.")  # fmt: skip
@click.option("--otlp-endpoint", envvar="CONNECTORS_SIDECAR_OTLP_ENDPOINT",
              help="Where spans go (OTLP): https://host/v1/traces, or http:// on loopback. Default: nowhere.")  # fmt: skip
@click.option("--otlp-ratio", envvar="CONNECTORS_SIDECAR_OTLP_RATIO", type=float, default=1.0, show_default=True,
              help="The share of requests that become spans, where no caller decided it.")  # fmt: skip
@click.option("--log-level", envvar="CONNECTORS_LOG_LEVEL", default="info", show_default=True,
              type=click.Choice(["debug", "info", "warning", "error"]), help="What is logged.")  # fmt: skip
def command(
    listen: str,
    server: str,
    key_file: str | None,
    open_door: bool,
    ca_file: str | None,
    upstream_ca: str | None,
    maps: tuple[str, ...],
    host_names: tuple[str, ...],
    metrics_listen: str | None,
    relay: bool,
    app_key_file: str | None,
    limit_concurrency: int,
    limit_rate: int,
    limit_bytes: int,
    client_certs: tuple[str, ...],
    retries: tuple[str, ...],
    workers: int,
    timeout: float,
    metrics_tenants: int,
    access_log: str | None,
    access_log_fields: str | None,
    otlp_endpoint: str | None,
    otlp_ratio: float,
    log_level: str,
) -> None:
    """Parse, run, and say what is wrong in one line."""
    try:
        settings = parse(
            listen=listen,
            server=server,
            key_file=key_file,
            open_door=open_door,
            ca_file=ca_file,
            upstream_ca=upstream_ca,
            maps=maps,
            host_names=host_names,
            metrics_listen=metrics_listen,
            relay=relay,
            app_key_file=app_key_file,
            quota=Quota(limit_concurrency, limit_rate, limit_bytes),
            client_certs=client_certs,
            retries=retries,
            workers=workers,
            limits=Limits(whole=timeout),
            observing=Observing.of(access_log, access_log_fields, otlp_endpoint, otlp_ratio, metrics_tenants),
        )
        logs.configure(log_level)
        uvloop.run(_run(settings))
    except SettingsRefused as refused:
        raise click.UsageError(str(refused)) from None
    except WorkerFailed as failed:
        raise SystemExit(failed.code or 1) from None


async def _run(settings: SidecarSettings) -> None:
    def ready(address: str) -> None:
        click.echo(f"sidecar listens on {address}")

    inherited = Inherited.here()
    if settings.workers == 1 or inherited is not None:
        await run(settings, ready, inherited=inherited)
    else:
        await Supervisor(settings, arguments(click.get_current_context())).run(ready, _stop_by_signal())


def arguments(context: click.Context) -> list[str]:
    """The same command once more, from the environment too. No option is a secret: secrets lie in files."""
    said = [sys.executable, "-m", "sidecar"]
    for option in context.command.params:
        value = context.params.get(option.name or "")
        if isinstance(option, click.Option) and not (value is None or value is False or value == ()):
            for each in value if option.multiple else (value,):
                said += [option.opts[0]] if option.is_flag else [option.opts[0], str(each)]
    return said
