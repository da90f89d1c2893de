"""`connectors credential`: how tenants get credentials, how those are, and how they end."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path

import click

from connectors_grpc.cli.base import (
    ExampleGroup,
    confirm,
    json_option,
    label_option,
    limit_option,
    pass_session,
    yes_option,
)
from connectors_grpc.cli.connecting import wait_for_device, wait_until_connected
from connectors_grpc.cli.connection import PAGE, Session, collect
from connectors_grpc.cli.credential_view import kind_of, show_link, show_one, state_of
from connectors_grpc.cli.documents import opened
from connectors_grpc.cli.errors import FAILED
from connectors_grpc.cli.importing import Progress, said, send_all
from connectors_grpc.cli.inputs import input_file_option, input_option, inputs_of
from connectors_grpc.cli.material import KINDS, grant_of, put_material
from connectors_grpc.cli.output import Output, as_json, when
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


@credential.command(
    examples=(
        "connectors credential connect acme notion",
        "connectors credential connect acme github --credential github-work --no-wait",
        "connectors credential connect acme notion --no-wait --json | jq -r .connectUrl",
        "connectors credential connect acme google --device      # shows a code to type elsewhere, and waits",
        "connectors credential connect acme notion --allow-account-change",
        "connectors credential connect acme zendesk --input subdomain=acme",
    )
)
@click.argument("tenant")
@click.argument("integration")
@click.option("--credential", "credential_id", default="", help="The credential's id. Default: the integration's.")
@click.option(
    "--scope", "scopes", multiple=True, help="A scope to ask for; may be repeated. Default: the definition's."
)
@input_option
@click.option(
    "--device", is_flag=True, help="By a code that the person types at the provider, on any device of theirs."
)
@click.option("--allow-account-change", is_flag=True, help="Let another account take the connected one's place.")
@click.option(
    "--wait/--no-wait", default=None, help="Wait until it is connected. Default: on a terminal; with --device, always."
)
@json_option
@pass_session
@click.pass_context
def connect(
    ctx: click.Context,
    session: Session,
    tenant: str,
    integration: str,
    credential_id: str,
    scopes: tuple[str, ...],
    inputs: tuple[str, ...],
    device: bool,
    allow_account_change: bool,
    wait: bool | None,
    out: Output,
) -> None:
    """Give a one-time link for a person's browser, or a code for a device, and wait until it was used.

    With --device --no-wait the link comes as JSON: `state` in it is what CompleteAuthorization wants.
    """
    if device and wait is False and not out.json:
        raise click.UsageError("--device --no-wait needs --json: without `state` nobody could complete it.")
    given = inputs_of(inputs)
    before = _state_now(session, tenant, credential_id or integration)
    request = pb.StartAuthorizationRequest(
        tenant=tenant,
        integration=integration,
        credential=credential_id,
        scopes=scopes,
        device=device,
        allow_account_change=allow_account_change,
        inputs=given,
    )
    link = session.credentials.StartAuthorization(request)
    show_link(out, link)
    if ((out.terminal or device) and not out.json) if wait is None else wait:
        until_connected = wait_for_device if device else wait_until_connected
        found = until_connected(session, tenant, link, before, out)
        if found is None:
            out.note(f"The {'code' if device else 'link'} has expired and nobody connected: ask for a new one.")
            ctx.exit(FAILED)
        show_one(out, found)


def _state_now(session: Session, tenant: str, credential_id: str) -> pb.Credential | None:
    """The credential as it was before the link was given, so that a new connection can be told from an old one."""
    found = session.credentials.ListCredentials(pb.ListCredentialsRequest(tenant=tenant, page_size=PAGE)).credentials
    return next((item for item in found if item.id == credential_id), None)


@credential.command(
    "set",
    examples=(
        "connectors credential set acme stripe                                 # asks for the key",
        "connectors credential set acme stripe --secret-file stripe.key",
        "connectors credential set acme jira --kind basic --username me@acme.example --secret-file -",
        "connectors credential set acme notion --kind oauth --secret-file access.token --refresh-token-file refresh.token",
        "connectors credential set acme github-app --kind grant --field installation_id=123",
        "connectors credential set acme datadog --input site=eu1 --input-file application_key=app.key --secret-file api.key",
    ),
)
@click.argument("tenant")
@click.argument("integration")
@click.option("--credential", "credential_id", default="", help="The credential's id. Default: the integration's.")
@click.option("--kind", type=click.Choice(KINDS), default="api-key", show_default=True, help="What it is.")
@click.option(
    "--secret-file", metavar="FILE", help="A file with the secret; - for stdin. Default: a prompt without echo."
)
@click.option("--username", default=None, help="The user name, with --kind basic.")
@click.option(
    "--field",
    "fields",
    multiple=True,
    metavar="NAME=FILE|VALUE",
    help="A further secret field of an API key, in a file; with --kind grant a field that is no secret "
    "(installation_id, subject), as it is. May be repeated.",
)
@click.option("--refresh-token-file", metavar="FILE", help="A file with the refresh token, with --kind oauth.")
@click.option(
    "--scope",
    "scopes",
    multiple=True,
    help="A scope that the token has, with --kind oauth; one to ask for, with --kind grant. May be repeated.",
)
@click.option(
    "--expires", type=click.DateTime(["%Y-%m-%dT%H:%M:%SZ"]), default=None, metavar="TIME",
    help="When the token ends (UTC, 2030-01-31T12:00:00Z), with --kind oauth.",
)  # fmt: skip
@input_option
@input_file_option
@label_option
@json_option
@pass_session
def set_(session: Session, /, tenant: str, integration: str, credential_id: str, out: Output, **given: object) -> None:
    """Store an API key, a password, tokens, or what tokens are minted from (--kind grant).

    A secret comes from a file or a prompt, never as an argument. Which fields a grant needs: docs/grants.md.
    """
    request = pb.StoreCredentialRequest(tenant=tenant, integration=integration, credential=credential_id)
    labels_given = given["labels"]
    assert isinstance(labels_given, dict)
    request.labels.update(labels_given)
    request.inputs.update(inputs_of(given["inputs"], given["input_file"]))  # type: ignore[arg-type]
    put_material(request, given, lambda: grant_of(session, integration))
    show_one(out, session.credentials.StoreCredential(request).credential)


@credential.command(
    "import",
    examples=(
        "connectors credential import credentials.jsonl",
        'printf \'{"tenant": "acme", "integration": "stripe", "api_key": "%s"}\\n\' "$KEY" | connectors credential import -',
    ),
)
@click.argument("file", metavar="FILE", type=click.Path(path_type=Path))
@json_option
@pass_session
@click.pass_context
def import_(ctx: click.Context, session: Session, file: Path, out: Output) -> None:
    """Store many credentials from a file (- for stdin), one JSON object a line, as StoreCredential takes it.

    tenant, integration, and one of api_key (a text, or {api_key, fields}), basic {username, password}, oauth {access_token,
    refresh_token, expire_time, scopes} or grant; credential, inputs, labels and etag if wanted. With --json each answer is a
    line, as it comes. Run again, it changes only what differs. Exit code 1 if any line was refused.
    """
    with opened(file, "FILE") as stream, Progress(out) as progress:
        for number, answer in send_all(session, stream):
            progress.count(answer)
            if out.json:
                click.echo(json.dumps(as_json(answer), ensure_ascii=False))
            elif answer.HasField("refusal"):
                progress.say(said(number, answer.refusal))
    if progress.refused:
        ctx.exit(FAILED)


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
@click.argument("tenant")
@click.argument("credential_id", metavar="CREDENTIAL")
@json_option
@pass_session
def show(session: Session, tenant: str, credential_id: str, out: Output) -> None:
    """Show how a credential is, and what to do next."""
    request = pb.GetCredentialRequest(tenant=tenant, credential=credential_id)
    show_one(out, session.credentials.GetCredential(request).credential)


@credential.command(examples=("connectors credential refresh acme notion",))
@click.argument("tenant")
@click.argument("credential_id", metavar="CREDENTIAL")
@json_option
@pass_session
def refresh(session: Session, tenant: str, credential_id: str, out: Output) -> None:
    """Refresh the access token now."""
    request = pb.RefreshCredentialRequest(tenant=tenant, credential=credential_id)
    show_one(out, session.credentials.RefreshCredential(request).credential)


@credential.command(
    examples=("connectors credential revoke acme notion", "connectors credential revoke acme notion --yes")
)
@click.argument("tenant")
@click.argument("credential_id", metavar="CREDENTIAL")
@yes_option
@json_option
@pass_session
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
@click.argument("tenant")
@click.argument("credential_id", metavar="CREDENTIAL")
@json_option
@pass_session
def enable(session: Session, tenant: str, credential_id: str, out: Output) -> None:
    """Switch a credential on."""
    _switch(session, tenant, credential_id, out, enabled=True)


@credential.command(examples=("connectors credential disable acme notion",))
@click.argument("tenant")
@click.argument("credential_id", metavar="CREDENTIAL")
@json_option
@pass_session
def disable(session: Session, tenant: str, credential_id: str, out: Output) -> None:
    """Switch a credential off. It keeps its state but is never used."""
    _switch(session, tenant, credential_id, out, enabled=False)


def _switch(session: Session, tenant: str, credential_id: str, out: Output, *, enabled: bool) -> None:
    request = pb.UpdateCredentialRequest(credential=pb.Credential(tenant=tenant, id=credential_id, enabled=enabled))
    request.update_mask.paths.append("enabled")
    show_one(out, session.credentials.UpdateCredential(request).credential)


@credential.command(examples=("connectors credential verify acme notion",))
@click.argument("tenant")
@click.argument("credential_id", metavar="CREDENTIAL")
@json_option
@pass_session
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
@click.argument("tenant")
@click.argument("credential_id", metavar="CREDENTIAL")
@click.option(
    "--min-ttl", type=click.IntRange(1, 600), default=None, metavar="SECONDS", help="It must live at least so long."
)
@json_option
@pass_session
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
