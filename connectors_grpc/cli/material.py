"""What a credential is made of: read from files or prompts, by kind, and put into the request."""

from __future__ import annotations

import click

from connectors_grpc.cli.secrets import read_secret
from connectors_grpc.gen.connectors.v1 import credential_service_pb2 as pb

KINDS = ("api-key", "basic", "oauth")


def put_material(request: pb.StoreCredentialRequest, given: dict[str, object]) -> None:
    """Read what the kind needs.  Raises: UsageError for an option of another kind."""
    kind, source = given["kind"], _text(given["secret_file"])
    for option, belongs in (
        ("username", "basic"), ("fields", "api-key"), ("refresh_token_file", "oauth"), ("scopes", "oauth"), ("expires", "oauth"),
    ):  # fmt: skip
        if given[option] and kind != belongs:
            raise click.UsageError(f"--{option.rstrip('s').replace('_', '-')} goes with --kind {belongs}.")
    if kind == "basic":
        username = _text(given["username"]) or click.prompt("User name", err=True)
        request.basic.username = username
        request.basic.password = read_secret(source, prompt="Password").reveal()
    elif kind == "oauth":
        request.oauth.access_token = read_secret(source, prompt="Access token").reveal()
        if (refresh := _text(given["refresh_token_file"])) is not None:
            request.oauth.refresh_token = read_secret(refresh, prompt="", option="--refresh-token-file").reveal()
        if given["expires"]:
            request.oauth.expire_time.FromDatetime(given["expires"])  # type: ignore[arg-type]
        request.oauth.scopes.extend(given["scopes"])  # type: ignore[arg-type]
    else:
        request.api_key.api_key = read_secret(source, prompt="API key").reveal()
        for pair in given["fields"]:  # type: ignore[attr-defined]
            name, equals, path = pair.partition("=")
            if not equals or not name or not path:
                raise click.UsageError("--field: NAME=FILE is wanted.")
            request.api_key.fields[name] = read_secret(path, prompt="", option="--field").reveal()


def _text(value: object) -> str | None:
    return None if value is None else str(value)
