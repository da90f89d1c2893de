"""The ways in: each role's id and secret id in a file of its own, and how a secret id that others have seen is exchanged."""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path

from connectors_grpc.embedded import api
from connectors_grpc.embedded.api import AppRole
from connectors_grpc.embedded.errors import EmbeddedVaultError
from connectors_grpc.embedded.files import write_private
from connectors_grpc.embedded.layout import StateLayout
from connectors_grpc.embedded.setup import Role


def read_approle(path: Path) -> AppRole:
    """A role's way in. Raises: EmbeddedVaultError if the file is missing or damaged."""
    try:
        return parse_approle(path.read_bytes())
    except (OSError, ValueError):
        raise EmbeddedVaultError(f"{path} can't be read.", "Restore it from a backup of the state directory.") from None


def parse_approle(content: bytes) -> AppRole:
    """What such a file holds. Raises: ValueError, without what it holds."""
    try:
        fields = json.loads(content)
        return AppRole(str(fields["role_id"]), str(fields["secret_id"]))
    except (ValueError, TypeError, KeyError):
        raise ValueError("not a role id and a secret id") from None


def as_file(approle: AppRole) -> bytes:
    """The content of such a file."""
    return json.dumps({"role_id": approle.role_id, "secret_id": approle.secret_id}).encode()


def exchange(layout: StateLayout, role: Role, known: AppRole) -> None:
    """Trade a secret id that others may know for one that OpenBao made, write that down, and see the old one refused.

    Raises: EmbeddedVaultError.
    """
    token = api.login(layout.socket, known)
    fresh = api.issue_secret_id(layout.socket, token, role) if token else None
    if token is None or fresh is None:
        raise EmbeddedVaultError("The first login at OpenBao was refused.", f"Start again; see {layout.audit}.")
    ours = AppRole(known.role_id, fresh)
    write_private(layout.way_in(role.label), as_file(ours))
    proven = api.login(layout.socket, ours)
    destroyed = proven is not None and api.destroy_secret_id(layout.socket, proven, role, known.secret_id)
    if proven is None or not destroyed or api.login(layout.socket, known) is not None:
        raise EmbeddedVaultError(
            "The secret id of the first boot could not be ended.", f"Start again; see {layout.audit}."
        )
    api.revoke_self(layout.socket, token)
    api.revoke_self(layout.socket, proven)


@contextlib.contextmanager
def logged_in(layout: StateLayout, role: Role) -> Iterator[str]:
    """A token of that role for a block.

    Raises: EmbeddedVaultError where the role is not there, as in a state directory that an older version made.
    """
    path = layout.way_in(role.label)
    if not path.exists():
        raise EmbeddedVaultError(
            f"{path} is missing: a version that did not know of the role {role.name} made this state directory.",
            "Stop the platform and copy the whole directory instead; the seal key, if it lies elsewhere, too.",
        )
    token = api.login(layout.socket, read_approle(path))
    if token is None:
        raise EmbeddedVaultError(
            f"OpenBao refuses the role {role.name}.", f"Put the right {path} back; see {layout.audit}."
        )
    try:
        yield token
    finally:
        api.revoke_self(layout.socket, token)
