"""How a credential comes by its next token (by its refresh token if it has one, else minted), and how its grant is ended."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime

from connectors_grpc.credentials.asking import Build
from connectors_grpc.domain.definition import Api, Grant, Integration, OAuth, OAuthClient, Revocation
from connectors_grpc.domain.records import Material
from connectors_grpc.errors import ConnectorsError, Reason
from connectors_grpc.inject import authority
from connectors_grpc.oauth2 import minting, token_request
from connectors_grpc.oauth2.assertions import Stamp
from connectors_grpc.oauth2.token_reply import TokenReply, check_own_revocation, check_revocation, parse_token_reply
from connectors_grpc.ports import HttpReply, HttpRequest
from connectors_grpc.tailoring import fields_with

OWN_CLIENT = "client"
"""Among the inputs: only the tenant's own OAuth client may mint from them."""


@dataclass(frozen=True, slots=True)
class Way:
    """A request to build, and how to read its answer."""

    build: Build
    read: Callable[[HttpReply, datetime], TokenReply]


def way_to_token(integration: Integration, oauth: OAuth, material: Material) -> Way:
    """The way to the next token. Raises: CREDENTIAL_EXPIRED (there is none), INTEGRATION_NOT_CONFIGURED."""
    private = integration.allow_private_addresses
    renewal, inputs = material.refresh_token, material.inputs

    def refresh(client: OAuthClient, stamp: Stamp) -> HttpRequest:
        assert renewal is not None
        return token_request.refresh(oauth, client, refresh_token=renewal, allow_private_addresses=private, stamp=stamp)

    def mint(client: OAuthClient, stamp: Stamp) -> HttpRequest:
        assert inputs is not None
        if OWN_CLIENT in inputs and not client.own:
            raise ConnectorsError(
                Reason.INTEGRATION_NOT_CONFIGURED,
                {"integration": integration.id, "missing": "oauth_client of the tenant"},
            )
        try:
            return minting.minting(oauth, client, inputs, stamp=stamp, allow_private_addresses=private)
        except minting.InputMissing as error:
            raise ConnectorsError(Reason.PLACEHOLDER_UNRESOLVED, {"field": str(error.args[0])}) from None

    if renewal is not None:
        return Way(refresh, lambda reply, now: parse_token_reply(reply, oauth, now, refreshing=True))
    if inputs is None:
        raise ConnectorsError(Reason.CREDENTIAL_EXPIRED, {"integration": integration.id})
    if oauth.grant is Grant.AUTHORIZATION_CODE:
        raise ConnectorsError(Reason.INTEGRATION_NOT_CONFIGURED, {"missing": "oauth.grant"})
    return Way(mint, lambda reply, now: minting.parse_minted(reply, oauth, now))


@dataclass(frozen=True, slots=True)
class End:
    """A request that ends a grant, and how to read its answer."""

    build: Build
    read: Callable[[HttpReply, datetime], None]


def _gone(revocation: Revocation, material: Material) -> frozenset[int]:
    """Statuses that say that there is nothing left to end. 401 is one where it can be about nothing but the only token."""
    placement = revocation.placement
    basic = (placement.basic.username, placement.basic.password) if placement.basic else ()
    texts = (*placement.headers.values(), *placement.query.values(), *basic, *revocation.parameters.values())
    by_client = any("{client_secret}" in text for text in texts)
    return frozenset((404, 410) if by_client or material.refresh_token is not None else (401, 404, 410))


def _of_host(api: Api | None, url: str) -> Mapping[str, str]:
    """The constant headers of each call, where the URL is at the API's own host."""
    if api is None or authority(api.base_url) != authority(url):
        return {}
    return api.default_headers


def way_to_end(integration: Integration, oauth: OAuth, material: Material) -> End | None:
    """How the grant is ended at the provider; None if it offers nothing. The definition is the tenant's."""
    private = integration.allow_private_addresses
    token = material.refresh_token or material.fields.get("access_token")
    if token is None:
        return None
    if oauth.revocation is not None:
        gone = _gone(oauth.revocation, material)
        headers = _of_host(integration.api, oauth.revocation.url)
        fields = dict(fields_with(integration, material.fields, material.values))
        if material.refresh_token is not None:
            fields["refresh_token"] = material.refresh_token
        return End(
            lambda client, _: token_request.own_revocation(
                oauth, client, fields=fields, headers=headers, allow_private_addresses=private
            ),
            lambda reply, now: check_own_revocation(reply, now, gone),
        )
    if not oauth.revocation_endpoint:
        return None

    def build(client: OAuthClient, stamp: Stamp) -> HttpRequest:
        hint = "refresh_token" if material.refresh_token else "access_token"
        request = token_request.revocation(
            oauth, client, token=token, hint=hint, allow_private_addresses=private, stamp=stamp
        )
        assert request is not None
        return request

    return End(build, check_revocation)
