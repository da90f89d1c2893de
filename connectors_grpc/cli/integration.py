"""`connectors integration`: third-party APIs, and the OAuth clients that are registered there."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any

import click

from connectors_grpc.cli.base import ExampleGroup, confirm, json_option, limit_option, pass_session, yes_option
from connectors_grpc.cli.checking import check
from connectors_grpc.cli.connection import PAGE, Session, collect
from connectors_grpc.cli.definition import changed_paths, definition, definition_options
from connectors_grpc.cli.integration_view import client_of, show_one, source_of, takes_of
from connectors_grpc.cli.operation import await_operation, show_operation, wait_option
from connectors_grpc.cli.output import Output
from connectors_grpc.cli.secrets import read_secret
from connectors_grpc.gen.connectors.v1 import integration_service_pb2 as pb

SECRET_VARIABLE = "CONNECTORS_CLIENT_SECRET"
OF_A_CLIENT = ("client_secret_file", "further_secret_file", "key_id")
"""Options that mean nothing without a client's id."""


def client_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """The OAuth client. Its secret is never an argument."""
    function = click.option(
        "--public-client", is_flag=True, help="The client has no secret (it authenticates by its id and PKCE)."
    )(function)
    function = click.option("--key-id", default="", help="`kid` of the private key, where the client signs with one.")(
        function
    )
    function = click.option(
        "--further-secret-file", "further_secret_file", multiple=True, metavar="FILE",
        help="A file with a further secret, tried in order where the first is refused: to rotate without downtime. Up to three.",
    )(function)  # fmt: skip
    function = click.option(
        "--client-secret-file", metavar="FILE",
        help="A file with client_secret, or with the private key as PEM or JWK; - for stdin. "
        f"Else ${SECRET_VARIABLE}, else a prompt.",
    )(function)  # fmt: skip
    return click.option("--client-id", default=None, help="client_id, as the provider gave it.")(function)


@click.group(
    cls=ExampleGroup,
    examples=(
        "connectors integration list",
        "connectors integration set-client notion --client-id abc --client-secret-file notion.secret",
    ),
)
def integration() -> None:
    """Integrations: which APIs there are, how to connect to them, where their credentials may go."""


@integration.command("list", examples=("connectors integration list", "connectors integration list --json"))
@limit_option
@json_option
@pass_session
def list_(session: Session, limit: int, out: Output) -> None:
    """List integrations by id, those of the catalogue too."""
    found = collect(
        lambda token: session.integrations.ListIntegrations(
            pb.ListIntegrationsRequest(page_size=PAGE, page_token=token)
        ),
        lambda page: list(page.integrations),
        limit,
    )
    if out.json:
        out.message(pb.ListIntegrationsResponse(integrations=found))
        return
    columns = ("INTEGRATION", "NAME", "SOURCE", "TAKES", "CLIENT", "BASE URL")
    rows = [
        (item.id, item.display_name, source_of(item), takes_of(item), client_of(item), item.api.base_url)
        for item in found
    ]
    out.table(columns, rows, "No integrations: connectors integration create INTEGRATION --file definition.yaml")


@integration.command(
    examples=("connectors integration show notion", "connectors integration show notion --tenant acme")
)
@click.argument("integration_id", metavar="INTEGRATION")
@click.option("--tenant", default="", help="Show this tenant's own OAuth client.")
@json_option
@pass_session
def show(session: Session, integration_id: str, tenant: str, out: Output) -> None:
    """Show one integration, without secrets."""
    request = pb.GetIntegrationRequest(integration=integration_id, tenant=tenant)
    show_one(out, session.integrations.GetIntegration(request).integration)


@integration.command(
    examples=(
        "connectors integration create acme-wiki --file wiki.yaml --client-secret-file wiki.secret",
        "connectors integration create notion --client-id abc        # of the catalogue; asks for the secret",
        "connectors integration create status --base-url https://api.status.example   # API keys only",
    )
)
@click.argument("integration_id", metavar="INTEGRATION")
@definition_options
@client_options
@click.option("--validate-only", is_flag=True, help="Check, and change nothing.")
@json_option
@pass_session
def create(session: Session, /, integration_id: str, validate_only: bool, out: Output, **given: Any) -> None:
    """Create an integration, or take one of the catalogue into use with an OAuth client."""
    wanted = definition(given)
    wanted.id = ""
    _put_client(wanted, given)
    request = pb.CreateIntegrationRequest(
        integration_id=integration_id, integration=wanted, request_id=str(uuid.uuid4()), validate_only=validate_only
    )
    show_one(out, session.integrations.CreateIntegration(request).integration)


@integration.command(
    "set-client",
    examples=(
        "connectors integration set-client notion --client-id abc --client-secret-file notion.secret",
        "connectors integration set-client notion --tenant acme --client-id their-own",
        "connectors integration set-client notion --client-id abc --client-secret-file new --further-secret-file old",
        "connectors integration set-client github-app --client-id 12345 --client-secret-file app.pem --key-id k1",
    ),
)
@click.argument("integration_id", metavar="INTEGRATION")
@client_options
@click.option("--tenant", default="", help="Set this tenant's own client, in place of the platform's.")
@json_option
@pass_session
def set_client(session: Session, /, integration_id: str, tenant: str, out: Output, **given: Any) -> None:
    """Set the OAuth client that is registered at the provider. All its secrets are replaced by those given."""
    if not given["client_id"]:
        raise click.UsageError("--client-id is wanted.")
    changed = pb.Integration(id=integration_id)
    _put_client(changed, given)
    request = pb.UpdateIntegrationRequest(integration=changed, tenant=tenant)
    request.update_mask.paths.append("oauth_client")
    show_one(out, session.integrations.UpdateIntegration(request).integration)


@integration.command(
    examples=(
        "connectors integration update acme-wiki --file wiki.yaml",
        "connectors integration update acme-wiki --display-name Wiki",
    )
)
@click.argument("integration_id", metavar="INTEGRATION")
@definition_options
@json_option
@pass_session
def update(session: Session, /, integration_id: str, out: Output, **given: Any) -> None:
    """Change a definition: `oauth` and `api` are replaced whole by a file, in part by flags."""
    current = session.integrations.GetIntegration(pb.GetIntegrationRequest(integration=integration_id)).integration
    changed = definition(given, None if given["file"] else current)
    changed.id, changed.etag = integration_id, changed.etag or current.etag
    paths = changed_paths(current, changed, from_file=given["file"] is not None)
    if not paths:
        raise click.UsageError("Nothing to change: give --file, or flags.")
    request = pb.UpdateIntegrationRequest(integration=changed)
    request.update_mask.paths.extend(paths)
    show_one(out, session.integrations.UpdateIntegration(request).integration)


@integration.command(
    examples=(
        "connectors integration delete acme-wiki",
        "connectors integration delete notion --tenant acme --yes    # acme's own client only",
    )
)
@click.argument("integration_id", metavar="INTEGRATION")
@click.option("--tenant", default="", help="Delete this tenant's own OAuth client only.")
@yes_option
@json_option
@pass_session
def delete(session: Session, integration_id: str, tenant: str, yes: bool, out: Output) -> None:
    """Delete an integration. Its credentials stop working; they stay until deleted."""
    what = f"{tenant}'s own client of {integration_id}" if tenant else f"the integration {integration_id}"
    confirm(f"Delete {what}?", yes=yes)
    answer = session.integrations.DeleteIntegration(
        pb.DeleteIntegrationRequest(integration=integration_id, tenant=tenant)
    )
    if out.json:
        out.message(answer)
    out.said(f"Deleted {what}.")


@integration.command(
    "rotate-platform-key",
    examples=(
        "connectors integration rotate-platform-key",
        "connectors integration rotate-platform-key --no-wait    # goes on by itself",
    ),
)
@wait_option
@json_option
@pass_session
@click.pass_context
def rotate_platform_key(ctx: click.Context, session: Session, wait: bool, out: Output) -> None:
    """Rotate the platform's key in the Vault and rewrap all OAuth clients' secrets.

    It waits for the connections that people have begun: up to ten minutes.
    """
    operation = session.integrations.RotatePlatformKey(pb.RotatePlatformKeyRequest()).operation
    show_operation(ctx, out, await_operation(session, operation) if wait else operation)


integration.add_command(check)


def _put_client(definition: pb.Integration, given: dict[str, Any]) -> None:
    """Put id and secrets in. The first secret is asked for only where there is an id."""
    client = definition.oauth_client
    if given["client_id"]:
        client.client_id = given["client_id"]
    elif not client.client_id and (option := next((one for one in OF_A_CLIENT if given[one]), None)):
        raise click.UsageError(f"--{option.replace('_', '-')} needs --client-id.")
    sources = (given["client_secret_file"], *given["further_secret_file"])
    if sources.count("-") > 1:
        raise click.UsageError("Only one secret can come from stdin.")
    if given["public_client"] and any(sources):
        raise click.UsageError("--public-client: such a client has no secret.")
    if given["key_id"]:
        client.key_id = given["key_id"]
    if not client.client_id or given["public_client"]:
        return
    if not client.client_secret:
        secret = read_secret(
            given["client_secret_file"], prompt="Client secret", variable=SECRET_VARIABLE, option="--client-secret-file"
        )
        client.client_secret = secret.reveal()
    for source in given["further_secret_file"]:
        client.client_secrets.append(read_secret(source, prompt="", option="--further-secret-file").reveal())
