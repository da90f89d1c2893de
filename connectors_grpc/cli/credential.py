"""`connectors credential`: how tenants' credentials are, and how they end. How they come to be is in `giving`."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import click

from connectors_grpc.cli.base import (
    ExampleGroup,
    confirm,
    json_option,
    limit_option,
    pass_session,
    yes_option,
)
from connectors_grpc.cli.connection import PAGE, Session, collect
from connectors_grpc.cli.credential_view import kind_of, show_one, state_of
from connectors_grpc.cli.errors import FAILED
from connectors_grpc.cli.giving import connect, import_, set_
from connectors_grpc.cli.output import Output, when
from connectors_grpc.gen.connectors.v1 import credential_service_pb2 as pb


@click.group(
    cls=ExampleGroup,
    examples=(
        "connectors credential connect acme notion",
        "connectors credential set acme stripe --secret-file stripe.key",
    ),
)
def credential() -> None:
    """Credentials: one account of one integration, connected by one tenant."""


credential.add_command(connect)
credential.add_command(set_)
credential.add_command(import_)


def of_one(function: Callable[..., Any]) -> Callable[..., Any]:
    """What each command on one credential is given: its tenant and id, where to say things, and the session."""
    function = json_option(pass_session(function))
    function = click.argument("credential_id", metavar="CREDENTIAL")(function)
    return click.argument("tenant")(function)


@credential.command("list", examples=("connectors credential list acme", "connectors credential list acme --json"))
@click.argument("tenant")
@limit_option
@json_option
@pass_session
def list_(session: Session, tenant: str, limit: int, out: Output) -> None:
    """List a tenant's credentials by id."""
    found = every(session, tenant, limit)
    if out.json:
        out.message(pb.ListCredentialsResponse(credentials=found))
        return
    columns = ("CREDENTIAL", "INTEGRATION", "KIND", "STATE", "EXPIRES", "NEXT STEP")
    rows = [
        (item.id, item.integration, kind_of(item), state_of(item), when(item.expire_time), item.next_step)
        for item in found
    ]
    out.table(columns, rows, f"No credentials yet: connectors credential connect {tenant} INTEGRATION")


@credential.command(examples=("connectors credential show acme notion",))
@of_one
def show(session: Session, tenant: str, credential_id: str, out: Output) -> None:
    """Show how a credential is, and what to do next."""
    request = pb.GetCredentialRequest(tenant=tenant, credential=credential_id)
    show_one(out, session.credentials.GetCredential(request).credential)


@credential.command(examples=("connectors credential refresh acme notion",))
@of_one
def refresh(session: Session, tenant: str, credential_id: str, out: Output) -> None:
    """Refresh the access token now."""
    request = pb.RefreshCredentialRequest(tenant=tenant, credential=credential_id)
    show_one(out, session.credentials.RefreshCredential(request).credential)


@credential.command(
    examples=("connectors credential revoke acme notion", "connectors credential revoke acme notion --yes")
)
@yes_option
@of_one
def revoke(session: Session, tenant: str, credential_id: str, yes: bool, out: Output) -> None:
    """Revoke a credential, at the provider too where that can be done. The material is purged."""
    confirm(f"Revoke the credential {credential_id} of {tenant} for good?", yes=yes)
    answer = session.credentials.RevokeCredential(pb.RevokeCredentialRequest(tenant=tenant, credential=credential_id))
    if out.json:
        out.message(answer)
        return
    show_one(out, answer.credential)
    result = pb.RevokeCredentialResponse.ProviderResult
    if answer.provider_result == result.PROVIDER_RESULT_FAILED:
        out.note(
            "The provider could not be reached or refused: the grant may live on there. Remove it in its settings."
        )


@credential.command(examples=("connectors credential enable acme notion",))
@of_one
def enable(session: Session, tenant: str, credential_id: str, out: Output) -> None:
    """Switch a credential on."""
    _switch(session, tenant, credential_id, out, enabled=True)


@credential.command(examples=("connectors credential disable acme notion",))
@of_one
def disable(session: Session, tenant: str, credential_id: str, out: Output) -> None:
    """Switch a credential off. It keeps its state but is never used."""
    _switch(session, tenant, credential_id, out, enabled=False)


def _switch(session: Session, tenant: str, credential_id: str, out: Output, *, enabled: bool) -> None:
    request = pb.UpdateCredentialRequest(credential=pb.Credential(tenant=tenant, id=credential_id, enabled=enabled))
    request.update_mask.paths.append("enabled")
    show_one(out, session.credentials.UpdateCredential(request).credential)


@credential.command(examples=("connectors credential verify acme notion",))
@of_one
@click.pass_context
def verify(ctx: click.Context, session: Session, tenant: str, credential_id: str, out: Output) -> None:
    """Ask the provider whether it takes the credential; exit code 1 if not."""
    answer = session.credentials.VerifyCredential(pb.VerifyCredentialRequest(tenant=tenant, credential=credential_id))
    if out.json:
        out.message(answer)
    else:
        out.record(
            (("accepted", "yes" if answer.accepted else "failed"), ("provider's status", str(answer.http_status)))
        )
    if not answer.accepted:
        ctx.exit(FAILED)


@credential.command(
    examples=(
        "connectors --key-file reader.key credential token acme notion",
        "connectors credential token acme notion --min-ttl 120",
    )
)
@click.option(
    "--min-ttl", type=click.IntRange(1, 600), default=None, metavar="SECONDS", help="It must live at least so long."
)
@of_one
def token(session: Session, tenant: str, credential_id: str, min_ttl: int | None, out: Output) -> None:
    """Print the access token itself. The key must have the role token-reader."""
    request = pb.FetchAccessTokenRequest(tenant=tenant, credential=credential_id)
    if min_ttl:
        request.min_ttl.FromTimedelta(timedelta(seconds=min_ttl))
    answer = session.credentials.FetchAccessToken(request)
    if out.json:
        out.message(answer)
        return
    click.echo(answer.access_token)


def every(session: Session, tenant: str, limit: int) -> list[pb.Credential]:
    """A tenant's credentials, all pages."""
    return collect(
        lambda after: session.credentials.ListCredentials(
            pb.ListCredentialsRequest(tenant=tenant, page_size=PAGE, page_token=after)
        ),
        lambda page: list(page.credentials),
        limit,
    )
