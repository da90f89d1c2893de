"""`connectors backup`, `restore` and `seal rotate`: care of the embedded OpenBao's state. Talks to no server."""

from __future__ import annotations

import asyncio
import functools
import importlib.metadata
from collections.abc import Callable, Coroutine
from dataclasses import asdict
from datetime import UTC, datetime
from http.client import HTTPException
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from connectors_grpc.addresses import default_state_dir
from connectors_grpc.cli.base import ExampleCommand, ExampleGroup, confirm, json_option, yes_option
from connectors_grpc.cli.output import Output
from connectors_grpc.embedded import EmbeddedVault, EmbeddedVaultError, StateLayout

if TYPE_CHECKING:
    from connectors_grpc.embedded.backup import Backup, Manifest

FIRST_KEYS = ("admin", "sidecar")
Result = TypeVar("Result")
Command = Callable[..., Any]


def state_options(function: Command) -> Command:
    """`--state-dir` and `--seal-key`, as `connectors up` has them; the command gets a `layout`."""

    @functools.wraps(function)  # with the options that it has already
    def command(*arguments: Any, state_dir: Path | None, seal_key: Path | None, **more: Any) -> Any:
        return function(*arguments, layout=StateLayout.at(state_dir or default_state_dir(), seal_key), **more)

    decorated: Command = command
    for option in (
        click.option(
            "--seal-key", envvar="CONNECTORS_SEAL_KEY", show_envvar=True, type=click.Path(path_type=Path),
            metavar="FILE", help="The seal key. Default: vault/seal.key in the state directory.",
        ),
        click.option(
            "--state-dir", envvar="CONNECTORS_STATE_DIR", show_envvar=True, type=click.Path(path_type=Path),
            metavar="DIRECTORY", help="The state directory. Default: that of `connectors up`.",
        ),
    ):  # fmt: skip
        decorated = option(decorated)
    return decorated


def done(work: Coroutine[Any, Any, Result]) -> Result:
    """Run it; what goes wrong is shown with what to do."""
    try:
        return asyncio.run(work)
    except EmbeddedVaultError as error:
        raise click.ClickException(f"{error.message}\n  {error.fix}") from None
    except (OSError, HTTPException) as error:
        reason = getattr(error, "strerror", "") or type(error).__name__
        raise click.ClickException(
            f"The system or OpenBao failed: {reason}.\n  Look at disk and logs, and run it again."
        ) from None


@click.command(
    cls=ExampleCommand,
    examples=(
        "connectors backup",
        "connectors backup --output /mnt/backup/connectors.backup",
        "connectors backup --state-dir /srv/connectors --json",
    ),
)
@click.option(
    "--output", type=click.Path(path_type=Path), metavar="FILE",
    help="Where to write it; never over another file. Default: connectors-TIME.backup, here.",
)  # fmt: skip
@state_options
@json_option
def backup(layout: StateLayout, output: Path | None, out: Output) -> None:
    """Back up the embedded OpenBao, while it runs or not. The seal key is not in the backup: keep a copy of it elsewhere.

    The file (0600) holds all tenants' records as ciphertext, of which nothing can be read without the seal key. API keys
    that lie in `keys/` are not in it either.
    """
    path = (output or Path(f"connectors-{datetime.now(UTC):%Y%m%dT%H%M%SZ}.backup")).absolute()
    manifest = done(_backed_up(layout, path))
    if out.json:
        out.value({"path": str(path), **asdict(manifest)})
        return
    out.said(f"{path}: {manifest.snapshot_bytes:,} bytes of {manifest.time}")
    out.note(f"It opens with the seal key {manifest.seal_key_id} alone, which is {layout.seal_key}: keep that apart.")


async def _backed_up(layout: StateLayout, path: Path) -> Manifest:
    """Of the OpenBao that runs, or of one that is started for it."""
    from connectors_grpc.embedded import api
    from connectors_grpc.embedded.backup import back_up

    version = importlib.metadata.version("connectors-grpc")
    if not layout.served.exists() or await asyncio.to_thread(api.is_serving, layout.socket):
        return await asyncio.to_thread(back_up, layout, path, version)
    async with EmbeddedVault(layout):
        return await asyncio.to_thread(back_up, layout, path, version)


@click.command(
    cls=ExampleCommand,
    examples=(
        "connectors restore connectors-20260101T000000Z.backup",
        "connectors restore FILE --state-dir /srv/connectors --seal-key /media/usb/seal.key --replace",
        "connectors restore FILE --check",
    ),
)
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--replace", is_flag=True, help="The state directory may be in use: what is in it is moved aside.")
@click.option(
    "--check", is_flag=True, help="See whether the backup is whole and the seal key is its own; change nothing."
)
@yes_option
@state_options
@json_option
def restore(layout: StateLayout, file: Path, replace: bool, check: bool, yes: bool, out: Output) -> None:
    """Put a backup into a state directory that nobody uses. What was deleted or revoked after the backup is there again.

    The first API keys whose files are not in `keys/` are forgotten: the next `connectors up` makes new ones.
    """
    from connectors_grpc.embedded.restore import check_key

    found = done(_read(file))
    manifest = found.manifest
    try:
        check_key(layout, found)
    except EmbeddedVaultError as error:
        raise click.ClickException(f"{error.message}\n  {error.fix}") from None
    if check:
        out.value(asdict(manifest)) if out.json else out.said(f"{file} is whole, of {manifest.time}; the key is there.")
        return
    if replace:
        confirm(f"Put the backup of {manifest.time} in place of what is in {layout.vault}?", yes=yes)
    aside, forgotten = done(_restored(layout, found, replace=replace))
    if out.json:
        out.value({"restored": asdict(manifest), "aside": str(aside) if aside else None, "new_keys": forgotten})
        return
    out.said(f"{layout.vault} is as it was at {manifest.time}.")
    if aside:
        out.note(f"What was there is in {aside}.")
    if forgotten:
        out.note(f"The next start makes new keys in {layout.keys}: {', '.join(forgotten)}.")
    out.note("Delete once more the tenants, and revoke the keys, that were deleted or revoked after that time.")


async def _read(file: Path) -> Backup:
    from connectors_grpc.embedded.backup import read_backup

    return await asyncio.to_thread(read_backup, file)


async def _restored(layout: StateLayout, found: Backup, *, replace: bool) -> tuple[Path | None, list[str]]:
    from connectors_grpc.embedded.restore import restore as put_back

    lost = [name for name in FIRST_KEYS if not (layout.keys / f"{name}.key").exists()]
    paths = [f"connectors/metadata/keys/{name}" for name in lost]
    return await put_back(layout, found, replace=replace, forget=paths), lost


@click.group(cls=ExampleGroup, examples=("connectors seal rotate",))
def seal() -> None:
    """The key that the embedded OpenBao's data is sealed with."""


@seal.command(
    examples=(
        "connectors seal rotate",
        "connectors seal rotate --state-dir /srv/connectors --seal-key /media/usb/seal.key",
    )
)
@yes_option
@state_options
@json_option
def rotate(layout: StateLayout, yes: bool, out: Output) -> None:
    """Give the data a new seal key, root key and storage key, while the platform does not run.

    The new key takes the old one's place; the old one is kept beside it under its name, for backups of before. Cut short, it is
    run again and goes on.
    """
    from connectors_grpc.embedded.reseal import rotate_seal

    confirm(f"Replace the seal key {layout.seal_key}?", yes=yes)
    rotated = done(rotate_seal(layout))
    kept = layout.old_seal_key(rotated.old)
    if out.json:
        out.value({"old": rotated.old, "new": rotated.new, "seal_key": str(layout.seal_key), "kept": str(kept)})
        return
    out.said(f"{layout.seal_key} is the key {rotated.new} now.")
    out.note(f"Take a copy of it, and a new backup. The old key is {kept}: remove it with the last backup of its time.")
