"""`connectors key`: who may call."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import click

from connectors_grpc.cli.base import ExampleGroup, confirm, json_option, limit_option, pass_session, yes_option
from connectors_grpc.cli.connection import PAGE, Session, collect
from connectors_grpc.cli.output import Output, when, word
from connectors_grpc.cli.secrets import NewPrivateFile
from connectors_grpc.gen.connectors.v1 import access_service_pb2 as pb
from connectors_grpc.secret import Secret

ROLES = tuple(word(name, "ROLE_").replace("_", "-") for name in pb.Role.keys() if name != "ROLE_UNSPECIFIED")  # noqa: SIM118
_UNITS = {"m": 60, "h": 3_600, "d": 86_400}


@click.group(
    cls=ExampleGroup, examples=("connectors key create --role app --tenant acme --out app.key", "connectors key list")
)
def key() -> None:
    """API keys: who may call, in which roles, for which tenants and credentials."""


def _duration(_ctx: click.Context, parameter: click.Parameter, value: str | None) -> timedelta | None:
    if value is None:
        return None
    found = re.fullmatch(r"([1-9][0-9]{0,5})([mhd])", value)
    if not found:
        raise click.BadParameter("a number with m, h or d is wanted, as in 90d", param=parameter)
    return timedelta(seconds=int(found[1]) * _UNITS[found[2]])


def _rules(_ctx: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> list[pb.CallRule]:
    found = []
    for value in values:
        words = value.split()
        methods = words.pop(0).split(",") if words and not words[0].startswith("/") else []
        if not 1 <= len(words) <= 2:
            raise click.BadParameter(
                "'[METHODS] PATH [CREDENTIALS]' is wanted, as in 'GET /v1/pages/*'", param=parameter
            )
        credentials = words[1].split(",") if len(words) > 1 else []
        found.append(pb.CallRule(methods=methods, path=words[0], credentials=credentials))
    return found


@key.command(
    examples=(
        "connectors key create --role app --tenant acme --out app.key",
        "connectors key create billing --role app --tenant acme --credential stripe --expires-in 90d",
        "connectors key create --role sidecar --tenant '*' --out sidecar.key",
        "connectors key create report --role app --tenant acme --rule 'GET /v1/pages/*' --rule 'POST /v1/search notion'",
    )
)
@click.argument("key_id", metavar="[KEY_ID]", default="")
@click.option("--role", "roles", multiple=True, required=True, type=click.Choice(ROLES), help="May be repeated.")
@click.option(
    "--tenant",
    "tenants",
    multiple=True,
    required=True,
    metavar="TENANT",
    help="A tenant it is for, or '*' for all; may be repeated.",
)
@click.option(
    "--credential",
    "credentials",
    multiple=True,
    metavar="CREDENTIAL",
    help="A credential it is for; may be repeated. Default: all.",
)
@click.option(
    "--rule",
    "rules",
    multiple=True,
    callback=_rules,
    metavar="RULE",
    help="A call it may make: '[METHODS] PATH [CREDENTIALS]', as in 'GET,POST /v1/pages/*'; may be repeated. Default: any.",
)
@click.option("--display-name", default="", help="For people.")
@click.option("--expires-in", callback=_duration, metavar="N[m|h|d]", help="How long it works. Default: until revoked.")
@click.option(
    "--out",
    "path",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Write the key to this new file (0600), and not to stdout.",
)
@json_option
@pass_session
def create(
    session: Session,
    key_id: str,
    roles: tuple[str, ...],
    tenants: tuple[str, ...],
    credentials: tuple[str, ...],
    rules: list[pb.CallRule],
    display_name: str,
    expires_in: timedelta | None,
    path: Path | None,
    out: Output,
) -> None:
    """Create a key. It is printed once, on stdout; what else there is to say goes to stderr."""
    wanted = pb.ApiKey(
        display_name=display_name,
        roles=[pb.Role.Value(f"ROLE_{role.upper().replace('-', '_')}") for role in roles],
        tenants=tenants,
        credentials=credentials,
        rules=rules,
    )
    if expires_in is not None:
        wanted.expire_time.FromDatetime(datetime.now(UTC) + expires_in)
    request = pb.CreateApiKeyRequest(key_id=key_id, api_key=wanted)
    if path is None:
        answer = session.access.CreateApiKey(request)
        if out.json:
            out.message(answer)
            return
        click.echo(answer.secret)
        out.note(f"This is the key {answer.api_key.id}; it is not stored and can't be shown again.")
        return
    _create_into(session, request, path, out)


def _create_into(session: Session, request: pb.CreateApiKeyRequest, path: Path, out: Output) -> None:
    """Create a key whose secret goes to a file alone. The file is made first: a key that nobody has is never made."""
    file = NewPrivateFile(path)
    try:
        answer = session.access.CreateApiKey(request)
        file.write(Secret(answer.secret))
    finally:
        file.close()
    if out.json:
        out.message(answer.api_key)
        return
    out.said(f"The key {answer.api_key.id} is in {path}.")


@key.command("list", examples=("connectors key list", "connectors key list --json"))
@limit_option
@json_option
@pass_session
def list_(session: Session, limit: int, out: Output) -> None:
    """List keys by id, without their secrets."""
    found = collect(
        lambda token: session.access.ListApiKeys(pb.ListApiKeysRequest(page_size=PAGE, page_token=token)),
        lambda page: list(page.api_keys),
        limit,
    )
    if out.json:
        out.message(pb.ListApiKeysResponse(api_keys=found))
        return
    columns = ("KEY", "NAME", "STATE", "ROLES", "TENANTS", "CREDENTIALS", "EXPIRES")
    rows = [
        (
            item.id,
            item.display_name,
            _state(item),
            ", ".join(_role(role) for role in item.roles),
            ", ".join(item.tenants),
            ", ".join(item.credentials) or "*",
            when(item.expire_time),
        )
        for item in found
    ]
    out.table(columns, rows, "No keys: connectors key create --role app --tenant TENANT")


@key.command(examples=("connectors key revoke billing", "connectors key revoke billing --yes"))
@click.argument("key_id", metavar="KEY_ID")
@yes_option
@json_option
@pass_session
def revoke(session: Session, key_id: str, yes: bool, out: Output) -> None:
    """Revoke a key for good. It stops working within seconds, open streams included."""
    confirm(f"Revoke the key {key_id} for good?", yes=yes)
    found = session.access.RevokeApiKey(pb.RevokeApiKeyRequest(key=key_id)).api_key
    if out.json:
        out.message(found)
    out.said(f"Revoked the key {found.id or key_id}.")


def _role(role: pb.Role.ValueType) -> str:
    return word(pb.Role.Name(role), "ROLE_").replace("_", "-")


def _state(item: pb.ApiKey) -> str:
    if item.HasField("revoke_time"):
        return "revoked"
    ended = item.HasField("expire_time") and item.expire_time.ToDatetime(tzinfo=UTC) <= datetime.now(UTC)
    return "expired" if ended else "active"
