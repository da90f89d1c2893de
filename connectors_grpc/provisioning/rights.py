"""What the server's token must be able to do, read from the policy itself, and what it must not. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Final

_BLOCK: Final = re.compile(r'^path "([^"]+)" \{\s*capabilities = \[([^\]]*)\]\s*\}', re.MULTILINE)
_PROBE: Final = "connectors-validate"
DENY: Final = "deny"
ALL: Final = frozenset({"create", "read", "update", "delete", "list", "sudo", "patch", "scan", "root"})

FORBIDDEN: Final[Mapping[str, frozenset[str]]] = {
    "transit/config/keys": ALL,
    "transit/restore/connectors-validate": ALL,
    "transit/encrypt/connectors-validate": frozenset({"create"}),  # would make a key of a mistyped name
    "connectors-transit/keys/platform": frozenset({"create", "update", "delete"}),
    "connectors-transit/keys/another": ALL,
    "connectors-transit/config/keys": ALL,
    "secret/config": ALL,
    "connectors/config": ALL,
    "secret/data/a/b/c": ALL,
    "sys/mounts/another": ALL,
    "sys/auth/another": ALL,
    "sys/policies/acl/connectors-server": ALL,
    "sys/audit/another": ALL,
    "sys/seal": ALL,
    "sys/raw/core/keyring": ALL,
    "sys/storage/raft/snapshot": ALL,
    "sys/storage/raft/snapshot-force": ALL,
    "sys/rotate/root": ALL,
    "auth/token/create": ALL,
    "auth/approle/role/connectors-server": ALL,
    "auth/approle/role/another/secret-id": ALL,
    "identity/entity": ALL,
}
"""By path, what who has taken the server may not do: take keys out, delete the platform's, change who may do what."""


def wanted(policy: str) -> dict[str, frozenset[str]]:
    """By a path that the pattern matches, the capabilities that the policy gives; `deny` counts as one."""
    return {
        pattern.replace("+", _PROBE).replace("*", _PROBE): frozenset(re.findall(r'"(\w+)"', given))
        for pattern, given in _BLOCK.findall(policy)
    }


def lacking(policy: str, has: Mapping[str, Sequence[str]]) -> list[str]:
    """What the token lacks, as `path: capabilities`."""
    missing = ((path, given - {DENY} - set(has.get(path, ()))) for path, given in wanted(policy).items())
    return [f"{path}: {', '.join(sorted(names))}" for path, names in missing if names]


def excess(policy: str, has: Mapping[str, Sequence[str]]) -> list[str]:
    """What the token has and must not, as `path: capabilities`."""
    denied = {path: ALL for path, given in wanted(policy).items() if DENY in given}
    found = ((path, names & set(has.get(path, ()))) for path, names in {**denied, **FORBIDDEN}.items())
    return [f"{path}: {', '.join(sorted(names))}" for path, names in found if names]


def paths(policy: str) -> list[str]:
    """Every path to ask about."""
    return list({**wanted(policy), **FORBIDDEN})
