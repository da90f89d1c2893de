"""What the simulated authorization server decides: issue, exchange, rotate, detect reuse, revoke.

Pure but for the book it is handed: no I/O, no clock, no randomness of its own.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import assert_never

from connectors_grpc.simulator.book import (
    AccessToken,
    Book,
    Code,
    Digest,
    Grant,
    GrantId,
    RefreshToken,
    TokenId,
    digest,
    put,
)
from connectors_grpc.simulator.settings import Client, RotatingAtOnce, RotatingWithGrace, Static

Mint = Callable[[str], str]
"""Gives an unguessable string for a label; the same one for the same label under a seed."""

CODE_LIFETIME = 60.0
VERIFIER = re.compile(r"[A-Za-z0-9\-._~]{43,128}")
CHALLENGE = re.compile(r"[A-Za-z0-9\-_]{43}")


@dataclass(frozen=True, slots=True)
class Chance:
    """The time and the randomness that a decision is made with. Units: `now` is seconds since the epoch."""

    now: float
    mint: Mint


@dataclass(frozen=True, slots=True)
class Refusal:
    """An answer of RFC 6749 section 5.2."""

    error: str
    description: str
    status: int = 400


@dataclass(frozen=True, slots=True)
class Issued:
    """What a token reply is made of."""

    access_token: str = field(repr=False)
    refresh_token: str | None = field(repr=False)
    expires_in: int | None
    scope: str
    token_id: TokenId
    account: str


@dataclass(frozen=True, slots=True)
class Holder:
    """Whom a valid access token speaks for."""

    token_id: TokenId
    account: str
    client_id: str
    scope: str


def pkce_matches(challenge: str, verifier: str) -> bool:
    """Whether the verifier is the one behind an S256 challenge. Source: RFC 7636 section 4.6."""
    if not VERIFIER.fullmatch(verifier):
        return False
    hashed = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=")
    return hmac.compare_digest(hashed, challenge.encode())


def narrowed(asked: str | None, allowed: tuple[str, ...]) -> str | None:
    """The scope to grant: all where none is asked, None where more is asked than allowed."""
    wanted = asked.split() if asked else list(allowed)
    return " ".join(wanted) if set(wanted) <= set(allowed) else None


def new_code(book: Book, code: Code, mint: Mint) -> str:
    """Enter a code that somebody consented to, and give its value."""
    value = "sim_code_" + mint(f"code.{book.next_number()}")
    put(book.codes, digest(value), code)
    return value


def exchange_code(
    book: Book, client: Client, code: str, *, redirect_uri: str, verifier: str | None, by: Chance
) -> Issued | Refusal:
    """Trade a code for tokens, once; a second use revokes what the first one gave.

    Source: RFC 6749 sections 4.1.2 and 4.1.3, RFC 7636 section 4.6.
    """
    key = digest(code)
    entry = book.codes.get(key)
    if entry is None or entry.client_id != client.client_id:
        return Refusal("invalid_grant", "the code is unknown")
    if entry.grant is not None:
        revoke_grant(book, entry.grant)
        return Refusal("invalid_grant", "the code was used before")
    grant_id = GrantId(f"grant-{book.next_number()}")
    book.codes[key] = replace(entry, grant=grant_id)  # burnt from here on, whatever follows
    if by.now >= entry.expires_at:
        return Refusal("invalid_grant", "the code has expired")
    if redirect_uri != entry.redirect_uri:
        return Refusal("invalid_grant", "redirect_uri is not the one the code was asked for with")
    if (entry.challenge is None) != (verifier is None):
        return Refusal("invalid_grant", "code_challenge and code_verifier go together")
    if entry.challenge is not None and not pkce_matches(entry.challenge, verifier or ""):
        return Refusal("invalid_grant", "code_verifier does not match")
    put(book.grants, grant_id, Grant(client.client_id, entry.account, entry.scope))
    renewal = _new_refresh_token(book, client, grant_id, None, by) if client.issue_refresh_token else None
    return _issue(book, client, grant_id, renewal, by)


def refresh(book: Book, client: Client, token: str, *, scope: str | None, by: Chance) -> Issued | Refusal:
    """Trade a refresh token for a new access token, by the client's rotation class.

    Source: RFC 6749 section 6, RFC 9700 section 4.14.2.
    """
    key = digest(token)
    entry = book.refresh.get(key)
    grant = book.grants.get(entry.grant) if entry else None
    if entry is None or grant is None or grant.client_id != client.client_id:
        return Refusal("invalid_grant", "the refresh token is unknown")
    if grant.revoked:
        return Refusal("invalid_grant", "the grant was revoked")
    if entry.expires_at is not None and by.now >= entry.expires_at:
        return Refusal("invalid_grant", "the refresh token has expired")
    reuse = _reuse(entry, client, by.now)
    if reuse is not None:
        if reuse.kills_family:
            revoke_grant(book, entry.grant)
        return Refusal("invalid_grant", "the refresh token was used before")
    if narrowed(scope, tuple(grant.scope.split())) is None:
        return Refusal("invalid_scope", "more was asked than was granted")
    if client.refresh_kills_access_token:
        _revoke_access(book, entry.grant)
    renewal = _rotate(book, client, key, by)
    return _issue(book, client, entry.grant, renewal, by)


def client_credentials(book: Book, client: Client, *, scope: str | None, by: Chance) -> Issued | Refusal:
    """A token for the client itself. Source: RFC 6749 section 4.4."""
    if client.client_secret is None:
        return Refusal("unauthorized_client", "a public client has no credentials of its own")
    granted = narrowed(scope, client.scopes)
    if granted is None:
        return Refusal("invalid_scope", "more was asked than the client may have")
    grant_id = GrantId(f"grant-{book.next_number()}")
    put(book.grants, grant_id, Grant(client.client_id, f"client:{client.client_id}", granted))
    return _issue(book, client, grant_id, None, by)


def revoke(book: Book, client: Client, token: str) -> Refusal | None:
    """End a token: an access token alone, a refresh token with its family. Unknown ones are no error.

    Source: RFC 7009 sections 2.1 and 2.2.
    """
    key = digest(token)
    entry = book.refresh.get(key) or book.access.get(key)
    if entry is None:
        return None
    grant = book.grants.get(entry.grant)
    if grant is not None and grant.client_id != client.client_id:
        return Refusal("unauthorized_client", "the token was issued to another client")
    if isinstance(entry, RefreshToken):
        revoke_grant(book, entry.grant)
    else:
        book.access[key] = replace(entry, revoked=True)
    return None


def introspect(book: Book, token: str, now: float) -> Holder | None:
    """Whom an access token speaks for; None if it is unknown, expired or revoked."""
    entry = book.access.get(digest(token))
    grant = book.grants.get(entry.grant) if entry else None
    if entry is None or grant is None or entry.revoked or grant.revoked:
        return None
    if entry.expires_at is not None and now >= entry.expires_at:
        return None
    return Holder(entry.id, grant.account, grant.client_id, grant.scope)


def revoke_grant(book: Book, grant_id: GrantId) -> None:
    """End a whole family."""
    grant = book.grants.get(grant_id)
    if grant is not None:
        book.grants[grant_id] = replace(grant, revoked=True)


@dataclass(frozen=True, slots=True)
class _Reuse:
    kills_family: bool


def _reuse(entry: RefreshToken, client: Client, now: float) -> _Reuse | None:
    """Whether using this token is a forbidden second use, and what follows; None if it is allowed."""
    if entry.superseded_at is None:
        return None
    match client.rotation:
        case Static():
            return None
        case RotatingAtOnce():
            return _Reuse(kills_family=True)
        case RotatingWithGrace() as rotation:
            within = not entry.child_used
            if rotation.grace is not None:
                within = now < entry.superseded_at + rotation.grace
            return None if within else _Reuse(rotation.reuse_revokes)
        case _ as never:  # pragma: no cover
            assert_never(never)


def _rotate(book: Book, client: Client, key: Digest, by: Chance) -> str | None:
    """Note that a refresh token was used; the value that replaces it, None if it stays."""
    entry = book.refresh[key]
    parent = book.refresh.get(entry.parent) if entry.parent else None
    if entry.parent is not None and parent is not None:
        book.refresh[entry.parent] = replace(parent, child_used=True)
    if isinstance(client.rotation, Static) or client.omit_refresh_token_on_refresh:
        book.refresh[key] = replace(entry, expires_at=_end(by.now, client.refresh_lifetime))
        return None
    if entry.superseded_at is None:
        book.refresh[key] = replace(entry, superseded_at=by.now)
    return _new_refresh_token(book, client, entry.grant, key, by)


def _new_refresh_token(book: Book, client: Client, grant: GrantId, parent: Digest | None, by: Chance) -> str:
    number = book.next_number()
    value = "sim_rt_" + by.mint(f"refresh.{number}")
    entry = RefreshToken(TokenId(f"rt-{number}"), grant, _end(by.now, client.refresh_lifetime), parent)
    put(book.refresh, digest(value), entry)
    return value


def _issue(book: Book, client: Client, grant_id: GrantId, renewal: str | None, by: Chance) -> Issued:
    number = book.next_number()
    value = "sim_at_" + by.mint(f"access.{number}")
    entry = AccessToken(TokenId(f"at-{number}"), grant_id, _end(by.now, client.access_lifetime))
    put(book.access, digest(value), entry)
    told = None if client.omit_expires_in or client.access_lifetime is None else int(client.access_lifetime)
    grant = book.grants[grant_id]
    return Issued(value, renewal, told, grant.scope, entry.id, grant.account)


def _revoke_access(book: Book, grant_id: GrantId) -> None:
    for key, entry in list(book.access.items()):
        if entry.grant == grant_id:
            book.access[key] = replace(entry, revoked=True)


def _end(now: float, lifetime: float | None) -> float | None:
    return None if lifetime is None else now + lifetime
