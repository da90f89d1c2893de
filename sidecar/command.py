"""The sidecar's command line: options, each an environment variable too, to settings. It serves nothing itself."""

from __future__ import annotations

import sys

import click
import uvloop

from connectors_grpc import logs
from connectors_grpc.quota import Quota
from sidecar.limits import Limits
from sidecar.main import run, stop_by_signal
from sidecar.observing import Observing
from sidecar.refused import SettingsRefused
from sidecar.settings import DEFAULT_LISTEN, DEFAULT_SERVER, SidecarSettings, parse
from sidecar.worker import Inherited
from sidecar.workers import MOST_WORKERS, Supervisor, WorkerFailed

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
        await Supervisor(settings, arguments(click.get_current_context())).run(ready, stop_by_signal())


def arguments(context: click.Context) -> list[str]:
    """The same command once more, from the environment too. No option is a secret: secrets lie in files."""
    said = [sys.executable, "-m", "sidecar"]
    for option in context.command.params:
        value = context.params.get(option.name or "")
        if isinstance(option, click.Option) and not (value is None or value is False or value == ()):
            for each in value if option.multiple else (value,):
                said += [option.opts[0]] if option.is_flag else [option.opts[0], str(each)]
    return said
