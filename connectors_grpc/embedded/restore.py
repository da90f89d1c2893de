"""A backup put back: an empty OpenBao is brought up under the same seal key, and the snapshot takes the place of what is in it.

What was there before is moved aside and never removed. While the mark `restoring` stands, nobody else starts on the directory.
"""

import asyncio
import shutil
import tarfile
from collections.abc import Sequence
from datetime import UTC, datetime
from http.client import HTTPException
from pathlib import Path
from typing import Final

from connectors_grpc.embedded import api
from connectors_grpc.embedded.backup import ROLES, SNAPSHOT, Backup, member
from connectors_grpc.embedded.boot import seal_key_id
from connectors_grpc.embedded.errors import EmbeddedVaultError
from connectors_grpc.embedded.files import sync_directory, write_private
from connectors_grpc.embedded.layout import StateLayout, prepare
from connectors_grpc.embedded.lock import StateLock
from connectors_grpc.embedded.process import EmbeddedSettings
from connectors_grpc.embedded.setup import RESTORE, SERVER
from connectors_grpc.embedded.vault import EmbeddedVault
from connectors_grpc.embedded.wayin import exchange, logged_in

_TAKEN_IN: Final = 120.0
_POLL: Final = 0.1


async def restore(
    layout: StateLayout,
    backup: Backup,
    *,
    replace: bool = False,
    forget: Sequence[str] = (),
    settings: EmbeddedSettings | None = None,
) -> Path | None:
    """Put `backup` into the state directory; where the old content went, or None if there was none.

    `forget` are documents of the platform that must not come back, as API paths. OpenBao does not run afterwards.
    Bounds: `settings.start_deadline`, and two minutes for the snapshot.
    Raises: EmbeddedVaultError; a directory that was begun is refused by everybody until this is run again.
    """
    aside = await asyncio.to_thread(_make_room, layout, backup, replace=replace)
    async with EmbeddedVault(layout, settings, roles=(RESTORE,)):
        await asyncio.to_thread(_load, layout, backup)
        await _until_known(layout, backup)
        for role in ROLES:
            await asyncio.to_thread(exchange, layout, role, backup.ways[role.label])
        await asyncio.to_thread(_forget, layout, forget)
    layout.way_in(RESTORE.label).unlink()
    layout.restoring.unlink()
    sync_directory(layout.vault)
    return aside


def _make_room(layout: StateLayout, backup: Backup, *, replace: bool) -> Path | None:
    """An empty directory with the seal key and the mark in it."""
    prepare(layout)
    lock = StateLock.take(layout.lock)
    try:
        check_key(layout, backup)
        used = any(layout.data.iterdir()) or layout.served.exists()
        if used and not replace:
            raise EmbeddedVaultError(
                f"{layout.vault} is in use.", "Say --replace: what is there is moved aside, and not removed."
            )
        aside = None
        if layout.restoring.exists():
            shutil.rmtree(layout.data)
            layout.served.unlink(missing_ok=True)
        elif used:
            aside = _move_aside(layout)
        prepare(layout)
        write_private(layout.restoring, b"")
        return aside
    finally:
        lock.release()


def check_key(layout: StateLayout, backup: Backup) -> None:
    """See that the seal key is the backup's own.  Raises: EmbeddedVaultError, naming the one that is wanted."""
    found, wanted = seal_key_id(layout.seal_key), backup.manifest.seal_key_id
    if found is None:
        raise EmbeddedVaultError(
            f"There is no seal key {layout.seal_key}, and without it the backup can't be read.",
            f"Put the key {wanted} there, mode 0600, or say with --seal-key where it lies.",
        )
    if found != wanted:
        kept = layout.old_seal_key(wanted)
        raise EmbeddedVaultError(
            f"The backup is sealed with the key {wanted}, and {layout.seal_key} is the key {found}.",
            f"Give the key of that time: --seal-key {kept if kept.exists() else 'FILE'}",
        )


def _move_aside(layout: StateLayout) -> Path:
    """The key goes on lying where it was."""
    key = layout.seal_key.read_bytes()
    aside = layout.root / f"vault.{datetime.now(UTC):%Y%m%dT%H%M%SZ}"
    layout.vault.rename(aside)
    prepare(layout)
    if not layout.seal_key.exists():
        write_private(layout.seal_key, key)
    return aside


def _load(layout: StateLayout, backup: Backup) -> None:
    with logged_in(layout, RESTORE) as token, tarfile.open(backup.path, mode="r:") as archive:
        size = backup.manifest.snapshot_bytes
        status = api.upload(layout.socket, "sys/storage/raft/snapshot-force", token, member(archive, SNAPSHOT), size)
    if status not in (200, 204):
        raise EmbeddedVaultError("OpenBao does not take the snapshot.", f"Its log says why: {layout.log}")


async def _until_known(layout: StateLayout, backup: Backup) -> None:
    """Wait until OpenBao serves what was in the snapshot: it seals itself, and unseals with the keys of that time."""
    way = backup.ways[SERVER.label]
    try:
        async with asyncio.timeout(_TAKEN_IN):
            while not await asyncio.to_thread(_knows, layout, way):  # noqa: ASYNC110  (another process's doing)
                await asyncio.sleep(_POLL)
    except TimeoutError:
        raise EmbeddedVaultError(
            "OpenBao took the snapshot and does not serve it.", f"Its log says why: {layout.log}"
        ) from None


def _knows(layout: StateLayout, way: api.AppRole) -> bool:
    try:
        token = api.login(layout.socket, way)
    except (OSError, ValueError, KeyError, HTTPException):
        return False
    if token is not None:
        api.revoke_self(layout.socket, token)
    return token is not None


def _forget(layout: StateLayout, paths: Sequence[str]) -> None:
    if not paths:
        return
    with logged_in(layout, SERVER) as token:
        for path in paths:
            if api.call(layout.socket, "DELETE", path, token=token).status not in (200, 204, 404):
                raise EmbeddedVaultError("A record that must not come back is still there.", "Run it once more.")
