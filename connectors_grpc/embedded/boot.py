"""Which start this is: the first, the first again after a failed one, or one like any other. Decides; changes nothing.

A data directory that has served holds what exists nowhere else, so the default is to refuse: it is wiped only while the
mark of an unfinished first boot stands and the mark of a finished one does not.
"""

import enum
import hashlib
import json
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from connectors_grpc.embedded.errors import EmbeddedVaultError
from connectors_grpc.embedded.layout import StateLayout

SEAL_KEY_BYTES: Final = 32


class Boot(enum.Enum):
    """What to do with the data directory."""

    FIRST = "first"
    WIPE_THEN_FIRST = "wipe, then first"
    AGAIN = "again"


@dataclass(frozen=True, slots=True)
class Found:
    """What lies in a state directory; ids are None where the file is missing."""

    has_data: bool
    begun: bool
    served_seal_key: str | None
    has_approle: bool
    seal_key: str | None
    restoring: bool = False
    rotating: bool = False


def decide(found: Found, layout: StateLayout) -> Boot:
    """What this start is.

    Raises: EmbeddedVaultError where going on could destroy or miss what has served.
    """
    if found.restoring:
        raise EmbeddedVaultError(
            f"A backup was being put into {layout.vault}, and that was cut short.",
            "Run `connectors restore` once more, with --replace.",
        )
    if found.rotating:
        raise EmbeddedVaultError(
            f"The seal key was being rotated, and that was cut short: there is {layout.next_seal_key}.",
            "Run `connectors seal rotate` once more: it goes on where it was.",
        )
    if found.served_seal_key is not None:
        return _again(found, layout)
    if found.begun:
        return Boot.WIPE_THEN_FIRST
    if not found.has_data:
        return Boot.FIRST
    raise EmbeddedVaultError(
        f"{layout.data} holds data of which nothing says how it came here: {layout.served} is missing.",
        "If it comes from a backup, restore that whole; else move the directory away.",
    )


def _again(found: Found, layout: StateLayout) -> Boot:
    if not found.has_data:
        raise EmbeddedVaultError(
            f"This state directory has served, and {layout.data} is empty now.",
            f"Restore it from a backup; or, to begin anew and lose all credentials, remove {layout.vault}.",
        )
    if found.seal_key is None:
        raise EmbeddedVaultError(
            f"The seal key {layout.seal_key} is missing, and without it the data can't be read.",
            "Put the key back, or say with --seal-key where it lies.",
        )
    if found.seal_key != found.served_seal_key:
        raise EmbeddedVaultError(
            f"The seal key {layout.seal_key} is another one than that with which the data was sealed.",
            "Put the right key back, or say with --seal-key where it lies.",
        )
    if not found.has_approle:
        raise EmbeddedVaultError(
            f"The server's way in, {layout.approle}, is missing; no other exists.",
            "Restore it from a backup of the state directory.",
        )
    return Boot.AGAIN


def observe(layout: StateLayout) -> Found:
    """Look at a prepared state directory.

    Raises: EmbeddedVaultError if the seal key can be read by others or is no key, or if the mark can't be read.
    """
    return Found(
        has_data=any(layout.data.iterdir()),
        begun=layout.initialising.exists(),
        served_seal_key=served_seal_key(layout),
        has_approle=layout.approle.exists(),
        seal_key=seal_key_id(layout.seal_key),
        restoring=layout.restoring.exists(),
        rotating=layout.next_seal_key.exists(),
    )


def served_mark(key_id: str) -> bytes:
    """The content of the mark: which key the data is sealed with."""
    return json.dumps({"seal_key_id": key_id}).encode()


def served_seal_key(layout: StateLayout) -> str | None:
    """Which key the data is sealed with, as the mark says; None where nothing has served.

    Raises: EmbeddedVaultError if the mark can't be read.
    """
    try:
        mark = json.loads(layout.served.read_bytes())
        return str(mark["seal_key_id"])
    except FileNotFoundError:
        return None
    except (ValueError, TypeError, KeyError) as error:
        raise EmbeddedVaultError(
            f"{layout.served} can't be read: it is damaged.", "Restore it from a backup of the state directory."
        ) from error


def seal_key_id(path: Path) -> str | None:
    """A name for the seal key that tells nothing about it; None if there is none.

    Raises: EmbeddedVaultError if others may read it, or it is no key of ours.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise EmbeddedVaultError(
            f"The seal key {path} can't be read: {error.strerror}.", "Make it a plain file of this user, mode 0600."
        ) from error
    with open(fd, "rb") as stream:  # noqa: PTH123  (a descriptor, not a path)
        info = os.fstat(stream.fileno())
        content = stream.read(4 * SEAL_KEY_BYTES)
    if info.st_uid != os.geteuid() or stat.S_IMODE(info.st_mode) & 0o077:
        raise EmbeddedVaultError(
            f"The seal key {path} can be reached by others.", f"Run as its owner: chmod 600 {path}"
        )
    try:
        key = bytes.fromhex(content.decode("ascii").strip())
    except ValueError:
        key = b""
    if len(key) != SEAL_KEY_BYTES:
        raise EmbeddedVaultError(
            f"The seal key {path} is not {SEAL_KEY_BYTES} bytes in hexadecimal.",
            f"Put the right key back; for a new state directory make one: openssl rand -hex {SEAL_KEY_BYTES}",
        )
    return "seal-" + hashlib.sha256(b"connectors seal key id\0" + key).hexdigest()[:12]
