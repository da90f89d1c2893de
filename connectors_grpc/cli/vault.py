"""`connectors vault`: what an operator's own Vault or OpenBao needs; made there, and looked at."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from connectors_grpc.cli.base import ExampleGroup, json_option, missing_package
from connectors_grpc.cli.errors import FAILED
from connectors_grpc.cli.output import Output
from connectors_grpc.secret import Secret

if TYPE_CHECKING:
    from connectors_grpc.provisioning import Check, Done
    from connectors_grpc.vault import VaultSettings

TOKENS = ("BAO_TOKEN", "VAULT_TOKEN")
_MOST_TOKEN = 8192
_ACCESSOR = re.compile(r"[A-Za-z0-9_.-]{1,128}")
Command = Callable[..., Any]


@dataclass(frozen=True, slots=True)
class Place:
    """Where the Vault is, and how one's own login there is had."""

    address: str
    ca_file: Path | None
    namespace: str

    def settings(self, **login: Any) -> VaultSettings:
        """For the adapter.  Raises: UsageError."""
        try:
            from connectors_grpc.vault import VaultMisconfigured, VaultSettings
        except ModuleNotFoundError as error:
            raise click.ClickException(missing_package("vault", error)) from None
        try:
            return VaultSettings(address=self.address, ca_file=self.ca_file, namespace=self.namespace, **login)
        except VaultMisconfigured as error:
            raise click.UsageError(str(error)) from None


def place_options(function: Command) -> Command:
    """`--vault-addr` and what belongs to it."""
    options = (
        click.option(
            "--vault-addr", envvar=["CONNECTORS_VAULT_ADDR", "BAO_ADDR", "VAULT_ADDR"], show_envvar=True, required=True,
            metavar="URL", help="The Vault: https://host:8200, http:// on loopback, or unix:///path.",
        ),
        click.option(
            "--vault-ca-file", envvar=["CONNECTORS_VAULT_CA_FILE", "BAO_CACERT", "VAULT_CACERT"], show_envvar=True,
            type=click.Path(path_type=Path), metavar="FILE", help="CA certificates (PEM). Default: the system's.",
        ),
        click.option(
            "--vault-namespace", envvar=["CONNECTORS_VAULT_NAMESPACE", "BAO_NAMESPACE", "VAULT_NAMESPACE"],
            show_envvar=True, default="", help="Its namespace. Default: none.",
        ),
    )  # fmt: skip
    for option in reversed(options):
        function = option(function)
    return function


operator_token = click.option(
    "--token-file", type=click.Path(path_type=Path), metavar="FILE",
    help="A file with an operator's token. Default: BAO_TOKEN or VAULT_TOKEN in the environment.",
)  # fmt: skip


def token_of(path: Path | None) -> Secret | None:
    """The operator's token, from the file or the environment, never from an argument; None for none.

    Raises: UsageError.
    """
    if path is None:
        text = next((os.environ[name] for name in TOKENS if os.environ.get(name)), "")
    else:
        try:
            with path.open("rb") as stream:
                text = stream.read(_MOST_TOKEN).decode("ascii").strip()
        except (OSError, ValueError):
            raise click.UsageError(f"--token-file: {path} can't be read.") from None
        if not text:
            raise click.UsageError(f"--token-file: {path} is empty.")
    return Secret(text) if text else None


@click.group(
    cls=ExampleGroup,
    examples=(
        "connectors vault init --plan",
        "connectors vault init --secret-id-file secret-id.json",
        "connectors vault validate --vault-secret-id-file secret-id.json",
        "connectors vault policy > prepare-vault.sh",
    ),
)
def vault() -> None:
    """What an operator's own Vault or OpenBao needs."""


@vault.command(
    examples=(
        "connectors vault policy > prepare-vault.sh",
        "BAO=vault sh prepare-vault.sh    # made by connectors vault policy",
        "connectors vault policy --tenant auth_jwt_194f417f > tenant-policy.hcl",
    )
)
@click.option(
    "--tenant", "accessor", metavar="ACCESSOR",
    help="Print the policy of tenants' own tokens instead, for the auth method with this accessor.",
)  # fmt: skip
def policy(accessor: str | None) -> None:
    """Print a commented script that prepares an existing Vault: mounts, policy, AppRole. `init` does it, and looks first."""
    from connectors_grpc.embedded import operator_setup
    from connectors_grpc.embedded.setup import tenant_policy

    if accessor is not None and not _ACCESSOR.fullmatch(accessor):
        raise click.BadParameter("an accessor is wanted, as `bao auth list` shows it", param_hint="--tenant")
    click.echo(operator_setup() if accessor is None else tenant_policy(accessor), nl=False)


@vault.command(
    examples=(
        "connectors vault init --vault-addr https://vault.example:8200 --plan",
        "connectors vault init --vault-addr https://vault.example:8200 --secret-id-file secret-id.json",
        "connectors vault init --tenants-by jwt --fix",
    )
)
@place_options
@operator_token
@click.option("--plan", is_flag=True, help="Say what would be done, and do nothing.")
@click.option("--fix", is_flag=True, help="Also change what is there and differs.")
@click.option(
    "--secret-id-file", type=click.Path(path_type=Path), metavar="FILE",
    help="Write the server's role id and a secret id here (JSON, 0600), for `serve --vault-secret-id-file`.",
)  # fmt: skip
@click.option(
    "--tenants-by", metavar="MOUNT", help="Also make the policy of tenants' own tokens, for this auth method."
)
@click.option(
    "--audit-file", "audit_files", multiple=True, metavar="PATH",
    help="See that there is an audit log there, on the Vault's own machine; may be repeated, and should be: two.",
)  # fmt: skip
@json_option
@click.pass_context
def init(
    ctx: click.Context,
    vault_addr: str,
    vault_ca_file: Path | None,
    vault_namespace: str,
    token_file: Path | None,
    plan: bool,
    fix: bool,
    secret_id_file: Path | None,
    tenants_by: str | None,
    audit_files: tuple[str, ...],
    out: Output,
) -> None:
    """Make an existing Vault or OpenBao ready: mounts, the platform's key, policy, AppRole. As often as you like.

    What is there already is left as it is; what differs is shown, and changed by --fix only. Exit code 1 if anything is left
    to do.
    """
    token = token_of(token_file)
    if token is None:
        raise click.UsageError(f"An operator's token is wanted: --token-file, or {' or '.join(TOKENS)}.")
    if plan and fix:
        raise click.UsageError("--plan and --fix exclude each other.")
    settings = Place(vault_addr, vault_ca_file, vault_namespace).settings(token_file=token_file or Path(os.devnull))

    async def work() -> list[Done]:
        from connectors_grpc.provisioning import Initialising
        from connectors_grpc.provisioning.calls import operator

        async with operator(settings, token) as there:
            run = Initialising(there, plan=plan, fix=fix)
            report = await run.run(tenants_by=tenants_by, audit_files=audit_files)
            if secret_id_file is not None:
                report.append(await run.way_in(secret_id_file.absolute()))
            return report

    report = _worked(work)
    left = [item for item in report if item.open]
    if out.json:
        shown = [{**asdict(item), "outcome": item.outcome.value} for item in report]
        out.value({"ok": not left, "items": shown})
    else:
        out.table(
            ("WHAT", "STATE", "DETAIL", "WHAT TO DO"), ((i.what, i.outcome.value, i.detail, i.fix) for i in report), ""
        )
        out.note(f"{len(left)} thing(s) left to do." if left else "The Vault is ready.")
    if left and not plan:
        ctx.exit(FAILED)


@vault.command(
    examples=(
        "connectors vault validate --vault-addr https://vault.example:8200 --vault-secret-id-file secret-id.json",
        "BAO_TOKEN=$(cat operator-token) connectors vault validate --vault-secret-id-file secret-id.json",
    )
)
@place_options
@click.option(
    "--vault-role-id", envvar="CONNECTORS_VAULT_ROLE_ID", show_envvar=True, default="",
    help="The server's role id. Default: as in the secret id's file.",
)  # fmt: skip
@click.option(
    "--vault-secret-id-file", envvar="CONNECTORS_VAULT_SECRET_ID_FILE", show_envvar=True,
    type=click.Path(path_type=Path), metavar="FILE", help="The server's secret id.",
)  # fmt: skip
@click.option(
    "--vault-token-file", envvar="CONNECTORS_VAULT_TOKEN_FILE", show_envvar=True, type=click.Path(path_type=Path),
    metavar="FILE", help="The server's token, in place of an AppRole.",
)  # fmt: skip
@operator_token
@json_option
@click.pass_context
def validate(
    ctx: click.Context,
    vault_addr: str,
    vault_ca_file: Path | None,
    vault_namespace: str,
    vault_role_id: str,
    vault_secret_id_file: Path | None,
    vault_token_file: Path | None,
    token_file: Path | None,
    out: Output,
) -> None:
    """See with the server's own login whether the Vault is as the server needs it, and gives it no more than that.

    It writes a record and a key of its own, and removes them. With an operator's token it also looks at audit devices, mounts
    and the role. Exit code 1 if anything is wrong.
    """
    place = Place(vault_addr, vault_ca_file, vault_namespace)
    settings = place.settings(role_id=vault_role_id, secret_id_file=vault_secret_id_file, token_file=vault_token_file)
    token = token_of(token_file)

    async def work() -> list[Check]:
        from connectors_grpc.provisioning import validate as look
        from connectors_grpc.provisioning.calls import operator

        if token is None:
            return await look(settings)
        async with operator(settings, token) as there:
            return await look(settings, there)

    checks = _worked(work)
    problems = [check for check in checks if check.problem]
    if out.json:
        out.value({"ok": not problems, "checks": [asdict(check) for check in checks]})
    else:
        rows = [(c.what, f"problem: {c.problem}" if c.problem else "ok", c.fix or c.note) for c in checks]
        out.table(("WHAT", "STATE", "WHAT TO DO OR KNOW"), rows, "")
        out.note(f"{len(problems)} problem(s)." if problems else "All is well.")
    if problems:
        ctx.exit(FAILED)


def _worked(work: Callable[[], Any]) -> Any:
    from connectors_grpc import logs
    from connectors_grpc.provisioning import ProvisioningFailed

    logs.configure("error")
    try:
        return asyncio.run(work())
    except ProvisioningFailed as failed:
        raise click.ClickException(f"{failed.message}\n  {failed.fix}") from None
