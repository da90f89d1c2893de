"""What a definition as a whole may say: the OAuth side, the API's, and what the two want of each other. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import timedelta
from urllib.parse import parse_qsl

from connectors_grpc.domain.definition import (
    ALWAYS_LIMITED,
    Api,
    ClientAuthentication,
    Grant,
    Input,
    Integration,
    OAuth,
    Placement,
    Retry,
    Revocation,
    SigningAlgorithm,
)
from connectors_grpc.domain.ids import is_label
from connectors_grpc.errors import FieldViolation
from connectors_grpc.inject.templates import PLACEHOLDER
from connectors_grpc.oauth2.parameters import ASSERTION_RESERVED, AUTHORIZATION_RESERVED, TOKEN_RESERVED
from connectors_grpc.rules import Violations
from connectors_grpc.rules.clients import client_violations
from connectors_grpc.rules.inputs import (
    discovery_violations,
    host_violations,
    input_violations,
    known_in,
    revocation_violations,
)
from connectors_grpc.rules.placements import (
    MOST_ENTRIES,
    default_header_violations,
    is_token,
    normal,
    parameter_violations,
    placement_violations,
)
from connectors_grpc.rules.texts import LONGEST_VALUE, is_json, is_parameter, is_pointer, is_template, is_visible
from connectors_grpc.rules.urls import LONGEST_URL, Known, is_path, url_violations

MOST_SCOPES = 100
LONGEST_TTL = timedelta(days=3653)
MOST_STATUSES = 8
MOST_ERRORS = 16
CLAIM_INPUTS = frozenset(("client_id", "subject", "scope"))
SEPARATORS = (" ", ",", ";", "+")

_SCOPE = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]{1,256}")
"""Source: RFC 6749 section 3.3."""
_RESOURCE = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:[\x21\x22\x24-\x7e]{1,1000}")
"""Source: RFC 8707 section 2."""
_ERROR = re.compile(r"[a-z][a-z0-9_.-]{0,63}")
_OF_TOKEN_REQUESTS = frozenset((b"accept", b"accept-encoding", b"content-type", b"user-agent"))


def validate_definition(integration: Integration) -> tuple[FieldViolation, ...]:
    """Everything wrong with a definition; empty if nothing is. `field` is a path in the contract's Integration message."""
    return tuple(_definition(integration))


def _definition(integration: Integration) -> Violations:
    private = integration.allow_private_addresses
    if not is_label(integration.id):
        yield FieldViolation("id", "a lower-case DNS label, 1 to 63 characters")
    if len(integration.display_name) > 200 or not integration.display_name.isprintable():
        yield FieldViolation("display_name", "up to 200 printable characters")
    if integration.oauth is None and integration.api is None:
        yield FieldViolation("api", "set `api`, `oauth` or both")
    yield from input_violations(integration)
    if integration.oauth is not None:
        yield from _oauth(integration.oauth, integration.inputs, private)
        yield from _replies(integration, integration.oauth)
    if integration.api is not None:
        yield from _api(integration.api, known_in(integration), private)
    if integration.client is not None:
        yield from client_violations(integration.client, integration.oauth)


def _oauth(oauth: OAuth, inputs: Iterable[Input], private: bool) -> Violations:
    known = {one.id: one for one in inputs}
    # A device needs no place to consent in this browser, and a grant without a person none at all.
    if oauth.authorization_endpoint or (
        oauth.grant is Grant.AUTHORIZATION_CODE and not oauth.device_authorization_endpoint
    ):
        yield from url_violations("oauth.authorization_endpoint", oauth.authorization_endpoint, private, known)
    yield from url_violations("oauth.token_endpoint", oauth.token_endpoint, private, known)
    for name in (
        "refresh_endpoint",
        "revocation_endpoint",
        "device_authorization_endpoint",
        "pushed_authorization_request_endpoint",
        "introspection_endpoint",
    ):
        if getattr(oauth, name):
            yield from url_violations(f"oauth.{name}", getattr(oauth, name), private, known)
    query = oauth.authorization_endpoint.partition("?")[2][:LONGEST_URL]
    if any(name in AUTHORIZATION_RESERVED for name, _ in parse_qsl(query, keep_blank_values=True)):
        yield FieldViolation("oauth.authorization_endpoint", "its query may not have a parameter of the protocol")
    if oauth.issuer:
        yield from url_violations("oauth.issuer", oauth.issuer, private, known, query=False)
    elif oauth.iss_required:
        yield FieldViolation("oauth.iss_required", "needs `issuer`, to compare with")
    if oauth.scope_separator not in SEPARATORS:
        yield FieldViolation("oauth.scope_separator", "one space, comma, semicolon or plus")
    yield from scope_violations("oauth.scopes", oauth.scopes, oauth.scope_separator)
    yield from parameter_violations(
        "oauth.authorization_parameters", oauth.authorization_parameters, AUTHORIZATION_RESERVED
    )
    yield from parameter_violations("oauth.token_parameters", oauth.token_parameters, TOKEN_RESERVED)
    for name in ("default_access_token_ttl", "refresh_token_idle_ttl"):
        ttl = getattr(oauth, name)
        if ttl is not None and not timedelta(0) < ttl <= LONGEST_TTL:
            yield FieldViolation(f"oauth.{name}", "above zero, up to ten years")
    yield from _grants(oauth)


def _grants(oauth: OAuth) -> Violations:
    """What belongs to the grants, and to proving who the client is."""
    if len(oauth.resources) > MOST_ENTRIES or any(_RESOURCE.fullmatch(one) is None for one in oauth.resources):
        yield FieldViolation("oauth.resources", f"up to {MOST_ENTRIES} absolute URIs without fragment")
    if oauth.grant is not Grant.AUTHORIZATION_CODE:
        for name in (
            "device_authorization_endpoint",
            "pushed_authorization_request_endpoint",
            "refresh_token_idle_ttl",
        ):
            if getattr(oauth, name):
                yield FieldViolation(f"oauth.{name}", "only where a person consents: `grant` is authorization_code")
    if oauth.pushed_authorization_request_endpoint and not oauth.authorization_endpoint:
        yield FieldViolation("oauth.pushed_authorization_request_endpoint", "needs `authorization_endpoint`")
    sends_secret = oauth.client_authentication in (ClientAuthentication.BASIC, ClientAuthentication.POST)
    if oauth.signs and sends_secret:
        yield FieldViolation(
            "oauth.client_authentication", "none or private_key_jwt: the client's secret is a key, which is never sent"
        )
    if oauth.grant is Grant.GITHUB_APP_INSTALLATION:
        if "?" in oauth.token_endpoint or oauth.token_endpoint.endswith("/"):
            yield FieldViolation("oauth.token_endpoint", "what stands before `/{installation_id}/access_tokens`")
        if oauth.signing_algorithm not in (None, SigningAlgorithm.RS256):
            yield FieldViolation("oauth.signing_algorithm", "RS256, which GitHub wants")
    yield from _assertions(oauth)


def _assertions(oauth: OAuth) -> Violations:
    for name in ("assertion_audience", "subject_token_type"):
        text = getattr(oauth, name)
        if text and (len(text) > LONGEST_VALUE or not is_visible(text)):
            yield FieldViolation(f"oauth.{name}", f"up to {LONGEST_VALUE} visible ASCII characters")
    claims = oauth.assertion_claims
    if claims and oauth.grant is not Grant.JWT_BEARER:
        yield FieldViolation("oauth.assertion_claims", "only for the grant jwt_bearer")
    yield from parameter_violations("oauth.assertion_claims", claims, ASSERTION_RESERVED)
    if claims and "iss" not in claims:
        yield FieldViolation("oauth.assertion_claims", "`iss` is needed: `{client_id}` mostly")
    named = {name for template in claims.values() for name in PLACEHOLDER.findall(template)}
    if not all(is_template(text) for text in claims.values()) or named - CLAIM_INPUTS:
        yield FieldViolation(
            "oauth.assertion_claims", "templates that name `{client_id}`, `{subject}` or `{scope}` and nothing else"
        )


def _replies(integration: Integration, oauth: OAuth) -> Violations:
    """Names and places that differ from the standard's, what is found out after consent, and how a grant is ended."""
    for name in ("scope_parameter", "code_parameter"):
        text = getattr(oauth, name)
        if not is_parameter(text) or text in (AUTHORIZATION_RESERVED - {"scope"}) | {"iss", "error"}:
            yield FieldViolation(f"oauth.{name}", "a name of 1 to 64 unreserved characters that is nobody else's")
    placed: frozenset[bytes] = frozenset()
    yield from default_header_violations("oauth.token_headers", oauth.token_headers, placed)
    if any(normal(name) in _OF_TOKEN_REQUESTS for name in oauth.token_headers):
        yield FieldViolation("oauth.token_headers", "no header that the server sets")
    if oauth.token_pointer and not is_pointer(oauth.token_pointer):
        yield FieldViolation("oauth.token_pointer", "a JSON pointer (RFC 6901), as `/authed_user`")
    if len(oauth.terminal_errors) > MOST_ERRORS or any(_ERROR.fullmatch(one) is None for one in oauth.terminal_errors):
        yield FieldViolation("oauth.terminal_errors", f"up to {MOST_ERRORS} error codes")
    yield from discovery_violations(oauth, integration.api, integration.inputs, integration.allow_private_addresses)
    if oauth.revocation is not None:
        yield from revocation_violations(oauth.revocation, known_in(integration), integration.allow_private_addresses)
        if oauth.revocation_endpoint:
            yield FieldViolation("oauth.revocation", "either this or `revocation_endpoint`")
        yield from _revocation_templates(oauth.revocation)


def _revocation_templates(revocation: Revocation) -> Violations:
    placement = revocation.placement
    if placement != Placement():
        yield from placement_violations("oauth.revocation.placement", placement)
    yield from parameter_violations("oauth.revocation.parameters", revocation.parameters, frozenset())
    if not all(is_template(text) for text in revocation.parameters.values()):
        yield FieldViolation("oauth.revocation.parameters", "templates; braces only around a field's name")


def scope_violations(field: str, scopes: Iterable[str], separator: str) -> Violations:
    """What is wrong with a list of scopes, of a definition or of a caller.  Source: RFC 6749 section 3.3."""
    scopes = tuple(scopes)
    if len(scopes) > MOST_SCOPES:
        yield FieldViolation(field, f"up to {MOST_SCOPES} scopes")
    if any(_SCOPE.fullmatch(scope) is None or separator in scope for scope in scopes[:MOST_SCOPES]):
        yield FieldViolation(
            field, "each 1 to 256 visible ASCII characters, without quote, backslash and the scope separator"
        )


def _api(api: Api, known: Known, private: bool) -> Violations:
    yield from url_violations("api.base_url", api.base_url, private, known, query=False)
    if api.base_url.endswith("/"):
        yield FieldViolation("api.base_url", "no trailing slash")
    if len(api.allowed_hosts) > MOST_ENTRIES:
        yield FieldViolation("api.allowed_hosts", f"up to {MOST_ENTRIES} hosts")
    else:
        yield from host_violations(api, known, private)
    yield from placement_violations("api.placement", api.placement)
    placed = {normal(name) for name in api.placement.headers}
    yield from default_header_violations("api.default_headers", api.default_headers, placed)
    if api.identity_path and not is_path(api.identity_path):
        yield FieldViolation("api.identity_path", "a path that begins with /, with a query if need be")
    if api.account_pointer and not is_pointer(api.account_pointer):
        yield FieldViolation("api.account_pointer", "a JSON pointer (RFC 6901), as `/user/id`")
    if api.ok_field and not is_parameter(api.ok_field):
        yield FieldViolation("api.ok_field", "a name of 1 to 64 unreserved characters")
    if api.identity_body and not is_json(api.identity_body):
        yield FieldViolation("api.identity_body", f"JSON of up to {LONGEST_VALUE} ASCII characters")
    for name in ("account_pointer", "ok_field", "identity_body"):
        if getattr(api, name) and not api.identity_path:
            yield FieldViolation(f"api.{name}", "needs `identity_path`, whose answer it looks into")
    yield from _retry(api.retry)


def _retry(retry: Retry) -> Violations:
    if len(retry.statuses) > MOST_STATUSES or not all(400 <= status <= 599 for status in retry.statuses):
        yield FieldViolation("api.retry.statuses", f"up to {MOST_STATUSES}, each of 400 to 599")
    for name in ("remaining_header", "reset_header"):
        header = getattr(retry, name)
        if header and not is_token(header):
            yield FieldViolation(f"api.retry.{name}", "an HTTP token of up to 128 characters")
    if set(retry.statuses) - ALWAYS_LIMITED and not retry.remaining_header:
        yield FieldViolation("api.retry.remaining_header", "needed for a status other than 429 and 503")
