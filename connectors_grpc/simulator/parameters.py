"""Parsing what clients send to the OAuth endpoints: parameters in a query, form or JSON, and who they say they are.

Pure. Everything that does not fit the grammar is a Refusal, never an exception.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import json
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import parse_qsl, unquote_plus

from connectors_grpc.simulator.protocol import CHALLENGE, Refusal, narrowed
from connectors_grpc.simulator.settings import Client

MOST_BODY = 64 * 1024
MOST_FIELDS = 100

Parameters = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class AuthorizationRequest:
    """What a valid authorization request asks for; `state` None where none was sent."""

    client: Client
    redirect_uri: str
    state: str | None
    scope: str
    challenge: str | None


@dataclass(frozen=True, slots=True)
class RefusedByRedirect:
    """A refusal that the client is told of at its redirect URI. Source: RFC 6749 section 4.1.2.1."""

    redirect_uri: str
    state: str | None
    error: str
    description: str


def parse_form(raw: bytes) -> Parameters | Refusal:
    """Parameters in `application/x-www-form-urlencoded`; the same for a query string.

    Bounds: MOST_BODY bytes, MOST_FIELDS parameters, none twice (RFC 6749 section 3.1).
    """
    if len(raw) > MOST_BODY:
        return Refusal("invalid_request", "the request is too large")
    try:
        pairs = parse_qsl(raw.decode("ascii"), keep_blank_values=True, max_num_fields=MOST_FIELDS, errors="strict")
    except ValueError:
        return Refusal("invalid_request", "the parameters are not form-urlencoded UTF-8")
    found = dict(pairs)
    return found if len(found) == len(pairs) else Refusal("invalid_request", "a parameter was sent twice")


def parse_body(content_type: str, raw: bytes) -> Parameters | Refusal:
    """Parameters in a token request's body, form or JSON object of strings."""
    media_type = content_type.partition(";")[0].strip().lower()
    if media_type == "application/x-www-form-urlencoded":
        return parse_form(raw)
    if media_type != "application/json":
        return Refusal("invalid_request", "the body must be a form or JSON")
    document = parse_json(raw)
    if not isinstance(document, dict) or not all(isinstance(value, str) for value in document.values()):
        return Refusal("invalid_request", "the body must be a JSON object of strings")
    if not all(_encodable(text) for pair in document.items() for text in pair):
        return Refusal("invalid_request", "the body must be UTF-8")
    return document


def parse_json(raw: bytes) -> object:
    """The JSON value in `raw`; None where there is none to be had. Bounds: MOST_BODY bytes."""
    if len(raw) > MOST_BODY:
        return None
    try:
        return json.loads(raw)
    except (ValueError, RecursionError):
        return None


def authenticate(clients: Mapping[str, Client], authorization: str | None, sent: Parameters) -> Client | Refusal:
    """The client that a token or revocation request comes from.

    Source: RFC 6749 section 2.3.1; the id and secret in Basic are form-urlencoded first.
    """
    if authorization is not None:
        if "client_secret" in sent:
            return Refusal("invalid_request", "more than one way of client authentication")
        pair = parse_basic(authorization)
        if pair is None:
            return Refusal("invalid_client", "Authorization is not Basic", 401)
        try:
            client_id, secret = (unquote_plus(part, errors="strict") for part in pair)
        except ValueError:
            return Refusal("invalid_client", "id and secret must be form-urlencoded UTF-8", 401)
        if sent.get("client_id", client_id) != client_id:
            return Refusal("invalid_request", "client_id is not the one in Authorization")
    else:
        client_id, secret = sent.get("client_id", ""), sent.get("client_secret", "")
    client = clients.get(client_id)
    if client is None or not hmac.compare_digest((client.client_secret or "").encode(), secret.encode()):
        return Refusal("invalid_client", "unknown client or wrong secret", 401)
    return client


def parse_basic(authorization: str) -> tuple[str, str] | None:
    """User and password in a Basic `Authorization`; None if it is anything else. Source: RFC 7617 section 2."""
    scheme, _, encoded = authorization.partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        user, colon, password = base64.b64decode(encoded.strip(), validate=True).decode().partition(":")
    except (binascii.Error, ValueError):
        return None
    return (user, password) if colon else None


def parse_authorization(
    clients: Mapping[str, Client], sent: Parameters
) -> AuthorizationRequest | RefusedByRedirect | Refusal:
    """An authorization request; a Refusal where the redirect URI itself can't be trusted.

    Source: RFC 6749 section 4.1.1, RFC 7636 section 4.3, RFC 9700 section 2.1 (exact redirect URI).
    """
    client = clients.get(sent.get("client_id", ""))
    if client is None:
        return Refusal("invalid_request", "client_id is not known here")
    redirect_uri = sent.get("redirect_uri", "")
    if redirect_uri not in client.redirect_uris:
        return Refusal("invalid_request", "redirect_uri is not, to the letter, one that is registered")
    state = sent.get("state")

    def refused(error: str, description: str) -> RefusedByRedirect:
        return RefusedByRedirect(redirect_uri, state, error, description)

    if sent.get("response_type") != "code":
        return refused("unsupported_response_type", "response_type must be code")
    challenge = sent.get("code_challenge")
    if challenge is None and client.require_pkce:
        return refused("invalid_request", "code_challenge is missing")
    if challenge is not None and (sent.get("code_challenge_method") != "S256" or not CHALLENGE.fullmatch(challenge)):
        return refused("invalid_request", "code_challenge must be of method S256")
    scope = narrowed(sent.get("scope"), client.scopes)
    if scope is None:
        return refused("invalid_scope", "more was asked than the client may have")
    return AuthorizationRequest(client, redirect_uri, state, scope, challenge)


def _encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:  # a lone surrogate: JSON can carry it, UTF-8 cannot
        return False
    return True
