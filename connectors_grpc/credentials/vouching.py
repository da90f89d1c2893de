"""Who may have tokens minted. What the platform's own OAuth client vouches for is an admin's to give: an installation's number or
a subject is no secret, and another tenant's would do as well. What a tenant's own client vouches for, its operators may store.
"""

from __future__ import annotations

from dataclasses import replace

from connectors_grpc import policy
from connectors_grpc.credentials.obtaining import OWN_CLIENT
from connectors_grpc.credentials.placing import NewMaterial
from connectors_grpc.domain.definition import Grant, Integration
from connectors_grpc.domain.records import ApiKey, Role, Tenant
from connectors_grpc.integrations import Integrations
from connectors_grpc.secret import Secret


async def vouched(
    integrations: Integrations, caller: ApiKey, tenant: Tenant, integration: Integration, new: NewMaterial
) -> NewMaterial:
    """The material, bound to the tenant's own client if that vouches for it: the platform's never takes over for it.

    A subject token proves itself, so that anybody who may store credentials may have it exchanged.
    Raises: PERMISSION_DENIED.
    """
    if new.inputs is None or integration.oauth is None or integration.oauth.grant is Grant.TOKEN_EXCHANGE:
        return new
    if await integrations.tenant_clients.get(integration.id, tenant) is not None:
        return replace(new, inputs={**new.inputs, OWN_CLIENT: Secret("own")})
    if Role.ADMIN not in caller.roles:
        raise policy.denied()
    return new
