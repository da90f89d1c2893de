"""The closed set of ways an authorization or a token request ends badly, and what each means to a caller.

Nothing a provider wrote is carried but an error code that is on the list below: a provider may echo our secret anywhere.
"""

from __future__ import annotations

from typing import Final

from connectors_grpc.errors import ConnectorsError, Reason

GRANT_ERRORS: Final = frozenset(
    (
        "invalid_grant",  # RFC 6749 section 5.2
        "interaction_required",  # OpenID Connect Core section 3.1.2.6; some send these for a refresh too
        "login_required",
        "consent_required",
        "bad_verification_code",  # GitHub
        "bad_refresh_token",
        "invalid_code",  # Slack
        "code_already_used",
        "invalid_refresh_token",
        "token_expired",
        "token_revoked",
    )
)
"""The grant itself is refused, for good."""
CLIENT_ERRORS: Final = frozenset(
    (
        "invalid_client",  # RFC 6749 section 5.2
        "unauthorized_client",
        "incorrect_client_credentials",  # GitHub
        "application_suspended",
        "bad_client_secret",  # Slack
        "invalid_client_id",
    )
)
"""Our client is refused: a person grants again in vain until an admin has corrected it."""
SECRET_ERRORS: Final = frozenset(("invalid_client", "incorrect_client_credentials", "bad_client_secret"))
"""Of those: what another secret of the same client may cure. The provider looks at the client first: no grant is used up."""
TRANSIENT_ERRORS: Final = frozenset(
    (
        "temporarily_unavailable",  # RFC 6749 section 4.1.2.1
        "server_error",
        "slow_down",  # RFC 8628 section 3.5
        "ratelimited",  # Slack
        "rate_limited",
        "internal_error",
        "fatal_error",
        "service_unavailable",
        "request_timeout",
    )
)
OTHER_ERRORS: Final = frozenset(
    (
        "access_denied",  # RFC 6749
        "authorization_pending",  # RFC 8628 section 3.5
        "expired_token",
        "invalid_request",
        "invalid_scope",
        "unsupported_grant_type",
        "unsupported_response_type",
        "unsupported_token_type",  # RFC 7009
        "invalid_token",  # RFC 6750
        "invalid_target",  # RFC 8707
        "account_selection_required",  # OpenID Connect
        "registration_not_supported",
        "redirect_uri_mismatch",  # GitHub
        "unverified_user_email",
        "bad_redirect_uri",  # Slack
        "invalid_grant_type",
        "invalid_auth",
    )
)
UNLISTED: Final = "other"
"""What stands for an error code that is not on the lists."""


def known_error(text: str) -> str:
    """The code itself if it is on a list, else `other`. A closed list: a grammar would let an echoed secret pass."""
    listed = GRANT_ERRORS | CLIENT_ERRORS | TRANSIENT_ERRORS | OTHER_ERRORS
    return text if text in listed else UNLISTED


class OAuthError(Exception):
    """Why an authorization or token request failed. `oauth_error` is a listed code, `other`, or empty if there was none."""

    def __init__(self, oauth_error: str = "", *, problem: str = "", retry_after: float | None = None) -> None:
        super().__init__(oauth_error or problem)
        self.oauth_error = oauth_error
        self.problem = problem
        self.retry_after = retry_after


class CallbackRefused(OAuthError):
    """The callback has an error, or is not one that this flow's provider sent. `problem` is a constant of ours."""


class TokenError(OAuthError):
    """The token endpoint gave no token. One of the five below."""


class InvalidGrant(TokenError):
    """The code or the refresh token is refused. Terminal, after a re-read shows that nobody else refreshed."""


class ClientRefused(TokenError):
    """Our client id or secret is refused: an admin must act; the grant may well be good."""


class RequestRefused(TokenError):
    """Any other OAuth error, `invalid_scope` say. Not terminal for a grant."""


class Transient(TokenError):
    """408, 429, 5xx, or an error that says so. Units: retry_after in seconds, None if the provider did not say."""


class Malformed(TokenError):
    """No token reply at all: not JSON, a redirect, wrong types. Nobody knows whether the provider acted."""


def connectors_error(error: OAuthError, *, refreshing: bool = False) -> ConnectorsError:
    """What a caller is told.

    An `invalid_grant` for a code means: begin again; for a refresh token: reconnect. While refreshing, other refusals count as
    transient, since only `invalid_grant` says that the grant is gone.
    """
    metadata = {key: value for key, value in (("oauth_error", error.oauth_error), ("problem", error.problem)) if value}
    match error:
        case ClientRefused():
            return ConnectorsError(Reason.OAUTH_CLIENT_REFUSED, metadata)
        case InvalidGrant() if refreshing:
            return ConnectorsError(Reason.NEEDS_REAUTH, metadata)
        case CallbackRefused() | InvalidGrant():
            return ConnectorsError(Reason.AUTHORIZATION_REFUSED, metadata)
        case RequestRefused() if not refreshing:
            return ConnectorsError(Reason.AUTHORIZATION_REFUSED, metadata)
        case _:
            return ConnectorsError(Reason.PROVIDER_UNAVAILABLE, metadata, retry_after=error.retry_after)
