"""A credential's record, from which tests of refreshing make theirs."""

from __future__ import annotations

from datetime import UTC, datetime

from connectors_grpc.domain.ids import CredentialId, IntegrationId, TenantId
from connectors_grpc.domain.records import Credential, CredentialKind, CredentialState

NOW = datetime(2030, 1, 1, tzinfo=UTC)
NOTION = Credential(
    tenant=TenantId("acme"),
    id=CredentialId("notion"),
    integration=IntegrationId("notion"),
    kind=CredentialKind.OAUTH,
    state=CredentialState.ACTIVE,
    generation=1,
    create_time=NOW,
    update_time=NOW,
    refreshable=True,
)
