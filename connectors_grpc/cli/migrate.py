"""`connectors migrate`: from an older, single-tenant layout to the platform's, in steps that can be repeated and undone."""

from __future__ import annotations

import csv
import io
from collections import Counter
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import click

from connectors_grpc.audit import LogAudit
from connectors_grpc.changes import ChangeFeed
from connectors_grpc.cli.base import ExampleGroup, confirm, json_option, pass_session, yes_option
from connectors_grpc.cli.connection import Session
from connectors_grpc.cli.errors import USAGE
from connectors_grpc.cli.migrating import (
    Failed,
    Setting,
    Way,
    carry_out,
    setting_of,
    source_options,
    way_of,
    way_options,
    window,
)
from connectors_grpc.cli.output import Output
from connectors_grpc.clock import SystemClock
from connectors_grpc.credentials.keeping import Keeper
from connectors_grpc.migration import policies
from connectors_grpc.migration.checking import check
from connectors_grpc.migration.copying import copy
from connectors_grpc.migration.cutting import cut_over
from connectors_grpc.migration.finishing import READY
from connectors_grpc.migration.finishing import finish as finished
from connectors_grpc.migration.items import proposals
from connectors_grpc.migration.planning import plan as planned
from connectors_grpc.migration.undoing import FromVault, roll_back
from connectors_grpc.migration.work import Migration
from connectors_grpc.tenants import Tenants
from connectors_grpc.vault import VaultCiphers, VaultDocuments, connect

FROM = "--from-vault-addr https://vault.example:8200 --from-token-file old.token"
NOTHING = "Nothing was changed: say --execute."

execute_option = click.option("--execute", is_flag=True, help="Do it. Without this, only say what there is.")
window_option = click.option(
    "--refresh-window", type=click.FloatRange(0, 1440), default=15, show_default=True, metavar="MINUTES",
    help="Leave tokens that end sooner to the old system, which is about to refresh them.",
)  # fmt: skip
stopped_option = click.option(
    "--old-stopped", is_flag=True, help="The old system refreshes nothing any more: leave nothing to it."
)


@click.group(
    cls=ExampleGroup,
    examples=(
        "connectors migrate policy > migration.hcl                # what the token for the old Vault needs",
        f"connectors migrate plan {FROM}",
        f"connectors migrate run {FROM} --execute",
        f"connectors migrate cutover {FROM} --execute",
        f"connectors migrate verify {FROM}",
        f"connectors migrate finish {FROM} --execute",
    ),
)
def migrate() -> None:
    """Migrate from secret/tenants/{tenant}/{integration}: plan, run, cutover, verify, then finish or rollback."""


@migrate.command(examples=(f"connectors migrate plan {FROM}", f"connectors migrate plan {FROM} --write-map ids.csv"))
@source_options
@click.option("--write-map", type=click.Path(path_type=Path), metavar="FILE", help="Write proposals for --map there.")
@json_option
@pass_session
@click.pass_context
def plan(ctx: click.Context, session: Session, /, out: Output, write_map: Path | None, **given: Any) -> None:
    """Say what there is, what would be made of it, and what stands in the way. Only reads. Exit code 1 if anything does."""
    setting = setting_of(given, out)
    setting.table = True

    async def step(migration: Migration) -> None:
        await planned(migration)
        _table(setting)
        lines = proposals(migration.items)
        if lines and write_map is not None:
            _write_map(write_map, lines)
        elif lines:
            out.note("For --map:\n" + _csv(lines))

    carry_out(ctx, session, setting, step)


@migrate.command(examples=(f"connectors migrate run {FROM}", f"connectors migrate run {FROM} --map ids.csv --execute"))
@source_options
@execute_option
@json_option
@pass_session
@click.pass_context
def run(ctx: click.Context, session: Session, /, out: Output, execute: bool, **given: Any) -> None:
    """Copy every credential, switched off, and compare each in the new layout. A dry run without --execute.

    Nothing old is touched, and nothing new is used before `cutover`. Run it again at any time: after a crash, or for what has
    changed since.
    """
    setting = setting_of(given, out)
    carry_out(ctx, session, setting, copy if execute else planned)
    if not execute:
        out.note(NOTHING)


@migrate.command(examples=(f"connectors migrate verify {FROM}", f"connectors migrate verify {FROM} --json"))
@source_options
@json_option
@pass_session
@click.pass_context
def verify(ctx: click.Context, session: Session, /, out: Output, **given: Any) -> None:
    """Compare every credential now, secrets and all, and change nothing. Exit code 1 if any is not as it should be."""

    async def step(migration: Migration) -> None:
        await check(migration)

    carry_out(ctx, session, setting_of(given, out), step)


@migrate.command(
    examples=(
        f"connectors migrate cutover {FROM} --execute",
        f"connectors migrate cutover {FROM} --old-stopped --execute",
    )
)
@source_options
@window_option
@stopped_option
@execute_option
@json_option
@pass_session
@click.pass_context
def cutover(
    ctx: click.Context,
    session: Session,
    /,
    out: Output,
    execute: bool,
    refresh_window: float,
    old_stopped: bool,
    **given: Any,
) -> None:
    """Put the new side in charge of what is verified: from then on it refreshes, and the old system must not.

    Tokens that end within the refresh window are left to the old system; stop it within that time, then say --old-stopped.
    """
    setting = setting_of(given, out, refresh_window=window(refresh_window), old_stopped=old_stopped)
    carry_out(ctx, session, setting, cut_over if execute else _checked)
    if not execute:
        out.note(NOTHING)


@migrate.command(examples=(f"connectors migrate rollback {FROM} --execute",))
@source_options
@way_options("to", "The new layout's Vault, if it is another one", required=False)
@execute_option
@json_option
@pass_session
@click.pass_context
def rollback(ctx: click.Context, session: Session, /, out: Output, execute: bool, **given: Any) -> None:
    """Take away what the migration made. Tokens that were refreshed since go back into the old records first.

    The provider is told nothing: the old system goes on with the same grants. Not after `finish`.
    """
    setting = setting_of(given, out)
    way = way_of(given, "to") if given["to_vault_addr"] else setting.way
    carry_out(ctx, session, setting, partial(_roll_back, way) if execute else _checked)
    if not execute:
        out.note(NOTHING)


@migrate.command(
    examples=(
        f"connectors migrate finish {FROM} --execute",
        f"connectors migrate finish {FROM} --destroy --execute --yes",
    )
)
@source_options
@click.option(
    "--destroy", is_flag=True, help="Destroy all versions, and the old keys. Default: delete, as KV v2 can undo."
)
@click.option("--partial", "some", is_flag=True, help="Delete what is in use in the new layout, though others are not.")
@execute_option
@yes_option
@json_option
@pass_session
@click.pass_context
def finish(
    ctx: click.Context,
    session: Session,
    /,
    out: Output,
    execute: bool,
    destroy: bool,
    some: bool,
    yes: bool,
    **given: Any,
) -> None:
    """Delete the old records of what is in use in the new layout, each compared once more right before.

    Refused while any credential is not cut over, unless --partial. A KV v1 record can only be destroyed.
    """
    setting = setting_of(given, out)
    if not execute:
        carry_out(ctx, session, setting, _checked)
        out.note(NOTHING)
        return
    confirm("Delete the old records" + (" for good, and their keys" if destroy else "") + "?", yes=yes)
    carry_out(ctx, session, setting, partial(_finish, destroy, some))


@migrate.command(
    "policy",
    examples=("connectors migrate policy", "connectors migrate policy --for rollback --from-path kv/customers"),
)
@click.option(
    "--for", "step", type=click.Choice(policies.STEPS), default="read", show_default=True, help="Which step's."
)
@click.option("--from-path", default=policies.PATH, show_default=True, help="Mount and folder of the old records.")
@click.option("--from-transit", default="transit", show_default=True, help="The mount of the old keys.")
def policy_(step: str, from_path: str, from_transit: str) -> None:
    """Print the least policy of the token that the tool is given, as HCL."""
    click.echo(policies.policy(step, from_path, from_transit), nl=False)


async def _checked(migration: Migration) -> None:
    await check(migration)


async def _finish(destroy: bool, some: bool, migration: Migration) -> None:
    """Raises: Failed, before anything is deleted."""
    if migration.old.place.version == 1 and not destroy:
        raise Failed("The old records are on KV version 1, which keeps no deleted ones: say --destroy.", USAGE)
    if not some:
        quiet = replace(migration, tell=lambda _: None, counted=Counter())
        relations = await check(quiet)
        waiting = sum(relation not in READY for relation in relations.values())
        if quiet.problems or waiting:
            raise Failed(
                f"Nothing was deleted: {quiet.problems + waiting} credentials are not cut over or have a problem; "
                "`connectors migrate verify` names them, and --partial leaves them."
            )
    await finished(migration, destroy=destroy)


async def _roll_back(way: Way, migration: Migration) -> None:
    async with connect(way.settings()) as vault:
        records, cipher, clock = VaultDocuments(vault, mount="connectors"), VaultCiphers(vault), SystemClock()
        tenants = Tenants(records, cipher, ChangeFeed(), LogAudit(), clock)
        await roll_back(migration, FromVault(tenants, Keeper(VaultDocuments(vault), cipher, clock)))


def _csv(lines: list[tuple[str, str]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([("old", "new"), *lines])
    return text.getvalue()


def _write_map(path: Path, lines: list[tuple[str, str]]) -> None:
    try:
        with path.open("x", encoding="utf-8") as stream:
            stream.write(_csv(lines))
    except OSError as error:
        raise click.UsageError(f"{path} can't be written: {error.strerror}.") from None


def _table(setting: Setting) -> None:
    """What `plan` shows."""
    if setting.out.json:
        return
    rows = [
        (each.item.name, each.item.tenant, each.item.integration, each.result, each.problem) for each in setting.shown
    ]
    setting.out.table(("OLD", "TENANT", "CREDENTIAL", "RESULT", "PROBLEM"), rows, "Nothing is there.")
