"""Our records as messages of the contract, and definitions back. Nothing with a secret in it passes through here."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from connectors_grpc.credentials.checks import next_step
from connectors_grpc.definition_rules import client_violations
from connectors_grpc.domain.definition import (
    ACCESS_TOKEN_TYPE,
    BEARER,
    Api,
    BasicPlacement,
    ClientAuthentication,
    Grant,
    Integration,
    OAuth,
    OAuthClient,
    Placement,
    RefreshRotation,
    ResetUnit,
    Retry,
    SigningAlgorithm,
    Source,
    TokenRequestFormat,
)
from connectors_grpc.domain.ids import IntegrationId
from connectors_grpc.domain.records import (
    ApiKey,
    Credential,
    CredentialKind,
    CredentialState,
    Role,
    Tenant,
    TenantState,
)
from connectors_grpc.errors import ConnectorsError, FieldViolation, Reason
from connectors_grpc.gen.connectors.v1 import access_service_pb2 as access
from connectors_grpc.gen.connectors.v1 import credential_service_pb2 as credentials
from connectors_grpc.gen.connectors.v1 import error_reason_pb2 as reasons
from connectors_grpc.gen.connectors.v1 import integration_service_pb2 as integrations
from connectors_grpc.gen.connectors.v1 import tenant_service_pb2 as tenants
from connectors_grpc.quota import Quota
from connectors_grpc.rpc import parse
from connectors_grpc.secret import Secret

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
SOURCE = {
    Source.CATALOGUE: integrations.Integration.SOURCE_CATALOGUE,
    Source.CREATED: integrations.Integration.SOURCE_CREATED,
}
AUTHENTICATION = {
    ClientAuthentication.BASIC: integrations.CLIENT_AUTHENTICATION_BASIC,
    ClientAuthentication.POST: integrations.CLIENT_AUTHENTICATION_POST,
    ClientAuthentication.NONE: integrations.CLIENT_AUTHENTICATION_NONE,
    ClientAuthentication.PRIVATE_KEY_JWT: integrations.CLIENT_AUTHENTICATION_PRIVATE_KEY_JWT,
}
GRANT = {
    Grant.AUTHORIZATION_CODE: integrations.GRANT_AUTHORIZATION_CODE,
    Grant.CLIENT_CREDENTIALS: integrations.GRANT_CLIENT_CREDENTIALS,
    Grant.JWT_BEARER: integrations.GRANT_JWT_BEARER,
    Grant.TOKEN_EXCHANGE: integrations.GRANT_TOKEN_EXCHANGE,
    Grant.GITHUB_APP_INSTALLATION: integrations.GRANT_GITHUB_APP_INSTALLATION,
}
ALGORITHM = {
    SigningAlgorithm.RS256: integrations.SIGNING_ALGORITHM_RS256,
    SigningAlgorithm.PS256: integrations.SIGNING_ALGORITHM_PS256,
    SigningAlgorithm.ES256: integrations.SIGNING_ALGORITHM_ES256,
}
FORMAT = {
    TokenRequestFormat.FORM: integrations.TOKEN_REQUEST_FORMAT_FORM,
    TokenRequestFormat.JSON: integrations.TOKEN_REQUEST_FORMAT_JSON,
}
ROTATION = {
    RefreshRotation.STATIC: integrations.REFRESH_ROTATION_STATIC,
    RefreshRotation.WITH_GRACE: integrations.REFRESH_ROTATION_WITH_GRACE,
    RefreshRotation.AT_ONCE: integrations.REFRESH_ROTATION_AT_ONCE,
}
RESET_UNIT = {
    ResetUnit.SECONDS: integrations.RESET_UNIT_SECONDS,
    ResetUnit.EPOCH_SECONDS: integrations.RESET_UNIT_EPOCH_SECONDS,
    ResetUnit.EPOCH_MILLISECONDS: integrations.RESET_UNIT_EPOCH_MILLISECONDS,
    ResetUnit.DATE: integrations.RESET_UNIT_DATE,
}
LONGEST_TTL = timedelta(days=3660)


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


def integration(record: Integration) -> integrations.Integration:
    """An integration, without client secrets."""
    client = record.client
    return integrations.Integration(
        id=record.id,
        display_name=record.display_name,
        source=SOURCE[record.source],
        oauth=None if record.oauth is None else _oauth(record.oauth),
        api=None if record.api is None else _api(record.api),
        oauth_client=None
        if client is None
        else integrations.OAuthClient(
            client_id=client.client_id,
            client_secret_set=client.secret_set,
            client_secret_count=client.secret_count,
            key_id=client.key_id,
        ),
        allow_private_addresses=record.allow_private_addresses,
        verified=record.verified,
        etag=str(record.version) if record.version else "",
        create_time=time_of(record.create_time),
        update_time=time_of(record.update_time),
    )


def _oauth(oauth: OAuth) -> integrations.OAuth:
    return integrations.OAuth(
        authorization_endpoint=oauth.authorization_endpoint,
        token_endpoint=oauth.token_endpoint,
        refresh_endpoint=oauth.refresh_endpoint,
        revocation_endpoint=oauth.revocation_endpoint,
        issuer=oauth.issuer,
        iss_required=oauth.iss_required,
        client_authentication=AUTHENTICATION[oauth.client_authentication],
        token_request_format=FORMAT[oauth.token_request_format],
        pkce_disabled=not oauth.pkce,
        scope_separator=oauth.scope_separator,
        scopes=oauth.scopes,
        authorization_parameters=oauth.authorization_parameters,
        token_parameters=oauth.token_parameters,
        refresh_rotation=ROTATION[oauth.refresh_rotation],
        refresh_ends_access_token=oauth.refresh_ends_access_token,
        default_access_token_ttl=duration_of(oauth.default_access_token_ttl),
        refresh_token_idle_ttl=duration_of(oauth.refresh_token_idle_ttl),
        grant=GRANT[oauth.grant],
        device_authorization_endpoint=oauth.device_authorization_endpoint,
        pushed_authorization_request_endpoint=oauth.pushed_authorization_request_endpoint,
        resources=oauth.resources,
        signing_algorithm=(
            integrations.SIGNING_ALGORITHM_UNSPECIFIED
            if oauth.signing_algorithm is None
            else ALGORITHM[oauth.signing_algorithm]
        ),
        assertion_audience=oauth.assertion_audience,
        assertion_claims=oauth.assertion_claims,
        subject_token_type=oauth.subject_token_type,
    )


def _api(api: Api) -> integrations.Api:
    basic = api.placement.basic
    return integrations.Api(
        base_url=api.base_url,
        allowed_hosts=api.allowed_hosts,
        placement=integrations.Placement(
            headers=api.placement.headers,
            query=api.placement.query,
            basic=integrations.BasicPlacement(username=basic.username, password=basic.password) if basic else None,
        ),
        default_headers=api.default_headers,
        identity_path=api.identity_path,
        pass_cookies=api.pass_cookies,
        account_pointer=api.account_pointer,
        ok_field=api.ok_field,
        retry=retry(api.retry),
    )


def retry(record: Retry) -> integrations.Retry:
    """How an API says that it takes no more calls for now."""
    return integrations.Retry(
        statuses=record.statuses,
        remaining_header=record.remaining_header,
        reset_header=record.reset_header,
        reset_unit=RESET_UNIT[record.reset_unit],
    )


def definition(integration_id: IntegrationId, message: integrations.Integration) -> Integration:
    """What an admin wrote. Its rules are checked by the use case. Raises: INVALID_FIELD."""
    has_oauth, has_api = message.HasField("oauth"), message.HasField("api")
    return Integration(
        id=integration_id,
        display_name=parse.display_name(message.display_name, "integration.display_name"),
        oauth=oauth_definition(message.oauth) if has_oauth else None,
        api=api_definition(message.api) if has_api else None,
        client=client(message.oauth_client) if message.HasField("oauth_client") else None,
        allow_private_addresses=message.allow_private_addresses,
    )


def client(message: integrations.OAuthClient) -> OAuthClient:
    """An OAuth client with its secret, on its way to be sealed. Raises: INVALID_FIELD."""
    field = "integration"
    secret = Secret(message.client_secret) if message.client_secret else None
    others = tuple(Secret(other) for other in message.client_secrets)
    wanted = OAuthClient(message.client_id, secret, others=others, key_id=message.key_id)
    violations = tuple(FieldViolation(f"{field}.{v.field}", v.description) for v in client_violations(wanted))
    if violations:
        raise ConnectorsError(Reason.INVALID_FIELD, fields=violations)
    return wanted


def oauth_definition(message: integrations.OAuth) -> OAuth:
    """The OAuth side of a definition."""
    authentication = {number: value for value, number in AUTHENTICATION.items()}
    formats = {number: value for value, number in FORMAT.items()}
    rotations = {number: value for value, number in ROTATION.items()}
    where = "integration.oauth"
    return OAuth(
        authorization_endpoint=message.authorization_endpoint,
        token_endpoint=message.token_endpoint,
        refresh_endpoint=message.refresh_endpoint,
        revocation_endpoint=message.revocation_endpoint,
        issuer=message.issuer,
        iss_required=message.iss_required,
        client_authentication=authentication.get(message.client_authentication, ClientAuthentication.BASIC),
        token_request_format=formats.get(message.token_request_format, TokenRequestFormat.FORM),
        pkce=not message.pkce_disabled,
        scope_separator=message.scope_separator or " ",
        scopes=tuple(message.scopes),
        authorization_parameters=dict(message.authorization_parameters),
        token_parameters=dict(message.token_parameters),
        refresh_rotation=rotations.get(message.refresh_rotation, RefreshRotation.AT_ONCE),
        refresh_ends_access_token=message.refresh_ends_access_token,
        default_access_token_ttl=_ttl(message, "default_access_token_ttl", where),
        refresh_token_idle_ttl=_ttl(message, "refresh_token_idle_ttl", where),
        grant={number: value for value, number in GRANT.items()}.get(message.grant, Grant.AUTHORIZATION_CODE),
        device_authorization_endpoint=message.device_authorization_endpoint,
        pushed_authorization_request_endpoint=message.pushed_authorization_request_endpoint,
        resources=tuple(message.resources),
        signing_algorithm={number: value for value, number in ALGORITHM.items()}.get(message.signing_algorithm),
        assertion_audience=message.assertion_audience,
        assertion_claims=dict(message.assertion_claims),
        subject_token_type=message.subject_token_type or ACCESS_TOKEN_TYPE,
    )


def _ttl(message: integrations.OAuth, name: str, where: str) -> timedelta | None:
    if not message.HasField(name):  # type: ignore[arg-type]
        return None
    return parse.length(getattr(message, name), f"{where}.{name}", LONGEST_TTL) or None


def api_definition(message: integrations.Api) -> Api:
    """The API's side of a definition."""
    return Api(
        base_url=message.base_url.rstrip("/"),
        allowed_hosts=tuple(message.allowed_hosts),
        placement=_placement(message.placement),
        default_headers=dict(message.default_headers),
        identity_path=message.identity_path,
        pass_cookies=message.pass_cookies,
        account_pointer=message.account_pointer,
        ok_field=message.ok_field,
        retry=retry_definition(message.retry),
    )


def retry_definition(message: integrations.Retry) -> Retry:
    """What a definition says of limits."""
    units = {number: value for value, number in RESET_UNIT.items()}
    return Retry(
        statuses=tuple(message.statuses) or Retry().statuses,
        remaining_header=message.remaining_header,
        reset_header=message.reset_header,
        reset_unit=units.get(message.reset_unit, ResetUnit.SECONDS),
    )


def _placement(message: integrations.Placement) -> Placement:
    basic = message.HasField("basic")
    if not message.headers and not message.query and not basic:
        return BEARER
    pair = BasicPlacement(message.basic.username, message.basic.password) if basic else None
    return Placement(dict(message.headers), dict(message.query), pair)
