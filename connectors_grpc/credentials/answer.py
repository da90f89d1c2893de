"""What a provider's reply becomes: the credential and material to store. Pure."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from datetime import datetime

from connectors_grpc.domain.definition import OAuth
from connectors_grpc.domain.ids import TenantId, TenantUid
from connectors_grpc.domain.records import Credential, Material, Tenant
from connectors_grpc.oauth2.token_reply import TokenReply
from connectors_grpc.secret import Secret


@dataclass(frozen=True, slots=True)
class Answer:
    """A refreshed credential that is not stored yet. `base_generation` is the one that it was refreshed from."""

    tenant: TenantId
    tenant_uid: TenantUid
    record: Credential
    material: Material
    base_generation: int


def fingerprint(token: Secret) -> str:
    """Tells refresh tokens apart without showing them."""
    return hashlib.sha256(token.reveal().encode()).hexdigest()[:32]


def expires_at(reply: TokenReply, oauth: OAuth, sent: datetime) -> datetime | None:
    """When the token stops being usable; None if nothing says.

    Counts from when we *sent* the request, so that network delay only shortens it.  Source: RFC 6749 section 5.1.
    """
    ttl = reply.expires_in or oauth.default_access_token_ttl
    return None if ttl is None else sent + ttl


def _refresh_end(credential: Credential, reply: TokenReply, sent: datetime) -> datetime | None:
    """When the refresh token ends unused: as the provider says now, else as it said of the one that goes on."""
    if reply.refresh_expires_in is not None:
        return sent + reply.refresh_expires_in
    return None if reply.refresh_token is not None else credential.refresh_expire_time


def answer_of(
    tenant: Tenant, credential: Credential, material: Material, reply: TokenReply, oauth: OAuth, sent: datetime
) -> Answer:
    """What to store. A reply without refresh token keeps the old one; without scope, what was granted."""
    old = material.refresh_token
    before = credential.granted_scopes or (credential.requested_scopes if credential.minted else ())
    fields = {**material.fields, **reply.extra, "access_token": reply.access_token}
    renewed = replace(material, fields=fields, refresh_token=reply.refresh_token or old, token_type=reply.token_type)
    record = replace(
        credential,
        generation=credential.generation + 1,
        issue_time=sent,
        refresh_time=sent,
        expire_time=expires_at(reply, oauth, sent),
        granted_scopes=before if reply.scopes is None else reply.scopes,
        parent="" if old is None else fingerprint(old),
        refresh_expire_time=_refresh_end(credential, reply, sent),
        refreshable=renewed.refresh_token is not None or renewed.inputs is not None,
    )
    return Answer(tenant.id, tenant.uid, record, renewed, credential.generation)
