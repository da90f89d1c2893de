"""What a credential is made of: read from files or prompts, by kind, and put into the request."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import click

from connectors_grpc.cli.connection import Session
from connectors_grpc.cli.secrets import read_secret
from connectors_grpc.gen.connectors.v1 import credential_service_pb2 as pb
from connectors_grpc.gen.connectors.v1 import integration_service_pb2 as integrations

KINDS = ("api-key", "basic", "oauth", "grant")
PLAIN = ("installation_id", "subject")
"""Fields of a grant that are no secret, and so may be arguments."""
BELONGS = {
    "username": ("basic",),
    "fields": ("api-key", "grant"),
    "refresh_token_file": ("oauth",),
    "scopes": ("oauth", "grant"),
    "expires": ("oauth",),
}
"""Options, and the kinds that they go with."""


def put_material(request: pb.StoreCredentialRequest, given: dict[str, object], grant: Callable[[], int]) -> None:
    """Read what the kind needs. `grant` answers the integration's, and is asked only where it decides.

    Raises: UsageError for an option of another kind.
    """
    kind, source = given["kind"], _text(given["secret_file"])
    for option, kinds in BELONGS.items():
        if given[option] and kind not in kinds:
            name = option.rstrip("s").replace("_", "-")
            raise click.UsageError(f"--{name} goes with --kind {' or '.join(kinds)}.")
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
    elif kind == "grant":
        _put_grant(request.grant, _pairs(given, "VALUE"), source, grant)
        request.grant.scopes.extend(given["scopes"])  # type: ignore[arg-type]
    else:
        request.api_key.api_key = read_secret(source, prompt="API key").reveal()
        for name, path in _pairs(given, "FILE"):
            request.api_key.fields[name] = read_secret(path, prompt="", option="--field").reveal()


def _put_grant(
    material: pb.GrantMaterial, pairs: Iterable[tuple[str, str]], source: str | None, grant: Callable[[], int]
) -> None:
    """What tokens are minted from: plain fields, or a subject token. Nothing, for client credentials."""
    material.SetInParent()
    found = False
    for name, value in pairs:
        if name not in PLAIN:
            # Not the name: who mistakes the option may have written a secret there.
            raise click.UsageError(f"--field: {' or '.join(PLAIN)} with --kind grant; a secret comes by --secret-file.")
        setattr(material, name, value)
        found = True
    if source is not None or (not found and grant() == integrations.GRANT_TOKEN_EXCHANGE):
        material.subject_token = read_secret(source, prompt="Subject token").reveal()


def grant_of(session: Session, integration: str) -> int:
    """How tokens of an integration are obtained, as the server says."""
    request = integrations.GetIntegrationRequest(integration=integration)
    return int(session.integrations.GetIntegration(request).integration.oauth.grant)


def _pairs(given: dict[str, object], value: str) -> list[tuple[str, str]]:
    """The fields, split.  Raises: UsageError, without any of it."""
    found = []
    for pair in given["fields"]:  # type: ignore[attr-defined]
        name, equals, text = pair.partition("=")
        if not equals or not name or not text:
            raise click.UsageError(f"--field: NAME={value} is wanted.")
        found.append((name, text))
    return found


def _text(value: object) -> str | None:
    return None if value is None else str(value)
