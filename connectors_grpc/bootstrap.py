"""The first keys: how anybody gets in at all. Made once, into files that only their owner may read."""

from __future__ import annotations

import os
from pathlib import Path

from connectors_grpc.access import Access
from connectors_grpc.domain.ids import KeyId
from connectors_grpc.domain.records import Role
from connectors_grpc.errors import ConnectorsError, Reason
from connectors_grpc.secret import Secret

FIRST_KEYS = ((KeyId("admin"), Role.ADMIN, "admin.key"), (KeyId("sidecar"), Role.SIDECAR, "sidecar.key"))


class KeysOutOfStep(Exception):
    """A key is stored whose file is gone, or the other way round. `args[0]` says which file and what to do."""


async def bootstrap_keys(access: Access, directory: Path) -> None:
    """Make `admin.key` and `sidecar.key` where neither key nor file is there yet.

    The text is written before the key is stored, and takes its name after: a crash between leaves a file that is picked up,
    never a key that nobody knows. A file whose key is not stored (another Vault) is made anew.
    Raises: KeysOutOfStep.
    """
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    for key_id, role, name in FIRST_KEYS:
        path, pending = directory / name, directory / f".{name}.pending"
        if await _works(access, _text(path)):
            continue
        if not await _works(access, _text(pending)):
            text = access.new_text(key_id)
            _write(pending, text)
            if not await access.bootstrap(key_id, role, text):
                raise KeysOutOfStep(
                    f"The key {key_id!r} is stored, but its file {path} is missing or not the right one: "
                    "put the file back, or revoke that key with another admin key and start without --bootstrap-keys."
                )
        pending.replace(path)


def _text(path: Path) -> str:
    return path.read_text().strip() if path.is_file() else ""


async def _works(access: Access, text: str) -> bool:
    if not text:
        return False
    try:
        await access.authenticate(Secret(text))
    except ConnectorsError as error:
        if error.reason is Reason.API_KEY_INVALID:
            return False
        raise
    return True


def _write(path: Path, key: Secret) -> None:
    path.unlink(missing_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(key.reveal() + "\n")
        file.flush()
        os.fsync(file.fileno())
