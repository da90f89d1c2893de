"""`connectors call`: one call to an integration, made by the server with a tenant's credential put in."""

from __future__ import annotations

import base64
import sys
from collections.abc import Sequence
from pathlib import Path

import click

from connectors_grpc.cli.base import ExampleCommand, json_option, pass_session
from connectors_grpc.cli.connection import Session
from connectors_grpc.cli.errors import FAILED
from connectors_grpc.cli.output import Output, as_json, clean
from connectors_grpc.gen.connectors.v1 import proxy_service_pb2 as pb

MOST_BODY = 4 << 20
ERROR = 400


def _body(_ctx: click.Context, parameter: click.Parameter, value: str | None) -> bytes | None:
    if value is None:
        return None
    if value == "@-":
        content = sys.stdin.buffer.read(MOST_BODY + 1)
    elif value.startswith("@"):
        try:
            with Path(value[1:]).expanduser().open("rb") as stream:
                content = stream.read(MOST_BODY + 1)
        except OSError as error:
            raise click.BadParameter(f"the file can't be read: {error.strerror}", param=parameter) from None
    else:
        content = value.encode()
    if len(content) > MOST_BODY:
        raise click.BadParameter("at most 4 MiB are taken: use the sidecar for more", param=parameter)
    return content


def _headers(_ctx: click.Context, parameter: click.Parameter, values: Sequence[str]) -> list[pb.Header]:
    found = []
    for value in values:
        name, colon, text = value.partition(":")
        if not colon or not name.strip():
            raise click.BadParameter("'Name: value' is wanted", param=parameter)
        found.append(pb.Header(name=name.strip(), value=text.strip()))
    return found


@click.command(
    cls=ExampleCommand,
    examples=(
        "connectors --key-file app.key call acme notion /v1/users/me",
        "connectors call acme notion /v1/pages -X POST -H 'Content-Type: application/json' -d @page.json",
        "connectors call acme github /user/repos -i --fail",
    ),
)
@click.argument("tenant")
@click.argument("credential")
@click.argument("path")
@click.option("--method", "-X", default="", help="Default: GET, or POST with -d.")
@click.option("--data", "-d", callback=_body, metavar="@FILE", help="The body: @FILE, @- for stdin, or text.")
@click.option(
    "--header",
    "-H",
    "headers",
    multiple=True,
    callback=_headers,
    metavar="'NAME: VALUE'",
    help="A header; may be repeated.",
)
@click.option("--include", "-i", is_flag=True, help="Print status and headers too.")
@click.option("--fail", "-f", is_flag=True, help="Exit with 1 if the provider answers 400 or above.")
@json_option
@pass_session
@click.pass_context
def call(
    ctx: click.Context,
    session: Session,
    tenant: str,
    credential: str,
    path: str,
    method: str,
    data: bytes | None,
    headers: list[pb.Header],
    include: bool,
    fail: bool,
    out: Output,
) -> None:
    """Call an integration with a tenant's credential. The key must have the role `app`.

    The body is printed as it comes; a status of 400 or above is said on stderr.
    """
    request = pb.CallRequest(
        tenant=tenant, credential=credential, path=path, headers=headers, body=data or b"",
        method=method or ("GET" if data is None else "POST"),
    )  # fmt: skip
    answer = session.proxy.Call(request)
    _show(answer, out, include=include)
    if answer.http_status >= ERROR:
        out.note(f"The provider answered {answer.http_status}.")
        if fail:
            ctx.exit(FAILED)


def _show(answer: pb.CallResponse, out: Output, *, include: bool) -> None:
    if out.json:
        found = as_json(answer)
        try:
            found["body"] = answer.body.decode()
        except UnicodeDecodeError:
            found["body"], found["bodyBase64"] = "", base64.b64encode(answer.body).decode()
        out.value(found)
        return
    if include:
        click.echo(f"HTTP {answer.http_status}")
        for header in answer.headers:
            click.echo(f"{clean(header.name)}: {clean(header.value)}")
        click.echo()
    if out.terminal:
        click.echo(_for_terminal(answer.body))
    else:
        click.echo(answer.body, nl=False)


def _for_terminal(body: bytes) -> str:
    """The body for a person's terminal, which a provider must not steer."""
    try:
        text = body.decode()
    except UnicodeDecodeError:
        return f"({len(body)} bytes that are no text: redirect them to a file)"
    return "\n".join(clean(line.replace("\t", "    ")) for line in text.splitlines())
