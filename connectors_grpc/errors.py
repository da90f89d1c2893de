"""One error tree: why a call was refused, what that means over gRPC and HTTP, and what to do next. Names no transport type."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

DOMAIN = "connectors"


class Code(StrEnum):
    """gRPC status codes that we use, by their names."""

    UNAUTHENTICATED = "UNAUTHENTICATED"
    PERMISSION_DENIED = "PERMISSION_DENIED"
    INVALID_ARGUMENT = "INVALID_ARGUMENT"
    NOT_FOUND = "NOT_FOUND"
    ALREADY_EXISTS = "ALREADY_EXISTS"
    ABORTED = "ABORTED"
    FAILED_PRECONDITION = "FAILED_PRECONDITION"
    RESOURCE_EXHAUSTED = "RESOURCE_EXHAUSTED"
    UNAVAILABLE = "UNAVAILABLE"
    DEADLINE_EXCEEDED = "DEADLINE_EXCEEDED"
    UNIMPLEMENTED = "UNIMPLEMENTED"
    INTERNAL = "INTERNAL"


class Reason(StrEnum):
    """The contract's ErrorReason without its prefix; error_reason.proto documents each. A test holds the two equal."""

    API_KEY_MISSING = "API_KEY_MISSING"
    API_KEY_INVALID = "API_KEY_INVALID"
    PERMISSION_DENIED = "PERMISSION_DENIED"
    INVALID_FIELD = "INVALID_FIELD"
    INVALID_PAGE_TOKEN = "INVALID_PAGE_TOKEN"
    TENANT_NOT_FOUND = "TENANT_NOT_FOUND"
    INTEGRATION_NOT_FOUND = "INTEGRATION_NOT_FOUND"
    CREDENTIAL_NOT_FOUND = "CREDENTIAL_NOT_FOUND"
    API_KEY_NOT_FOUND = "API_KEY_NOT_FOUND"
    FLOW_NOT_FOUND = "FLOW_NOT_FOUND"
    ALREADY_EXISTS = "ALREADY_EXISTS"
    CONFLICT = "CONFLICT"
    NEEDS_REAUTH = "NEEDS_REAUTH"
    CREDENTIAL_REVOKED = "CREDENTIAL_REVOKED"
    CREDENTIAL_DISABLED = "CREDENTIAL_DISABLED"
    CREDENTIAL_EXPIRED = "CREDENTIAL_EXPIRED"
    TENANT_SUSPENDED = "TENANT_SUSPENDED"
    NOT_EMPTY = "NOT_EMPTY"
    INTEGRATION_NOT_CONFIGURED = "INTEGRATION_NOT_CONFIGURED"
    OAUTH_CLIENT_REFUSED = "OAUTH_CLIENT_REFUSED"
    AUTHORIZATION_REFUSED = "AUTHORIZATION_REFUSED"
    HOST_NOT_ALLOWED = "HOST_NOT_ALLOWED"
    ADDRESS_NOT_ALLOWED = "ADDRESS_NOT_ALLOWED"
    PLACEHOLDER_UNRESOLVED = "PLACEHOLDER_UNRESOLVED"
    BODY_TOO_LARGE = "BODY_TOO_LARGE"
    LIMIT_EXCEEDED = "LIMIT_EXCEEDED"
    VAULT_UNAVAILABLE = "VAULT_UNAVAILABLE"
    PROVIDER_UNAVAILABLE = "PROVIDER_UNAVAILABLE"
    DEADLINE_EXCEEDED = "DEADLINE_EXCEEDED"
    NOT_IMPLEMENTED = "NOT_IMPLEMENTED"
    INTERNAL = "INTERNAL"
    SERVER_UNAVAILABLE = "SERVER_UNAVAILABLE"
    WRONG_HOST = "WRONG_HOST"
    MALFORMED_REQUEST = "MALFORMED_REQUEST"
    BROWSER_REFUSED = "BROWSER_REFUSED"
    METHOD_NOT_ALLOWED = "METHOD_NOT_ALLOWED"
    UPSTREAM_UNREACHABLE = "UPSTREAM_UNREACHABLE"
    UPSTREAM_TIMEOUT = "UPSTREAM_TIMEOUT"
    PATH_NOT_ALLOWED = "PATH_NOT_ALLOWED"
    OPERATION_NOT_FOUND = "OPERATION_NOT_FOUND"
    AUTHORIZATION_PENDING = "AUTHORIZATION_PENDING"
    ACCOUNT_MISMATCH = "ACCOUNT_MISMATCH"
    ROUTE_NOT_FOUND = "ROUTE_NOT_FOUND"
    UNSUPPORTED_MEDIA_TYPE = "UNSUPPORTED_MEDIA_TYPE"
    INTEGRATION_NOT_ENABLED = "INTEGRATION_NOT_ENABLED"
    CREDENTIAL_STAGED = "CREDENTIAL_STAGED"


@dataclass(frozen=True, slots=True)
class Meaning:
    """What a reason is over gRPC and HTTP, and the constant text that says what to do next."""

    code: Code
    http: int
    text: str


_R = Reason
_M = Meaning
MEANING: Mapping[Reason, Meaning] = {
    _R.API_KEY_MISSING: _M(
        Code.UNAUTHENTICATED, 401, "No API key came with the call: send `authorization: Bearer KEY`."
    ),
    _R.API_KEY_INVALID: _M(
        Code.UNAUTHENTICATED, 401, "The API key is malformed, unknown, expired or revoked: use a current key."
    ),
    _R.PERMISSION_DENIED: _M(
        Code.PERMISSION_DENIED, 403, "The key does not allow this: use a key with the role and scope for it."
    ),
    _R.INVALID_FIELD: _M(Code.INVALID_ARGUMENT, 400, "Fields are missing or malformed: see the field violations."),
    _R.INVALID_PAGE_TOKEN: _M(
        Code.INVALID_ARGUMENT, 400, "The page token is not one that this list gave: begin with the first page."
    ),
    _R.TENANT_NOT_FOUND: _M(Code.NOT_FOUND, 404, "There is no such tenant: ListTenants shows those that there are."),
    _R.INTEGRATION_NOT_FOUND: _M(
        Code.NOT_FOUND, 404, "There is no such integration: ListIntegrations shows those that there are."
    ),
    _R.CREDENTIAL_NOT_FOUND: _M(
        Code.NOT_FOUND, 404, "The tenant has no such credential: connect it by StartAuthorization or StoreCredential."
    ),
    _R.API_KEY_NOT_FOUND: _M(Code.NOT_FOUND, 404, "There is no such API key: ListApiKeys shows those that there are."),
    _R.FLOW_NOT_FOUND: _M(
        Code.NOT_FOUND, 404, "The link is unknown, used already or too old: ask for a new connect link."
    ),
    _R.ALREADY_EXISTS: _M(Code.ALREADY_EXISTS, 409, "The id is taken: choose another, or update what is there."),
    _R.CONFLICT: _M(Code.ABORTED, 409, "Somebody else changed it first: read it again and retry."),
    _R.NEEDS_REAUTH: _M(
        Code.FAILED_PRECONDITION,
        401,
        "The provider refuses the credential: a person must connect again; StartAuthorization gives the link.",
    ),
    _R.CREDENTIAL_REVOKED: _M(
        Code.FAILED_PRECONDITION, 403, "The credential was revoked: connect again by StartAuthorization to use it."
    ),
    _R.CREDENTIAL_DISABLED: _M(
        Code.FAILED_PRECONDITION, 403, "The credential is switched off: UpdateCredential with `enabled` lifts it."
    ),
    _R.CREDENTIAL_EXPIRED: _M(
        Code.FAILED_PRECONDITION, 401, "The access token has ended and can't be renewed: connect or store a new one."
    ),
    _R.TENANT_SUSPENDED: _M(Code.FAILED_PRECONDITION, 403, "The tenant is suspended: ResumeTenant lifts it."),
    _R.NOT_EMPTY: _M(Code.FAILED_PRECONDITION, 409, "It still has children: say `force` to delete them too."),
    _R.INTEGRATION_NOT_CONFIGURED: _M(
        Code.FAILED_PRECONDITION, 409, "The integration lacks what this needs: set it by UpdateIntegration."
    ),
    _R.OAUTH_CLIENT_REFUSED: _M(
        Code.FAILED_PRECONDITION,
        502,
        "The provider refuses the OAuth client: an admin must correct `oauth_client` of the integration.",
    ),
    _R.AUTHORIZATION_REFUSED: _M(
        Code.FAILED_PRECONDITION, 403, "The provider ended the authorization with an error: begin again, and consent."
    ),
    _R.HOST_NOT_ALLOWED: _M(
        Code.PERMISSION_DENIED, 403, "The host was not sealed with the credential: connect again to allow it."
    ),
    _R.ADDRESS_NOT_ALLOWED: _M(
        Code.PERMISSION_DENIED,
        403,
        "The host has a private or reserved address: an admin may set `allow_private_addresses`.",
    ),
    _R.PLACEHOLDER_UNRESOLVED: _M(
        Code.FAILED_PRECONDITION, 409, "A template names a field that the credential lacks: store it with that field."
    ),
    _R.BODY_TOO_LARGE: _M(
        Code.RESOURCE_EXHAUSTED, 413, "The body is above the bound: use a sidecar, which streams, for large bodies."
    ),
    _R.LIMIT_EXCEEDED: _M(Code.RESOURCE_EXHAUSTED, 429, "Too many at once: come again later."),
    _R.VAULT_UNAVAILABLE: _M(Code.UNAVAILABLE, 503, "The Vault does not answer: retry in a moment."),
    _R.PROVIDER_UNAVAILABLE: _M(
        Code.UNAVAILABLE, 502, "The provider does not answer, or not as it should: retry in a moment."
    ),
    _R.DEADLINE_EXCEEDED: _M(Code.DEADLINE_EXCEEDED, 504, "The deadline ended first: retry with a longer one."),
    _R.NOT_IMPLEMENTED: _M(Code.UNIMPLEMENTED, 501, "This server does not do that yet."),
    _R.INTERNAL: _M(Code.INTERNAL, 500, "A bug of ours: report it with the incident's number."),
    _R.SERVER_UNAVAILABLE: _M(Code.UNAVAILABLE, 503, "The server can't be reached: retry in a moment."),
    _R.WRONG_HOST: _M(Code.INVALID_ARGUMENT, 421, "The Host header is not one of this listener's names."),
    _R.MALFORMED_REQUEST: _M(Code.INVALID_ARGUMENT, 400, "The request is malformed."),
    _R.BROWSER_REFUSED: _M(Code.PERMISSION_DENIED, 403, "Requests of browser pages are refused here."),
    _R.METHOD_NOT_ALLOWED: _M(Code.INVALID_ARGUMENT, 405, "The path does not take this method: see the Allow header."),
    _R.UPSTREAM_UNREACHABLE: _M(Code.UNAVAILABLE, 502, "The upstream can't be reached: retry in a moment."),
    _R.UPSTREAM_TIMEOUT: _M(Code.DEADLINE_EXCEEDED, 504, "The upstream did not answer in time."),
    _R.PATH_NOT_ALLOWED: _M(
        Code.FAILED_PRECONDITION, 403, "The path is an OAuth endpoint of the provider, which is never called this way."
    ),
    _R.AUTHORIZATION_PENDING: _M(
        Code.UNAVAILABLE, 503, "The person has not consented yet: ask again after the time that is given."
    ),
    _R.ACCOUNT_MISMATCH: _M(
        Code.FAILED_PRECONDITION,
        409,
        "Another account consented: log in as the one that is connected, or start with `allow_account_change`.",
    ),
    _R.ROUTE_NOT_FOUND: _M(
        Code.NOT_FOUND, 404, "There is no such path: GET /openapi.json, with a key, shows those that there are."
    ),
    _R.UNSUPPORTED_MEDIA_TYPE: _M(
        Code.INVALID_ARGUMENT, 415, "Bodies are JSON, not compressed: send `Content-Type: application/json`."
    ),
    _R.INTEGRATION_NOT_ENABLED: _M(
        Code.FAILED_PRECONDITION,
        403,
        "The tenant may not use this integration: an admin may add it to `allowed_integrations` by UpdateTenant.",
    ),
    _R.CREDENTIAL_STAGED: _M(
        Code.FAILED_PRECONDITION,
        409,
        "A migration is in charge of the credential until an admin cuts it over: `connectors migrate cutover`. To end its use "
        "before that, call RevokeCredential or SuspendTenant.",
    ),
    _R.OPERATION_NOT_FOUND: _M(Code.NOT_FOUND, 404, "There is no such operation, or it ended more than a day ago."),
}


@dataclass(frozen=True, slots=True)
class FieldViolation:
    """One field of a request and what is wrong with it, without the value."""

    field: str
    description: str


class ConnectorsError(Exception):
    """A refusal that callers may see. The text is the reason's; what varies is metadata, never a secret.

    Units: retry_after in seconds, where waiting helps.
    """

    def __init__(
        self,
        reason: Reason,
        metadata: Mapping[str, str] | None = None,
        *,
        fields: tuple[FieldViolation, ...] = (),
        retry_after: float | None = None,
    ) -> None:
        super().__init__(reason.value)
        self.reason = reason
        self.metadata = dict(metadata or {})
        self.fields = fields
        self.retry_after = retry_after

    @property
    def meaning(self) -> Meaning:
        """What the reason is over gRPC and HTTP."""
        return MEANING[self.reason]


def invalid(field: str, description: str) -> ConnectorsError:
    """INVALID_FIELD for one field; `description` says what is wanted, never what came."""
    return ConnectorsError(Reason.INVALID_FIELD, {"field": field}, fields=(FieldViolation(field, description),))


class Conflict(Exception):
    """A compare-and-set lost: another version is current. Use cases read again, or answer CONFLICT."""


class KeyMissing(Exception):
    """The Vault has no encryption key of that name."""


class Undecipherable(Exception):
    """The ciphertext does not open under this key and context."""


class VaultUnavailable(ConnectorsError):
    """The Vault does not answer, is sealed or throttles."""

    def __init__(self, retry_after: float = 1.0) -> None:
        super().__init__(Reason.VAULT_UNAVAILABLE, retry_after=retry_after)
