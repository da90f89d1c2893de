"""An integration's definition: how to be granted a token, where calls go, and how a credential is put in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum

from connectors_grpc.domain.ids import IntegrationId
from connectors_grpc.secret import Secret


class ClientAuthentication(StrEnum):
    """How the client proves itself at the token endpoint.  Source: RFC 6749 section 2.3.1, RFC 7523 section 2.2."""

    BASIC = "client_secret_basic"
    POST = "client_secret_post"
    NONE = "none"
    PRIVATE_KEY_JWT = "private_key_jwt"


class Grant(StrEnum):
    """How tokens are obtained. All but the first need no person: they are minted when they are due."""

    AUTHORIZATION_CODE = "authorization_code"
    CLIENT_CREDENTIALS = "client_credentials"
    JWT_BEARER = "jwt_bearer"
    TOKEN_EXCHANGE = "token_exchange"
    GITHUB_APP_INSTALLATION = "github_app_installation"


class SigningAlgorithm(StrEnum):
    """How assertions are signed.  Source: RFC 7518 section 3.1."""

    RS256 = "RS256"
    PS256 = "PS256"
    ES256 = "ES256"


class TokenRequestFormat(StrEnum):
    """What a token request's body is."""

    FORM = "form"
    JSON = "json"


class RefreshRotation(StrEnum):
    """What becomes of a refresh token when it is used."""

    STATIC = "static"
    WITH_GRACE = "with_grace"
    AT_ONCE = "at_once"


class ResetUnit(StrEnum):
    """What a header that says when calls are taken again holds."""

    SECONDS = "seconds"
    EPOCH_SECONDS = "epoch_seconds"
    EPOCH_MILLISECONDS = "epoch_milliseconds"
    DATE = "date"


class Source(StrEnum):
    """Where a definition comes from."""

    CATALOGUE = "catalogue"
    CREATED = "created"


@dataclass(frozen=True, slots=True)
class BasicPlacement:
    """Templates of `Authorization: Basic`.  Source: RFC 7617."""

    username: str
    password: str = ""


@dataclass(frozen=True, slots=True)
class Placement:
    """Where a credential stands in a request; templates name its fields in braces."""

    headers: Mapping[str, str] = field(default_factory=dict)
    query: Mapping[str, str] = field(default_factory=dict)
    basic: BasicPlacement | None = None


BEARER = Placement(headers={"Authorization": "Bearer {access_token}"})
"""What holds when a definition says nothing.  Source: RFC 6750 section 2.1."""

ACCESS_TOKEN_TYPE = "urn:ietf:params:oauth:token-type:access_token"
"""Source: RFC 8693 section 3."""


@dataclass(frozen=True, slots=True)
class Input:
    """What a tenant must say before it can connect; fields as in the contract's `Input` message.

    `{id}` stands for it in the definition's URLs and hosts. `choices` maps what may be given to what fills the place.
    """

    id: str
    title: str = ""
    pattern: str = ""
    choices: Mapping[str, str] = field(default_factory=dict)
    example: str = ""
    default: str = ""
    optional: bool = False
    secret: bool = False


@dataclass(frozen=True, slots=True)
class Discovery:
    """What is found out once there is a token; fields as in the contract's `Discovery` message."""

    id: str
    pointer: str
    url: str = ""
    pattern: str = ""
    match_pointer: str = ""
    match: str = ""
    optional: bool = False
    example: str = ""


@dataclass(frozen=True, slots=True)
class Revocation:
    """How a grant is ended, where that is not RFC 7009; fields as in the contract's `Revocation` message."""

    url: str
    method: str = "POST"
    placement: Placement = Placement()
    format: TokenRequestFormat = TokenRequestFormat.FORM
    parameters: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class OAuth:
    """The provider's OAuth 2.0 side; fields as in the contract's `OAuth` message."""

    authorization_endpoint: str = ""
    token_endpoint: str = ""
    refresh_endpoint: str = ""
    revocation_endpoint: str = ""
    issuer: str = ""
    iss_required: bool = False
    client_authentication: ClientAuthentication = ClientAuthentication.BASIC
    token_request_format: TokenRequestFormat = TokenRequestFormat.FORM
    pkce: bool = True
    scope_separator: str = " "
    scopes: tuple[str, ...] = ()
    authorization_parameters: Mapping[str, str] = field(default_factory=dict)
    token_parameters: Mapping[str, str] = field(default_factory=dict)
    refresh_rotation: RefreshRotation = RefreshRotation.AT_ONCE
    refresh_ends_access_token: bool = False
    default_access_token_ttl: timedelta | None = None
    refresh_token_idle_ttl: timedelta | None = None
    grant: Grant = Grant.AUTHORIZATION_CODE
    device_authorization_endpoint: str = ""
    pushed_authorization_request_endpoint: str = ""
    resources: tuple[str, ...] = ()
    signing_algorithm: SigningAlgorithm | None = None
    assertion_audience: str = ""
    assertion_claims: Mapping[str, str] = field(default_factory=dict)
    subject_token_type: str = ACCESS_TOKEN_TYPE
    scope_parameter: str = "scope"
    code_parameter: str = "code"
    token_headers: Mapping[str, str] = field(default_factory=dict)
    token_pointer: str = ""
    terminal_errors: tuple[str, ...] = ()
    revocation: Revocation | None = None
    introspection_endpoint: str = ""
    discovery: tuple[Discovery, ...] = ()

    @property
    def signs(self) -> bool:
        """The client's secret is a private key, never sent: assertions are signed with it."""
        return (
            self.grant in (Grant.JWT_BEARER, Grant.GITHUB_APP_INSTALLATION)
            or self.client_authentication is ClientAuthentication.PRIVATE_KEY_JWT
        )

    def endpoints(self) -> tuple[str, ...]:
        """Every URL of the provider that must never be called with a tenant's credential."""
        every = (
            self.authorization_endpoint,
            self.token_endpoint,
            self.refresh_endpoint,
            self.revocation_endpoint,
            self.device_authorization_endpoint,
            self.pushed_authorization_request_endpoint,
            self.introspection_endpoint,
            self.revocation.url if self.revocation else "",
        )
        return tuple(url for url in every if url)


@dataclass(frozen=True, slots=True)
class Retry:
    """How an API says that it takes no more calls for now; fields as in the contract's `Retry` message."""

    statuses: tuple[int, ...] = (429, 503)
    remaining_header: str = ""
    reset_header: str = ""
    reset_unit: ResetUnit = ResetUnit.SECONDS


ALWAYS_LIMITED = frozenset((429, 503))
"""Statuses that need no further sign.  Source: RFC 6585 section 4, RFC 9110 section 15.6.4."""


@dataclass(frozen=True, slots=True)
class Api:
    """Where calls go; fields as in the contract's `Api` message. `base_url` has no query and no trailing slash."""

    base_url: str
    allowed_hosts: tuple[str, ...] = ()
    placement: Placement = BEARER
    default_headers: Mapping[str, str] = field(default_factory=dict)
    identity_path: str = ""
    pass_cookies: bool = False
    account_pointer: str = ""
    ok_field: str = ""
    retry: Retry = Retry()
    identity_body: str = ""


@dataclass(frozen=True, slots=True)
class OAuthClient:
    """The client registered at the provider. `secret` is None for a public client, or where it is not for the reader:
    then `secret_set` says whether one is stored.

    `secret` is a private key (PEM or JWK) where assertions are signed; `key_id` is a PEM's `kid`. `others` are tried in
    order once `secret` is refused; `secret_count` says how many there are in all. `own`: it is a
    tenant's, not the platform's.
    """

    client_id: str
    secret: Secret | None = None
    secret_set: bool = False
    others: tuple[Secret, ...] = ()
    key_id: str = ""
    secret_count: int = 0
    own: bool = False

    def each(self) -> tuple[OAuthClient, ...]:
        """One client for every secret, in the order in which they are tried; itself if it has none."""
        secrets = () if self.secret is None else (self.secret, *self.others)
        return tuple(replace(self, secret=one, others=()) for one in secrets) or (self,)


@dataclass(frozen=True, slots=True)
class Integration:
    """One third-party API. `version` is the KV version that was read; 0 is a catalogue entry that nobody stored.

    `own_client`: a tenant has said which host its tokens come from, so that the platform's client is not shown there.
    """

    id: IntegrationId
    display_name: str = ""
    source: Source = Source.CREATED
    oauth: OAuth | None = None
    api: Api | None = None
    client: OAuthClient | None = None
    allow_private_addresses: bool = False
    verified: bool = False
    create_time: datetime | None = None
    update_time: datetime | None = None
    version: int = 0
    inputs: tuple[Input, ...] = ()
    own_client: bool = False
