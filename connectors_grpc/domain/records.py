"""What the platform keeps about tenants, credentials and keys. No record holds material but `Material`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from connectors_grpc.domain.ids import CredentialId, IntegrationId, KeyId, TenantId, TenantUid
from connectors_grpc.quota import NO_QUOTA, Quota
from connectors_grpc.secret import Secret


class TenantState(StrEnum):
    """What a tenant may do."""

    ACTIVE = "active"
    SUSPENDED = "suspended"
    DELETING = "deleting"


@dataclass(frozen=True, slots=True)
class Tenant:
    """A customer of the platform. `version` is the KV version that was read, and the etag; no `integrations`: all.

    `admin_suspended`: an admin suspended it, so that no operator may resume it.
    """

    id: TenantId
    uid: TenantUid
    display_name: str
    state: TenantState
    labels: Mapping[str, str]
    create_time: datetime
    update_time: datetime
    request_id: str = ""
    version: int = 0
    quota: Quota = NO_QUOTA
    integrations: tuple[IntegrationId, ...] | None = None
    admin_suspended: bool = False

    def may_use(self, integration: IntegrationId) -> bool:
        """Whether the integration is one of those that it is allowed."""
        return self.integrations is None or integration in self.integrations


class CredentialKind(StrEnum):
    """What was stored."""

    OAUTH = "oauth"
    API_KEY = "api_key"
    BASIC = "basic"


class CredentialState(StrEnum):
    """Where a credential is in its life; connectors_grpc.lifecycle holds the moves."""

    PENDING = "pending"
    ACTIVE = "active"
    NEEDS_REAUTH = "needs_reauth"
    REVOKED = "revoked"
    EXPIRED = "expired"


@dataclass(frozen=True, slots=True)
class Material:
    """What is sealed under the tenant's key: the secret fields, and the only hosts that they may ever be sent to.

    `fields` names what templates name: access_token, api_key, username, password, ...; `hosts` are authorities
    (`api.notion.com`, `127.0.0.1:8080`) as they stood in the definition when it was granted. `inputs` is what tokens are minted
    from, where no person takes part; apart from `fields`, so that no reply of a provider can replace them. `values` fill the
    definition's own placeholders (a subdomain, a site's id) as they were when it was granted, apart for the same reason.
    """

    integration: IntegrationId
    fields: Mapping[str, Secret]
    hosts: tuple[str, ...]
    refresh_token: Secret | None = None
    token_type: str = "Bearer"
    inputs: Mapping[str, Secret] | None = None
    values: Mapping[str, Secret] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Credential:
    """What is not secret about a credential. `version` is the KV version that was read, and the etag.

    `generation` counts materials from 1; `reason` is an ErrorReason name where the state is not ACTIVE, and `detail` a constant
    that says more of it (`refresh_interrupted`: an answer of the provider was lost with the process that had asked);
    `parent` is a fingerprint of the refresh token that the material was obtained with, `origin` of the one that it all began
    with; `account` is what the provider's identity call said, empty where nothing is known; `minted` says that tokens are made
    from `Material.inputs`; `values` are those of `Material.values` that are no secret.
    """

    tenant: TenantId
    id: CredentialId
    integration: IntegrationId
    kind: CredentialKind
    state: CredentialState
    generation: int
    create_time: datetime
    update_time: datetime
    reason: str = ""
    detail: str = ""
    enabled: bool = True
    granted_scopes: tuple[str, ...] = ()
    requested_scopes: tuple[str, ...] = ()
    hosts: tuple[str, ...] = ()
    issue_time: datetime | None = None
    expire_time: datetime | None = None
    refresh_time: datetime | None = None
    refreshable: bool = False
    parent: str = ""
    origin: str = ""
    account: str = ""
    minted: bool = False
    labels: Mapping[str, str] = field(default_factory=dict)
    version: int = 0
    values: Mapping[str, str] = field(default_factory=dict)
    refresh_expire_time: datetime | None = None


class Role(StrEnum):
    """What a key may be used for."""

    ADMIN = "admin"
    OPERATOR = "operator"
    SIDECAR = "sidecar"
    APP = "app"
    TOKEN_READER = "token-reader"


@dataclass(frozen=True, slots=True)
class Scope:
    """Which tenants (bound by uid) and credentials a key is for. None means all."""

    tenants: Mapping[TenantId, TenantUid] | None
    credentials: frozenset[CredentialId] | None = None


@dataclass(frozen=True, slots=True)
class CallRule:
    """Calls that an app key may make. No methods: any. No credentials: all of the key's scope."""

    methods: tuple[str, ...]
    path: str
    credentials: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key without its secret. `sha256` is the hex digest of the whole key text (256 random bits: no slow hash needed)."""

    id: KeyId
    display_name: str
    roles: frozenset[Role]
    scope: Scope
    sha256: str
    create_time: datetime
    expire_time: datetime | None = None
    revoke_time: datetime | None = None
    version: int = 0
    rules: tuple[CallRule, ...] = ()
