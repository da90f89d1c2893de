"""Grants that need no person: tokens made from what a tenant gave once, as often as they are due.

Builds and reads; sends nothing. `inputs` are the tenant's: `subject`, `subject_token`, `installation_id`, `scope`; `client` is
a mark of the use case's.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import assert_never

from connectors_grpc.domain.definition import Grant, OAuth, OAuthClient
from connectors_grpc.inject.templates import PLACEHOLDER
from connectors_grpc.oauth2.assertions import Stamp, key_of, times
from connectors_grpc.oauth2.errors import ClientRefused, InvalidGrant, Malformed, RequestRefused, TokenError, Transient
from connectors_grpc.oauth2.token_reply import (
    TokenReply,
    check_status,
    parse_token_reply,
    read_document,
    retry_after,
    token_text,
)
from connectors_grpc.oauth2.token_request import MAX_REPLY, TIMEOUT, Parameters, back_channel, with_extras
from connectors_grpc.ports import HttpReply, HttpRequest
from connectors_grpc.secret import Secret

JWT_BEARER = "urn:ietf:params:oauth:grant-type:jwt-bearer"
"""Source: RFC 7523 section 2.1."""
TOKEN_EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"
"""Source: RFC 8693 section 2.1."""
DEFAULT_CLAIMS: Mapping[str, str] = {"iss": "{client_id}", "sub": "{subject}"}
INSTALLATION_JWT = timedelta(minutes=9)
"""GitHub takes ten minutes at most."""
INSTALLATION = re.compile(r"[1-9][0-9]{0,19}")

Inputs = Mapping[str, Secret]


class InputMissing(Exception):
    """A template or the grant needs an input that was not given. `args[0]` names it."""


def needed(oauth: OAuth) -> tuple[str, ...]:
    """The inputs that a tenant must give for this definition's grant."""
    match oauth.grant:
        case Grant.AUTHORIZATION_CODE | Grant.CLIENT_CREDENTIALS:
            return ()
        case Grant.JWT_BEARER:
            claims = oauth.assertion_claims or DEFAULT_CLAIMS
            named = {name for template in claims.values() for name in PLACEHOLDER.findall(template)}
            return tuple(sorted(named - {"client_id", "scope"}))
        case Grant.TOKEN_EXCHANGE:
            return ("subject_token",)
        case Grant.GITHUB_APP_INSTALLATION:
            return ("installation_id",)
        case _:
            assert_never(oauth.grant)


def input_problems(oauth: OAuth, inputs: Inputs) -> Iterator[tuple[str, str]]:
    """What is wrong with a tenant's inputs: the name, and what is wanted."""
    wanted = set(needed(oauth))
    for name in sorted(wanted ^ (inputs.keys() - {"scope", "client"})):
        yield (
            name,
            "needed by this integration's grant" if name in wanted else "this integration's grant takes no such field",
        )
    given = inputs.get("installation_id") if "installation_id" in wanted else None
    if given is not None and INSTALLATION.fullmatch(given.reveal()) is None:
        yield "installation_id", "a number of up to 20 digits is wanted"


def minting(
    oauth: OAuth, client: OAuthClient, inputs: Inputs, *, stamp: Stamp, allow_private_addresses: bool
) -> HttpRequest:
    """The request that gives a new token. Raises: InputMissing; ClientRefused if the client's secret is no key to sign with."""
    scope = inputs["scope"].reveal() if "scope" in inputs else oauth.scope_separator.join(oauth.scopes)
    parameters: dict[str, str] = {}
    match oauth.grant:
        case Grant.AUTHORIZATION_CODE:
            raise ValueError("a person grants this")
        case Grant.GITHUB_APP_INSTALLATION:
            return _installation(oauth, client, inputs, stamp, allow_private_addresses)
        case Grant.CLIENT_CREDENTIALS:
            parameters = {"grant_type": "client_credentials"}
        case Grant.JWT_BEARER:
            assertion = _assertion(oauth, client, inputs, scope, stamp)
            parameters = {"grant_type": JWT_BEARER, "assertion": assertion.reveal()}
        case Grant.TOKEN_EXCHANGE:
            subject = _input(inputs, "subject_token")
            parameters = {"grant_type": TOKEN_EXCHANGE, "subject_token": subject}
            parameters |= {"subject_token_type": oauth.subject_token_type}
        case _:
            assert_never(oauth.grant)
    sent: Parameters = with_extras(oauth, {**parameters, "scope": scope} if scope else parameters)
    return back_channel(oauth.token_endpoint, oauth, client, sent, allow_private_addresses, stamp)


def parse_minted(reply: HttpReply, oauth: OAuth, now: datetime) -> TokenReply:
    """Read the answer to `minting`.

    Only where the tenant's own input is refused, and a new one is wanted, is that InvalidGrant, which is terminal: a subject
    token, an installation. Everything else that is refused is the client's or the definition's: nothing is used up by asking
    again once an admin has corrected it, so that it comes as ClientRefused. A refresh token is kept after a token exchange
    only, whose subject token may not live long.
    Raises: InvalidGrant, ClientRefused, Transient, Malformed.  Source: RFC 6749 section 4.4.3, RFC 7523 section 3.1.
    """
    if oauth.grant is Grant.GITHUB_APP_INSTALLATION:
        return _installation_reply(reply, now)
    failure: TokenError
    try:
        minted = parse_token_reply(reply, oauth, now)
        return minted if oauth.grant is Grant.TOKEN_EXCHANGE else replace(minted, refresh_token=None)
    except RequestRefused as error:
        # RFC 8693 section 2.2.2: an invalid subject token is invalid_request.
        exchange = oauth.grant is Grant.TOKEN_EXCHANGE and error.oauth_error == "invalid_request"
        failure = InvalidGrant(error.oauth_error) if exchange else ClientRefused(error.oauth_error)
    except InvalidGrant as error:
        failure = error if oauth.grant is Grant.TOKEN_EXCHANGE else ClientRefused(error.oauth_error)
    raise failure


def _assertion(oauth: OAuth, client: OAuthClient, inputs: Inputs, scope: str, stamp: Stamp) -> Secret:
    known = {**{name: value.reveal() for name, value in inputs.items()}, "client_id": client.client_id, "scope": scope}
    claims: dict[str, str | int] = {}
    for name, template in (oauth.assertion_claims or DEFAULT_CLAIMS).items():
        missing = [field for field in PLACEHOLDER.findall(template) if field not in known]
        if missing:
            raise InputMissing(missing[0])
        claims[name] = PLACEHOLDER.sub(lambda match: known[match[1]], template)
    claims |= {"aud": oauth.assertion_audience or oauth.token_endpoint, **times(stamp), "jti": stamp.jti}
    return key_of(oauth, client).sign(claims)


def _input(inputs: Inputs, name: str) -> str:
    if name not in inputs:
        raise InputMissing(name)
    return inputs[name].reveal()


def _installation(
    oauth: OAuth, client: OAuthClient, inputs: Inputs, stamp: Stamp, allow_private_addresses: bool
) -> HttpRequest:
    """Source: docs.github.com, "Generating an installation access token for a GitHub App"."""
    installation = _input(inputs, "installation_id")
    if INSTALLATION.fullmatch(installation) is None:
        raise InputMissing("installation_id")
    token = key_of(oauth, client).sign({"iss": client.client_id, **times(stamp, INSTALLATION_JWT)})
    return HttpRequest(
        method="POST",
        url=f"{oauth.token_endpoint}/{installation}/access_tokens",
        headers=(
            ("Accept", "application/vnd.github+json"),
            ("Accept-Encoding", "identity"),
            ("User-Agent", "connectors"),
            ("Authorization", f"Bearer {token.reveal()}"),
        ),
        body=b"",
        allow_private_addresses=allow_private_addresses,
        timeout=TIMEOUT,
        max_body=MAX_REPLY,
    )


def _installation_reply(reply: HttpReply, now: datetime) -> TokenReply:
    """401: our JWT is refused. 403: suspended, or too many requests. 404: it is not installed there any more."""
    check_status(reply, now)
    if reply.status == 403 and (reply.header("Retry-After") or reply.header("X-RateLimit-Remaining") == "0"):
        raise Transient(problem="status_403", retry_after=retry_after(reply, now))
    if reply.status in (404, 410):
        raise InvalidGrant(problem=f"status_{reply.status}")
    if reply.status >= 400:
        raise ClientRefused(problem=f"status_{reply.status}")
    document = read_document(reply, now)
    ends = _time(document.get("expires_at"))
    return TokenReply(
        access_token=token_text(document.get("token"), "token"),
        refresh_token=None,
        expires_in=ends - now if ends is not None and ends > now else None,
        scopes=None,
        token_type="Bearer",
        extra={},
    )


def _time(value: object) -> datetime | None:
    """An ISO 8601 time with an offset. Raises: Malformed: a token whose end is not known would be used past it."""
    try:
        found = datetime.fromisoformat(value) if isinstance(value, str) and len(value) <= 40 else None
    except ValueError:
        found = None
    if value is not None and (found is None or found.tzinfo is None):
        raise Malformed(problem="expires_at")
    return None if found is None else found.astimezone(UTC)
