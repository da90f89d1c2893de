"""May this credential be used at all? The states that refuse, each with its reason. Pure."""

from __future__ import annotations

from typing import assert_never

from connectors_grpc.domain.ids import IntegrationId
from connectors_grpc.domain.records import Credential, CredentialState, Tenant
from connectors_grpc.errors import ConnectorsError, Reason

STAGED = "staged"
"""The detail of what a migration put here: switched off until its cut-over, for its older self is still in charge."""

FORGOTTEN = "forgotten"
"""The detail of what was ended here alone, as a migration's rollback does: another migration may bring it again."""


def is_staged(credential: Credential) -> bool:
    """Whether it waits for its cut-over. What was switched on, by whatever server, does not."""
    return credential.detail == STAGED and not credential.enabled


def check_state(credential: Credential) -> None:
    """Refuse what is not ACTIVE and enabled. Raises: the reason, with what to call next."""
    where = {"tenant": credential.tenant, "credential": credential.id, "integration": credential.integration}
    if not credential.enabled:
        raise ConnectorsError(Reason.CREDENTIAL_DISABLED, where)
    match credential.state:
        case CredentialState.ACTIVE:
            return
        case CredentialState.NEEDS_REAUTH | CredentialState.PENDING:
            raise needs_reauth(credential)
        case CredentialState.REVOKED:
            raise ConnectorsError(Reason.CREDENTIAL_REVOKED, where)
        case CredentialState.EXPIRED:
            raise ConnectorsError(Reason.CREDENTIAL_EXPIRED, where)
        case _:
            assert_never(credential.state)


def check_enabled(tenant: Tenant, integration: IntegrationId) -> None:
    """Refuse what the tenant may not use. Raises: INTEGRATION_NOT_ENABLED."""
    if not tenant.may_use(integration):
        raise ConnectorsError(Reason.INTEGRATION_NOT_ENABLED, {"tenant": tenant.id, "integration": integration})


def needs_reauth(credential: Credential) -> ConnectorsError:
    """NEEDS_REAUTH that names what to call for a connect link."""
    return ConnectorsError(
        Reason.NEEDS_REAUTH,
        {
            "tenant": credential.tenant,
            "credential": credential.id,
            "integration": credential.integration,
            "connect_rpc": "connectors.v1.CredentialService/"
            + ("StoreCredential" if credential.minted else "StartAuthorization"),
        },
    )


def not_configured(integration: IntegrationId, missing: str) -> ConnectorsError:
    """INTEGRATION_NOT_CONFIGURED, and what it lacks."""
    return ConnectorsError(Reason.INTEGRATION_NOT_CONFIGURED, {"integration": integration, "missing": missing})


def not_found(tenant: str, credential: str) -> ConnectorsError:
    """CREDENTIAL_NOT_FOUND."""
    return ConnectorsError(Reason.CREDENTIAL_NOT_FOUND, {"tenant": tenant, "credential": credential})


def staged_elsewhere(tenant: str, credential: str) -> ConnectorsError:
    """CREDENTIAL_STAGED."""
    return ConnectorsError(Reason.CREDENTIAL_STAGED, {"tenant": tenant, "credential": credential})


def next_step(credential: Credential) -> str:
    """What a person or operator should do; empty if nothing."""
    if is_staged(credential):
        return "Cut it over: connectors migrate cutover."
    if not credential.enabled:
        return "Switch it on by UpdateCredential."
    if credential.minted and credential.state is not CredentialState.ACTIVE:
        return "Store what tokens are minted from anew: StoreCredential with `grant`."
    return NEXT_STEP[credential.state]


NEXT_STEP = {
    CredentialState.PENDING: "Open the connect link and consent.",
    CredentialState.ACTIVE: "",
    CredentialState.NEEDS_REAUTH: "Connect again: StartAuthorization gives a link for a person.",
    CredentialState.REVOKED: "Connect again to use it, or leave it.",
    CredentialState.EXPIRED: "Store a new token, or connect again.",
}
"""What a person or operator should do, by state."""
