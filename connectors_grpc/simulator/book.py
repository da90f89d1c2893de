"""What the simulated authorization server remembers: grants, codes and tokens, by digest.

Values only; who may do what is `protocol`'s. Tokens are kept as digests, so that neither the book nor a
state file made from it can be used as a credential.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import NewType, TypeVar

Digest = NewType("Digest", str)
GrantId = NewType("GrantId", str)
TokenId = NewType("TokenId", str)

MOST_ENTRIES = 10_000

Key = TypeVar("Key")
Entry = TypeVar("Entry")


@dataclass(frozen=True, slots=True)
class Grant:
    """One consent: the family of all tokens that descend from it."""

    client_id: str
    account: str
    scope: str
    revoked: bool = False


@dataclass(frozen=True, slots=True)
class Code:
    """An authorization code; `grant` is set once it was used."""

    client_id: str
    redirect_uri: str
    challenge: str | None
    account: str
    scope: str
    expires_at: float
    grant: GrantId | None = None


@dataclass(frozen=True, slots=True)
class AccessToken:
    """An access token that was issued."""

    id: TokenId
    grant: GrantId
    expires_at: float | None
    revoked: bool = False


@dataclass(frozen=True, slots=True)
class RefreshToken:
    """A refresh token that was issued; `superseded_at` is when it was first exchanged for another."""

    id: TokenId
    grant: GrantId
    expires_at: float | None
    parent: Digest | None = None
    superseded_at: float | None = None
    child_used: bool = False


@dataclass(slots=True)
class Book:
    """All that the authorization server remembers. Bounds: MOST_ENTRIES of each kind, oldest dropped first."""

    grants: dict[GrantId, Grant] = field(default_factory=dict)
    codes: dict[Digest, Code] = field(default_factory=dict)
    access: dict[Digest, AccessToken] = field(default_factory=dict)
    refresh: dict[Digest, RefreshToken] = field(default_factory=dict)
    minted: int = 0

    def next_number(self) -> int:
        """A number never given before."""
        self.minted += 1
        return self.minted


def digest(value: str) -> Digest:
    """What is kept in place of a code or token."""
    return Digest(hashlib.sha256(value.encode()).hexdigest())


def put(table: dict[Key, Entry], key: Key, entry: Entry) -> None:
    """Enter something, dropping the oldest where there is no room."""
    table[key] = entry
    while len(table) > MOST_ENTRIES:
        table.pop(next(iter(table)))
