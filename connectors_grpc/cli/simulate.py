"""`connectors simulate`: a provider on this machine that behaves, and misbehaves, as it is told."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource
from google.protobuf.json_format import MessageToDict

from connectors_grpc.addresses import Address, AddressInvalid
from connectors_grpc.cli.base import ExampleCommand
from connectors_grpc.cli.run import run_process
from connectors_grpc.cli.simulated import definition, introduction
from connectors_grpc.simulator import (
    Account,
    Client,
    Habit,
    Misbehaviour,
    SimulatorSettings,
    StateFileInvalid,
    serve,
)
from connectors_grpc.simulator.config import ConfigInvalid, parse_lifetime, parse_rotation, read_config

CALLBACK = "http://127.0.0.1:3000/oauth/callback/demo"
BY_FILE = frozenset({
    "client_id", "client_secret_file", "public", "redirect_uris", "scopes", "rotation", "access_lifetime",
    "refresh_lifetime", "refresh_kills_access_token", "no_pkce", "no_refresh_token", "omit_refresh_token_on_refresh",
    "omit_expires_in", "misbehaves", "accounts",
})  # fmt: skip
"""What a --config file says in place of options."""


class Parsed(click.ParamType[Any]):
    """A value of a grammar of the simulator's own."""

    def __init__(self, name: str, parse: Callable[[str], Any]) -> None:
        self.name = name
        self._parse = parse

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The value.  Raises: BadParameter."""
        if not isinstance(value, str):
            return value
        try:
            return self._parse(value)
        except ValueError as error:
            self.fail(f"{error}.", param, ctx)


LIFETIME = Parsed("lifetime", lambda text: float("inf") if (found := parse_lifetime(text)) is None else found)


@click.command(
    cls=ExampleCommand,
    examples=(
        "connectors simulate --auto-consent",
        "connectors simulate --rotation static --access-lifetime 60          # as Google does, but sooner",
        "connectors simulate --rotation grace:30 --refresh-kills-access-token",
        "connectors simulate --misbehave unavailable:0.1 --misbehave rate-limited:0.5@api --seed 7",
        "connectors simulate --config clients.yaml --listen 127.0.0.1:0 --state-file sim.json",
    ),
)
@click.option(
    "--listen", default="127.0.0.1:15080", show_default=True, metavar="HOST:PORT", help="Loopback; port 0 for any."
)
@click.option("--config", type=click.Path(path_type=Path), metavar="FILE", help="Clients and accounts, as YAML.")
@click.option("--client-id", default="demo-client", show_default=True, help="The OAuth client's id.")
@click.option(
    "--client-secret-file",
    type=click.Path(path_type=Path),
    default=Path("simulator.secret"),
    show_default=True,
    metavar="FILE",
    help="The OAuth client's secret; made (0600) if there is no such file.",
)
@click.option("--public", is_flag=True, help="The client has no secret, and proves itself by PKCE alone.")
@click.option(
    "--redirect-uri",
    "redirect_uris",
    multiple=True,
    default=(CALLBACK,),
    show_default=True,
    help="Where the client may be sent back to; may be repeated.",
)
@click.option("--scope", "scopes", multiple=True, help="A scope that it may have; may be repeated.")
@click.option(
    "--account",
    "accounts",
    multiple=True,
    default=("alice", "bob"),
    show_default=True,
    help="Who may consent; may be repeated.",
)
@click.option("--auto-consent", is_flag=True, help="Consent at once, as login_hint or else the first account.")
@click.option(
    "--rotation",
    type=Parsed("rotation", parse_rotation),
    default="at-once",
    show_default=True,
    help="What becomes of a used refresh token: static, at-once (reuse revokes the family), grace:SECONDS, "
    "grace:until-used; with ,keep-family after grace, reuse past it revokes nothing.",
)
@click.option(
    "--access-lifetime",
    type=LIFETIME,
    default="3600",
    show_default=True,
    metavar="SECONDS",
    help="How long an access token lives, or forever.",
)
@click.option(
    "--refresh-lifetime",
    type=LIFETIME,
    default="forever",
    show_default=True,
    metavar="SECONDS",
    help="How long an unused refresh token lives, or forever.",
)
@click.option("--no-refresh-token", is_flag=True, help="Give none with a code.")
@click.option(
    "--omit-refresh-token-on-refresh", is_flag=True, help="Give no new one with a refresh; the old one stays."
)
@click.option("--omit-expires-in", is_flag=True, help="Do not say how long access tokens live.")
@click.option("--refresh-kills-access-token", is_flag=True, help="A refresh ends the grant's older access tokens.")
@click.option("--no-pkce", is_flag=True, help="Do not insist on PKCE.")
@click.option(
    "--misbehave",
    "misbehaves",
    type=Parsed("habit", Habit.parse),
    multiple=True,
    metavar="KIND[:RATE][@ENDPOINT]",
    help="Go wrong at token, revoke or api (default: token; rate 1); may be repeated. Kinds: "
    + ", ".join(each.value.replace("_", "-") for each in Misbehaviour)
    + ".",
)
@click.option(
    "--seed",
    type=click.IntRange(0),
    metavar="NUMBER",
    help="Make tokens and misbehaviour the same each time. Anybody can foretell the tokens: for tests only.",
)
@click.option(
    "--state-file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Keep tokens and notes here. Default: nothing is kept.",
)
@click.option(
    "--definition-file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Write the integration's definition here, for connectors integration create --file.",
)
@click.pass_context
def simulate(
    ctx: click.Context, /, listen: str, config: Path | None, definition_file: Path | None, **given: Any
) -> None:
    """Run a simulated OAuth provider with a notes API, for tests and demos. It says what it is on every page.

    What it saw is at /-/record: names, and fingerprints in place of values.
    """
    clients, accounts = _from_file(ctx, config) if config else ((_client(given),), _accounts(given))
    try:
        address = Address.parse(listen)
        settings = SimulatorSettings(
            clients, address.host, address.port, given["seed"], accounts, given["auto_consent"], given["state_file"]
        )
    except AddressInvalid as error:
        raise click.BadParameter(f"{error}.", param_hint="--listen") from None
    except ValueError as error:
        raise click.UsageError(f"{error}.") from None
    secret = given["client_secret_file"] if config is None else None

    def ready(url: str) -> None:
        click.echo(f"ready {url}")
        if definition_file is not None:
            document = MessageToDict(definition(url, clients[0]), preserving_proto_field_name=True)
            definition_file.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
        for line in introduction(url, clients, secret, definition_file):
            click.echo(line)

    try:
        run_process(serve(settings, ready))
    except StateFileInvalid as error:
        raise click.ClickException(f"--state-file {given['state_file']}: {error}") from None


def _from_file(ctx: click.Context, path: Path) -> tuple[tuple[Client, ...], tuple[Account, ...]]:
    """The file's clients and accounts.  Raises: UsageError, which names the fields that are wrong."""
    for parameter in ctx.command.params:
        name = parameter.name or ""
        if name in BY_FILE and ctx.get_parameter_source(name) is not ParameterSource.DEFAULT:
            raise click.UsageError(f"With --config, {parameter.opts[0]} belongs into the file.")
    try:
        return read_config(path, kept_secret)
    except OSError as error:
        raise click.UsageError(f"--config: {path} can't be read: {error.strerror}.") from None
    except ConfigInvalid as error:
        raise click.UsageError("\n  ".join((f"--config {path} can't be used:", *error.problems))) from None


def _client(given: dict[str, Any]) -> Client:
    """The one client that the options describe.  Raises: UsageError."""
    plain = {name: given[name] for name in ("client_id", "redirect_uris", "rotation", "misbehaves")}
    plain |= {name: given[name] for name in (
        "refresh_kills_access_token", "omit_refresh_token_on_refresh", "omit_expires_in",
    )}  # fmt: skip
    if given["scopes"]:
        plain["scopes"] = given["scopes"]
    for name in ("access_lifetime", "refresh_lifetime"):
        plain[name] = None if given[name] == float("inf") else given[name]
    try:
        return Client(
            client_secret=None if given["public"] else kept_secret(given["client_secret_file"]),
            require_pkce=not given["no_pkce"],
            issue_refresh_token=not given["no_refresh_token"],
            **plain,
        )
    except ValueError as error:
        raise click.UsageError(f"--misbehave: {error}.") from None


def _accounts(given: dict[str, Any]) -> tuple[Account, ...]:
    return tuple(Account(name) for name in given["accounts"])


def kept_secret(path: Path) -> str:
    """The secret in a file of ours; a new one where there is no file, the same for all who begin at once.

    Raises: ClickException.
    """
    try:
        if not path.exists():
            _keep(path, secrets.token_urlsafe(32))
        return path.read_text(encoding="ascii").strip()
    except OSError as error:
        raise click.ClickException(f"--client-secret-file: {path} can't be used: {error.strerror}.") from None


def _keep(path: Path, secret: str) -> None:
    """Write the file whole before it has its name: a link, since that fails where somebody else was first."""
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="ascii") as stream:
            stream.write(secret)
        with contextlib.suppress(FileExistsError):
            path.hardlink_to(draft)
    finally:
        draft.unlink()
