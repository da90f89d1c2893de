"""`connectors doctor`: what is wrong, and how to mend it. Looks; changes nothing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import cast

import click
import grpc

from connectors_grpc.addresses import Address, AddressInvalid
from connectors_grpc.cli.base import ExampleCommand, json_option, pass_session
from connectors_grpc.cli.connection import PAGE, KeyUnusable, Session, default_key_file, others_may_read, walk
from connectors_grpc.cli.credential import every
from connectors_grpc.cli.credential_view import state_of
from connectors_grpc.cli.errors import FAILED, read
from connectors_grpc.cli.health import http_status, is_serving
from connectors_grpc.cli.output import Output
from connectors_grpc.gen.connectors.v1 import credential_service_pb2, tenant_service_pb2
from connectors_grpc.gen.connectors.v1.error_reason_pb2 import ERROR_REASON_OAUTH_CLIENT_REFUSED

MOST_TENANTS = 1_000
MOST_CREDENTIALS = 10_000
PROBE_TIMEOUT = 5.0
OK = 200
_S = credential_service_pb2.Credential


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at. `problem` and `fix` are empty where all is well."""

    what: str
    problem: str = ""
    fix: str = ""


@click.command(
    cls=ExampleCommand,
    examples=("connectors doctor", "connectors doctor --json | jq '.findings[] | select(.problem != \"\")'"),
)
@click.option(
    "--sidecar", envvar="CONNECTORS_SIDECAR_LISTEN", show_envvar=True, default="127.0.0.1:15001", show_default=True,
    metavar="HOST:PORT", help="The sidecar to look at; `none` for none.",
)  # fmt: skip
@click.option("--tenant", default=None, help="Look at this tenant's credentials only.")
@json_option
@pass_session
@click.pass_context
def doctor(ctx: click.Context, session: Session, sidecar: str, tenant: str | None, out: Output) -> None:
    """Say what is wrong with server, Vault, sidecar and credentials, and how to mend it. Exit code 1 if anything is."""
    findings = list(examine(session, sidecar, tenant))
    problems = [finding for finding in findings if finding.problem]
    if out.json:
        out.value({"ok": not problems, "findings": [asdict(finding) for finding in findings]})
    else:
        rows = [(item.what, f"problem: {item.problem}" if item.problem else "ok", item.fix) for item in findings]
        out.table(("WHAT", "STATE", "WHAT TO DO"), rows, "")
        out.note(f"{len(problems)} problem(s)." if problems else "All is well.")
    if problems:
        ctx.exit(FAILED)


def examine(session: Session, sidecar: str, tenant: str | None) -> Iterator[Finding]:
    """Look at one thing after the other; what lies behind a broken one is not looked at."""
    yield _key(session)
    server = _server(session)
    yield server
    if sidecar != "none":
        yield _sidecar(sidecar)
    if server.problem:
        return
    vault = _vault(session)
    yield vault
    if not vault.problem:
        yield from _credentials(session, tenant)


def _key(session: Session) -> Finding:
    try:
        assert session.key
    except KeyUnusable as error:
        return Finding("API key", "there is none that can be used", error.message)
    path = session.key_file or default_key_file()
    if path is not None and others_may_read(path):
        return Finding("API key", f"others can read {path}", f"chmod 600 {path}")
    return Finding("API key")


def _server(session: Session) -> Finding:
    what = f"server {session.server}"
    try:
        serving = is_serving(session.plain_channel, session.timeout)
    except grpc.RpcError as error:
        return Finding(what, "it can't be reached", read(cast(grpc.Call, error)).message)
    if not serving:
        return Finding(what, "it answers that it does not serve", "Its log says why; the Vault is the likeliest cause.")
    return Finding(what)


def _vault(session: Session) -> Finding:
    """Whether a call that needs the Vault succeeds: what counts is the server's own view of it."""
    try:
        session.tenants.ListTenants(tenant_service_pb2.ListTenantsRequest(page_size=1))
    except KeyUnusable:
        return Finding("Vault", "not looked at, for want of a key", "Give --key-file.")
    except grpc.RpcError as error:
        found = read(cast(grpc.Call, error))
        what = "Vault" if found.reason == "VAULT_UNAVAILABLE" else "API key"
        return Finding(what, f"{found.reason}: the server refused a simple call", found.message)
    return Finding("Vault")


def _sidecar(text: str) -> Finding:
    what = f"sidecar {text}"
    try:
        status = http_status(Address.parse(text), "/-/readyz", PROBE_TIMEOUT)
    except AddressInvalid as error:
        return Finding(what, "its address is malformed", f"--sidecar: {error}")
    if status is None:
        return Finding(what, "it can't be reached", "Start it (`connectors sidecar --help`), or say --sidecar none.")
    if status != OK:
        return Finding(
            what, f"it is not ready ({status})", "It does not reach the server, or its key is refused: see its log."
        )
    return Finding(what)


def _credentials(session: Session, tenant: str | None) -> Iterator[Finding]:
    """Every credential of every tenant that the key may see.  Bounds: 1,000 tenants, 10,000 credentials."""
    tenants = [tenant] if tenant else _tenants(session)
    left = MOST_CREDENTIALS
    try:
        for name in tenants:
            found = every(session, name, left)
            left -= len(found)
            yield from (judge(item) for item in found)
            if left <= 0:
                yield Finding(
                    "credentials", "there are more than are looked at", "Look at one tenant: --tenant TENANT."
                )
                return
    except grpc.RpcError as error:
        refusal = read(cast(grpc.Call, error))
        yield Finding("credentials", refusal.reason, refusal.message)


def _tenants(session: Session) -> list[str]:
    request = tenant_service_pb2.ListTenantsRequest
    page = walk(
        lambda token: session.tenants.ListTenants(request(page_size=PAGE, page_token=token)),
        lambda answer: [item.id for item in answer.tenants],
        MOST_TENANTS,
    )
    return list(page)


ENDED = frozenset({_S.STATE_NEEDS_REAUTH, _S.STATE_EXPIRED})


def judge(item: _S) -> Finding:
    """What is wrong with a credential. One that was revoked or switched off on purpose is well."""
    what = f"credential {item.tenant}/{item.id}"
    if item.state_reason == ERROR_REASON_OAUTH_CLIENT_REFUSED:
        return Finding(what, state_of(item), f"connectors integration set-client {item.integration} --client-id ID")
    if item.state not in ENDED:
        return Finding(what)
    target = f"{item.tenant} {item.integration}" + ("" if item.id == item.integration else f" --credential {item.id}")
    match item.kind:
        case _S.KIND_API_KEY:
            return Finding(what, state_of(item), f"connectors credential set {target}")
        case _S.KIND_BASIC:
            return Finding(what, state_of(item), f"connectors credential set {target} --kind basic")
        case _:
            return Finding(what, state_of(item), f"connectors credential connect {target}")
