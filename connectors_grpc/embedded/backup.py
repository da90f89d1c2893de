"""A backup of a running embedded OpenBao: raft's snapshot and the ways into it, in one file. The seal key is never in it.

The ways in are made for this backup: secret ids that are issued just before the snapshot and ended just after it. So the file
opens nothing that runs: its secret ids are known to the snapshot alone, which nobody reads without the seal key.
"""

import hashlib
import io
import json
import os
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from http.client import HTTPException
from pathlib import Path
from typing import IO, Final

from connectors_grpc.embedded import api
from connectors_grpc.embedded.api import AppRole
from connectors_grpc.embedded.boot import served_seal_key
from connectors_grpc.embedded.errors import EmbeddedVaultError
from connectors_grpc.embedded.files import sync_directory
from connectors_grpc.embedded.layout import StateLayout
from connectors_grpc.embedded.setup import SERVER, UPKEEP, Role
from connectors_grpc.embedded.wayin import as_file, logged_in, parse_approle, read_approle

FORMAT: Final = 1
SNAPSHOT: Final = "vault.snap"
MANIFEST: Final = "manifest.json"
ROLES: Final = (SERVER, UPKEEP)
_CHUNK: Final = 1 << 20
_MOST_SMALL: Final = 64 * 1024


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a backup says of itself; nothing in it is secret.  Units: bytes."""

    format: int
    version: str
    time: str
    seal_key_id: str
    snapshot_sha256: str
    snapshot_bytes: int


@dataclass(frozen=True, slots=True)
class Backup:
    """A backup that was read and found whole."""

    path: Path
    manifest: Manifest
    ways: dict[str, AppRole]
    """By the role's label."""


def back_up(layout: StateLayout, output: Path, version: str) -> Manifest:
    """Write a backup of the OpenBao that serves on `layout` to `output`, which must not be there yet; mode 0600.

    Blocking.  Bounds: memory is bounded whatever the size; each wait on OpenBao is a minute at most.
    Raises: EmbeddedVaultError; nothing is left at `output` then.
    """
    if output.exists():
        raise EmbeddedVaultError(f"{output} is there already.", "Choose another name, or move it away.")
    key_id = served_seal_key(layout)
    if key_id is None or not api.is_serving(layout.socket):
        raise EmbeddedVaultError(f"No OpenBao serves on {layout.root}.", "Start it: connectors up")
    try:
        with tempfile.TemporaryFile(dir=output.parent) as snapshot:
            with ExitStack() as stack:
                token = stack.enter_context(logged_in(layout, UPKEEP))
                ways = {role.label: stack.enter_context(_passing_way(layout, role)) for role in ROLES}
                digest, size = _snapshot(layout, token, snapshot)
            now = datetime.now(UTC).isoformat(timespec="seconds")
            manifest = Manifest(FORMAT, version, now, key_id, digest, size)
            _write(output, manifest, ways, snapshot)
    except (OSError, HTTPException) as error:
        raise EmbeddedVaultError(
            f"The backup can't be written or OpenBao went away: {getattr(error, 'strerror', '') or type(error).__name__}.",
            f"Look at the disk of {output.parent}, and run it again.",
        ) from None
    return manifest


@contextmanager
def _passing_way(layout: StateLayout, role: Role) -> Iterator[AppRole]:
    """A way in that OpenBao knows only while the block runs."""
    own = read_approle(layout.way_in(role.label))
    with logged_in(layout, role) as token:
        secret_id = api.issue_secret_id(layout.socket, token, role)
        if secret_id is None:
            raise EmbeddedVaultError(f"OpenBao refuses {role.name} a secret id.", f"See {layout.audit}.")
        try:
            yield AppRole(own.role_id, secret_id)
        finally:
            ended = api.destroy_secret_id(layout.socket, token, role, secret_id)
        if not ended:
            raise EmbeddedVaultError("The backup's own secret id could not be ended.", f"See {layout.audit}.")


def _snapshot(layout: StateLayout, token: str, into: IO[bytes]) -> tuple[str, int]:
    """Its SHA-256 and size."""
    digest, size = hashlib.sha256(), 0
    for chunk in api.stream(layout.socket, "sys/storage/raft/snapshot", token):
        digest.update(chunk)
        size += len(chunk)
        into.write(chunk)
    return digest.hexdigest(), size


def _write(output: Path, manifest: Manifest, ways: dict[str, AppRole], snapshot: IO[bytes]) -> None:
    """The archive, whole or not at all. The manifest comes first: who looks reads little."""
    draft = output.with_name(f".{output.name}.{os.getpid()}")
    fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        with open(fd, "wb") as stream:  # noqa: PTH123  (a descriptor, not a path)
            with tarfile.open(fileobj=stream, mode="w") as archive:
                _add(
                    archive,
                    MANIFEST,
                    json.dumps({name: getattr(manifest, name) for name in Manifest.__slots__}, indent=2).encode(),
                )
                for label, way in ways.items():
                    _add(archive, f"{label}.json", as_file(way))
                snapshot.seek(0)
                archive.addfile(_member(SNAPSHOT, manifest.snapshot_bytes), snapshot)
            stream.flush()
            os.fsync(stream.fileno())
        os.link(draft, output)  # unlike a rename, never replaces
    finally:
        draft.unlink(missing_ok=True)
    sync_directory(output.parent)


def _add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    archive.addfile(_member(name, len(content)), io.BytesIO(content))


def _member(name: str, size: int) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.size, member.mode, member.mtime = size, 0o600, int(datetime.now(UTC).timestamp())
    return member


def read_backup(path: Path) -> Backup:
    """Read a backup and see that it is whole.  Raises: EmbeddedVaultError."""
    try:
        with tarfile.open(path, mode="r:") as archive:
            manifest = Manifest(**json.loads(_small(archive, MANIFEST)))
            if manifest.format != FORMAT:
                raise EmbeddedVaultError(
                    f"{path} is of format {manifest.format}, which this version does not know.",
                    f"Restore it with version {manifest.version}, which wrote it.",
                )
            ways = {role.label: parse_approle(_small(archive, f"{role.label}.json")) for role in ROLES}
            found = _digest(member(archive, SNAPSHOT))
    except OSError as error:
        raise EmbeddedVaultError(f"{path} can't be read: {error.strerror}.", "Give the file of a backup.") from None
    except (tarfile.TarError, ValueError, TypeError, KeyError):
        raise EmbeddedVaultError(f"{path} is no backup of ours, or not whole.", "Take another one.") from None
    if found != manifest.snapshot_sha256:
        raise EmbeddedVaultError(f"{path} is damaged: its snapshot is not what was written.", "Take another backup.")
    return Backup(path, manifest, ways)


def _digest(stream: IO[bytes]) -> str:
    digest = hashlib.sha256()
    while chunk := stream.read(_CHUNK):
        digest.update(chunk)
    return digest.hexdigest()


def _small(archive: tarfile.TarFile, name: str) -> bytes:
    with member(archive, name) as stream:
        return stream.read(_MOST_SMALL)


def member(archive: tarfile.TarFile, name: str) -> IO[bytes]:
    """A plain file of the archive.  Raises: KeyError."""
    stream = archive.extractfile(name)
    if stream is None:
        raise KeyError(name)
    return stream
