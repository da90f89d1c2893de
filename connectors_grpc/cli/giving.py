"""The commands by which a credential comes to be: a person connects it, it is stored, or many are from a file."""

from __future__ import annotations

import json
from pathlib import Path

import click

from connectors_grpc.cli.base import ExampleCommand, json_option, label_option, pass_session
from connectors_grpc.cli.connecting import wait_for_device, wait_until_connected
from connectors_grpc.cli.connection import PAGE, Session
from connectors_grpc.cli.credential_view import show_link, show_one
from connectors_grpc.cli.documents import opened
from connectors_grpc.cli.errors import FAILED
from connectors_grpc.cli.importing import Progress, said, send_all
from connectors_grpc.cli.inputs import input_file_option, input_option, inputs_of
from connectors_grpc.cli.material import KINDS, grant_of, put_material
from connectors_grpc.cli.output import Output, as_json
from connectors_grpc.gen.connectors.v1 import credential_service_pb2 as pb


@click.command(
    cls=ExampleCommand,
    examples=(
        "connectors credential connect acme notion",
        "connectors credential connect acme github --credential github-work --no-wait",
        "connectors credential connect acme notion --no-wait --json | jq -r .connectUrl",
        "connectors credential connect acme google --device      # shows a code to type elsewhere, and waits",
        "connectors credential connect acme notion --allow-account-change",
        "connectors credential connect acme zendesk --input subdomain=acme",
    ),
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


@click.command(
    "set",
    cls=ExampleCommand,
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


@click.command(
    "import",
    cls=ExampleCommand,
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
