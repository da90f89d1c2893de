"""What the file wants, as messages of the contract. The one place of the package where secrets are opened: on their way out."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC
from typing import Any

from google.protobuf.json_format import ParseDict

from connectors_grpc.configuration.model import Credential, Hidden, OAuthClient, PlatformIntegration, Tenant
from connectors_grpc.gen.connectors.v1 import credential_service_pb2 as credentials
from connectors_grpc.gen.connectors.v1 import integration_service_pb2 as integrations
from connectors_grpc.gen.connectors.v1 import tenant_service_pb2 as tenants
from connectors_grpc.policy import OWNER_LABEL


def owned(labels: Mapping[str, str], owner: str) -> dict[str, str]:
    """Labels, with the mark of who manages it."""
    return {**labels, OWNER_LABEL: owner}


def tenant_message(name: str, part: Tenant, owner: str) -> tenants.Tenant:
    """A tenant's record as it is to be."""
    found = tenants.Tenant(id=name, display_name=part.display_name or name, labels=owned(part.labels, owner))
    if part.quota is not None and any(value for _, value in part.quota):
        found.quota.MergeFrom(tenants.Quota(**dict(part.quota)))
    if part.integrations is not None:
        enabled = sorted(name for name, integration in part.integrations.items() if integration.enabled)
        found.allowed_integrations.SetInParent()
        found.allowed_integrations.integrations.extend(enabled)
    return found


def client_message(client: OAuthClient) -> integrations.OAuthClient:
    """An OAuth client, with its secrets."""
    secret = client.client_secret
    return integrations.OAuthClient(
        client_id=client.client_id,
        client_secret="" if secret is None else secret.secret.reveal(),
        client_secrets=[one.secret.reveal() for one in client.further_secrets],
        key_id=client.key_id,
    )


def integration_message(name: str, part: PlatformIntegration) -> integrations.Integration:
    """What the file says of an integration of the platform; nothing else is set."""
    found = integrations.Integration(id=name)
    if part.display_name is not None:
        found.display_name = part.display_name
    if part.allow_private_addresses is not None:
        found.allow_private_addresses = part.allow_private_addresses
    if part.oauth is not None:
        ParseDict(_plain(part.oauth), found.oauth)
    if part.api is not None:
        ParseDict(_plain(part.api), found.api)
    if part.oauth_client is not None:
        found.oauth_client.CopyFrom(client_message(part.oauth_client))
    return found


def fields_of(part: PlatformIntegration) -> list[str]:
    """The fields of an integration that the file speaks of, as a mask names them."""
    names = ("display_name", "oauth_client", "oauth", "api", "allow_private_addresses")
    return [name for name in names if getattr(part, name) is not None]


def _plain(value: Any) -> Any:
    """Without the texts' own types."""
    return json.loads(json.dumps(value))


def material_request(
    tenant: str, integration: str, name: str, part: Credential, owner: str
) -> credentials.StoreCredentialRequest | None:
    """What to store; None where a person connects it."""
    request = credentials.StoreCredentialRequest(
        tenant=tenant, integration=integration, credential=name, labels=owned(part.labels, owner), inputs=part.inputs
    )
    if part.api_key is not None:
        request.api_key.api_key = part.api_key.secret.reveal()
        request.api_key.fields.update({field: one.secret.reveal() for field, one in part.fields.items()})
    elif part.basic is not None:
        request.basic.username = part.basic.username
        request.basic.password = part.basic.password.secret.reveal()
    elif part.oauth is not None:
        request.oauth.access_token = part.oauth.access_token.secret.reveal()
        request.oauth.refresh_token = _opened(part.oauth.refresh_token)
        request.oauth.scopes.extend(part.oauth.scopes)
        if part.oauth.expire_time is not None:
            request.oauth.expire_time.FromDatetime(part.oauth.expire_time.astimezone(UTC))
    elif part.grant is not None:
        request.grant.SetInParent()
        request.grant.installation_id = part.grant.installation_id or ""
        request.grant.subject = part.grant.subject or ""
        request.grant.subject_token = _opened(part.grant.subject_token)
        request.grant.scopes.extend(part.grant.scopes)
    elif part.vault is not None:
        request.vault.path = part.vault
    else:
        return None
    return request


def _opened(hidden: Hidden | None) -> str:
    return "" if hidden is None else hidden.secret.reveal()


def source_of(part: Credential) -> str:
    """Where a credential's material comes from, as the file has it: `api_key ${NOTION_KEY}`. Shows no secret."""
    if part.api_key is not None:
        return f"api_key {part.api_key.source}"
    if part.basic is not None:
        return f"basic, password {part.basic.password.source}"
    if part.oauth is not None:
        return f"oauth, access_token {part.oauth.access_token.source}"
    if part.grant is not None:
        token = part.grant.subject_token
        return "grant" if token is None else f"grant, subject_token {token.source}"
    return f"vault {part.vault}"
