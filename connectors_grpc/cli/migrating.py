"""What the commands of a migration share: where the old records lie, how far it is, and how it ended."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import click

from connectors_grpc import logs
from connectors_grpc.addresses import AddressInvalid, check_vault_address, default_state_dir
from connectors_grpc.cli.connection import Session, open_aio_channel
from connectors_grpc.cli.errors import FAILED, UNREACHABLE, USAGE
from connectors_grpc.cli.output import Output, clean
from connectors_grpc.errors import VaultUnavailable
from connectors_grpc.legacy_map import MapUnusable, read_map
from connectors_grpc.migration.journal import JournalUnusable
from connectors_grpc.migration.opening import Source, opened
from connectors_grpc.migration.policies import PATH
from connectors_grpc.migration.server import NewSide
from connectors_grpc.migration.work import Migration, Options, Outcome
from connectors_grpc.vault import VaultMisconfigured, VaultSettings
from connectors_grpc.vault.old_layout import OldVaultRefuses

TIMEOUT: Final = 30.0


@dataclass(frozen=True)
class Way:
    """A way into a Vault, as it was given."""

    address: str
    role_id: str
    secret_id_file: Path | None
    token_file: Path | None
    ca_file: Path | None
    namespace: str

    def settings(self) -> VaultSettings:
        """As the adapter wants it.  Raises: VaultMisconfigured, AddressInvalid."""
        return VaultSettings(
            address=check_vault_address(self.address),
            role_id=self.role_id,
            secret_id_file=self.secret_id_file,
            token_file=self.token_file,
            ca_file=self.ca_file,
            namespace=self.namespace,
            timeout=TIMEOUT,
        )


@dataclass
class Setting:
    """What every command was given. `table`: what is told is shown at the end, and not as it comes."""

    way: Way
    path: str
    transit: str
    fresh: bool
    map_file: Path | None
    journal: Path
    options: Options
    out: Output
    table: bool = False
    shown: list[Outcome] = field(default_factory=list)


Step = Callable[[Migration], Awaitable[None]]


def way_options(prefix: str, whose: str, *, required: bool) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Options of a way into a Vault. Secrets come from files."""
    path = click.Path(path_type=Path)
    options = (
        click.option(f"--{prefix}-vault-addr", required=required, default=None if required else "", metavar="URL",
                     help=f"{whose}: https://host:8200, http:// on loopback, or unix:///path."),
        click.option(f"--{prefix}-role-id", default="", help="Its AppRole's role id, if that is not in the secret id's file."),
        click.option(f"--{prefix}-secret-id-file", type=path, metavar="FILE", help="A file with the AppRole's secret id."),
        click.option(f"--{prefix}-token-file", type=path, metavar="FILE", help="A file with a token, in place of an AppRole."),
        click.option(f"--{prefix}-ca-file", type=path, metavar="FILE", help="CA certificates (PEM). Default: the system's."),
        click.option(f"--{prefix}-namespace", default="", help="The Vault's namespace."),
    )  # fmt: skip

    def add(function: Callable[..., Any]) -> Callable[..., Any]:
        for option in reversed(options):
            function = option(function)
        return function

    return add


def source_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Where the old records lie, and how to go about it."""
    path = click.Path(path_type=Path)
    options = (
        way_options("from", "The old records' Vault", required=True),
        click.option("--from-path", default=PATH, show_default=True, metavar="PATH",
                     help="Mount and folder of the old records: PATH/{tenant}/{integration}."),
        click.option("--from-transit", default="transit", show_default=True, metavar="MOUNT",
                     help="Where the old keys are, {integration}-{tenant}."),
        click.option("--fresh", is_flag=True, help="The server has another Vault. Default: both layouts share one."),
        click.option("--map", "map_file", type=path, metavar="FILE", help="CSV lines `old,new`: new ids of old tenants."),
        click.option("--ignore", multiple=True, metavar="FIELD",
                     help="A field of old records that is not needed; may be repeated."),
        click.option("--journal", type=path, metavar="FILE",
                     help="How far it is. Default: migration.jsonl in the state directory."),
        click.option("--concurrency", type=click.IntRange(1, 64), default=16, show_default=True, help="Old records at once."),
        click.option("--rate", type=click.FloatRange(0), default=0, metavar="N",
                     help="At most N credentials a second. Default: no bound."),
    )  # fmt: skip
    for option in reversed(options):
        function = option(function)
    return function


def setting_of(given: Mapping[str, Any], out: Output, **options: Any) -> Setting:
    """The options of `source_options`, as one."""
    return Setting(
        way=way_of(given, "from"),
        path=given["from_path"],
        transit=given["from_transit"],
        fresh=given["fresh"],
        map_file=given["map_file"],
        journal=(given["journal"] or _state_dir() / "migration.jsonl").expanduser(),
        options=Options(
            concurrency=given["concurrency"], rate=given["rate"], ignore=frozenset(given["ignore"]), **options
        ),
        out=out,
    )


def _state_dir() -> Path:
    state = os.environ.get("CONNECTORS_STATE_DIR")
    return Path(state) if state else default_state_dir()


def way_of(given: Mapping[str, Any], prefix: str) -> Way:
    """The options of `way_options`, as one."""
    return Way(
        given[f"{prefix}_vault_addr"], given[f"{prefix}_role_id"], given[f"{prefix}_secret_id_file"],
        given[f"{prefix}_token_file"], given[f"{prefix}_ca_file"], given[f"{prefix}_namespace"],
    )  # fmt: skip


def window(minutes: float) -> timedelta:
    """Minutes, as they are typed."""
    return timedelta(minutes=minutes)


class Failed(click.ClickException):
    """A migration that could not go on; what was done is in the journal."""

    def __init__(self, text: str, code: int = FAILED) -> None:
        super().__init__(text)
        self.__dict__["exit_code"] = code  # click types it as the class's


def carry_out(ctx: click.Context, session: Session, setting: Setting, step: Step) -> None:
    """Run one step to its end and report. Exit code 1 if anything stands in the way of any credential."""
    logs.configure("error")
    began = time.monotonic()
    try:
        migration = asyncio.run(_carried_out(session, setting, step))
    except (VaultMisconfigured, AddressInvalid, MapUnusable, JournalUnusable) as error:
        raise Failed(str(error), USAGE) from None
    except OldVaultRefuses as error:
        raise Failed(str(error)) from None
    except VaultUnavailable:
        raise Failed("The Vault can't be reached, or refuses: run it again once it is back.", UNREACHABLE) from None
    report(setting, migration, time.monotonic() - began)
    if migration.problems:
        ctx.exit(FAILED)


async def _carried_out(session: Session, setting: Setting, step: Step) -> Migration:
    names = read_map(setting.map_file) if setting.map_file else {}
    source = Source(setting.way.settings(), setting.path, setting.transit, setting.fresh)
    channel = open_aio_channel(session.server, session.ca_file)
    new = NewSide(channel, session.key, session.timeout, setting.path)
    async with channel, opened(source, new, setting.journal, names, setting.options) as migration:
        migration.tell = _teller(setting, len(migration.items))
        await step(migration)
        return migration


def _teller(setting: Setting, total: int) -> Callable[[Outcome], None]:
    """Keeps what is told; on a terminal it counts as it goes, and problems are said at once. Under --json each is a line."""
    shown = sys.stderr.isatty() and not setting.out.json

    def tell(outcome: Outcome) -> None:
        setting.shown.append(outcome)
        if setting.out.json:
            click.echo(json.dumps(as_value(outcome), ensure_ascii=False))
        elif outcome.problem:
            click.echo(
                ("\r\x1b[K" if shown else "") + clean(f"{outcome.item.name}: {outcome.result}: {outcome.problem}"),
                err=True,
            )
        if shown:
            click.echo(f"\r\x1b[K{len(setting.shown)} of {total}", err=True, nl=False)

    return tell


def as_value(outcome: Outcome) -> dict[str, str]:
    """One credential's outcome, as JSON."""
    item = outcome.item
    return {
        "old": item.name, "tenant": item.tenant, "credential": item.integration, "result": outcome.result,
        "problem": outcome.problem,
    }  # fmt: skip


def report(setting: Setting, migration: Migration, seconds: float) -> None:
    """The sum: on stdout, or as the last line under --json."""
    counts = dict(sorted(migration.counted.items()))
    if setting.out.json:
        click.echo(json.dumps({"counts": counts, "problems": migration.problems, "seconds": round(seconds, 1)}))
        return
    if sys.stderr.isatty():
        click.echo("\r\x1b[K", err=True, nl=False)
    said = ", ".join(f"{number} {result}" for result, number in counts.items()) or "nothing is there"
    setting.out.said(f"{said}. {migration.problems} with a problem. {seconds:.1f} s.")
