"""IntegrationService: parse, one use case, answer."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from connectors_grpc.boundary import caller
from connectors_grpc.domain.definition import Integration
from connectors_grpc.errors import invalid
from connectors_grpc.gen.connectors.v1 import integration_service_pb2 as pb
from connectors_grpc.gen.connectors.v1.integration_service_pb2_grpc import IntegrationServiceServicer
from connectors_grpc.integrations import Integrations
from connectors_grpc.rotating import Rotating
from connectors_grpc.rpc import definitions, parse
from connectors_grpc.rpc.operation import operation
from connectors_grpc.tenants import Tenants

FIELDS = ("display_name", "oauth", "api", "oauth_client", "allow_private_addresses", "inputs")


class IntegrationServicer(IntegrationServiceServicer):
    """One for the server."""

    def __init__(self, integrations: Integrations, tenants: Tenants, rotating: Rotating) -> None:
        self._integrations = integrations
        self._tenants = tenants
        self._rotating = rotating

    async def ListIntegrations(self, request: pb.ListIntegrationsRequest, _context: Any) -> pb.ListIntegrationsResponse:
        """See the contract."""
        after, limit = parse.page(request.page_size, request.page_token)
        page = await self._integrations.list(after=after, limit=limit)
        found = map(definitions.integration, page.integrations)
        return pb.ListIntegrationsResponse(integrations=found, next_page_token=page.next)

    async def GetIntegration(self, request: pb.GetIntegrationRequest, _context: Any) -> pb.GetIntegrationResponse:
        """See the contract."""
        integration = await self._integrations.get(parse.integration_id(request.integration), fresh=True)
        if request.tenant:
            integration = await self._of_tenant(integration, request.tenant)
        return pb.GetIntegrationResponse(integration=definitions.integration(integration))

    async def _of_tenant(self, integration: Integration, tenant_id: str) -> Integration:
        tenant = await self._tenants.get(caller(), parse.tenant_id(tenant_id))
        return replace(integration, client=await self._integrations.tenant_clients.get(integration.id, tenant))

    async def CreateIntegration(
        self, request: pb.CreateIntegrationRequest, _context: Any
    ) -> pb.CreateIntegrationResponse:
        """See the contract."""
        integration_id = parse.integration_id(request.integration_id, "integration_id")
        created = await self._integrations.create(
            caller(),
            definitions.definition(integration_id, request.integration),
            request_id=parse.request_id(request.request_id),
            validate_only=request.validate_only,
        )
        return pb.CreateIntegrationResponse(integration=definitions.integration(created))

    async def UpdateIntegration(
        self, request: pb.UpdateIntegrationRequest, _context: Any
    ) -> pb.UpdateIntegrationResponse:
        """See the contract."""
        given = request.integration
        integration_id = parse.integration_id(given.id, "integration.id")
        changes = parse.mask(request.update_mask, given, FIELDS)
        if request.tenant:
            current = await self._integrations.get(integration_id, fresh=True)
            return await self._update_of_tenant(request, changes, current)
        wanted = definitions.definition(integration_id, given)

        def change(current: Integration) -> Integration:
            return replace(
                current,
                display_name=wanted.display_name if "display_name" in changes else current.display_name,
                oauth=wanted.oauth if "oauth" in changes else current.oauth,
                api=wanted.api if "api" in changes else current.api,
                client=wanted.client if "oauth_client" in changes else None,
                allow_private_addresses=(
                    wanted.allow_private_addresses
                    if "allow_private_addresses" in changes
                    else current.allow_private_addresses
                ),
                inputs=wanted.inputs if "inputs" in changes else current.inputs,
            )

        updated = await self._integrations.update(
            caller(),
            integration_id,
            change,
            version=parse.version(given.etag),
            keep_client="oauth_client" not in changes,
            validate_only=request.validate_only,
        )
        return pb.UpdateIntegrationResponse(
            integration=definitions.integration(updated.integration), unchanged=updated.unchanged
        )

    async def _update_of_tenant(
        self, request: pb.UpdateIntegrationRequest, changes: set[str], current: Integration
    ) -> pb.UpdateIntegrationResponse:
        if changes != {"oauth_client"} or not request.integration.HasField("oauth_client"):
            raise invalid("update_mask", "with `tenant`, only `oauth_client` may change")
        tenant = await self._tenants.usable(caller(), parse.tenant_id(request.tenant))
        client = definitions.client(request.integration.oauth_client)
        unchanged = await self._integrations.tenant_clients.set(
            caller(), tenant, current.id, client, validate_only=request.validate_only
        )
        updated = await self._of_tenant(current, request.tenant)
        return pb.UpdateIntegrationResponse(integration=definitions.integration(updated), unchanged=unchanged)

    async def DeleteIntegration(
        self, request: pb.DeleteIntegrationRequest, _context: Any
    ) -> pb.DeleteIntegrationResponse:
        """See the contract."""
        integration_id = parse.integration_id(request.integration)
        if request.tenant:
            tenant = await self._tenants.get(caller(), parse.tenant_id(request.tenant))
            await self._integrations.tenant_clients.delete(caller(), tenant, integration_id)
        else:
            await self._integrations.delete(caller(), integration_id, version=parse.version(request.etag))
        return pb.DeleteIntegrationResponse()

    async def RotatePlatformKey(
        self, _request: pb.RotatePlatformKeyRequest, _context: Any
    ) -> pb.RotatePlatformKeyResponse:
        """See the contract."""
        return pb.RotatePlatformKeyResponse(operation=operation(await self._rotating.platform(caller())))
