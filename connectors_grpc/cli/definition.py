"""An integration's definition as people write it: YAML or JSON in the shape of connectors.v1.Integration."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
from google.protobuf.json_format import ParseDict, ParseError

from connectors_grpc.cli.documents import content_of, parsed
from connectors_grpc.gen.connectors.v1 import integration_service_pb2 as pb

OPTION = "--file"
CATALOGUE_MARK = "verified"
"""What stands in each file of the catalogue, and in no message of the contract that anybody writes."""
# Flag, path in the message, help.
FLAGS: tuple[tuple[str, str, str], ...] = (
    ("--display-name", "display_name", "For people."),
    ("--base-url", "api.base_url", "Where calls go."),
    ("--identity-path", "api.identity_path", "A cheap GET that says whose credential it is."),
    ("--authorization-endpoint", "oauth.authorization_endpoint", "Where the person consents."),
    ("--token-endpoint", "oauth.token_endpoint", "Where codes are exchanged."),
    ("--revocation-endpoint", "oauth.revocation_endpoint", "Where tokens are revoked."),
)


def definition_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """What defines an integration: a file, or flags for simple cases."""
    function = click.option(
        "--allow-private-addresses", is_flag=True, default=None, help="Allow private and loopback hosts."
    )(function)
    function = click.option("--scope", "scopes", multiple=True, help="A scope to ask for; may be repeated.")(function)
    for option, path, text in reversed(FLAGS):
        function = click.option(option, path.replace(".", "_"), default=None, help=text)(function)
    return click.option(
        "--file", "file", type=click.Path(path_type=Path), metavar="FILE",
        help="The definition as YAML or JSON, in the shape of connectors.v1.Integration or of the catalogue's files; - for stdin."
        " Flags come on top.",
    )(function)  # fmt: skip


def read_definition(path: Path) -> pb.Integration:
    """The definition in a file, `-` for stdin.

    Bounds: 1 MiB.  Raises: UsageError; values are not repeated in it, as one may be a secret.
    """
    content = content_of(path, OPTION, most=1)
    document = parsed(content, OPTION)
    if isinstance(document, dict) and CATALOGUE_MARK in document:
        return _of_catalogue(path.name, content)
    if not isinstance(document, dict):
        raise click.UsageError(f"{OPTION}: an object is wanted, in the shape of connectors.v1.Integration.")
    unknown = _unknown(document, pb.Integration.DESCRIPTOR)
    if unknown:
        raise click.UsageError(f"{OPTION}: connectors.v1.Integration has no field {unknown}.")
    try:
        return ParseDict(document, pb.Integration())
    except ParseError:
        raise click.UsageError(f"{OPTION}: a field has another type than connectors.v1.Integration says.") from None


def _of_catalogue(name: str, content: bytes) -> pb.Integration:
    """The definition in a file of the catalogue's shape.  Raises: UsageError, a line for each fault."""
    try:
        from connectors_grpc.catalogue import CatalogueError, parse_definition
        from connectors_grpc.rpc.definitions import integration
    except ModuleNotFoundError as error:
        raise click.UsageError(
            f"{OPTION}: a catalogue's file needs the server's packages: {error.name} is missing."
        ) from None
    try:
        found = integration(parse_definition("definition.yaml", content))
    except CatalogueError as error:
        faults = [line.replace("definition.yaml", name, 1) for line in str(error).splitlines()]
        raise click.UsageError("\n  ".join((f"{OPTION}:", *faults))) from None
    for field in ("id", "source", "verified"):
        found.ClearField(field)
    return found


def _unknown(document: dict[str, Any], descriptor: Any, at: str = "") -> str:
    """The path of the first name that the message does not have; empty if it has all."""
    fields = {name: field for field in descriptor.fields for name in (field.name, field.json_name)}
    for name, value in document.items():
        if name not in fields:
            return f"{at}{name}"
        message = fields[name].message_type
        nested = message is not None and not message.GetOptions().map_entry and isinstance(value, dict)
        if nested and (found := _unknown(value, message, f"{at}{name}.")):
            return found
    return ""


def definition(given: dict[str, Any], base: pb.Integration | None = None) -> pb.Integration:
    """The file's definition, or `base`, with the flags on top."""
    found = read_definition(given["file"]) if given["file"] else pb.Integration()
    if base is not None:
        found.CopyFrom(base)
    for _, path, _ in FLAGS:
        value = given[path.replace(".", "_")]
        if value is not None:
            parent, _, name = path.rpartition(".")
            setattr(getattr(found, parent) if parent else found, name, value)
    if given["scopes"]:
        del found.oauth.scopes[:]
        found.oauth.scopes.extend(given["scopes"])
    if given["allow_private_addresses"]:
        found.allow_private_addresses = True
    return found


def changed_paths(current: pb.Integration, changed: pb.Integration, *, from_file: bool) -> list[str]:
    """What to name in the mask: with a file, what it sets; with flags, what differs."""
    names = ("display_name", "oauth", "api", "allow_private_addresses", "inputs")
    set_fields = {field.name for field, _ in changed.ListFields()}
    if from_file:
        return [name for name in names if name in set_fields]
    return [name for name in names if getattr(current, name) != getattr(changed, name)]
