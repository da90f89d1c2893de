"""An integration's definition: how to be granted a token, where calls go, and how a credential is put in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum

from connectors_grpc.domain.ids import IntegrationId
from connectors_grpc.secret import Secret


class ClientAuthentication(StrEnum):
    """How the client proves itself at the token endpoint.  Source: RFC 6749 section 2.3.1."""

    BASIC = "client_secret_basic"
    POST = "client_secret_post"
    NONE = "none"


class TokenRequestFormat(StrEnum):
    """What a token request's body is."""

    FORM = "form"
    JSON = "json"


class RefreshRotation(StrEnum):
    """What becomes of a refresh token when it is used."""

    STATIC = "static"
    WITH_GRACE = "with_grace"
    AT_ONCE = "at_once"


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


@dataclass(frozen=True, slots=True)
class OAuth:
    """The provider's OAuth 2.0 side; fields as in the contract's `OAuth` message."""

    authorization_endpoint: str
    token_endpoint: str
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

    def endpoints(self) -> tuple[str, ...]:
        """Every URL of the provider that must never be called with a tenant's credential."""
        every = (
            self.authorization_endpoint,
            self.token_endpoint,
            self.refresh_endpoint,
            self.revocation_endpoint,
        )
        return tuple(url for url in every if url)


@dataclass(frozen=True, slots=True)
class Api:
    """Where calls go; fields as in the contract's `Api` message. `base_url` has no query and no trailing slash."""

    base_url: str
    allowed_hosts: tuple[str, ...] = ()
    placement: Placement = BEARER
    default_headers: Mapping[str, str] = field(default_factory=dict)
    identity_path: str = ""
    pass_cookies: bool = False


@dataclass(frozen=True, slots=True)
class OAuthClient:
    """The client registered at the provider. `secret` is None for a public client, or where it is not for the reader:
    then `secret_set` says whether one is stored.
    """

    client_id: str
    secret: Secret | None = None
    secret_set: bool = False


@dataclass(frozen=True, slots=True)
class Integration:
    """One third-party API. `version` is the KV version that was read; 0 is a catalogue entry that nobody stored."""

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
