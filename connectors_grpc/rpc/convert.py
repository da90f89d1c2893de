"""Our records as messages of the contract. Nothing with a secret in it passes through here."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from connectors_grpc.credentials.checks import next_step
from connectors_grpc.domain.records import (
    ApiKey,
    Credential,
    CredentialKind,
    CredentialState,
    Role,
    Tenant,
    TenantState,
)
from connectors_grpc.gen.connectors.v1 import access_service_pb2 as access
from connectors_grpc.gen.connectors.v1 import credential_service_pb2 as credentials
from connectors_grpc.gen.connectors.v1 import error_reason_pb2 as reasons
from connectors_grpc.gen.connectors.v1 import tenant_service_pb2 as tenants
from connectors_grpc.quota import Quota

TENANT_STATE = {
    TenantState.ACTIVE: tenants.Tenant.STATE_ACTIVE,
    TenantState.SUSPENDED: tenants.Tenant.STATE_SUSPENDED,
    TenantState.DELETING: tenants.Tenant.STATE_DELETING,
}
CREDENTIAL_STATE = {
    CredentialState.PENDING: credentials.Credential.STATE_PENDING,
    CredentialState.ACTIVE: credentials.Credential.STATE_ACTIVE,
    CredentialState.NEEDS_REAUTH: credentials.Credential.STATE_NEEDS_REAUTH,
    CredentialState.REVOKED: credentials.Credential.STATE_REVOKED,
    CredentialState.EXPIRED: credentials.Credential.STATE_EXPIRED,
}
KIND = {
    CredentialKind.OAUTH: credentials.Credential.KIND_OAUTH,
    CredentialKind.API_KEY: credentials.Credential.KIND_API_KEY,
    CredentialKind.BASIC: credentials.Credential.KIND_BASIC,
}
ROLE = {
    Role.ADMIN: access.ROLE_ADMIN,
    Role.OPERATOR: access.ROLE_OPERATOR,
    Role.SIDECAR: access.ROLE_SIDECAR,
    Role.APP: access.ROLE_APP,
    Role.TOKEN_READER: access.ROLE_TOKEN_READER,
}
ROLE_OF = {number: role for role, number in ROLE.items()}


def time_of(moment: datetime | None) -> Timestamp | None:
    """A Timestamp, or None to leave the field unset."""
    if moment is None:
        return None
    stamp = Timestamp()
    stamp.FromDatetime(moment)
    return stamp


def duration_of(length: timedelta | None) -> Duration | None:
    """A Duration, or None to leave the field unset."""
    if length is None:
        return None
    duration = Duration()
    duration.FromTimedelta(length)
    return duration


def names(scope: Iterable[str] | None) -> list[str]:
    """A scope as the contract writes it: ids, or `*`."""
    return ["*"] if scope is None else sorted(scope)


def tenant(record: Tenant) -> tenants.Tenant:
    """A tenant."""
    return tenants.Tenant(
        id=record.id,
        uid=record.uid,
        display_name=record.display_name,
        state=TENANT_STATE[record.state],
        labels=record.labels,
        create_time=time_of(record.create_time),
        update_time=time_of(record.update_time),
        etag=str(record.version) if record.version else "",
        quota=quota(record.quota),
        allowed_integrations=(
            None if record.integrations is None else tenants.AllowedIntegrations(integrations=record.integrations)
        ),
        admin_suspended=record.admin_suspended,
    )


def quota(bounds: Quota) -> tenants.Quota | None:
    """A tenant's bounds, or None to leave the field unset."""
    if not bounds:
        return None
    return tenants.Quota(calls_at_once=bounds.concurrent, calls_per_second=bounds.rate, bytes_per_second=bounds.volume)


def credential(record: Credential) -> credentials.Credential:
    """A credential, without material."""
    missing = [scope for scope in record.requested_scopes if scope not in record.granted_scopes]
    reason = f"ERROR_REASON_{record.reason}" if record.reason else "ERROR_REASON_UNSPECIFIED"
    return credentials.Credential(
        tenant=record.tenant,
        id=record.id,
        integration=record.integration,
        kind=KIND[record.kind],
        state=CREDENTIAL_STATE[record.state],
        state_reason=reasons.ErrorReason.Value(reason),
        state_detail=record.detail,
        account=record.account,
        minted=record.minted,
        enabled=record.enabled,
        granted_scopes=record.granted_scopes,
        missing_scopes=missing,
        generation=record.generation,
        expire_time=time_of(record.expire_time),
        refreshable=record.refreshable,
        refresh_time=time_of(record.refresh_time),
        allowed_hosts=record.hosts,
        labels=record.labels,
        create_time=time_of(record.create_time),
        update_time=time_of(record.update_time),
        etag=str(record.version) if record.version else "",
        next_step=next_step(record),
        values=record.values,
        refresh_expire_time=time_of(record.refresh_expire_time),
    )


def api_key(record: ApiKey) -> access.ApiKey:
    """A key, without its secret."""
    return access.ApiKey(
        id=record.id,
        display_name=record.display_name,
        roles=sorted(ROLE[role] for role in record.roles),
        tenants=names(record.scope.tenants),
        credentials=names(record.scope.credentials),
        expire_time=time_of(record.expire_time),
        create_time=time_of(record.create_time),
        revoke_time=time_of(record.revoke_time),
        prefix=f"cnk_{record.id}_",
        rules=rules(record),
    )


def rules(record: ApiKey) -> list[access.CallRule]:
    """The calls that a key may make."""
    return [access.CallRule(methods=r.methods, path=r.path, credentials=r.credentials) for r in record.rules]
