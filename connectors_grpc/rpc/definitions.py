"""Definitions as messages of the contract, and back. Their rules are for the use case."""

from __future__ import annotations

from datetime import timedelta

from connectors_grpc.domain.definition import (
    ACCESS_TOKEN_TYPE,
    BEARER,
    Api,
    BasicPlacement,
    ClientAuthentication,
    Discovery,
    Grant,
    Input,
    Integration,
    OAuth,
    OAuthClient,
    Placement,
    RefreshRotation,
    ResetUnit,
    Retry,
    Revocation,
    SigningAlgorithm,
    Source,
    TokenRequestFormat,
)
from connectors_grpc.domain.ids import IntegrationId
from connectors_grpc.errors import ConnectorsError, FieldViolation, Reason
from connectors_grpc.gen.connectors.v1 import integration_service_pb2 as integrations
from connectors_grpc.rpc import parse
from connectors_grpc.rpc.convert import duration_of, time_of
from connectors_grpc.rules.clients import client_violations
from connectors_grpc.secret import Secret

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
AUTHENTICATION_OF = {number: value for value, number in AUTHENTICATION.items()}
GRANT_OF = {number: value for value, number in GRANT.items()}
ALGORITHM_OF = {number: value for value, number in ALGORITHM.items()}
FORMAT_OF = {number: value for value, number in FORMAT.items()}
ROTATION_OF = {number: value for value, number in ROTATION.items()}
RESET_UNIT_OF = {number: value for value, number in RESET_UNIT.items()}
LONGEST_TTL = timedelta(days=3660)


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
        inputs=map(_input, record.inputs),
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
        scope_parameter=oauth.scope_parameter,
        code_parameter=oauth.code_parameter,
        token_headers=oauth.token_headers,
        token_pointer=oauth.token_pointer,
        terminal_errors=oauth.terminal_errors,
        revocation=None if oauth.revocation is None else _revocation(oauth.revocation),
        introspection_endpoint=oauth.introspection_endpoint,
        discovery=map(_discovery, oauth.discovery),
    )


def _placed(record: Placement) -> integrations.Placement:
    basic = record.basic
    return integrations.Placement(
        headers=record.headers,
        query=record.query,
        basic=integrations.BasicPlacement(username=basic.username, password=basic.password) if basic else None,
    )


def _input(record: Input) -> integrations.Input:
    return integrations.Input(
        id=record.id,
        title=record.title,
        pattern=record.pattern,
        choices=record.choices,
        example=record.example,
        default=record.default,
        optional=record.optional,
        secret=record.secret,
    )


def _input_definition(message: integrations.Input) -> Input:
    return Input(
        id=message.id,
        title=message.title,
        pattern=message.pattern,
        choices=dict(message.choices),
        example=message.example,
        default=message.default,
        optional=message.optional,
        secret=message.secret,
    )


def _discovery(record: Discovery) -> integrations.Discovery:
    return integrations.Discovery(
        id=record.id,
        pointer=record.pointer,
        url=record.url,
        pattern=record.pattern,
        match_pointer=record.match_pointer,
        match=record.match,
        optional=record.optional,
        example=record.example,
    )


def _discovery_definition(message: integrations.Discovery) -> Discovery:
    return Discovery(
        id=message.id,
        pointer=message.pointer,
        url=message.url,
        pattern=message.pattern,
        match_pointer=message.match_pointer,
        match=message.match,
        optional=message.optional,
        example=message.example,
    )


def _revocation(record: Revocation) -> integrations.Revocation:
    return integrations.Revocation(
        url=record.url,
        method=record.method,
        placement=_placed(record.placement),
        format=FORMAT[record.format],
        parameters=record.parameters,
    )


def _revocation_definition(message: integrations.Revocation) -> Revocation:
    return Revocation(
        url=message.url,
        method=message.method or "POST",
        placement=_placement(message.placement, Placement()),
        format=FORMAT_OF.get(message.format, TokenRequestFormat.FORM),
        parameters=dict(message.parameters),
    )


def _api(api: Api) -> integrations.Api:
    return integrations.Api(
        base_url=api.base_url,
        allowed_hosts=api.allowed_hosts,
        placement=_placed(api.placement),
        default_headers=api.default_headers,
        identity_path=api.identity_path,
        pass_cookies=api.pass_cookies,
        account_pointer=api.account_pointer,
        ok_field=api.ok_field,
        retry=retry(api.retry),
        identity_body=api.identity_body,
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
        inputs=tuple(map(_input_definition, message.inputs)),
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
    where = "integration.oauth"
    return OAuth(
        authorization_endpoint=message.authorization_endpoint,
        token_endpoint=message.token_endpoint,
        refresh_endpoint=message.refresh_endpoint,
        revocation_endpoint=message.revocation_endpoint,
        issuer=message.issuer,
        iss_required=message.iss_required,
        client_authentication=AUTHENTICATION_OF.get(message.client_authentication, ClientAuthentication.BASIC),
        token_request_format=FORMAT_OF.get(message.token_request_format, TokenRequestFormat.FORM),
        pkce=not message.pkce_disabled,
        scope_separator=message.scope_separator or " ",
        scopes=tuple(message.scopes),
        authorization_parameters=dict(message.authorization_parameters),
        token_parameters=dict(message.token_parameters),
        refresh_rotation=ROTATION_OF.get(message.refresh_rotation, RefreshRotation.AT_ONCE),
        refresh_ends_access_token=message.refresh_ends_access_token,
        default_access_token_ttl=_ttl(message, "default_access_token_ttl", where),
        refresh_token_idle_ttl=_ttl(message, "refresh_token_idle_ttl", where),
        grant=GRANT_OF.get(message.grant, Grant.AUTHORIZATION_CODE),
        device_authorization_endpoint=message.device_authorization_endpoint,
        pushed_authorization_request_endpoint=message.pushed_authorization_request_endpoint,
        resources=tuple(message.resources),
        signing_algorithm=ALGORITHM_OF.get(message.signing_algorithm),
        assertion_audience=message.assertion_audience,
        assertion_claims=dict(message.assertion_claims),
        subject_token_type=message.subject_token_type or ACCESS_TOKEN_TYPE,
        scope_parameter=message.scope_parameter or "scope",
        code_parameter=message.code_parameter or "code",
        token_headers=dict(message.token_headers),
        token_pointer=message.token_pointer,
        terminal_errors=tuple(message.terminal_errors),
        revocation=_revocation_definition(message.revocation) if message.HasField("revocation") else None,
        introspection_endpoint=message.introspection_endpoint,
        discovery=tuple(map(_discovery_definition, message.discovery)),
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
        placement=_placement(message.placement, BEARER),
        default_headers=dict(message.default_headers),
        identity_path=message.identity_path,
        pass_cookies=message.pass_cookies,
        account_pointer=message.account_pointer,
        ok_field=message.ok_field,
        retry=retry_definition(message.retry),
        identity_body=message.identity_body,
    )


def retry_definition(message: integrations.Retry) -> Retry:
    """What a definition says of limits."""
    return Retry(
        statuses=tuple(message.statuses) or Retry().statuses,
        remaining_header=message.remaining_header,
        reset_header=message.reset_header,
        reset_unit=RESET_UNIT_OF.get(message.reset_unit, ResetUnit.SECONDS),
    )


def _placement(message: integrations.Placement, unset: Placement) -> Placement:
    basic = message.HasField("basic")
    if not message.headers and not message.query and not basic:
        return unset
    pair = BasicPlacement(message.basic.username, message.basic.password) if basic else None
    return Placement(dict(message.headers), dict(message.query), pair)
