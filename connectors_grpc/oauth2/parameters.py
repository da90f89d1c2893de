"""Names of protocol parameters that a definition's own parameters never replace. Knows nothing else."""

from __future__ import annotations

AUTHORIZATION_RESERVED = frozenset(
    (
        "client_id",
        "code_challenge",
        "code_challenge_method",
        "redirect_uri",
        "request",  # RFC 9101: a request object would replace every other parameter
        "request_uri",
        "response_type",
        "scope",
        "state",
    )
)
"""Of the authorization request.  Source: RFC 6749 section 4.1.1, RFC 7636 section 4.3, RFC 9101."""

ASSERTION_RESERVED = frozenset(("aud", "exp", "iat", "jti", "nbf"))
"""Of an assertion's claims.  Source: RFC 7523 section 3."""

TOKEN_RESERVED = frozenset(
    (
        "actor_token",
        "assertion",
        "client_assertion",
        "client_assertion_type",
        "client_id",
        "client_secret",
        "code",
        "code_verifier",
        "device_code",
        "grant_type",
        "redirect_uri",
        "refresh_token",
        "scope",
        "subject_token",
        "subject_token_type",
        "token",
        "token_type_hint",
    )
)
"""Of token and revocation requests.

Source: RFC 6749 sections 2.3.1, 4.1.3 and 6, RFC 7009, RFC 7523, RFC 7636, RFC 8628, RFC 8693.
"""
