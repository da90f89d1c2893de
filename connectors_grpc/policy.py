"""Who may do what: one table of every RPC, and the decision. Pure; knows no transport and no store.

Authorising comes before validating, and the refusal is the same whether what was asked for exists or not.
A key's tenants are bound by uid: `bound_to` is asked again once the tenant's record is at hand.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from typing import assert_never

from connectors_grpc.domain.records import ApiKey, Role, Scope, Tenant
from connectors_grpc.errors import ConnectorsError, FieldViolation, Reason

_ADMIN = frozenset((Role.ADMIN,))
_MANAGE = frozenset((Role.ADMIN, Role.OPERATOR))
_APP = frozenset((Role.APP,))
_SIDECAR = frozenset((Role.SIDECAR,))
_READER = frozenset((Role.TOKEN_READER,))
_ANY = frozenset(Role)


class Unnamed(Enum):
    """What it means that a request names no tenant where its rule says that it can."""

    NOT_ENOUGH = "only keys for all tenants may go on; the request will be refused as incomplete"
    FINE = "the use case finds the tenant, or none is needed"
    PLATFORM = "it is about the platform itself: only an admin for all tenants"


@dataclass(frozen=True, slots=True)
class Rule:
    """Roles that may call, and the request's fields that say which tenant and credential it is about.

    `credential` fields are alternatives: the first that is set counts. A rule without `tenant` that is not for the platform
    leaves it to the use case to show only what lies in the caller's scope. `whole`: it changes the tenant as a whole, which is
    not for keys of some credentials only; nor is what is for the `platform`.
    """

    roles: frozenset[Role]
    tenant: str = ""
    credential: tuple[str, ...] = ()
    unnamed: Unnamed = Unnamed.NOT_ENOUGH
    platform: bool = False
    whole: bool = False


_EITHER = ("credential", "integration")
RULES: Mapping[str, Rule] = {
    "/connectors.v1.TenantService/CreateTenant": Rule(_ADMIN, platform=True),
    "/connectors.v1.TenantService/GetTenant": Rule(_MANAGE, "tenant"),
    "/connectors.v1.TenantService/ListTenants": Rule(_MANAGE),
    "/connectors.v1.TenantService/UpdateTenant": Rule(_MANAGE, "tenant.id", whole=True),
    "/connectors.v1.TenantService/DeleteTenant": Rule(_ADMIN, "tenant", whole=True),
    "/connectors.v1.TenantService/SuspendTenant": Rule(_MANAGE, "tenant", whole=True),
    "/connectors.v1.TenantService/ResumeTenant": Rule(_MANAGE, "tenant", whole=True),
    "/connectors.v1.TenantService/RotateTenantKey": Rule(_MANAGE, "tenant", whole=True),
    "/connectors.v1.TenantService/GetTenantStatus": Rule(_MANAGE, "tenant"),
    "/connectors.v1.TenantService/ListTenantStatuses": Rule(_MANAGE),
    "/connectors.v1.TenantService/GetOperation": Rule(_MANAGE),
    "/connectors.v1.TenantService/BatchCreateTenants": Rule(_ADMIN, platform=True),
    # Of these, each tenant is authorised as in a call of its own.
    "/connectors.v1.TenantService/BatchSuspendTenants": Rule(_MANAGE),
    "/connectors.v1.TenantService/BatchResumeTenants": Rule(_MANAGE),
    "/connectors.v1.TenantService/BatchDeleteTenants": Rule(_ADMIN, platform=True),
    "/connectors.v1.IntegrationService/ListIntegrations": Rule(_MANAGE),
    "/connectors.v1.IntegrationService/GetIntegration": Rule(_MANAGE, "tenant", unnamed=Unnamed.FINE),
    "/connectors.v1.IntegrationService/CreateIntegration": Rule(_ADMIN, platform=True),
    "/connectors.v1.IntegrationService/UpdateIntegration": Rule(
        _MANAGE, "tenant", unnamed=Unnamed.PLATFORM, whole=True
    ),
    "/connectors.v1.IntegrationService/DeleteIntegration": Rule(
        _MANAGE, "tenant", unnamed=Unnamed.PLATFORM, whole=True
    ),
    "/connectors.v1.IntegrationService/RotatePlatformKey": Rule(_ADMIN, platform=True),
    "/connectors.v1.CredentialService/StartAuthorization": Rule(_MANAGE, "tenant", _EITHER),
    "/connectors.v1.CredentialService/CompleteAuthorization": Rule(_MANAGE),
    "/connectors.v1.CredentialService/StoreCredential": Rule(_MANAGE, "tenant", _EITHER),
    # Each item is authorised as in StoreCredential.
    "/connectors.v1.CredentialService/ImportCredentials": Rule(_MANAGE),
    "/connectors.v1.CredentialService/GetCredential": Rule(_MANAGE, "tenant", ("credential",)),
    "/connectors.v1.CredentialService/ListCredentials": Rule(_MANAGE, "tenant"),
    "/connectors.v1.CredentialService/UpdateCredential": Rule(_MANAGE, "credential.tenant", ("credential.id",)),
    "/connectors.v1.CredentialService/VerifyCredential": Rule(_MANAGE, "tenant", ("credential",)),
    "/connectors.v1.CredentialService/RefreshCredential": Rule(_MANAGE, "tenant", ("credential",)),
    "/connectors.v1.CredentialService/RevokeCredential": Rule(_MANAGE, "tenant", _EITHER),
    "/connectors.v1.CredentialService/ForgetCredential": Rule(_MANAGE, "tenant", ("credential",)),
    "/connectors.v1.CredentialService/FetchAccessToken": Rule(_READER, "tenant", ("credential",)),
    "/connectors.v1.ProxyService/Call": Rule(_APP, "tenant", ("credential",)),
    "/connectors.v1.ProxyService/CallStream": Rule(_APP),
    "/connectors.v1.ProxyService/Lease": Rule(_SIDECAR, "tenant", ("credential",), Unnamed.FINE),
    "/connectors.v1.ProxyService/WatchLeases": Rule(_SIDECAR),
    "/connectors.v1.ProxyService/YieldLease": Rule(_SIDECAR),
    "/connectors.v1.AccessService/CreateApiKey": Rule(_MANAGE),
    "/connectors.v1.AccessService/ListApiKeys": Rule(_MANAGE),
    "/connectors.v1.AccessService/RevokeApiKey": Rule(_MANAGE),
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo": Rule(_ANY),
    "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo": Rule(_ANY),
    **{
        f"/grpc.channelz.v1.Channelz/{name}": Rule(_ADMIN, platform=True)
        for name in (
            "GetTopChannels",
            "GetServers",
            "GetServer",
            "GetServerSockets",
            "GetChannel",
            "GetSubchannel",
            "GetSocket",
        )
    },
}
"""Every RPC but health; a test holds it against the descriptors."""

OWNER_LABEL = "config-owner"
"""Which configuration file manages a tenant or credential, and may delete it."""
MIGRATED_LABEL = "migrated-from"
"""Which record of an older layout a migration made it of, and may take it away again."""
RESERVED_LABELS = (OWNER_LABEL, MIGRATED_LABEL)

OPEN = frozenset(("/grpc.health.v1.Health/Check", "/grpc.health.v1.Health/Watch", "/grpc.health.v1.Health/List"))
"""What needs no key."""


def denied() -> ConnectorsError:
    """The one refusal, without a word on what exists."""
    return ConnectorsError(Reason.PERMISSION_DENIED)


def authorize(caller: ApiKey, rule: Rule, tenant: str, credential: str) -> None:
    """Refuse unless the key has a role for the RPC and its scope covers what the request names.

    Raises: PERMISSION_DENIED.
    """
    if not admits(caller, rule):
        raise denied()
    if rule.tenant and not (
        covers_tenant(caller.scope, tenant) if tenant else _may_leave_unnamed(caller, rule.unnamed)
    ):
        raise denied()
    if rule.credential and not covers_credential(caller.scope, credential):
        raise denied()


def admits(caller: ApiKey, rule: Rule) -> bool:
    """Whether the key may call the RPC at all, whatever the request will name."""
    if (rule.platform or rule.whole) and caller.scope.credentials is not None:
        return False
    return bool(caller.roles & rule.roles) and not (rule.platform and caller.scope.tenants is not None)


def _may_leave_unnamed(caller: ApiKey, unnamed: Unnamed) -> bool:
    everywhere = caller.scope.tenants is None
    match unnamed:
        case Unnamed.NOT_ENOUGH:
            return everywhere
        case Unnamed.FINE:
            return True
        case Unnamed.PLATFORM:
            return everywhere and Role.ADMIN in caller.roles
        case _:
            assert_never(unnamed)


def covers_tenant(scope: Scope, tenant: str) -> bool:
    """Whether the scope names the tenant. Its uid is checked by `bound_to`."""
    return scope.tenants is None or tenant in scope.tenants


def covers_credential(scope: Scope, credential: str) -> bool:
    """Whether the scope names the credential."""
    return scope.credentials is None or credential in scope.credentials


def bound_to(scope: Scope, tenant: Tenant) -> bool:
    """Whether the scope was given for this very tenant, not for an earlier one of the same id (attack 38)."""
    return scope.tenants is None or scope.tenants.get(tenant.id) == tenant.uid


def within(inner: Scope, outer: Scope) -> bool:
    """Whether everything that `inner` covers is covered by `outer`: nobody hands out more than they have."""
    if outer.tenants is not None and (
        inner.tenants is None or any(outer.tenants.get(tenant) != uid for tenant, uid in inner.tenants.items())
    ):
        return False
    return outer.credentials is None or (inner.credentials is not None and inner.credentials <= outer.credentials)


def may_create_key(caller: ApiKey, roles: frozenset[Role], scope: Scope) -> bool:
    """Admins make any key within their scope; operators only `app` keys within theirs."""
    if not within(scope, caller.scope):
        return False
    return Role.ADMIN in caller.roles or (Role.OPERATOR in caller.roles and roles == {Role.APP})


def labels_after(
    roles: frozenset[Role], given: Mapping[str, str], there: Mapping[str, str], field: str
) -> dict[str, str]:
    """Labels as they will be. Reserved ones are an admin's to set: left out by anybody else, they stay.

    Raises: INVALID_FIELD.
    """
    if Role.ADMIN in roles:
        return dict(given)
    kept = {name: there[name] for name in RESERVED_LABELS if name in there}
    changed = [name for name in RESERVED_LABELS if name in given and given[name] != kept.get(name)]
    if changed:
        wanted = "reserved: only an admin's key sets or changes it. Leave it out: it stays as it is"
        violations = tuple(FieldViolation(f'{field}["{name}"]', wanted) for name in changed)
        raise ConnectorsError(Reason.INVALID_FIELD, {"field": violations[0].field}, fields=violations)
    return {**given, **kept}


def live(key: ApiKey, now: datetime) -> bool:
    """Whether the key works now."""
    return key.revoke_time is None and (key.expire_time is None or now < key.expire_time)
