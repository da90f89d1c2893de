"""The integration that a simulated provider is: its definition, and the command that makes it."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

from connectors_grpc.gen.connectors.v1 import integration_service_pb2 as pb
from connectors_grpc.simulator import Client, RotatingAtOnce, RotatingWithGrace, Rotation, Static


def definition(url: str, client: Client) -> pb.Integration:
    """The integration that the simulator is, for this client; without a secret."""
    oauth = pb.OAuth(
        authorization_endpoint=f"{url}/authorize",
        token_endpoint=f"{url}/token",
        revocation_endpoint=f"{url}/revoke",
        issuer=url,
        iss_required=True,
        scopes=client.scopes,
        refresh_rotation=_rotation(client.rotation),
        refresh_ends_access_token=client.refresh_kills_access_token,
    )
    if client.omit_expires_in and client.access_lifetime is not None:
        oauth.default_access_token_ttl.FromMilliseconds(int(client.access_lifetime * 1000))
    if client.refresh_lifetime is not None:
        oauth.refresh_token_idle_ttl.FromMilliseconds(int(client.refresh_lifetime * 1000))
    return pb.Integration(
        display_name="Simulated notes",
        oauth=oauth,
        api=pb.Api(base_url=url, identity_path="/v1/whoami", account_pointer="/account"),
        allow_private_addresses=True,
    )


def _rotation(rotation: Rotation) -> pb.RefreshRotation.ValueType:
    match rotation:
        case Static():
            return pb.REFRESH_ROTATION_STATIC
        case RotatingWithGrace():
            return pb.REFRESH_ROTATION_WITH_GRACE
        case RotatingAtOnce():
            return pb.REFRESH_ROTATION_AT_ONCE


def introduction(url: str, clients: Sequence[Client], secret: Path | None, definition_file: Path | None) -> list[str]:
    """Where everything is, and how to make an integration of it."""
    client = clients[0]
    return [
        f"  authorization  {url}/authorize",
        f"  token          {url}/token",
        f"  revocation     {url}/revoke",
        f"  metadata       {url}/.well-known/oauth-authorization-server",
        f"  API            {url}/v1/notes, /v1/whoami, /v1/echo, /v1/stream, /v1/bytes/N",
        f"  what it saw    {url}/-/record",
        f"  clients        {', '.join(each.client_id for each in clients)}",
        "",
        "To make an integration of it:",
        f"  {shlex.join(command(url, client, secret, definition_file))}",
    ]


def command(url: str, client: Client, secret: Path | None, definition_file: Path | None) -> list[str]:
    """The command that makes an integration of it, for this client."""
    _, callback, name = urlsplit(next(iter(client.redirect_uris), "")).path.rpartition("/oauth/callback/")
    words = ["connectors", "integration", "create", name if callback else "simulated"]
    if definition_file is not None:
        words += ["--file", str(definition_file)]
    else:
        words += ["--base-url", url, "--identity-path", "/v1/whoami", "--authorization-endpoint", f"{url}/authorize"]
        words += ["--token-endpoint", f"{url}/token", "--revocation-endpoint", f"{url}/revoke"]
        words += [word for scope in client.scopes for word in ("--scope", scope)]
        words += ["--allow-private-addresses"]
    words += ["--client-id", client.client_id]
    if client.client_secret is not None:
        words += ["--client-secret-file", str(secret or "FILE")]
    else:
        words += ["--public-client"]
    return words
