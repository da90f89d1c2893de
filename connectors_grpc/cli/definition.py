"""An integration's definition as people write it: YAML or JSON in the shape of connectors.v1.Integration."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import click
from google.protobuf.json_format import ParseDict, ParseError

from connectors_grpc.gen.connectors.v1 import integration_service_pb2 as pb

MOST = 1 << 20
OPTION = "--file"


def read_definition(path: Path) -> pb.Integration:
    """The definition in a file, `-` for stdin.

    Bounds: 1 MiB.  Raises: UsageError; values are not repeated in it, as one may be a secret.
    """
    if str(path) == "-":
        content = sys.stdin.buffer.read(MOST + 1)
    else:
        try:
            with path.expanduser().open("rb") as stream:
                content = stream.read(MOST + 1)
        except OSError as error:
            raise click.UsageError(f"{OPTION}: {path} can't be read: {error.strerror}.") from None
    if len(content) > MOST:
        raise click.UsageError(f"{OPTION}: at most 1 MiB is taken.")
    document = _parse(content)
    if not isinstance(document, dict):
        raise click.UsageError(f"{OPTION}: an object is wanted, in the shape of connectors.v1.Integration.")
    unknown = _unknown(document, pb.Integration.DESCRIPTOR)
    if unknown:
        raise click.UsageError(f"{OPTION}: connectors.v1.Integration has no field {unknown}.")
    try:
        return ParseDict(document, pb.Integration())
    except ParseError:
        raise click.UsageError(f"{OPTION}: a field has another type than connectors.v1.Integration says.") from None


def _parse(content: bytes) -> Any:
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        pass
    try:
        import yaml
    except ModuleNotFoundError:
        raise click.UsageError(f"{OPTION}: it is not JSON; for YAML run: pip install pyyaml") from None
    try:
        return yaml.safe_load(content)
    except (yaml.YAMLError, ValueError, RecursionError):
        raise click.UsageError(f"{OPTION}: it is neither JSON nor YAML.") from None


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
