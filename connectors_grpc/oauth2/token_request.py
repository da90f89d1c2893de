"""The back channel's requests: code exchange, refresh, revocation. Builds them; does not send, and has no default client.

A `stamp` is wanted where the client proves itself by a signed assertion, and used for nothing else.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Mapping, Sequence
from urllib.parse import quote, quote_plus, urlencode

from connectors_grpc.domain.definition import ClientAuthentication, OAuth, OAuthClient, Placement, TokenRequestFormat
from connectors_grpc.inject import FieldRefused, PlaceholderUnresolved, resolve
from connectors_grpc.oauth2.assertions import Stamp, client_assertion, looks_like_key
from connectors_grpc.oauth2.errors import ClientRefused
from connectors_grpc.oauth2.parameters import TOKEN_RESERVED
from connectors_grpc.ports import HttpRequest
from connectors_grpc.secret import Secret

TIMEOUT = 15.0
"""Seconds for the whole exchange. Stays below the refresh lease, so that the lease outlives every answer."""
MAX_REPLY = 64 * 1024
"""Bytes. Token replies with large id tokens are a few KiB."""
JWT_BEARER_ASSERTION = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
"""Source: RFC 7523 section 2.2."""

STANDARD = (("Accept", "application/json"), ("Accept-Encoding", "identity"), ("User-Agent", "connectors"))
"""Header lines of every request to a back channel."""

Parameters = Mapping[str, str | Sequence[str]]
"""A parameter with several values is sent as often."""


def code_exchange(
    oauth: OAuth,
    client: OAuthClient,
    *,
    code: Secret,
    redirect_uri: str,
    verifier: Secret | None,
    allow_private_addresses: bool,
    stamp: Stamp | None = None,
) -> HttpRequest:
    """Exchange a code; `redirect_uri` is the one of the authorization request.  Source: RFC 6749 4.1.3, RFC 7636 4.5."""
    parameters = {"grant_type": "authorization_code", "code": code.reveal(), "redirect_uri": redirect_uri}
    if verifier is not None and oauth.pkce:
        parameters["code_verifier"] = verifier.reveal()
    return back_channel(
        oauth.token_endpoint, oauth, client, with_extras(oauth, parameters), allow_private_addresses, stamp
    )


def refresh(
    oauth: OAuth,
    client: OAuthClient,
    *,
    refresh_token: Secret,
    allow_private_addresses: bool,
    scopes: Iterable[str] = (),
    stamp: Stamp | None = None,
) -> HttpRequest:
    """Refresh an access token. Without `scopes` the grant's own are kept.  Source: RFC 6749 section 6."""
    parameters = {"grant_type": "refresh_token", "refresh_token": refresh_token.reveal()}
    scope = oauth.scope_separator.join(scopes)
    if scope:
        parameters["scope"] = scope
    endpoint = oauth.refresh_endpoint or oauth.token_endpoint
    return back_channel(endpoint, oauth, client, with_extras(oauth, parameters), allow_private_addresses, stamp)


def revocation(
    oauth: OAuth,
    client: OAuthClient,
    *,
    token: Secret,
    hint: str,
    allow_private_addresses: bool,
    stamp: Stamp | None = None,
) -> HttpRequest | None:
    """Revoke a token; None if the provider has no endpoint for that.

    Bounds: hint is `refresh_token` or `access_token`.  Source: RFC 7009 section 2.1.
    """
    if not oauth.revocation_endpoint:
        return None
    parameters = {"token": token.reveal(), "token_type_hint": hint}
    return back_channel(oauth.revocation_endpoint, oauth, client, parameters, allow_private_addresses, stamp)


def own_revocation(
    oauth: OAuth,
    client: OAuthClient,
    *,
    fields: Mapping[str, Secret],
    headers: Mapping[str, str],
    allow_private_addresses: bool,
) -> HttpRequest:
    """End a grant in the provider's own way, as the definition's `revocation` says; `fields` is what its templates name, and
    `headers` what each call to that host needs.

    Raises: ClientRefused if a template names what is not there, or the stored secret is a key.
    """
    wanted = oauth.revocation
    assert wanted is not None
    known = {**fields, "client_id": Secret(client.client_id)}
    if client.secret is not None and not looks_like_key(client.secret.reveal()):  # a key is never sent
        known["client_secret"] = client.secret
    body = Placement(query=wanted.parameters)
    try:
        placed, parameters = resolve(wanted.placement, known), resolve(body, known).query
    except (PlaceholderUnresolved, FieldRefused):
        raise ClientRefused(problem="revocation_template") from None
    given = {name: value.reveal() for name, value in parameters.items()}
    of_body, content = _body(given, wanted.format) if given else ((), b"")
    named = {name.lower() for name in headers}
    usual = (*((name, value) for name, value in STANDARD if name.lower() not in named), *headers.items())
    own = tuple((name, value.reveal()) for name, value in placed.headers.items())
    query = {name: value.reveal() for name, value in placed.query.items()}
    url = wanted.url.replace("{client_id}", quote(client.client_id, safe=""))
    return HttpRequest(
        method=wanted.method,
        url=f"{url}?{urlencode(query)}" if query else url,
        headers=(*usual, *own, *of_body),
        body=content,
        allow_private_addresses=allow_private_addresses,
        timeout=TIMEOUT,
        max_body=MAX_REPLY,
    )


def with_extras(oauth: OAuth, parameters: Parameters) -> Parameters:
    """`parameters` of a token request with the definition's own, which never replace them.  Source: RFC 8707 section 2.2."""
    extras = {name: value for name, value in oauth.token_parameters.items() if name not in TOKEN_RESERVED}
    return {**extras, **({"resource": oauth.resources} if oauth.resources else {}), **parameters}


def back_channel(
    url: str,
    oauth: OAuth,
    client: OAuthClient,
    parameters: Parameters,
    allow_private_addresses: bool,
    stamp: Stamp | None,
) -> HttpRequest:
    """A POST of `parameters` in which the client proves itself as the definition says.

    Raises: ClientRefused if the stored secret is not what that takes; ValueError if a stamp is wanted and none came.
    """
    body: dict[str, str | Sequence[str]] = {n: v if isinstance(v, str) else list(v) for n, v in parameters.items()}
    headers = [*STANDARD, *oauth.token_headers.items()]
    if client.secret is None or oauth.client_authentication is ClientAuthentication.NONE:
        body["client_id"] = client.client_id
    elif oauth.client_authentication is ClientAuthentication.PRIVATE_KEY_JWT:
        if stamp is None:
            raise ValueError("an assertion needs a stamp")
        assertion = client_assertion(oauth, client, stamp).reveal()
        body |= {
            "client_id": client.client_id,
            "client_assertion_type": JWT_BEARER_ASSERTION,
            "client_assertion": assertion,
        }
    elif looks_like_key(client.secret.reveal()):
        raise ClientRefused(problem="private_key")  # never sent, whatever the definition says
    elif oauth.client_authentication is ClientAuthentication.POST:
        body |= {"client_id": client.client_id, "client_secret": client.secret.reveal()}
    else:
        headers.append(("Authorization", _basic(client.client_id, client.secret)))
    of_body, content = _body(body, oauth.token_request_format)
    return HttpRequest(
        method="POST",
        url=url,
        headers=(*headers, *of_body),
        body=content,
        allow_private_addresses=allow_private_addresses,
        timeout=TIMEOUT,
        max_body=MAX_REPLY,
    )


def _body(parameters: Parameters, form: TokenRequestFormat) -> tuple[tuple[tuple[str, str], ...], bytes]:
    """The header line that says what the body is, and the body."""
    if form is TokenRequestFormat.JSON:
        return (("Content-Type", "application/json"),), json.dumps(parameters).encode("ascii")
    encoded = urlencode(parameters, doseq=True).encode("ascii")
    return (("Content-Type", "application/x-www-form-urlencoded"),), encoded


def _basic(client_id: str, secret: Secret) -> str:
    """Both are form-urlencoded first, so that a colon or a percent sign survives.  Source: RFC 6749 section 2.3.1."""
    pair = f"{quote_plus(client_id, safe='')}:{quote_plus(secret.reveal(), safe='')}"
    return "Basic " + base64.b64encode(pair.encode("ascii")).decode("ascii")
