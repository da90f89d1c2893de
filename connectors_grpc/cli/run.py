"""`connectors up` and `serve`: the processes. Settings become flags here; what runs is elsewhere."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar

import click

from connectors_grpc import logs
from connectors_grpc.cli.base import ExampleCommand, missing_package
from connectors_grpc.cli.errors import INTERRUPTED, USAGE
from connectors_grpc.settings import (
    CONFIG_VARIABLE,
    ServerSettings,
    SettingsInvalid,
    UpSettings,
    flag,
    load,
    variable,
)

Model = TypeVar("Model", bound=ServerSettings)
Command = Callable[..., Any]


def settings_options(model: type[ServerSettings]) -> Callable[[Command], Command]:
    """One flag a setting, from the model; unset ones fall to the environment and the file."""

    def decorate(function: Command) -> Command:
        for name, info in reversed(model.model_fields.items()):
            is_flag = info.annotation is bool
            default = "" if info.default is None or info.default_factory or is_flag else f"; default: {info.default}"
            text = f"{info.description}  [{variable(name)}{default}]"
            option = click.option(
                f"{flag(name)}/--no-{flag(name)[2:]}" if is_flag else flag(name),
                name,
                default=None,
                metavar=None if is_flag else _metavar(name),
                help=text,
            )
            function = option(function)
        return click.option(
            "--config", type=click.Path(path_type=Path), metavar="FILE",
            help=f"A TOML or YAML file with settings.  [{CONFIG_VARIABLE}]",
        )(function)  # fmt: skip

    return decorate


def _metavar(name: str) -> str:
    """What a setting's value is, by how the setting is called."""
    endings = (
        ("_listen", "HOST:PORT"),
        ("_dir", "DIRECTORY"),
        ("bootstrap_keys", "DIRECTORY"),
        ("_url", "URL"),
        ("_addr", "URL"),
    )
    files = tuple((ending, "FILE") for ending in ("_file", "_cert", "_key"))
    return next((metavar for ending, metavar in (*endings, *files) if name.endswith(ending)), "TEXT")


class SettingsRefused(click.ClickException):
    """Settings that can't be used."""

    exit_code = USAGE


def loaded(model: type[Model], config: Path | None, flags: dict[str, Any]) -> Model:
    """The settings.  Raises: SettingsRefused with every problem."""
    try:
        return load(model, flags, config)
    except SettingsInvalid as error:
        raise SettingsRefused("\n  ".join(("the settings can't be used:", *error.problems))) from None


@click.command(
    cls=ExampleCommand,
    examples=(
        "connectors up",
        "connectors up --demo",
        "connectors up --state-dir /srv/connectors --seal-key /media/usb/seal.key",
        "connectors up --vault-addr https://vault.example:8200 --vault-role-id ID --vault-secret-id-file secret-id",
    ),
)
@settings_options(UpSettings)
@click.option("--verbose", "-v", is_flag=True, help="Show what server, sidecar and simulator log.")
def up(config: Path | None, verbose: bool, **flags: Any) -> None:
    """Run it all on this machine: OpenBao, server and sidecar, and with --demo a provider to try it on.

    One process looks after the others: it waits until each is ready, starts again what died, and ends them in order.
    """
    settings = loaded(UpSettings, config, flags)
    from connectors_grpc.supervisor import Problem, run

    try:
        code = asyncio.run(run(settings, verbose=verbose))
    except Problem as problem:
        raise click.ClickException(f"{problem.message}\n  {problem.fix}") from None
    if code:
        raise click.exceptions.Exit(code)


@click.command(
    cls=ExampleCommand,
    examples=(
        "connectors serve --vault-addr https://vault.example:8200 --vault-role-id ID --vault-secret-id-file secret-id",
        "connectors serve --config /etc/connectors.toml --bootstrap-keys /var/lib/connectors/keys",
    ),
)
@settings_options(ServerSettings)
def serve(config: Path | None, **flags: Any) -> None:
    """Run the server alone, on an existing Vault or OpenBao."""
    settings = loaded(ServerSettings, config, flags)
    if settings.vault_addr is None and not (settings.state_dir / "vault" / "bao.sock").exists():
        raise SettingsRefused(
            "vault_addr is not set: give --vault-addr, or run `connectors up`, which brings a Vault along."
        )
    try:
        from connectors_grpc import app
        from connectors_grpc.catalogue import CatalogueError
        from connectors_grpc.certificates import CertificateRefused
        from connectors_grpc.errors import ConnectorsError
        from connectors_grpc.legacy_map import MapUnusable
        from connectors_grpc.schema import SchemaNewer
        from connectors_grpc.vault import VaultMisconfigured
    except ModuleNotFoundError as error:
        raise click.ClickException(missing_package("serve", error)) from None
    logs.configure(settings.log_level)
    log = logs.get("server")
    try:
        run_process(app.serve(settings, lambda: log.info("ready", listen=str(settings.grpc_listen))))
    except VaultMisconfigured as error:
        raise SettingsRefused(str(error)) from None
    except CertificateRefused as error:
        raise SettingsRefused(f"client_certs: {error}") from None
    except MapUnusable as error:
        raise SettingsRefused(f"legacy_map: {error}") from None
    except SchemaNewer as error:
        raise click.ClickException(str(error)) from None
    except CatalogueError as error:
        raise SettingsRefused(
            "\n  ".join(("the definitions in catalogue_dir can't be used:", *str(error).splitlines()))
        ) from None
    except ConnectorsError as error:
        raise click.ClickException(f"{error.reason}: {error.meaning.text}") from None


def run_process(work: Coroutine[Any, Any, None]) -> None:
    """Run a process' one task under uvloop until it ends or a signal comes; SIGTERM ends it well, SIGINT with 130.

    Raises: ClickException where an address can't be listened on.
    """
    came: list[signal.Signals] = []
    try:
        with contextlib.suppress(asyncio.CancelledError):
            _runner()(_until_signal(work, came))
    except OSError as error:
        raise click.ClickException(f"It can't be served: {error.strerror or 'an address is in use'}.") from None
    if signal.SIGINT in came:
        raise click.exceptions.Exit(INTERRUPTED)


def _runner() -> Callable[[Coroutine[Any, Any, None]], None]:
    try:
        import uvloop
    except ModuleNotFoundError:
        return asyncio.run
    return uvloop.run


async def _until_signal(work: Awaitable[None], came: list[signal.Signals]) -> None:
    task = asyncio.ensure_future(work)
    loop = asyncio.get_running_loop()

    def end(number: signal.Signals) -> None:
        if not came:  # a second signal must not cut the orderly end short
            task.cancel()
        came.append(number)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, end, number)
    await task
