"""The state directory: where everything lies, and that nobody else can reach it. Knows nothing of OpenBao itself."""

import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from connectors_grpc.embedded.errors import EmbeddedVaultError

PRIVATE_DIRECTORY: Final = 0o700
# sockaddr_un.sun_path is 108 bytes on Linux and 104 on macOS, with the closing NUL. Source: unix(7).
MAX_SOCKET_PATH: Final = 103


@dataclass(frozen=True, slots=True)
class StateLayout:
    """Every path under one state directory; with `seal_key` elsewhere, a stolen one opens nothing."""

    root: Path
    seal_key: Path

    @classmethod
    def at(cls, root: Path, seal_key: Path | None = None) -> "StateLayout":
        """The layout of `root`, made absolute; the seal key is `vault/seal.key` in it unless given."""
        home = root.expanduser().resolve()
        return cls(home, seal_key.expanduser().resolve() if seal_key else home / "vault" / "seal.key")

    @property
    def vault(self) -> Path:
        """All that is OpenBao's."""
        return self.root / "vault"

    @property
    def data(self) -> Path:
        """Raft's directory: ciphertext, but for which nothing is kept."""
        return self.vault / "data"

    @property
    def socket(self) -> Path:
        """The only way in: a Unix socket, 0600."""
        return self.vault / "bao.sock"

    @property
    def config(self) -> Path:
        """OpenBao's configuration, written anew at every start."""
        return self.vault / "bao.hcl"

    @property
    def approle(self) -> Path:
        """The server's role id and secret id, 0600: whoever reads it is the server."""
        return self.vault / "approle.json"

    def way_in(self, label: str) -> Path:
        """Role id and secret id of a role, 0600, by the role's label."""
        return self.approle if label == "server" else self.vault / f"{label}.json"

    @property
    def restoring(self) -> Path:
        """Stands while a backup is put in: what lies in `data` meanwhile is not the platform's."""
        return self.vault / "restoring"

    @property
    def next_seal_key(self) -> Path:
        """Stands while the seal key is rotated: data may be sealed with this key or the one beside it."""
        return self.seal_key.with_name(f"{self.seal_key.name}.next")

    def old_seal_key(self, key_id: str) -> Path:
        """Where a rotation keeps the key of that name: backups of its time need it, and nothing else does."""
        return self.seal_key.with_name(f"{self.seal_key.name}.{key_id}")

    @property
    def initialising(self) -> Path:
        """Stands from before the first boot until it has succeeded: while it does, `data` may be wiped."""
        return self.vault / "initialising"

    @property
    def served(self) -> Path:
        """Written once the first boot has succeeded: from then on `data` is never wiped."""
        return self.vault / "served.json"

    @property
    def logs(self) -> Path:
        """OpenBao's log and audit log, and what the other parts of the platform write."""
        return self.root / "logs"

    @property
    def log(self) -> Path:
        """What OpenBao prints."""
        return self.logs / "openbao.log"

    @property
    def audit(self) -> Path:
        """OpenBao's audit log: a request that can't be written here is refused."""
        return self.logs / "audit.log"

    @property
    def keys(self) -> Path:
        """API keys that the platform made for its own parts."""
        return self.root / "keys"

    @property
    def lock(self) -> Path:
        """Held by flock while anything runs on this directory; its text is the holder's pid."""
        return self.root / "lock"


def prepare(layout: StateLayout) -> None:
    """Make the directories that are missing, each 0700, and refuse those that someone else could reach.

    Raises: EmbeddedVaultError, saying which directory and what to do.
    """
    if len(os.fsencode(layout.socket)) > MAX_SOCKET_PATH:
        raise EmbeddedVaultError(
            f"The state directory's path is too long for a Unix socket in it: {layout.root}.",
            f"Choose one of at most {MAX_SOCKET_PATH - len('/vault/bao.sock')} bytes.",
        )
    _refuse_open_ancestors(layout.root)
    _make(layout.root, parents=True)
    for directory in (layout.vault, layout.data, layout.logs, layout.keys):
        _make(directory)
        if stat.S_IMODE(directory.stat().st_mode) != PRIVATE_DIRECTORY:
            directory.chmod(PRIVATE_DIRECTORY)
    if layout.seal_key.parent != layout.vault:
        _refuse_foreign(layout.seal_key.parent)


def _make(directory: Path, *, parents: bool = False) -> None:
    try:
        directory.mkdir(PRIVATE_DIRECTORY, parents=parents, exist_ok=True)
    except OSError as error:
        raise EmbeddedVaultError(
            f"The directory {directory} can't be made: {error.strerror}.",
            "Give a state directory that this user may write.",
        ) from error
    _refuse_foreign(directory)


def _refuse_foreign(directory: Path) -> None:
    try:
        info = directory.lstat()
    except FileNotFoundError as error:
        raise EmbeddedVaultError(f"There is no directory {directory}.", f"Run: mkdir -m 700 {directory}") from error
    if not stat.S_ISDIR(info.st_mode):
        raise EmbeddedVaultError(f"{directory} is not a directory.", "Move it away, or choose another state directory.")
    if info.st_uid != os.geteuid():
        raise EmbeddedVaultError(
            f"The directory {directory} belongs to user {info.st_uid}, and this process runs as {os.geteuid()}.",
            "Run as its owner, or choose another state directory.",
        )
    if info.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise EmbeddedVaultError(
            f"The directory {directory} can be written by others, who could swap the Vault's files for theirs.",
            f"Make sure that what is in it is yours, then run: chmod 700 {directory}",
        )


def _refuse_open_ancestors(root: Path) -> None:
    """A parent that anyone may write lets them rename the state directory away, but for a sticky one as /tmp is."""
    for parent in root.parents:
        if not parent.exists():
            continue
        mode = parent.stat().st_mode
        if mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
            raise EmbeddedVaultError(
                f"Anyone may rename what lies in {parent}, and the state directory {root} is below it.",
                f"Run: chmod o-w {parent}, or choose another state directory.",
            )
