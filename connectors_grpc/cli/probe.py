"""`connectors probe`: whether a server or sidecar here is ready, for health checks. Needs no key, nor the server's packages."""

from __future__ import annotations

import ssl
from pathlib import Path

import click

from connectors_grpc.addresses import Address, AddressInvalid
from connectors_grpc.cli.base import ExampleGroup
from connectors_grpc.cli.errors import FAILED, UNREACHABLE
from connectors_grpc.cli.health import http_status

OK = 200
LOOPBACK = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104  (what the server was told)


@click.group(cls=ExampleGroup, examples=("connectors probe server", "connectors probe sidecar"))
def probe() -> None:
    """Whether a server or sidecar on this machine is ready. Exit code 0: yes, 1: no, 3: it can't be reached."""


timeout_option = click.option(
    "--timeout", type=click.FloatRange(0.1, 60), default=2.0, show_default=True, help="Seconds to wait."
)


@probe.command(examples=("connectors probe server", "connectors probe server --http-listen 127.0.0.1:3000"))
@click.option(
    "--http-listen", envvar="CONNECTORS_HTTP_LISTEN", show_envvar=True, default="127.0.0.1:3000", show_default=True,
    metavar="HOST:PORT", help="Where the server was told to listen.",
)  # fmt: skip
@click.option(
    "--tls-cert", envvar="CONNECTORS_TLS_CERT", show_envvar=True, type=click.Path(path_type=Path), metavar="FILE",
    help="The server's certificate, where it has one: it and no other is accepted.",
)  # fmt: skip
@timeout_option
def server(http_listen: str, tls_cert: Path | None, timeout: float) -> None:
    """Whether the server can work: it answers, and its Vault does."""
    context = None
    if tls_cert is not None:
        try:
            context = ssl.create_default_context(cafile=str(tls_cert))
        except OSError:
            raise click.UsageError(f"--tls-cert: {tls_cert} can't be read as certificates.") from None
        context.check_hostname = False  # it is asked at a loopback address, and bound to its very certificate
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    _ask(http_listen, "/health", timeout, context)


@probe.command(examples=("connectors probe sidecar", "connectors probe sidecar --live"))
@click.option(
    "--listen", envvar="CONNECTORS_SIDECAR_LISTEN", show_envvar=True, default="127.0.0.1:15001", show_default=True,
    metavar="ADDRESS", help="Where the sidecar was told to listen.",
)  # fmt: skip
@click.option("--live", is_flag=True, help="Whether it answers at all, not whether it reaches its server.")
@timeout_option
def sidecar(listen: str, live: bool, timeout: float) -> None:
    """Whether the sidecar can serve: it reaches its server, or holds leases."""
    _ask(listen, "/-/healthz" if live else "/-/readyz", timeout, None)


def _ask(text: str, path: str, timeout: float, context: ssl.SSLContext | None) -> None:
    """One question; ends the process with the answer's exit code."""
    try:
        address = Address.parse(text)
    except AddressInvalid as error:
        raise click.UsageError(f"{text}: {error}") from None
    if address.host in LOOPBACK:
        address = Address(LOOPBACK[address.host], address.port)
    status = http_status(address, path, timeout, context)
    if status != OK:
        click.echo("It can't be reached." if status is None else f"It is not ready ({status}).", err=True)
        raise click.exceptions.Exit(UNREACHABLE if status is None else FAILED)
